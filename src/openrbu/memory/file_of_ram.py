"""RAM through a file that the kernel shows it in, such as `/proc/kcore` and `/dev/mem`."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator

from openrbu.errors import AddressError
from openrbu.memory.physical import Region, unaligned_buffer
from openrbu.units import PhysAddr


class FileOfRam:
    """The RAM in `regions`. It can only be read, and it changes while it is read.

    `fd` is the open file, which is closed when this object is collected; `path` is for errors. The
    byte at physical address A is at offset A + `distance` of the file.
    """

    is_mapped = False

    def __init__(self, fd: int, regions: tuple[Region, ...], distance: int, path: str) -> None:
        self._fd, self._regions, self._distance, self._path = fd, regions, distance, path
        weakref.finalize(self, os.close, fd)

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._regions

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        data = bytearray(size_bytes)
        self.read_into(address, data)
        return bytes(data)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        end = address + len(buffer)
        if not any(part.start <= address and end <= part.end for part in self._regions):
            raise AddressError(address, len(buffer))
        rest = memoryview(buffer)
        while rest:
            done = os.preadv(self._fd, [rest], address + self._distance)
            if not done:
                raise OSError(errno.EIO, "the file ends where RAM should be", self._path)
            rest, address = rest[done:], PhysAddr(address + done)

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        copy = unaligned_buffer(size_bytes)
        self.read_into(address, copy)
        return copy.toreadonly()

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """All of RAM in [start, end), because the file does not show which pages are unused."""
        parts = (region.clip(start, end) for region in self._regions)
        return (part for part in parts if part is not None)
