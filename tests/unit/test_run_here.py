"""`rbu run` and `rbu mount` without a machine: openrbu's own driver, on real huge pages."""

from __future__ import annotations

import copy
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.own_driver.hugetlbfs import OWN_MOUNT
from openrbu.units import MIB
from rigs.cli import RBU
from rigs.mounts import AS_NOBODY, wait_for_end
from rigs.own_computer import OwnComputer, own_computer
from rigs.own_rbu import RBU as RBU_WITH_FEW_PAGES

TOOL = """
modprobe dell_rbu
echo mono > /sys/devices/platform/dell_rbu/image_type
[ -e /sys/class/firmware/dell_rbu ] || echo init > /sys/devices/platform/dell_rbu/image_type
echo 1 > /sys/class/firmware/dell_rbu/loading
cat {image} > /sys/class/firmware/dell_rbu/data
echo 0 > /sys/class/firmware/dell_rbu/loading
cmp {image} /sys/devices/platform/dell_rbu/data
"""
"""The commands of the kernel's document of the driver."""

UNLOAD = "echo -1 > /sys/class/firmware/dell_rbu/loading\nrmmod dell_rbu"


@pytest.fixture(scope="module")
def here() -> Iterator[OwnComputer]:
    with own_computer() as here:
        yield here


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(random.Random(15).randbytes(MIB + 77))
    return path


def test_a_script_stages_in_this_computers_memory(here: OwnComputer, image: Path) -> None:
    assert not here.is_started
    assert here.shell(TOOL.format(image=image)) == ""
    assert len(here.staged) == 1
    assert here.staged == here.places_of(image)
    assert here.shell(f"cmp {image} /sys/devices/platform/dell_rbu/data\n{UNLOAD}") == ""
    assert not here.is_started


KNOWS = """
from contextlib import closing
from openrbu.api.machines import _this_computer

with closing(_this_computer("auto")) as host:
    own = host.own_rbu
    print(own is not None and [(each.start, each.end) for each in own.staged_regions])
    print(own is not None and own.moved(), flush=True)
"""


@pytest.mark.parametrize("root", ["/", "/run/other"])
def test_rbu_itself_knows_there_that_it_is_its_own(
    here: OwnComputer, image: Path, root: str
) -> None:
    """Its huge pages are in a mount that was made after the program's mounts were its own; in a
    chroot the first process does not have it at that path either."""
    if root != "/":
        here.do("sh", "-euc", f"mkdir {root}; mount --rbind / {root}")
        here = copy.copy(here)
        here.prefix = (*here.prefix, "chroot", root)
    assert OWN_MOUNT not in here.do("cat", "/proc/mounts")
    look = f"{shlex.quote(sys.executable)} -c {shlex.quote(KNOWS)}"
    said = here.shell(f"{TOOL.format(image=image)}\n{look}\n{UNLOAD}\n")
    staged, moved = said.splitlines()
    assert staged.startswith("[(")
    assert moved == "()"


def test_nothing_is_left_where_nothing_was_staged(here: OwnComputer) -> None:
    files = here.shell("ls /sys/devices/platform/dell_rbu /sys/class/firmware/dell_rbu/")
    assert {"image_type", "packet_size", "data", "loading"} <= set(files.split())
    assert not here.is_started
    assert OWN_MOUNT not in here.do("cat", "/proc/mounts")


def test_all_else_is_this_computer(here: OwnComputer) -> None:
    """Its files of /sys are the real ones, and can be written; nothing is refused or changed."""
    look = (
        "ls /sys /sys/class /sys/kernel /sys/module | grep -v dell_rbu\n"
        "cat /proc/sys/kernel/random/boot_id\n"
    )
    assert here.shell(look) == here.do("sh", "-euc", look)
    writable = (
        "find /sys/module/*/parameters /sys/block/*/queue -writable 2>/dev/null | sort | head -50"
    )
    assert here.do("sh", "-euc", writable)
    assert here.shell(writable) == here.do("sh", "-euc", writable)
    # Where names are looked up that come later, is the real one, and not what is served.
    assert here.shell("stat -f -c %T /sys/.real; ls /sys/.real/devices").startswith("sysfs\n")
    capabilities = "grep Cap /proc/self/status"
    assert here.shell(capabilities) == here.do("sh", "-euc", capabilities)


