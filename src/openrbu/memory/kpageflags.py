"""`/proc/kpageflags`: which pages are free or will be, for whoever wants to know what a place is
worth.

The file has a u64 for each page frame (Linux, Documentation/admin-guide/mm/pagemap.rst). Only root
can read it. It tells the memory that a driver holds from a copy that may be overwritten before the
restart is done:

===  =========  ==================================================================================
bit  name       the page
===  =========  ==================================================================================
10   BUDDY      is free memory: what a freed buffer left behind
5    LRU        is the page cache's or a program's, which the kernel takes back when it likes
11   MMAP       is mapped by a program, and free when that ends, at the latest in the restart
12   ANON       is a program's own memory, the same
===  =========  ==================================================================================

What a driver got from the kernel has none of them (seen on Debian's 6.1.192 with `dell_rbu`: no bit
in monolithic mode, bit 39 in packet mode). A page without them need not be held: BUDDY is on every
page of every block that `/proc/buddyinfo` counts, and on none of the pages in per-CPU lists.
"""

from __future__ import annotations

import errno

import numpy as np
import numpy.typing as npt

from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.pages import Frames
from openrbu.units import BIOS_SEARCH_END, MAX_ORDER, PAGE_SHIFT, PAGE_SIZE

ENTRY_BYTES = 8
BUDDY_BIT = 10
LRU_BIT, MMAP_BIT, ANON_BIT = 5, 11, 12

_FLEETING = sum(1 << bit for bit in (BUDDY_BIT, LRU_BIT, MMAP_BIT, ANON_BIT))

SEARCHED_BYTES = ENTRY_BYTES * (BIOS_SEARCH_END >> PAGE_SHIFT)
"""As much of the file as there are pages that a BIOS searches."""

_CHUNK_PAGES = 1 << MAX_ORDER


class PageFlags:
    """The file, made of an allocator's state; other bits than BUDDY are 0."""

    def __init__(self, allocator: BuddyAllocator) -> None:
        self._allocator = allocator
        self._frames = max(region.end for region in allocator.memory.regions) >> PAGE_SHIFT

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`.

        :raise KernelError: EINVAL when offset or size is no multiple of 8, as Linux answers.
        """
        if offset % ENTRY_BYTES or size_bytes % ENTRY_BYTES:
            raise KernelError(errno.EINVAL, "/proc/kpageflags")
        first = offset // ENTRY_BYTES
        last = min(first + size_bytes // ENTRY_BYTES, self._frames)
        chunks = range(first >> MAX_ORDER, -(-last >> MAX_ORDER))
        width = _CHUNK_PAGES // 8
        bits = b"".join(self._allocator.free_bits(n).to_bytes(width, "little") for n in chunks)
        free = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
        skip = first - (chunks.start << MAX_ORDER)
        wanted = free[skip : skip + max(0, last - first)].astype("<u8") << BUDDY_BIT
        return wanted.tobytes()


class FreePages:
    """Which of the pages that a BIOS searches are free or will be: `flags` is the file's start.

    On a hypervisor `table` has the place of each frame in the machine's memory, and `flags` covers
    it. What is in no frame of the table is another system's there, and counts as free.
    """

    def __init__(self, flags: bytes, table: Frames | None = None) -> None:
        whole = len(flags) - len(flags) % ENTRY_BYTES
        entries = np.frombuffer(flags, "<u8", whole // ENTRY_BYTES)
        is_free = ((entries & _FLEETING) != 0).astype(np.uint8)
        if table is not None:
            is_free = _by_place(is_free, table)
        self._is_free: bytes = is_free.tobytes()

    def any_in(self, address: int, size_bytes: int) -> bool:
        """Whether a page of this place is free or will be."""
        first, end = address >> PAGE_SHIFT, -(-(address + size_bytes) // PAGE_SIZE)
        return self._is_free.find(1, first, end) >= 0


def _by_place(is_free: npt.NDArray[np.uint8], table: Frames) -> npt.NDArray[np.uint8]:
    """The same for the pages of the machine's memory that a BIOS searches."""
    places = table[: len(is_free)]
    searched = places < BIOS_SEARCH_END >> PAGE_SHIFT
    by_place = np.ones(BIOS_SEARCH_END >> PAGE_SHIFT, np.uint8)
    by_place[places[searched]] = is_free[: len(places)][searched]
    return by_place
