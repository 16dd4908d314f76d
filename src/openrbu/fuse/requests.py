"""What a request of the kernel says that libfuse does not pass on.

libfuse tells a file system neither which request it handles nor which of the kernel's files it is
about. Both stand in the header of the request, which is seen here when libfuse reads it from the
descriptor.

That is needed for files of which `stat` shows no size, as most binary files of sysfs and all files
of procfs. A kernel that is told this size gives the program end of file when that asks for their
bytes by sendfile(2), splice(2) or copy_file_range(2), without a request. A program takes that for
the end of an empty file. So the kernel is told that such a file is endless, and only a program that
asks for the attributes is told the size: see `Requests.attributes`. The kernel then requests the
bytes, for its page cache, and is refused: see `openrbu.fuse.translation`. The program is told
EINVAL, and reads the file as usual (docs/decisions/0032).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import stat
import struct
from functools import lru_cache

from openrbu.drivers.sysfs import Stat
from openrbu.fuse.library import mfusepy
from openrbu.system.libc import LIBC

# fuse(4), linux/fuse.h
_GETATTR = 3
_GETATTR_FH = 1
_HEADER = struct.Struct("=IIQQ")  # length, operation, unique, node
_HEADER_BYTES = 40
_ATTRIBUTES_FLAGS = struct.Struct("=I")
_NOTIFICATION = struct.Struct("=IiQQqq")  # length, kind, 0; node, offset, length
_INVALIDATE_INODE = 2

_ENDLESS_BYTES = 1 << 40
"""Far above the offset of any byte, and below the largest size that Linux knows."""

_NO_PAGES = -1
"""The offset of a notification that is about attributes only."""

_SIZED_FROM = (3, 17)
"""The version of libfuse from which `fuse_session_custom_io` takes the size of the structure."""

_Receive = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    use_errno=True,
)


class _CustomIo(ctypes.Structure):
    """struct fuse_custom_io of libfuse's fuse_lowlevel.h, without what may be left out."""

    _fields_ = (
        ("writev", ctypes.c_void_p),
        ("read", _Receive),
        ("splice_receive", ctypes.c_void_p),
        ("splice_send", ctypes.c_void_p),
    )


class Requests:
    """The request that libfuse handles at the moment, read from the descriptor `fd`.

    `is_known`: whether requests are seen here; not with libfuse before 3.13. `node`: the kernel's
    number of the file that the request is about; 0: not known.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.is_known = False
        self.node = self._operation = 0
        self._is_of_handle = False
        # A view of the function `read`, of which the types can be set for this use alone.
        self._read = ctypes.CDLL(None, use_errno=True).read
        self._read.restype = ctypes.c_ssize_t
        self._read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
        # A function of C may be called with more arguments than it takes.
        writev = ctypes.cast(LIBC.writev, ctypes.c_void_p)
        self._io = _CustomIo(writev, _Receive(self._receive))

    def follow(self, library: ctypes.CDLL, session: int) -> None:
        """See each request from now on. `session`: libfuse's struct fuse_session."""
        replace = getattr(library, "fuse_session_custom_io", None)
        if replace is None:
            return
        version = mfusepy.fuse_version_major, mfusepy.fuse_version_minor
        size = [ctypes.c_size_t(ctypes.sizeof(self._io))] if version >= _SIZED_FROM else []
        io = ctypes.byref(self._io)
        self.is_known = not replace(ctypes.c_void_p(session), io, *size, ctypes.c_int(self._fd))

    @property
    def is_for_attributes(self) -> bool:
        """Whether it asks for the attributes of a file that the kernel has, and not for a name."""
        return self._operation == _GETATTR

    def attributes(self, what: Stat) -> Stat:
        """What to answer to the request when the file's attributes are `what`.

        The kernel takes the size in any answer as the file's. Where a program asked for it (stat(2)
        and fstat(2)) the kernel passes the answer on, too, but it does not take it when it was told
        meanwhile that it no longer knows the attributes. It asks for the attributes of a handle for
        lseek(2) from the end; there the true size matters.
        """
        if what.size_bytes or not self.is_known or not stat.S_ISREG(what.mode):
            return what
        if not self.is_for_attributes:
            return _endless(what)
        if not self._is_of_handle:
            message = _NOTIFICATION.pack(
                _NOTIFICATION.size, _INVALIDATE_INODE, 0, self.node, _NO_PAGES, 0
            )
            with contextlib.suppress(OSError):  # the program is told the size all the same
                os.write(self._fd, message)
        return what

    def _receive(self, fd: int, buffer: int, size_bytes: int, _data: object) -> int:
        """read(2), as libfuse would call it."""
        done: int = self._read(fd, buffer, size_bytes)
        if done >= _HEADER_BYTES:
            header = ctypes.string_at(buffer, _HEADER.size)
            _, self._operation, _, self.node = _HEADER.unpack(header)
            if self._operation == _GETATTR and done >= _HEADER_BYTES + _ATTRIBUTES_FLAGS.size:
                flags = ctypes.string_at(buffer + _HEADER_BYTES, _ATTRIBUTES_FLAGS.size)
                self._is_of_handle = bool(_ATTRIBUTES_FLAGS.unpack(flags)[0] & _GETATTR_FH)
        return done


@lru_cache(maxsize=1024)
def _endless(what: Stat) -> Stat:
    return dataclasses.replace(what, size_bytes=_ENDLESS_BYTES)
