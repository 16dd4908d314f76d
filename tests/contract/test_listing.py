"""What `ls -l` and `stat` show of the driver, beside what Debian's 6.1.192 showed of its own.

A module's notes, sections and checksum are those of a compiled file; these drivers have none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mounted import Mounted
from rig import DEVICE, FIRMWARE

POWER = """
async                   -rw-r--r-- 1 4096 disabled
autosuspend_delay_ms    -rw-r--r-- 1 4096 !EIO
control                 -rw-r--r-- 1 4096 auto
runtime_active_kids     -r--r--r-- 1 4096 0
runtime_active_time     -r--r--r-- 1 4096 0
runtime_enabled         -r--r--r-- 1 4096 disabled
runtime_status          -r--r--r-- 1 4096 unsupported
runtime_suspended_time  -r--r--r-- 1 4096 0
runtime_usage           -r--r--r-- 1 4096 0
"""

SEEN = {
    "/sys/class/firmware": """
dell_rbu                lrwxrwxrwx 1 0    ../../devices/platform/dell_rbu/firmware/dell_rbu
timeout                 -rw-r--r-- 1 4096 60
""",
    DEVICE: """
data                    -r--r--r-- 1 0    !ENOMEM
driver_override         -rw-r--r-- 1 4096 (null)
firmware                drwxr-xr-x 3 0
image_type              -rw-r--r-- 1 0    mono
modalias                -r--r--r-- 1 4096 platform:dell_rbu
packet_size             -rw-r--r-- 1 0    0
power                   drwxr-xr-x 2 0
subsystem               lrwxrwxrwx 1 0    ../../../bus/platform
uevent                  -rw-r--r-- 1 4096 MODALIAS=platform:dell_rbu
""",
    f"{DEVICE}/power": POWER,
    f"{DEVICE}/firmware": """
dell_rbu                drwxr-xr-x 3 0
""",
    FIRMWARE: """
data                    -rw-r--r-- 1 0
device                  lrwxrwxrwx 1 0    ../../../dell_rbu
loading                 -rw-r--r-- 1 4096 0
power                   drwxr-xr-x 2 0
subsystem               lrwxrwxrwx 1 0    ../../../../../class/firmware
uevent                  -rw-r--r-- 1 4096 FIRMWARE=dell_rbu TIMEOUT=60 ASYNC=1
""",
    f"{FIRMWARE}/power": POWER,
    "/sys/module/dell_rbu": """
coresize                -r--r--r-- 1 4096 20480
holders                 drwxr-xr-x 2 0
initsize                -r--r--r-- 1 4096 0
initstate               -r--r--r-- 1 4096 live
notes                   drwxr-xr-x 2 0
parameters              drwxr-xr-x 2 0
refcnt                  -r--r--r-- 1 4096 1
sections                drwxr-xr-x 2 0
taint                   -r--r--r-- 1 4096
uevent                  --w------- 1 4096 !EACCES
version                 -r--r--r-- 1 4096 3.2
""",
    "/sys/module/dell_rbu/parameters": """
allocation_floor        -rw-r--r-- 1 4096 1048576
""",
}
"""Name, mode, links, size, and what is read of it, its lines in one."""

LINKS = {
    "/sys/class/firmware": 2,
    DEVICE: 4,
    f"{DEVICE}/firmware": 3,
    FIRMWARE: 3,
    "/sys/module/dell_rbu": 6,
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Mounted]:
    """A machine with the driver, and its firmware entry."""
    mounted = Mounted(tmp_path, "linux")
    mounted.load_module()
    mounted.write(f"{DEVICE}/image_type", b"init")
    yield mounted
    mounted.close()


@pytest.mark.parametrize("path", SEEN)
def test_a_directory_lists_what_a_kernel_lists(machine: Mounted, path: str) -> None:
    rows = [_row(entry) for entry in sorted(machine.path(path).iterdir())]
    assert rows == [line.split() for line in SEEN[path].strip().splitlines()]


@pytest.mark.parametrize("path", LINKS)
def test_a_directory_has_as_many_links_as_a_kernel_s(machine: Mounted, path: str) -> None:
    assert machine.path(path).stat().st_nlink == LINKS[path]


def test_everything_belongs_to_root_in_blocks_of_a_page_and_was_changed_when_it_came(
    machine: Mounted,
) -> None:
    for path in (DEVICE, f"{DEVICE}/data", f"{FIRMWARE}/loading"):
        seen = machine.path(path).stat()
        assert (seen.st_uid, seen.st_gid) == (os.geteuid(), os.getegid())
        assert (seen.st_blocks, seen.st_blksize) == (0, 4096)
        assert seen.st_mtime == seen.st_ctime == seen.st_atime
    before = machine.path(f"{FIRMWARE}/loading").stat()
    machine.write(f"{FIRMWARE}/loading", b"1\n")
    assert machine.path(f"{FIRMWARE}/loading").stat() == before, "a write changes no time"
    machine.write(f"{FIRMWARE}/loading", b"-1\n")
    machine.write(f"{DEVICE}/image_type", b"init")
    after = machine.path(f"{FIRMWARE}/loading").stat()
    assert after.st_ino != before.st_ino
    assert after.st_mtime > before.st_mtime


def _row(path: Path) -> list[str]:
    seen = path.lstat()
    row = [path.name, stat.filemode(seen.st_mode), str(seen.st_nlink), str(seen.st_size)]
    if stat.S_ISLNK(seen.st_mode):
        return [*row, str(path.readlink())]
    return row if stat.S_ISDIR(seen.st_mode) else row + _read(path)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError as error:
        return ["!" + {5: "EIO", 12: "ENOMEM", 13: "EACCES"}[error.errno or 0]]
