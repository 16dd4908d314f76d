"""A sequence of bytes that is scattered over physical memory, and its page blocks.

The firmware buffer, the packets and the monolithic image are such sequences. Blocks that follow
each other in the sequence and in memory become one extent, so that thousands of packets are read,
written and cleared in a few calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from openrbu.buffers import Buffer
from openrbu.drivers.states import BlockRows
from openrbu.errors import DamagedInputError
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import MAX_ORDER, PAGE_SIZE, PhysAddr


class Block(NamedTuple):
    """2**order pages at `address`, of which the first `size_bytes` bytes are in use."""

    address: PhysAddr
    order: int
    size_bytes: int

    @property
    def capacity_bytes(self) -> int:
        return PAGE_SIZE << self.order


class Extents:
    """The bytes of several ranges of memory, in sequence; `size_bytes` in all."""

    def __init__(self, memory: PhysicalMemory, pieces: Iterable[tuple[PhysAddr, int]] = ()) -> None:
        self._memory = memory
        self._region_starts = frozenset(region.start for region in memory.regions)
        self._starts: list[int] = []  # where in the bytes each extent starts
        self._addresses: list[PhysAddr] = []
        self._end_address = -1
        self.size_bytes = 0
        for address, size_bytes in pieces:
            self.append(address, size_bytes)

    def append(self, address: PhysAddr, size_bytes: int) -> None:
        """Add the `size_bytes` bytes at `address` at the end."""
        # An extent does not span two regions, because no view does.
        if address != self._end_address or address in self._region_starts:
            self._starts.append(self.size_bytes)
            self._addresses.append(address)
        self._end_address = address + size_bytes
        self.size_bytes += size_bytes

    def pieces(self, start: int, size_bytes: int) -> Iterator[tuple[PhysAddr, int]]:
        """Where the bytes [start, start + size_bytes) lie, as (address, size), up to the end."""
        end = min(start + size_bytes, self.size_bytes)
        index = bisect_right(self._starts, start) - 1
        while start < end:
            is_last = index + 1 == len(self._starts)
            stop = end if is_last else min(end, self._starts[index + 1])
            yield PhysAddr(self._addresses[index] + start - self._starts[index]), stop - start
            start, index = stop, index + 1

    def views(self, start: int, size_bytes: int) -> Iterator[memoryview]:
        """Views of the bytes, up to the end, without a copy."""
        for address, size in self.pieces(start, size_bytes):
            yield self._memory.view(address, size)

    def read(self, start: int, size_bytes: int) -> bytes:
        """A copy of the bytes, up to the end."""
        return b"".join(self.views(start, size_bytes))

    def write(self, start: int, data: Buffer) -> None:
        """Write `data` at `start`; it has to fit."""
        last = len(self._starts) - 1
        if last >= 0 and self._starts[last] <= start and start + len(data) <= self.size_bytes:
            # Most writes follow the one before and are in one extent.
            address = self._addresses[last] + start - self._starts[last]
            self._memory.write(PhysAddr(address), data)
            return
        source, done = memoryview(data), 0
        for address, size in self.pieces(start, len(source)):
            self._memory.write(address, source[done : done + size])
            done += size

    def zero(self, start: int, size_bytes: int) -> None:
        """Clear bytes, up to the end."""
        for address, size in self.pieces(start, size_bytes):
            self._memory.zero(address, size)


def zero_whole(memory: PhysicalMemory, blocks: Iterable[Block]) -> None:
    """Clear blocks, also the bytes not in use."""
    everything = Extents(memory, ((block.address, block.capacity_bytes) for block in blocks))
    everything.zero(0, everything.size_bytes)


def free_all(pages: PageSource, blocks: Iterable[Block]) -> None:
    """Free blocks. Their bytes stay."""
    for block in blocks:
        pages.free(block.address, block.order)


def to_rows(blocks: Sequence[Block]) -> BlockRows:
    """Blocks as they are saved on disk."""
    rows: list[tuple[int, int, int, int]] = []
    expected = -1
    for block in blocks:
        if rows and block.address == expected and rows[-1][1:3] == block[1:]:
            rows[-1] = (*rows[-1][:3], rows[-1][3] + 1)
        else:
            rows.append((*block, 1))
        expected = block.address + block.capacity_bytes
    return tuple(rows)


def blocks_in(
    rows: Iterable[tuple[int, int, int, int]], *, largest_order: int = MAX_ORDER
) -> Iterator[Block]:
    """The blocks that were given to `to_rows`.

    :raise DamagedInputError: when an order is larger than `largest_order`.
    """
    for address, order, size_bytes, count in rows:
        if order > largest_order:
            raise DamagedInputError(
                f"a saved block has order {order}: orders are 0 to {largest_order}",
                expected=largest_order,
                actual=order,
            )
        for number in range(count):
            yield Block(PhysAddr(address + number * (PAGE_SIZE << order)), order, size_bytes)
