"""Physical memory: bytes at physical addresses.

`PhysicalMemory` is the interface that all other code uses. RAM files (`ram_file`), huge pages, the
frame table of a Xen guest and dumps implement it. Code that only reads takes a `ReadableMemory`,
which a real machine's RAM implements, too.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from openrbu.buffers import Buffer
from openrbu.errors import UsageError
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Region:
    """RAM from `start` up to, not including, `end`."""

    start: PhysAddr
    end: PhysAddr

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    def clip(self, start: int, end: int) -> Region | None:
        """The part of this region inside [start, end), or None."""
        low, high = max(self.start, start), min(self.end, end)
        return Region(PhysAddr(low), PhysAddr(high)) if low < high else None


class ReadableMemory(Protocol):
    """Bytes at physical addresses that can be read."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where RAM is, ascending, not overlapping, page aligned. (In a dump, a region may begin
        and end inside of a page.)"""

    @property
    def is_mapped(self) -> bool:
        """Whether `view` shows the bytes themselves. If not, it makes a copy."""

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        """A copy of the bytes at `address`.

        :raise AddressError: when any of them is outside RAM.
        """

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` with the bytes at `address`.

        :raise AddressError: when any of them is outside RAM.
        """

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The bytes at `address`. If RAM is mapped: the bytes themselves, read-only; they change
        when the RAM does. If not: a copy.

        :raise AddressError: when any of them is outside RAM, or they span two regions.
        """

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of RAM in [start, end) that may have a byte that is not 0, ascending."""


class PhysicalMemory(ReadableMemory, Protocol):
    """Bytes at physical addresses."""

    def write(self, address: PhysAddr, data: Buffer) -> None:
        """Put `data` at `address`.

        :raise AddressError: when any byte would fall outside RAM.
        """

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        """Clear `size_bytes` bytes at `address`.

        :raise AddressError: when any byte falls outside RAM.
        """


def joined(parts: Iterable[tuple[int, int]]) -> tuple[Region, ...]:
    """Join adjacent parts of memory, each given as [start, end). They ascend; two of them are
    adjacent when one begins at the end of the other, or of its last page."""
    extents: list[Region] = []
    first, last = 0, -1  # the bounds of the extent so far; none yet
    for start, end in parts:
        if last >= 0 and start not in (last, -(-last // PAGE_SIZE) * PAGE_SIZE):
            extents.append(Region(PhysAddr(first), PhysAddr(last)))
            last = -1
        if last < 0:
            first = start
        last = end
    if last >= 0:
        extents.append(Region(PhysAddr(first), PhysAddr(last)))
    return tuple(extents)


def unaligned_buffer(size_bytes: int) -> memoryview:
    """A buffer for copies of bytes of RAM in which no copy begins at the start of a page.

    The copies in it follow each other and are packet headers (32 bytes), packets (whole KiB) or
    pages; or it has one copy of anything. A search of the memory in which the buffer itself is
    must not find these copies: they change while it runs.
    """
    start = 8  # whole words, for numpy; and a multiple of 32 plus 8 is never a multiple of 4096
    return memoryview(mmap.mmap(-1, start + size_bytes))[start:]


def pc_regions(size_bytes: int) -> tuple[Region, ...]:
    """Where a PC with this much RAM has it: up to 640 KiB, from 1 MiB up to 3 GiB, the rest from
    4 GiB up. The gap below 1 MiB is for video and ROMs, the one below 4 GiB for devices.

    :raise UsageError: when `size_bytes` is not whole pages, or does not reach above 1 MiB.
    """
    if size_bytes <= MIB or size_bytes % PAGE_SIZE:
        raise UsageError(f"{size_bytes} bytes of RAM: whole 4 KiB pages and over 1 MiB are needed")
    low_end = min(size_bytes, 3 * GIB)
    spans = [(0, 640 * KIB), (MIB, low_end)]
    if size_bytes > low_end:
        spans.append((4 * GIB, 4 * GIB + size_bytes - low_end))
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)
