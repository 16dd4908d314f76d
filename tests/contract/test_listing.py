"""What `ls -l` and `stat` show of the driver, on a mount and on a real kernel.

A module's notes, sections and checksum are those of a compiled file; these drivers have none.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from openrbu.errors import KernelError
from rigs.driver import DEVICE, FIRMWARE, NewSystem, System

pytestmark = pytest.mark.profiles("linux", in_process=False)

MODULE = "/sys/module/dell_rbu"

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
    MODULE: """
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
    f"{MODULE}/parameters": """
allocation_floor        -rw-r--r-- 1 4096 1048576
""",
}
"""Name, mode, links, size, and what is read of it, its lines in one; of Debian's 6.1.192."""

COMPILED = {f"{MODULE}/srcversion", f"{MODULE}/coresize"}
"""What a kernel has of the file that the module came in: the checksum of its source and its size.
Ours has no checksum, and the size that Debian's 6.1.192 showed."""

LINKS = {
    "/sys/class/firmware": 2,
    DEVICE: 4,
    f"{DEVICE}/firmware": 3,
    FIRMWARE: 3,
    MODULE: 6,
}


class Files(System, Protocol):
    """A `System` whose files programs can be run on."""

    def path(self, path: str) -> Path:
        """Where they find a file."""

    def run(self, argv: Sequence[str]) -> str:
        """Run a program; what it prints."""


class Seen(NamedTuple):
    """What `stat` says of a file. Times are in seconds: of access, modification, change."""

    mode: int
    link_count: int
    size_bytes: int
    owner: tuple[int, int]
    blocks: int
    block_bytes: int
    inode: int
    times: tuple[str, ...]
    target: str


FORMAT = "%f %h %s %u %g %b %o %i %.X %.Y %.Z %N"


def look(system: Files, paths: Sequence[str], *options: str) -> list[Seen]:
    """What the program `stat` says of files."""
    files = [str(system.path(path)) for path in paths]
    out = system.run(["stat", *options, "-c", FORMAT, *files])
    return [_seen(line) for line in out.splitlines()]


def _seen(line: str) -> Seen:
    mode, links, size, user, group, blocks, block, inode, *rest = line.split(" ", 11)
    return Seen(
        mode=int(mode, 16),
        link_count=int(links),
        size_bytes=int(size),
        owner=(int(user), int(group)),
        blocks=int(blocks),
        block_bytes=int(block),
        inode=int(inode),
        times=tuple(rest[:3]),
        target=rest[3].partition("' -> '")[2].rstrip("'"),
    )


@pytest.fixture
def system(new_system: NewSystem) -> System:
    """A machine with the driver, and its firmware entry."""
    system = new_system()
    system.load_module()
    system.write(f"{DEVICE}/image_type", b"init")
    system.settle()
    return system


@pytest.mark.parametrize("path", SEEN)
def test_a_directory_lists_what_a_kernel_lists(system: Files, path: str, way: str) -> None:
    names = system.list(path)
    if way == "real kernel":
        names = [each for each in names if f"{path}/{each}" not in COMPILED]
    seen = look(system, [f"{path}/{each}" for each in names])
    rows = [_row(system, path, *each) for each in zip(names, seen, strict=True)]
    expected = [line.split() for line in SEEN[path].strip().splitlines()]
    if way == "real kernel":
        expected = [row for row in expected if f"{path}/{row[0]}" not in COMPILED]
    assert rows == expected


def test_a_directory_has_as_many_links_as_a_kernel_s(system: Files) -> None:
    seen = look(system, list(LINKS), "--dereference")
    assert [each.link_count for each in seen] == list(LINKS.values())


def test_everything_belongs_to_root_in_blocks_of_a_page_and_was_changed_when_it_came(
    system: Files, way: str
) -> None:
    owner = (0, 0) if way == "real kernel" else (os.geteuid(), os.getegid())
    for seen in look(system, [DEVICE, f"{DEVICE}/data", f"{FIRMWARE}/loading"]):
        assert (seen.owner, seen.blocks, seen.block_bytes) == (owner, 0, 4096)
        assert len(set(seen.times)) == 1
    [before] = look(system, [f"{FIRMWARE}/loading"])
    system.write(f"{FIRMWARE}/loading", b"1\n")
    assert look(system, [f"{FIRMWARE}/loading"]) == [before], "a write changes no time"
    system.write(f"{FIRMWARE}/loading", b"-1\n")
    system.settle()
    system.write(f"{DEVICE}/image_type", b"init")
    system.settle()
    [after] = look(system, [f"{FIRMWARE}/loading"])
    assert after.inode != before.inode
    assert float(after.times[1]) > float(before.times[1])


def _row(system: Files, directory: str, name: str, seen: Seen) -> list[str]:
    row = [name, stat.filemode(seen.mode), str(seen.link_count), str(seen.size_bytes)]
    if stat.S_ISLNK(seen.mode):
        return [*row, seen.target]
    return row if stat.S_ISDIR(seen.mode) else row + _read(system, f"{directory}/{name}")


def _read(system: System, path: str) -> list[str]:
    try:
        return system.read(path).decode().split()
    except KernelError as error:
        return [f"!{errno.errorcode[error.errno or 0]}"]
