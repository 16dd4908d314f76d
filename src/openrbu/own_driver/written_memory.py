"""Physical memory that can't be mapped: it is read and written by calls, whole pages at a time.

What is written goes into a copy in this process first, and all of it to memory at once, by
`commit`. In the copy no page begins where a page of the process begins: a BIOS that searches memory
must not find what a process has left there (docs/decisions/0008).
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator, Sequence
from typing import Protocol

from openrbu.buffers import Buffer
from openrbu.errors import AddressError
from openrbu.memory.physical import Region, unaligned_buffer
from openrbu.units import MIB, PAGE_SIZE, PhysAddr

_SHIFT_BYTES = 512
"""How far behind the start of a page a page of the copy begins: direct I/O takes it (open(2))."""

_UNKNOWN, _SAME, _CHANGED = range(3)
"""What the copy of a page is: worth nothing, as in memory, to be written."""

Part = tuple[PhysAddr, memoryview]
"""Whole pages, and where they belong."""


class Door(Protocol):
    """The way to the memory of one region."""

    def read_into(self, address: PhysAddr, buffer: memoryview) -> None:
        """Fill `buffer`, whole pages.

        :raise OSError: the kernel's error.
        """

    def write(self, parts: Sequence[Part]) -> None:
        """Write these, which ascend and are not adjacent.

        :raise OSError: the kernel's error. Nobody knows what of them was written then.
        """

    def clear(self, region: Region) -> None:
        """Write zeros.

        :raise OSError: the kernel's error.
        """

    def is_in_place(self) -> bool:
        """Whether the region is still what it was, and nobody else uses it, as far as can be
        seen."""


class WrittenMemory:
    """The memory of `region`, through `door`."""

    is_mapped = False

    def __init__(self, region: Region, door: Door) -> None:
        self.regions = (region,)
        self._region, self._door = region, door
        room = mmap.mmap(-1, region.size_bytes + PAGE_SIZE)
        self._copy = memoryview(room)[_SHIFT_BYTES : _SHIFT_BYTES + region.size_bytes]
        self._states = bytearray(region.size_bytes // PAGE_SIZE)

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        return bytes(self._known(address, size_bytes))

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self._known(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        copy = unaligned_buffer(size_bytes)
        copy[:] = self._known(address, size_bytes)
        return copy.toreadonly()

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        part = self._region.clip(start, end)
        if part is not None:
            yield part

    def write(self, address: PhysAddr, data: Buffer) -> None:
        self._room_for(address, len(data))[:] = memoryview(data).cast("B")

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        self._room_for(address, size_bytes)[:] = bytes(size_bytes)

    def commit(self) -> None:
        """Write to memory what was written here, and read it back.

        :raise OSError: the kernel's error; EIO when something else is read back.
        """
        runs = [Region(start, end) for start, end in self._runs(_CHANGED, self._region)]
        if runs:
            self._door.write([(run.start, self._at(run)) for run in runs])
        for run in runs:
            if not self._reads_back(run):
                where = f"{run.start:#x} to {run.end:#x}"
                raise OSError(errno.EIO, f"what was written is not what is read back, {where}")
            self._set(run, _UNKNOWN)  # from now on it is read from memory again

    def clear(self) -> None:
        """Clear all of the memory.

        :raise OSError: the kernel's error.
        """
        self._set(self._region, _UNKNOWN)
        self._door.clear(self._region)

    def _reads_back(self, run: Region) -> bool:
        scrap = memoryview(mmap.mmap(-1, MIB + PAGE_SIZE))[_SHIFT_BYTES : _SHIFT_BYTES + MIB]
        for start in range(run.start, run.end, MIB):
            part = Region(PhysAddr(start), PhysAddr(min(start + MIB, run.end)))
            there = scrap[: part.size_bytes]
            self._door.read_into(part.start, there)
            if there != self._at(part):
                return False
        return True

    def _known(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The copy of these bytes, as they are in memory or are going to be.

        :raise AddressError: when any of them is not in this memory.
        :raise OSError: when they can't be read.
        """
        wanted = self._checked(address, size_bytes)
        pages = _whole_pages(wanted)
        for start, end in self._runs(_UNKNOWN, pages):
            run = Region(start, end)
            self._door.read_into(run.start, self._at(run))
            self._set(run, _SAME)
        return self._at(wanted).toreadonly()

    def _room_for(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The copy of these bytes, which are going to be written."""
        wanted = self._checked(address, size_bytes)
        if not size_bytes:
            return self._at(wanted)
        for edge in {wanted.start, wanted.end - 1}:
            page = edge // PAGE_SIZE * PAGE_SIZE
            if not wanted.start <= page <= page + PAGE_SIZE <= wanted.end:
                self._known(PhysAddr(page), PAGE_SIZE)  # the rest of the page stays as it is
        self._set(_whole_pages(wanted), _CHANGED)
        return self._at(wanted)

    def _checked(self, address: PhysAddr, size_bytes: int) -> Region:
        end = address + size_bytes
        if size_bytes < 0 or address < self._region.start or end > self._region.end:
            raise AddressError(address, size_bytes)
        return Region(address, PhysAddr(end))

    def _at(self, part: Region) -> memoryview:
        start = self._region.start
        return self._copy[part.start - start : part.end - start]

    def _set(self, pages: Region, state: int) -> None:
        first, end = self._numbers(pages)
        self._states[first:end] = bytes([state]) * (end - first)

    def _runs(self, state: int, pages: Region) -> Iterator[tuple[PhysAddr, PhysAddr]]:
        """The runs of pages that have this state, as [start, end)."""
        place, last = self._numbers(pages)
        while (first := self._states.find(state, place, last)) >= 0:
            others = (self._states.find(each, first, last) for each in range(3) if each != state)
            place = min((other for other in others if other >= 0), default=last)
            yield self._address(first), self._address(place)

    def _numbers(self, pages: Region) -> tuple[int, int]:
        start = self._region.start
        return (pages.start - start) // PAGE_SIZE, (pages.end - start) // PAGE_SIZE

    def _address(self, number: int) -> PhysAddr:
        return PhysAddr(self._region.start + number * PAGE_SIZE)


def _whole_pages(part: Region) -> Region:
    """The whole pages that the part touches."""
    return Region(
        PhysAddr(part.start // PAGE_SIZE * PAGE_SIZE),
        PhysAddr(-(-part.end // PAGE_SIZE) * PAGE_SIZE),
    )
