"""RAM as a BIOS sees it while it works: its own writes are seen only here."""

from __future__ import annotations

from openrbu.buffers import Buffer
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr

HOLE = Region(PhysAddr(640 * KIB), PhysAddr(1 * MIB))
"""The area of a PC without RAM: video and ROMs."""


class Scratch:
    """A private copy of a memory: a page is copied when it is written first.

    Reads where there is no RAM return zeros, as in the emulator in which the real code was run
    (what a real machine returns there is not known).
    """

    def __init__(self, memory: ReadableMemory) -> None:
        self.memory = memory
        self._regions = memory.regions
        self._pages: dict[int, bytearray] = {}

    @property
    def low_top(self) -> int:
        """The end of RAM below 4 GiB."""
        ends = (region.clip(0, 4 * GIB) for region in self.memory.regions)
        return max((part.end for part in ends if part is not None), default=0)

    @property
    def top(self) -> int:
        """The end of RAM."""
        return self.memory.regions[-1].end

    @property
    def changed_pages(self) -> list[int]:
        """The addresses of the pages that were written, ascending."""
        return sorted(page * PAGE_SIZE for page in self._pages)

    def is_changed(self, address: int, size_bytes: int) -> bool:
        """Whether any page of these bytes was written."""
        if not self._pages:
            return False
        pages = range(address // PAGE_SIZE, -(-(address + size_bytes) // PAGE_SIZE))
        if len(pages) > len(self._pages):
            return any(page in pages for page in self._pages)
        return any(page in self._pages for page in pages)

    def read(self, address: int, size_bytes: int) -> bytes:
        """The bytes at an address, zeros where there is no RAM."""
        data = self._read_ram(address, size_bytes)
        if not self.is_changed(address, size_bytes):
            return data
        patched = bytearray(data)
        for page in range(address // PAGE_SIZE, -(-(address + size_bytes) // PAGE_SIZE)):
            if page in self._pages:
                start = page * PAGE_SIZE - address
                low, high = max(0, start), min(size_bytes, start + PAGE_SIZE)
                patched[low:high] = self._pages[page][low - start : high - start]
        return bytes(patched)

    def _read_ram(self, address: int, size_bytes: int) -> bytes:
        end = address + size_bytes
        for region in self._regions:
            if region.start <= address and end <= region.end:
                return self.memory.read(PhysAddr(address), size_bytes)
        parts = [part for region in self._regions if (part := region.clip(address, end))]
        data = bytearray(size_bytes)
        for part in parts:
            data[part.start - address : part.end - address] = self.memory.read(
                part.start, part.size_bytes
            )
        return bytes(data)

    def write(self, address: int, data: Buffer) -> None:
        """Write bytes at an address, whether RAM is there or not."""
        done, view = 0, memoryview(data)
        while done < len(view):
            page, offset = divmod(address + done, PAGE_SIZE)
            count = min(PAGE_SIZE - offset, len(view) - done)
            if page not in self._pages:
                whole = count == PAGE_SIZE
                old = bytes(PAGE_SIZE) if whole else self._read_ram(page * PAGE_SIZE, PAGE_SIZE)
                self._pages[page] = bytearray(old)
            self._pages[page][offset : offset + count] = view[done : done + count]
            done += count
