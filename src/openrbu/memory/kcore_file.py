"""`/proc/kcore` as a kernel makes it: an ELF core (elf(5)) over physical memory.

A loadable segment for each range of RAM in the direct map, in which the byte at address A lies at
offset A + `DISTANCE` of the file, as on 6.1.192, x86-64. The other segments of a real kernel's file
(its text, its vmalloc space) show the same bytes, or none of RAM, and are left out, as are notes.
What lies between the segments is zeros.
"""

from __future__ import annotations

import errno

from openrbu.errors import AddressError, KernelError
from openrbu.formats.elf_core import Segment, core_headers
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import PAGE_SIZE, PhysAddr

DIRECT_MAP = 0xFFFF_8880_0000_0000
"""The virtual address of physical address 0."""

DISTANCE = 0x0880_0000_4000
"""The direct map's place in the kernel's half of all addresses, behind what the headers have."""

SIZE_BYTES = 0x7FFF_FF00_4000
"""What stat(2) shows."""


class KcoreFile:
    """The file over `memory`, of which the first page is not shown."""

    size_bytes = SIZE_BYTES

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory = memory
        first, *rest = memory.regions
        self._regions = (Region(PhysAddr(max(first.start, PAGE_SIZE)), first.end), *rest)
        self._headers = core_headers(map(_segment, self._regions), PAGE_SIZE)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`: always as many bytes as are asked for.

        :raise KernelError: EFAULT where there is no page, in a guest of Xen.
        """
        try:
            return self._read(offset, size_bytes)
        except AddressError:
            raise KernelError(errno.EFAULT, "/proc/kcore") from None

    def _read(self, offset: int, size_bytes: int) -> bytes:
        first, end = offset - DISTANCE, offset + size_bytes - DISTANCE
        parts = [
            part
            for region in self._regions
            if (inside := region.clip(first, end)) is not None
            for part in self._memory.populated(inside.start, inside.end)
        ]
        if not parts and offset >= len(self._headers):  # most of the memory of most machines
            return bytes(size_bytes)
        if parts == [Region(PhysAddr(first), PhysAddr(end))]:
            return self._memory.read(PhysAddr(first), size_bytes)
        data = bytearray(size_bytes)
        head = self._headers[offset : offset + size_bytes]
        data[: len(head)] = head
        for part in parts:
            at = part.start - first
            data[at : at + part.size_bytes] = self._memory.read(part.start, part.size_bytes)
        return bytes(data)


def _segment(region: Region) -> Segment:
    address = region.start
    return Segment(address + DISTANCE, address + DIRECT_MAP, address, region.size_bytes)
