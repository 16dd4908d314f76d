"""What can't be read at offsets, such as a compressed stream or a pipe, in a file of its own.

The file has no name: it is gone when it is closed, also where this process is killed. Its zeros are
holes, so that empty memory takes no space. See docs/decisions/0041-dumps-are-read-in-place.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from openrbu.dumps.dump_file import DumpFile
from openrbu.errors import ObstacleError
from openrbu.units import GIB, MIB, human_size

_LARGE_DIRECTORY = Path("/var/tmp")

_CHECKED_BYTES = 256 * MIB
"""After so much it is looked how full the disk is."""

_LEFT_FREE = 20
"""One part in so many of a disk stays free, or 1 GiB where that is less."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def spooled(pieces: Iterable[bytes], name: str) -> DumpFile:
    """A file with these bytes. `name` is what messages call it.

    :raise ObstacleError: when the disk is full, or can't be written.
    """
    directory = _directory()
    try:
        fd = _nameless_file(directory)
    except OSError as error:
        raise ObstacleError(
            f"{name} is unpacked in {directory}, which can't be written: {error.strerror}: set "
            "TMPDIR to another directory"
        ) from None
    try:
        _write(fd, pieces)
        return DumpFile(fd, name, is_private=True)
    except OSError as error:
        os.close(fd)
        if error.errno not in _FULL:
            raise ObstacleError(f"{directory} can't be written: {error.strerror}") from None
        raise ObstacleError(
            f"{name} does not fit into {directory}: set TMPDIR to a directory with room for all of "
            "the memory in it"
        ) from None
    except BaseException:
        os.close(fd)
        raise


def _write(fd: int, pieces: Iterable[bytes]) -> None:
    position = written = 0
    zeros = b""
    for piece in pieces:
        if len(zeros) != len(piece):
            zeros = bytes(len(piece))
        if piece != zeros:
            done = 0
            while done < len(piece):
                done += os.pwrite(fd, memoryview(piece)[done:], position + done)
            if (written + len(piece)) // _CHECKED_BYTES > written // _CHECKED_BYTES:
                _check_room(fd)
            written += len(piece)
        position += len(piece)
    os.ftruncate(fd, position)


def _check_room(fd: int) -> None:
    disk = os.fstatvfs(fd)
    least = min(disk.f_blocks * disk.f_frsize // _LEFT_FREE, GIB)
    if disk.f_bavail * disk.f_frsize < least:
        raise OSError(errno.ENOSPC, f"less than {human_size(least)} are free")


def _directory() -> Path:
    """$TMPDIR, or where the system has room for large files that nobody needs for long."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    return _LARGE_DIRECTORY if os.access(_LARGE_DIRECTORY, os.W_OK) else Path("/tmp")


def _nameless_file(directory: Path) -> int:
    """:raise OSError: when the directory does not allow it."""
    from tempfile import TemporaryFile  # noqa: PLC0415  (start-up time)

    with TemporaryFile(dir=directory) as file:
        return os.dup(file.fileno())


def sequence(file: DumpFile, size_bytes: int) -> Iterator[bytes]:
    """The bytes of a file from its start to its end, `size_bytes` at a time."""
    offset = 0
    while piece := file.read(offset, size_bytes):
        yield piece
        offset += len(piece)
