"""Allocates, frees and moves disk space for parts of a file: fallocate(2).

Python's own function has no flags.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterator

from openrbu.units import MIB

_KEEP_SIZE, _PUNCH_HOLE, _INSERT_RANGE = 0x01, 0x02, 0x20
"""FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE and FALLOC_FL_INSERT_RANGE of linux/falloc.h."""

_CHUNK_BYTES = 4 * MIB


def take_space(fd: int, start: int, size_bytes: int) -> bool:
    """Allocate space for these bytes of a file, so that a later write there can't fail with a full
    disk. The bytes stay. False if the file system has no such call.

    :raise OSError: when it fails: ENOSPC when the disk is full. Some space may be allocated then.
    """
    return _fallocate(fd, _KEEP_SIZE, start, size_bytes)


def punch_hole(fd: int, start: int, size_bytes: int) -> bool:
    """Make these bytes of a file a hole; the file keeps its size. False if the file system has no
    such call.

    :raise OSError: when it fails.
    """
    return _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, size_bytes)


def insert_hole(fd: int, offset: int, size_bytes: int) -> None:
    """Move all bytes from `offset` to the end of the file back by `size_bytes`. A hole is in their
    place then. Both numbers are multiples of the file system's blocks.

    :raise OSError: when it fails: ENOSPC when the disk is full.
    """
    end = os.fstat(fd).st_size
    if offset < end and _fallocate(fd, _INSERT_RANGE, offset, size_bytes):
        return
    os.ftruncate(fd, end + size_bytes)
    chunk_bytes = min(size_bytes, _CHUNK_BYTES)  # a chunk is not moved onto itself
    for start, stop in reversed(
        list(extents(fd, offset, end))
    ):  # from the end: none is overwritten
        for chunk_end in range(stop, start, -chunk_bytes):
            chunk_start = max(start, chunk_end - chunk_bytes)
            data = os.pread(fd, chunk_end - chunk_start, chunk_start)
            os.pwrite(fd, data, chunk_start + size_bytes)
            if not punch_hole(fd, chunk_start, len(data)):
                os.pwrite(fd, bytes(len(data)), chunk_start)


def extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of [start, end) that are not holes in the file, as (start, end), ascending."""
    position = start
    while position < end:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole up to the end
                raise
            return
        if data >= end:
            return
        hole = os.lseek(fd, data, os.SEEK_HOLE)
        yield data, min(hole, end)
        position = hole


def _fallocate(fd: int, mode: int, start: int, size_bytes: int) -> bool:
    from ctypes import get_errno  # noqa: PLC0415  (start-up time)

    call = _system_call()
    while call(fd, mode, start, size_bytes):
        number = get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


@functools.cache
def _system_call() -> Callable[[int, int, int, int], int]:
    from ctypes import c_int, c_int64  # noqa: PLC0415  (start-up time)

    from openrbu.system.libc import LIBC  # noqa: PLC0415  (start-up time)

    call = getattr(LIBC, "fallocate64", None) or LIBC.fallocate
    call.argtypes = (c_int, c_int, c_int64, c_int64)
    checked: Callable[[int, int, int, int], int] = call
    return checked
