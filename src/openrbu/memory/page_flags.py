"""`/proc/kpageflags`: which pages are free or will be, for whoever wants to know what a place is
worth.

The file has a u64 for each page frame (docs/reference/linux-files.md, L5). Only root
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

from collections.abc import Iterable

from openrbu.lazy import np, npt
from openrbu.memory.frames import Frames
from openrbu.units import PAGE_SHIFT, PAGE_SIZE

ENTRY_BYTES = 8


BUDDY_BIT = 10


LRU_BIT, MMAP_BIT, ANON_BIT = 5, 11, 12


_FLEETING = sum(1 << bit for bit in (BUDDY_BIT, LRU_BIT, MMAP_BIT, ANON_BIT))


class FreePages:
    """Which pages are free or will be, as far as it was read.

    `parts`: of the file, ascending, each with the number of the frame that it begins with.
    """

    def __init__(self, parts: Iterable[tuple[int, bytes]]) -> None:
        self._parts = [(first, _free_in(flags).tobytes()) for first, flags in parts]

    @classmethod
    def by_place(cls, flags: bytes, table: Frames, end: int) -> FreePages:
        """The same on a hypervisor: `table` has the place of each frame in the machine's memory,
        and `flags` covers it. What is in no frame of the table is another system's there, and
        counts as free. Nothing is known of places from the address `end` on.
        """
        is_free = _free_in(flags)
        places = table[: len(is_free)]
        by_place = np.ones(-(-end // PAGE_SIZE), np.uint8)
        is_asked = places < len(by_place)
        by_place[places[is_asked]] = is_free[: len(places)][is_asked]
        pages = cls(())
        pages._parts = [(0, by_place.tobytes())]
        return pages

    def any_in(self, address: int, size_bytes: int) -> bool:
        """Whether a page of this place is free or will be."""
        low, high = address >> PAGE_SHIFT, -(-(address + size_bytes) // PAGE_SIZE)
        return any(
            is_free.find(1, max(0, low - first), max(0, high - first)) >= 0
            for first, is_free in self._parts
        )


def _free_in(flags: bytes) -> npt.NDArray[np.uint8]:
    """1 for each page that is free or will be, else 0; shape (entries,)."""
    entries = np.frombuffer(flags, "<u8", len(flags) // ENTRY_BYTES)
    is_free: npt.NDArray[np.uint8] = ((entries & _FLEETING) != 0).astype(np.uint8)
    return is_free
