"""Maps parts of files at addresses that the caller chooses: mmap(2) with MAP_FIXED.

Python's own mmap chooses the address, so that parts of a file in another sequence than in the file
can't be one buffer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

from openrbu.system.libc import LIBC, call

_MAP_FIXED, _MAP_NORESERVE, _MAP_POPULATE = 0x10, 0x4000, 0x8000  # bits/mman.h of x86
_PROT_NONE = 0

_mmap = LIBC.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)

_FAILED = ctypes.c_void_p(-1).value


class AddressSpace:
    """`size_bytes` of this process's addresses, from a multiple of `alignment_bytes` on.

    `view` has the bytes. There are none until `map_part` has put a part of a file there: to use
    them ends the process with SIGSEGV. When `forget` was called, all bytes are 0 and can't be
    written. The addresses are given back when nobody has a view of them.

    :raise OSError: when there is no room.
    """

    def __init__(self, size_bytes: int, *, alignment_bytes: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        whole = size_bytes + alignment_bytes
        first = _mapped(0, whole, _PROT_NONE, flags)
        self.address = -(-first // alignment_bytes) * alignment_bytes
        self.size_bytes = size_bytes
        array = (ctypes.c_char * size_bytes).from_address(self.address)
        weakref.finalize(array, _unmap, first, whole).atexit = False  # a thread may still read
        self.view = memoryview(array).cast("B")

    def map_part(self, position: int, size_bytes: int, fd: int, offset: int) -> None:
        """Have the bytes of a file from `offset` on at `position`, for reading and writing; they
        are in memory already.

        :raise OSError: the kernel's error.
        """
        rights, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_POPULATE
        place = self.address + position
        _mapped(place, size_bytes, rights, flags | _MAP_FIXED, file=(fd, offset))

    def map_zeros(self, position: int, size_bytes: int) -> None:
        """Have zeros at `position`, which no file has.

        :raise OSError: the kernel's error.
        """
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _mapped(self.address + position, size_bytes, rights, flags)

    def forget(self) -> None:
        """Have no file here any more. (The addresses stay in use: a view that somebody still has
        must not show what comes there next.)

        :raise OSError: the kernel's error.
        """
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _mapped(self.address, self.size_bytes, mmap.PROT_READ, flags)


def _unmap(address: int, size_bytes: int) -> None:
    call("munmap", address, size_bytes)


def _mapped(
    address: int, size_bytes: int, rights: int, flags: int, *, file: tuple[int, int] = (-1, 0)
) -> int:
    """Call mmap(2); `file` is the open file and the offset in it."""
    result: int | None = _mmap(address or None, size_bytes, rights, flags, *file)
    if result is None or result == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
