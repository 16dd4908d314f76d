"""A file that is read at offsets: by system calls, and by short mappings.

It is mapped only as long as nobody can make it shorter: what is cut while it is mapped ends the
process (SIGBUS). What is read by system calls just ends where the file does.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator

from openrbu.errors import ObstacleError, UsageError
from openrbu.system.fallocate import extents
from openrbu.system.lease import Lease, leased

_END_OF_OFFSETS = 1 << 63

_POPULATE_READ = 22
"""MADV_POPULATE_READ of linux/mman.h, from Linux 5.14 on: read all of it now, so that a disk that
can't is an error (EFAULT) and not a SIGBUS. Python has no name for it."""


class DumpFile:
    """An open file of a size that is known. `name` is for messages. `is_private`: nobody else has
    it, so that it stays as it is. It closes `fd`.

    Its methods raise `ObstacleError` when the disk can't read it, `UsageError` when it is closed.
    """

    def __init__(self, fd: int, name: str, *, is_private: bool = False) -> None:
        self._fd, self.name, self._is_private = fd, name, is_private
        self._lease: Lease | None = None
        self.size_bytes = os.fstat(fd).st_size

    def read(self, offset: int, size_bytes: int) -> bytes:
        """The bytes at an offset; fewer where the file ends."""
        parts: list[bytes] = []
        self._check_open()
        while size_bytes and offset < _END_OF_OFFSETS - size_bytes:
            try:
                part = os.pread(self._fd, size_bytes, offset)
            except OSError as error:
                raise self._unreadable(error) from None
            if not part:
                break
            parts.append(part)
            offset, size_bytes = offset + len(part), size_bytes - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """While the block runs, the file does not become shorter where `mapped` gives a view of it.
        Of several blocks at once, this holds for the first one."""
        self._check_open()
        if self._is_private or self._lease is not None:
            yield
            return
        with leased(self._fd) as lease:
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    def mapped(self, offset: int, size_bytes: int) -> memoryview | None:
        """A view of the file itself, which is valid until the next call of `mapped` or the end of
        the block of `kept`. None if this file has none, is not as long, or may be cut."""
        self._check_open()
        skip = offset % mmap.ALLOCATIONGRANULARITY
        try:
            if not (self._is_private or (self._lease and self._lease.is_held())):
                return None
            if os.fstat(self._fd).st_size < offset + size_bytes:
                return None
            start, size = offset - skip, size_bytes + skip
            part = mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=start)
            if not self._is_cached(start, size):
                part.madvise(mmap.MADV_SEQUENTIAL)  # from a disk it is faster than cat with that
                _populate(part)
        except OSError:
            return None
        return memoryview(part)[skip:]

    def written(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) that are not holes, ascending."""
        self._check_open()
        try:
            yield from extents(self._fd, start, end)
        except OSError as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        if self._fd >= 0:
            if self._lease is not None:
                self._lease.give_back()
            os.close(self._fd)
            self._fd = -1

    def _is_cached(self, offset: int, size_bytes: int) -> bool:
        """Whether the first and the last of these bytes need not be read from a disk."""
        try:
            for place in (offset, offset + size_bytes - 1):
                os.preadv(self._fd, [bytearray(1)], place, os.RWF_NOWAIT)
        except OSError:  # they are not, or the file system can't say
            return False
        return True

    def _check_open(self) -> None:
        if self._fd < 0:
            raise UsageError(
                f"the memory in {self.name} is closed: use it within the block that opened it"
            )

    def _unreadable(self, error: OSError) -> ObstacleError:
        return ObstacleError(f"{self.name} can't be read: {error.strerror}")


def _populate(part: mmap.mmap) -> None:
    """:raise OSError: when the disk can't read all of it."""
    try:
        part.madvise(_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:  # an older kernel
            raise
