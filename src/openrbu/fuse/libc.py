"""System calls that Python 3.11 has no functions for, through the C library."""

from __future__ import annotations

import ctypes
import os

Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the C library whose arguments are `long`s and pointers.

    :raise OSError: when it returns -1, with its errno.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    # An int would go as a C int, and the upper half of a long be anything.
    result: int = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
