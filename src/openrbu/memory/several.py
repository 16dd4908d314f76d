"""Several physical memories of one machine as one, such as RAM and persistent memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from openrbu.errors import AddressError
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import PhysAddr


class SeveralMemories:
    """What is in any of `memories`, whose regions do not overlap: a `ReadableMemory`."""

    def __init__(self, memories: Sequence[ReadableMemory]) -> None:
        rows = [(region, memory) for memory in memories for region in memory.regions]
        rows.sort(key=lambda row: row[0].start)
        self._rows = rows
        self._starts = [region.start for region, _ in rows]

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(region for region, _ in self._rows)

    @property
    def is_mapped(self) -> bool:
        return all(memory.is_mapped for _, memory in self._rows)

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        data = bytearray(size_bytes)
        self.read_into(address, data)
        return bytes(data)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        rest = memoryview(buffer)
        while rest:
            region, memory = self._at(address, len(rest))
            count = min(len(rest), region.end - address)
            memory.read_into(address, rest[:count])
            address, rest = PhysAddr(address + count), rest[count:]

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return self._at(address, size_bytes)[1].view(address, size_bytes)

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        for region, memory in self._rows:
            part = region.clip(start, end)
            if part is not None:
                yield from memory.populated(part.start, part.end)

    def _at(self, address: PhysAddr, size_bytes: int) -> tuple[Region, ReadableMemory]:
        """The region that has an address.

        :raise AddressError: when none has it.
        """
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._rows[index][0].end:
            raise AddressError(address, size_bytes)
        return self._rows[index]
