"""The requests `write`, `getattr`, `open` and `read`, otherwise than in mfusepy.

mfusepy copies the data of each write, and fills `struct stat` member by member. That is one sixth
of the time of a write of 1 MiB, and one third of that of a `getattr`. It does not pass on whether a
read is a program's. The methods replaced here are those of mfusepy 3.1.
"""

from __future__ import annotations

import ctypes
import errno
from functools import lru_cache
from typing import Any

from openrbu.drivers.inodes import Time
from openrbu.drivers.sysfs import Stat
from openrbu.errors import KernelError
from openrbu.fuse.filesystem import MAPPED
from openrbu.fuse.library import mfusepy
from openrbu.units import KIB, PAGE_SIZE

_COPIED_BYTES = 64 * KIB
"""Up to this size a copy is quicker than a view."""

_NS = 10**9
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # linux/stat.h
_STAT_BYTES = ctypes.sizeof(mfusepy.c_stat)


class Translation(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    """Runs libfuse with a `FileSystem`, whose `stat_of` it calls for `getattr`."""

    def write(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Pass on the data of a write. Where it is large it is a view of libfuse's memory, which is
        valid until this returns."""
        data: bytes | memoryview
        if size <= _COPIED_BYTES:
            data = ctypes.string_at(buffer, size)
        else:
            address = ctypes.addressof(buffer.contents)
            data = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        done: int = self.operations.write(None, data, offset, info.contents.fh)
        return done

    def open(self, path: bytes, info: Any) -> int:
        """Open a file. What programs read of it does not go through the kernel's page cache, except
        of a file that programs map: without the cache nobody can share a mapping of it."""
        name, opened = path.decode("utf-8", "surrogateescape"), info.contents
        opened.fh = self.operations.open(name, opened.flags)
        opened.direct_io = name not in MAPPED
        return 0

    def read(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Pass on a read, which every program's own read(2) is, directly.

        The kernel reads on its own for its page cache, from which sendfile(2), splice(2),
        copy_file_range(2) and mappings take the bytes. What it once has there it would not read
        again, and it fills up a page with zeros: while another program calls stat(2), one third of
        all sendfile(2) give zeros behind the text (measured on 6.18). So that is refused, and the
        program is told EINVAL, as of a file without these calls. Such a read has no owner. A file
        that programs map has a size, and does not change while it is open.

        :raise KernelError: EINVAL when it is not a program's.
        """
        opened = info.contents
        if not opened.lock_owner and opened.fh not in self.operations.mapped:
            raise KernelError(errno.EINVAL)
        data = self.operations.read(None, size, offset, opened.fh)
        ctypes.memmove(buffer, data, len(data))
        return len(data)

    def fgetattr(self, path: bytes | None, target: Any, info: Any) -> int:
        """Fill in the `struct stat` of a `getattr`."""
        system = self.operations
        handle = info.contents.fh if info else None
        what = system.stat_of(
            None if path is None else path.decode("utf-8", "surrogateescape"), handle
        )
        what = system.requests.attributes(what)
        uid, gid = system.callers.uid_here(what.uid), system.callers.gid_here(what.gid)
        ctypes.memmove(target, _c_stat(what, uid, gid), _STAT_BYTES)
        return 0

    def utimens_fuse_3(self, path: bytes, times: Any, _info: Any) -> int:
        """Pass on times, of which each may be "now" or left out. mfusepy makes times of these."""
        wanted = [_time(each) for each in (times.contents.actime, times.contents.modtime)]
        self.operations.utimens(path.decode("utf-8", "surrogateescape"), *wanted)
        return 0


def _time(value: Any) -> Time:
    """A `struct timespec` of utimensat(2)."""
    if value.tv_nsec == _UTIME_OMIT:
        return None
    return "now" if value.tv_nsec == _UTIME_NOW else int(value.tv_sec * _NS + value.tv_nsec)


@lru_cache(maxsize=4096)
def _c_stat(what: Stat, uid: int, gid: int) -> bytes:
    """A `struct stat`."""
    time_ns = int(what.changed_at * _NS)
    target = mfusepy.c_stat()
    attributes = {
        "st_mode": what.mode,
        "st_nlink": what.link_count,
        "st_size": what.size_bytes,
        "st_ino": what.inode,
        "st_uid": uid,
        "st_gid": gid,
        "st_atime": time_ns if what.accessed_ns is None else what.accessed_ns,
        "st_mtime": time_ns if what.modified_ns is None else what.modified_ns,
        "st_ctime": time_ns,
        "st_blksize": PAGE_SIZE,
    }
    mfusepy.set_st_attrs(target, attributes, use_ns=True)
    return bytes(target)
