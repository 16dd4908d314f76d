"""modprobe and its like on kernels that lack a module, or have it built in."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import ROOT
from openrbu.run.answers import Desk
from openrbu.run.power import PowerSwitch
from rigs.machines import make, running

NOT_FOUND = f"Module dell_rbu not found in directory /lib/modules/{os.uname().release}"


def on(directory: Path, lines: list[str]) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """What each line brings: its exit status, output and errors."""
    with running(directory) as machine, contextlib.closing(PowerSwitch()) as switch:
        desk = Desk(machine, switch)
        said = [desk.answer([line.split()[0], *line.split()], ROOT) for line in lines]
        return [(each.status, each.out, each.errors) for each in said]


def test_a_driver_that_is_built_in_is_there_and_stays(tmp_path: Path) -> None:
    lines = ["modprobe dell_rbu", "modprobe -r dell_rbu", "rmmod dell_rbu", "lsmod",
             "insmod x/dell_rbu.ko", "modprobe --first-time dell_rbu"]  # fmt: skip
    assert on(make(tmp_path, faults=("built-in",)), lines) == [
        (0, (), ()),
        (1, (), ("modprobe: FATAL: Module dell_rbu is builtin.",)),
        (1, (), ("rmmod: ERROR: Module dell_rbu is builtin.",)),
        (0, ("Module                  Size  Used by",), ()),
        (1, (), ("insmod: ERROR: could not insert module x/dell_rbu.ko: File exists",)),
        (1, (), ("modprobe: ERROR: could not insert 'dell_rbu': Module already in kernel",)),
    ]


def test_a_module_that_the_kernel_lacks_is_not_found(tmp_path: Path) -> None:
    lines = ["modprobe dell_rbu", "modprobe -r dell_rbu", "rmmod dell_rbu", "modprobe -a dell_rbu"]
    assert on(make(tmp_path, faults=("no-module",)), lines) == [
        (1, (), (f"modprobe: FATAL: {NOT_FOUND}",)),
        (1, (), ("modprobe: FATAL: Module dell_rbu not found.",)),
        (1, (), ("rmmod: ERROR: Module dell_rbu is not currently loaded",)),
        (1, (), (f"modprobe: WARNING: {NOT_FOUND}",)),
    ]


@pytest.mark.parametrize("option", ["-n", "--show-depends", "-v"])
def test_what_modprobe_would_do_is_shown(tmp_path: Path, option: str) -> None:
    path = f"/lib/modules/{os.uname().release}/kernel/drivers/platform/x86/dell/dell_rbu.ko"
    line = f"modprobe {option} dell_rbu image_type=packet"
    out = () if option == "-n" else (f"insmod {path} image_type=packet ",)
    shown, is_loaded = on(make(tmp_path), [line, "rmmod dell_rbu"])
    assert shown == (0, out, ())
    assert is_loaded[2] == (
        ("rmmod: ERROR: Module dell_rbu is in use",)
        if option == "-v"
        else ("rmmod: ERROR: Module dell_rbu is not currently loaded",)
    )
