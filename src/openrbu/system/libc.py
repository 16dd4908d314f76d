"""System calls for which Python 3.11 has no functions, through the C library."""

from __future__ import annotations

import ctypes
import os

# linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

SYSFS, HUGETLBFS = 0x62656572, 0x958458F6  # linux/magic.h

Argument = int | bytes | ctypes.Array[ctypes.c_uint32] | ctypes.Array[ctypes.c_char] | None

LIBC = ctypes.CDLL(None, use_errno=True)
"""The C library, for functions that need something faster or more general than `call`."""


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the C library whose arguments are `long`s and pointers.

    :raise OSError: when it returns -1, with its errno.
    """
    function = getattr(LIBC, name)
    # An int would be passed as a C int, and the upper half of a long would be undefined.
    result: int = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def file_system_type(fd: int) -> int:
    """The type of the file system that an open file is in, as statfs(2) gives it: such as `SYSFS`.

    :raise OSError: the kernel's error.
    """
    answer = ctypes.create_string_buffer(256)  # a struct statfs begins with the type, a long
    call("fstatfs", fd, answer)
    return ctypes.c_long.from_buffer(answer).value
