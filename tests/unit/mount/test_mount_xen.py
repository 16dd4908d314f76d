"""A host of Xen on a mount: its Linux is given memory, and gives it back, by files."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from openrbu.sharing.access import open_or_connect
from openrbu.units import KIB, PAGE_SIZE
from openrbu.xen.hypervisor import INVALID
from rigs.cli import Cli
from rigs.machines import make, opened_up, running
from rigs.mounted import needs_fuse
from rigs.mounts import AS_NOBODY, empty_directory, needs_root, served
from rigs.run import xen_order

DEVICE = "sys/devices/system/xen_memory/xen_memory0"
BALLOON = "proc/xen/balloon"

TARGET_KIB = 100 * KIB


@pytest.fixture
def host(rbu: Cli, tmp_path: Path) -> Path:
    """The directory of a host with a file in /proc: on; every user may pass to it."""
    needs_fuse()
    directory = make(tmp_path / "home", **xen_order("linux-2.6.18-xen"))
    with running(directory):
        pass
    if not os.geteuid():
        opened_up(directory)
    return directory


@pytest.fixture
def target(host: Path, tmp_path: Path) -> Path:
    return empty_directory(tmp_path / "mount")


def shell(script: str, *prefix: str, where: Path) -> subprocess.CompletedProcess[str]:
    """A script that runs in the mount."""
    return subprocess.run(
        [*prefix, "sh", "-c", script], cwd=where, capture_output=True, check=False, text=True
    )


def owned_kib(directory: Path) -> int:
    """What the hypervisor has given the machine's Linux now."""
    with open_or_connect(directory) as machine:
        assert machine.frame_table is not None
        return int((machine.frame_table != INVALID).sum()) * PAGE_SIZE // KIB


def test_a_target_by_echo_is_reached(host: Path, target: Path) -> None:
    with served(host, target):
        done = shell(f"echo {TARGET_KIB} > {DEVICE}/target_kb", where=target)
        assert (done.returncode, done.stderr) == (0, "")
        assert (target / DEVICE / "info/current_kb").read_text() == f"{TARGET_KIB}\n"
        assert (target / DEVICE / "info/low_kb").read_text() == f"{192 * KIB - TARGET_KIB}\n"
        assert (target / "sys/hypervisor/type").read_text() == "xen\n"
        assert owned_kib(host) == TARGET_KIB


def test_the_file_in_proc_takes_a_size_and_shows_it(host: Path, target: Path) -> None:
    with served(host, target):
        done = shell(f"echo 100M > {BALLOON}; cat {BALLOON}", where=target)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "Current allocation:   102400 kB",
            "Requested target:     102400 kB",
            "Low-mem balloon:       94208 kB",
            "High-mem balloon:          0 kB",
            "Driver pages:              0 kB",
        ]
        assert (target / "proc/xen/capabilities").read_text() == "control_d\n"
        assert owned_kib(host) == TARGET_KIB


@pytest.mark.parametrize(
    ("data", "answer"), [(b"1", "EBADMSG"), (b"100M".ljust(65), "EFBIG"), (b"100M".ljust(64), 64)]
)
def test_a_size_of_a_wrong_length_is_refused_by_the_very_call(
    host: Path, target: Path, data: bytes, answer: str | int
) -> None:
    with served(host, target):
        fd = os.open(target / BALLOON, os.O_WRONLY)
        try:
            seen: str | int = os.write(fd, data)
        except OSError as error:
            seen = errno.errorcode[error.errno or 0]
        finally:
            os.close(fd)
        assert seen == answer
        assert owned_kib(host) == (128 * KIB if isinstance(answer, str) else TARGET_KIB)


def test_dd_is_told_so_too(host: Path, target: Path) -> None:
    with served(host, target):
        for size, told in ((1, "Bad message"), (65, "File too large")):
            done = shell(f"dd if=/dev/zero of={BALLOON} bs={size} count=1 status=none",
                         where=target)  # fmt: skip
            assert (done.returncode, done.stderr) == (
                1, f"dd: error writing '{BALLOON}': {told}\n",
            )  # fmt: skip


def test_who_is_not_root_sets_no_target_on_roots_mount(host: Path, target: Path) -> None:
    needs_root()
    with served(host, target, "--allow-other"):
        for path in (f"{DEVICE}/target_kb", BALLOON):
            refused = shell(f"cat {path}; echo 100M > {path}", *AS_NOBODY, where=target)
            assert "Permission denied" in refused.stderr
            assert refused.stdout != ""
        assert owned_kib(host) == 128 * KIB
