"""A file that is read at offsets: by system calls, and by short mappings."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from openrbu.errors import ObstacleError, UsageError
from openrbu.system.fallocate import extents

_END_OF_OFFSETS = 1 << 63


class DumpFile:
    """An open file of a size that is known. `name` is for messages. It closes `fd`.

    Its methods raise `ObstacleError` when the disk can't read it, `UsageError` when it is closed.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self.name = fd, name
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

    def mapped(self, offset: int, size_bytes: int) -> memoryview | None:
        """A view of the file itself, for as long as it is kept. None if this file has none, or is
        not as long."""
        self._check_open()
        skip = offset % mmap.ALLOCATIONGRANULARITY
        try:
            if os.fstat(self._fd).st_size < offset + size_bytes:
                return None
            start, size = offset - skip, size_bytes + skip
            part = mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=start)
            part.madvise(mmap.MADV_SEQUENTIAL)  # from a disk it is faster than cat with that
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
            os.close(self._fd)
            self._fd = -1

    def _check_open(self) -> None:
        if self._fd < 0:
            raise UsageError(
                f"the memory in {self.name} is closed: use it within the block that opened it"
            )

    def _unreadable(self, error: OSError) -> ObstacleError:
        return ObstacleError(f"{self.name} can't be read: {error.strerror}")
