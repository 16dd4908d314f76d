"""Physical memory that is parts of files, mapped in the sequence of their physical addresses."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from openrbu.buffers import Buffer
from openrbu.errors import AddressError
from openrbu.memory.physical import Region, joined
from openrbu.system.mapping import AddressSpace
from openrbu.units import PhysAddr

LOST = -1
"""In place of a file that is gone."""


class Piece(NamedTuple):
    """`size_bytes` bytes at a physical address: those of an open file from `offset` on. Where the
    file is gone (`fd` is `LOST`), they are zeros."""

    address: PhysAddr
    size_bytes: int
    fd: int
    offset: int


class MappedMemory:
    """RAM, of which this process has some pieces; none at first.

    What is adjacent in RAM is adjacent here, whatever the sequence in the files. So one view has an
    image that lies on many pages. Pieces begin and end on multiples of `alignment_bytes`.
    """

    is_mapped = True

    def __init__(self, *, alignment_bytes: int) -> None:
        self._alignment = alignment_bytes
        self._spaces: list[AddressSpace] = []
        self._regions: tuple[Region, ...] = ()
        self._starts: list[int] = []  # of the regions: in RAM, and in the last space
        self._positions: list[int] = []

    def have(self, pieces: Iterable[Piece]) -> None:
        """Have these pieces now, in any sequence. Views of what was there before stay valid.

        :raise OSError: when they can't be mapped. The memory is as it was before, then.
        """
        ordered = sorted(pieces)
        regions = joined((each.address, each.address + each.size_bytes) for each in ordered)
        if regions:
            total = sum(region.size_bytes for region in regions)
            space = AddressSpace(total, alignment_bytes=self._alignment)
            position = 0
            for size_bytes, fd, offset in _in_files(ordered):
                if fd == LOST:
                    space.map_zeros(position, size_bytes)
                else:
                    space.map_part(position, size_bytes, fd, offset)
                position += size_bytes
            self._spaces.append(space)
        self._regions, position = regions, 0
        self._starts, self._positions = [], []
        for region in regions:
            self._starts.append(region.start)
            self._positions.append(position)
            position += region.size_bytes

    def forget(self) -> None:
        """Have nothing any more. A view that is left shows zeros.

        :raise OSError: the kernel's error.
        """
        self._regions, self._starts, self._positions = (), [], []
        while self._spaces:
            self._spaces[-1].forget()
            self._spaces.pop()

    def place_of(self, address: PhysAddr) -> int:
        """Where in this process's addresses the byte at a physical address is.

        :raise AddressError: when it is not in this memory.
        """
        return self._spaces[-1].address + self._position(address, 1)

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._regions

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        return bytes(self.view(address, size_bytes))

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self.view(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        position = self._position(address, size_bytes)
        if not size_bytes:
            return memoryview(b"")
        return self._spaces[-1].view[position : position + size_bytes].toreadonly()

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        for region in self._regions:
            part = region.clip(start, end)
            if part is not None:
                yield part

    def write(self, address: PhysAddr, data: Buffer) -> None:
        position, size_bytes = self._position(address, len(data)), len(data)
        if size_bytes:
            self._spaces[-1].view[position : position + size_bytes] = memoryview(data).cast("B")

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        position = self._position(address, size_bytes)
        if size_bytes:
            ctypes.memset(self._spaces[-1].address + position, 0, size_bytes)

    def _position(self, address: PhysAddr, size_bytes: int) -> int:
        """The place of these bytes in the last space.

        :raise AddressError: when any of them is not in this memory, or they span two regions.
        """
        index = bisect_right(self._starts, address) - 1
        if index < 0 or size_bytes < 0 or address + size_bytes > self._regions[index].end:
            raise AddressError(address, size_bytes)
        return self._positions[index] + address - self._starts[index]


def _in_files(pieces: list[Piece]) -> Iterator[tuple[int, int, int]]:
    """The pieces, which ascend, as (size, file, offset); what is adjacent in RAM and in the file
    is one."""
    last: Piece | None = None
    for each in pieces:
        if last is not None and (
            last.fd == each.fd
            and last.offset + last.size_bytes == each.offset
            and last.address + last.size_bytes == each.address
        ):
            last = last._replace(size_bytes=last.size_bytes + each.size_bytes)
            continue
        if last is not None:
            yield last[1:]
        last = each
    if last is not None:
        yield last[1:]