def test_commands_for_modules_go_to_the_driver_or_to_this_computer(here: OwnComputer) -> None:
    here.do("mount", "-t", "tmpfs", "none", "/usr/local/sbin")
    for name in ("modprobe", "rmmod"):
        script = f'printf "#!/bin/sh\\necho real $0 \\"\\$@\\"\\n" > {name}; chmod 755 {name}'
        here.do("sh", "-euc", f"cd /usr/local/sbin; {script}")
    try:
        said = here.shell(
            "/usr/local/sbin/modprobe dcdbas smi=1\n"
            "/usr/local/sbin/modprobe dell_rbu\n"
            f"{UNLOAD}\n"
            "test ! -e /sys/module/dell_rbu\n"
            "modprobe -v dell_rbu image_type=packet\n"
            "cat /sys/devices/platform/dell_rbu/image_type\n"
        )
    finally:
        here.do("umount", "/usr/local/sbin")
    real, verbose, kind = said.splitlines()
    assert real.split()[-2:] == ["dcdbas", "smi=1"]
    assert verbose.startswith("insmod /lib/modules/")
    assert kind == "packet"


def test_a_killed_run_leaves_what_is_staged_and_a_load_that_was_begun_is_gone(
    here: OwnComputer, image: Path
) -> None:
    started = here.start("run", "--", "sh", "-euc", TOOL.format(image=image) + "echo staged\ncat")
    assert started.stdout is not None
    assert started.stdout.readline() == "staged\n"
    second = here.rbu("run", "--", "true")
    assert (second.returncode, second.stdout) == (4, "")
    assert "is in use: process" in second.stderr
    started.kill()
    started.communicate()
    assert here.staged == here.places_of(image) != ()

    begun = (
        f"cmp {image} /sys/devices/platform/dell_rbu/data\n"
        "echo packet > /sys/devices/platform/dell_rbu/image_type\n"  # drops what is staged
        "echo 1 > /sys/class/firmware/dell_rbu/loading\n"
        f"cat {image} > /sys/class/firmware/dell_rbu/data\n"
        "echo begun\ncat"
    )
    started = here.start("run", "--", "sh", "-euc", begun)
    assert started.stdout is not None
    assert started.stdout.readline() == "begun\n"
    started.kill()
    started.communicate()
    assert here.staged == here.places_of(image) == ()
    assert here.shell("cat /sys/class/firmware/dell_rbu/loading") == "0\n"
    assert not here.is_started


def test_mounted_the_files_work_and_the_mount_ends_when_told(
    here: OwnComputer, image: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    document = json.loads(here.says("mount", target, "--detach", "--json"))
    assert document.pop("pid")
    assert document.pop("said")["machine"] is None
    assert document == {
        "schema": 1, "changed": True, "machine": None, "directory": str(target),
    }  # fmt: skip
    tool = TOOL.format(image=image).replace("modprobe dell_rbu\n", "")
    here.do("sh", "-euc", tool.replace("/sys/", f"{shlex.quote(str(target))}/sys/"))
    again = here.rbu("mount", target)
    assert again.returncode == 4
    assert again.stderr.startswith(f"rbu: openrbu's own driver is mounted at {target} already; ")
    said = here.says("mount", target, "--stop")
    assert said == f"openrbu's own driver is not mounted at {target} any more\n"
    assert here.staged == here.places_of(image) != ()
    here.shell(UNLOAD)
    assert not here.is_started


def test_the_mount_of_a_killed_process_is_removed_by_the_next_one(
    here: OwnComputer, tmp_path: Path
) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    pid = json.loads(here.says("mount", target, "--detach", "--json"))["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert str(target) in here.do("cat", "/proc/mounts")
    assert here.shell("ls /sys/class/firmware/dell_rbu/loading")
    assert str(target) not in here.do("cat", "/proc/mounts")
    assert not here.is_started


def test_what_keeps_it_from_having_memory_is_told_before_the_tool_runs(here: OwnComputer) -> None:
    container = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
    line = here.line(*container, *RBU_WITH_FEW_PAGES, "run", "--", "echo", "the tool runs")
    ended = subprocess.run(line, capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith(
        "rbu: openrbu's own driver can't be started: this is a container"
    )


def test_it_takes_root() -> None:
    prefix = () if os.geteuid() else AS_NOBODY
    for words in (("run", "--", "true"), ("mount", "/")):
        ended = subprocess.run([*prefix, *RBU, *words], capture_output=True, check=False, text=True)
        assert (ended.returncode, ended.stdout) == (4, ""), ended
        assert "(it takes root)" in ended.stderr


def test_a_trace_and_a_program_after_the_restart_are_for_machines() -> None:
    for option in ("--trace=x", "--after-restart=true"):
        ended = subprocess.run(
            [*RBU, "run", option, "--", "true"], capture_output=True, check=False, text=True
        )
        assert ended.returncode == 2
        assert "are for a virtual machine" in ended.stderr
