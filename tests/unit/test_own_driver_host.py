"""An update with openrbu's own driver, on a machine whose kernel has none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.formats.hdr import Image
from openrbu.hosts.own_driver import DriverChoice
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Verdict
from openrbu.update.driver import IMAGE_TYPE
from openrbu.update.flow import perform
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import NextRestart, read_status
from rigs.hazards import KERNEL, put, sound_machine
from rigs.machines import image as image_of
from rigs.own_driver import RamFileHost
from rigs.own_memory import HUGE, free_pages, make_computer

PAGES = [HUGE * number for number in (9, 8, 7, 10, 11, 12, 13, 14, 15, 16, 3)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A sound machine whose kernel has no dell_rbu."""
    root = sound_machine(tmp_path)
    put(root, f"/lib/modules/{KERNEL}/modules.dep", "kernel/drivers/net/dummy.ko:\n")
    make_computer(root, PAGES)
    return root


@contextlib.contextmanager
def opened(root: Path, choice: DriverChoice = "auto") -> Iterator[RamFileHost]:
    with contextlib.closing(RamFileHost(root, choice)) as host:
        yield host


@pytest.fixture
def image() -> Image:
    return image_of()


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_an_update_goes_through_without_the_kernels_driver(
    tree: Path, image: Image, mode: str
) -> None:
    options = Options(mode="mono" if mode == "mono" else "packet")
    with opened(tree) as host:
        plan = make_plan(host, image, options)
        (row,) = (check for check in plan.checks if check.name == "driver")
        assert row.verdict is Verdict.HANDLED
        outcome = perform(host, plan)
        assert outcome is not None
        assert outcome.mode == mode
        assert outcome.verified.extents is not None
    with opened(tree) as host:  # another process
        status = read_status(host)
        assert status.is_armed
        assert status.next_restart is NextRestart.UPDATES
        assert status.is_staged_as_armed
        assert status.staged_mode == mode
        assert host.own_rbu is not None
        assert host.own_rbu.staged_regions
        assert cancel(host).changed
        assert not host.exists(IMAGE_TYPE)
    assert sorted(free_pages(tree)) == sorted(PAGES)
    assert not (tree / "ram").read_bytes().strip(b"\0")
