"""Allocates and frees disk space for parts of a file: fallocate(2).

Python's own function has no flags.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of linux/falloc.h."""


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
