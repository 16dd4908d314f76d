"""Physical memory: bytes at physical addresses.

`PhysicalMemory` is the interface that everything above uses: RAM files (`ram_file`), huge pages, a
Xen guest's frame table and dumps implement it. Who only looks takes a `ReadableMemory`, which a
real machine's RAM is as well.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from openrbu.buffers import Buffer
from openrbu.errors import UsageError
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr, pages_for

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
    """Bytes at physical addresses, to be looked at."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where RAM is, ascending, not overlapping, page aligned."""

    @property
    def is_mapped(self) -> bool:
        """Whether `view` shows the bytes themselves. Elsewhere it costs a copy."""

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        """A copy of the bytes at `address`.

        :raise AddressError: when any of them is outside RAM.
        """

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` with the bytes at `address`.

        :raise AddressError: when any of them is outside RAM.
        """

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The bytes at `address`: where RAM is mapped, themselves, read-only, without a copy; they
        change with the RAM.

        :raise AddressError: when any of them is outside RAM, or they span two regions.
        """

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of RAM in [start, end) that may hold anything but zeros, ascending."""


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


def joined(parts: Iterable[Region]) -> tuple[Region, ...]:
    """Places as extents: `parts` ascend, and where one ends the next page begins another, they are
    one extent."""
    extents: list[Region] = []
    for part in parts:
        start = part.start
        if extents and pages_for(extents[-1].end) * PAGE_SIZE == start:
            start = extents.pop().start
        extents.append(Region(start, part.end))
    return tuple(extents)


def off_the_page(size_bytes: int) -> memoryview:
    """A buffer for copies, one behind the other, of packet headers (32 bytes), packets (whole KiB)
    or pages, or for one copy of anything else: none of them begins on a page. What searches the
    memory that it lives in must not find its own copies, which change under it."""
    start = 8  # numpy wants whole words; and 8 more than a multiple of 32 is never one of 4096
    return memoryview(mmap.mmap(-1, start + size_bytes))[start:]


def pc_regions(size_bytes: int) -> tuple[Region, ...]:
    """Where a PC has its RAM: up to 640 KiB, from 1 MiB up to 3 GiB, the rest from 4 GiB up.

    The gap below 1 MiB is the video and ROM area; the one below 4 GiB is for devices.

    :raise UsageError: when `size_bytes` is not whole pages, or does not reach above 1 MiB.
    """
    if size_bytes <= MIB or size_bytes % PAGE_SIZE:
        raise UsageError(f"{size_bytes} bytes of RAM: whole 4 KiB pages and over 1 MiB are needed")
    low_end = min(size_bytes, 3 * GIB)
    spans = [(0, 640 * KIB), (MIB, low_end)]
    if size_bytes > low_end:
        spans.append((4 * GIB, 4 * GIB + size_bytes - low_end))
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)
