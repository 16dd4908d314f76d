"""The flash files of machines: those with the same content are one file on the disk.

Theory of operation. A file with several names (hard links) is never written. `.flash`, beside the
machines, has a name for the flash of each content; `flash` in a machine's directory is another name
of the same file. Before the BIOS writes, the machine gets a copy, `flash.own`, with all its disk
space, which is its flash then (`FlashFile.make_room`). When the machine is closed, `settle` makes
that `flash`: as one more name of a file with the same bytes, where there is one.

A process may be killed between any two steps: a file is whole before it gets a name that counts,
and while both are there, `flash` has the bytes of `flash.own`, or those from before. `flash.own` is
not on the disk at once: where a crash of this computer has left no whole BIOS in it, `flash` counts
again, as it was before the BIOS wrote.

What is in `.flash` is compared byte by byte before it is used, so that a file that was changed by
hand there is not spread. Machines of older formats, which an older openrbu would write in place,
share nothing.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from openrbu.bios.flash import Flash, FlashFile
from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError
from openrbu.faults import FaultKind

FLASH, OWN = "flash", "flash.own"

_SHELF = ".flash"
_FRESH = "flash.new"

_FIRST_FORMAT = 3
"""Of a machine whose flash may be shared: no released openrbu opens a newer one."""


def open_flash(
    directory: Path, *, rail: PowerRail | None = None, faults: Collection[FaultKind] = ()
) -> FlashFile:
    """The flash of the machine in a directory. The caller has its lock.

    :raise MachineError: when it is missing.
    :raise OSError: for an error of the disk.
    """
    own = directory / OWN
    if own.exists():
        device = FlashFile(own, rail=rail, faults=faults, own=own)
        with contextlib.suppress(MachineError):
            _ = Flash(device).current
            return device
        device.close()
        own.unlink()
    return FlashFile(directory / FLASH, rail=rail, faults=faults, own=own)


def make_flash(directory: Path, machines: Path | None, content: bytes) -> None:
    """Make the flash of a machine that is being made in a directory, and is going to be one of
    `machines`; None: it shares nothing.

    :raise OSError: for an error of the disk.
    """
    path = directory / FLASH
    if machines is None:
        path.write_bytes(content)
    elif not _link(machines / _SHELF / _name(content), path, content):
        path.write_bytes(content)
        _put_on_shelf(machines / _SHELF, path, content)


def settle(directory: Path, machine_format: int) -> None:
    """Make the copy that the BIOS of a machine has written, if there is one, its flash. The caller
    has its lock. Where the disk refuses, the copy stays.

    `machine_format`: that of its machine.json.
    """
    path, own, fresh = directory / FLASH, directory / OWN, directory / _FRESH
    with contextlib.suppress(OSError):
        fresh.unlink(missing_ok=True)
        content = own.read_bytes()  # raises in the usual case: there is none
        shelf, before = directory.parent / _SHELF, path.read_bytes()
        if content == before:
            own.unlink()
            return
        may_share = machine_format >= _FIRST_FORMAT and shelf.is_dir()
        if may_share and _link(shelf / _name(content), fresh, content):
            fresh.replace(path)
            own.unlink()
        else:
            _sync(own)
            if may_share:
                _put_on_shelf(shelf, own, content)
            own.replace(path)
        _take_from_shelf(shelf, before)


@contextlib.contextmanager
def leaving(directory: Path, machines: Path) -> Iterator[None]:
    """A block that removes the directory of a machine of `machines`; what no machine has any more
    is removed with it."""
    contents = []
    for name in (FLASH, OWN):
        with contextlib.suppress(OSError):
            contents.append((directory / name).read_bytes())
    yield
    for content in contents:
        with contextlib.suppress(OSError):
            _take_from_shelf(machines / _SHELF, content)


def _name(content: bytes) -> str:
    """The name on the shelf."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


def _link(shared: Path, path: Path, content: bytes) -> bool:
    """Make `path` another name of the file on the shelf, if it has this content. One that has
    another, or that can have no more names, is taken from the shelf."""
    try:
        path.hardlink_to(shared)
    except FileNotFoundError:
        return False
    except OSError:
        shared.unlink(missing_ok=True)
        return False
    if not path.is_symlink() and path.read_bytes() == content:
        return True
    path.unlink()
    shared.unlink(missing_ok=True)
    return False


def _put_on_shelf(shelf: Path, path: Path, content: bytes) -> None:
    """Let other machines share a file, where the file system can do that."""
    with contextlib.suppress(OSError):
        shelf.mkdir(0o700, exist_ok=True)
        (shelf / _name(content)).hardlink_to(path)


def _take_from_shelf(shelf: Path, content: bytes) -> None:
    """Remove what no machine has any more.

    :raise OSError: when there is nothing, or it stays because a machine has it.
    """
    shared = shelf / _name(content)
    if shared.lstat().st_nlink == 1:
        shared.unlink()
        shelf.rmdir()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
