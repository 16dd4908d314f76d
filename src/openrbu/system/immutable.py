"""The immutable flag of a file, which keeps even root from writing to it (ioctl_iflags(2)).

Linux sets it on the variables of UEFI firmware, so that none is changed by accident.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_IMMUTABLE = 0x10
_NUMBER = struct.Struct("l")


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Take the flag off a file for the block, where it has it.

    :raise OSError: when the file can't be opened, or this user may not take the flag off.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = _flags(fd)
        if not flags & _IMMUTABLE:
            yield
            return
        _set_flags(fd, flags & ~_IMMUTABLE)
        try:
            yield
        finally:
            _set_flags(fd, flags)
    finally:
        os.close(fd)


def is_immutable(path: Path) -> bool:
    """Whether a file has the flag; not on a file system that has no such flags.

    :raise OSError: when the file can't be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(_flags(fd) & _IMMUTABLE)
    finally:
        os.close(fd)


def _flags(fd: int) -> int:
    try:
        answer = fcntl.ioctl(fd, _GET_FLAGS, bytes(_NUMBER.size))
    except OSError:
        return 0
    (flags,) = _NUMBER.unpack(answer)
    return int(flags)


def _set_flags(fd: int, flags: int) -> None:
    fcntl.ioctl(fd, _SET_FLAGS, _NUMBER.pack(flags))
