"""`/proc/kpageflags`: which pages are free now, or will be free before a restart is done.

The file has a u64 for each page frame (docs/reference/linux-files.md, L5). Only root can read it.
It tells the memory of a driver from a leftover copy that may be overwritten before the restart is
done. A page with one of these bits may be overwritten:

===  =========  ==================================================================================
bit  name       the page
===  =========  ==================================================================================
10   BUDDY      is free; it may still have the bytes of a freed buffer
5    LRU        belongs to the page cache or to a program; the kernel may take it at any time
11   MMAP       is mapped by a program; it is free when that ends, at the latest in the restart
12   ANON       is a program's own memory; it is free when that ends, too
===  =========  ==================================================================================

Memory that a driver got from the kernel has none of them (measured on Debian's 6.1.192 with
`dell_rbu`: no bit in monolithic mode, bit 39 in packet mode). A page without these bits may still
be free: BUDDY is set for every page of every block that `/proc/buddyinfo` counts, but for none of
the pages in per-CPU lists.
"""

from __future__ import annotations

from collections.abc import Iterable

from openrbu.lazy import np, npt
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.units import PAGE_SHIFT, PAGE_SIZE

ENTRY_BYTES = 8


BUDDY_BIT = 10


LRU_BIT, MMAP_BIT, ANON_BIT = 5, 11, 12


_FREE_SOON_BITS = sum(1 << bit for bit in (BUDDY_BIT, LRU_BIT, MMAP_BIT, ANON_BIT))


class FreePages:
    """Which pages are free or will be, of those whose flags were read.

    `parts`: the parts of the file that were read, ascending; of each its first frame and its bytes.
    `held`: regions that somebody holds until the restart, whatever their flags say: huge pages in a
    file that outlives its programs look like those of a program.
    """

    def __init__(self, parts: Iterable[tuple[int, bytes]], held: Iterable[Region] = ()) -> None:
        spans = [(part.start >> PAGE_SHIFT, -(-part.end // PAGE_SIZE)) for part in held]
        self._parts: list[tuple[int, bytes]] = []
        for first, flags in parts:
            is_free = _free_in(flags)
            for start, end in spans:
                is_free[max(0, start - first) : max(0, end - first)] = 0
            self._parts.append((first, is_free.tobytes()))

    @classmethod
    def by_machine_frame(cls, flags: bytes, table: Frames, end: int) -> FreePages:
        """The same by machine frame, for a system that runs on a hypervisor.

        `table` has the machine frame of each of the system's frames, shape (frames,), and `flags`
        are the flags of these frames. A machine frame that is not in the table belongs to another
        system and counts as free. Machine frames at or above the address `end` are not known.
        """
        is_free = _free_in(flags)
        frames = table[: len(is_free)]
        by_machine_frame = np.ones(-(-end // PAGE_SIZE), np.uint8)
        is_below_end = frames < len(by_machine_frame)
        by_machine_frame[frames[is_below_end]] = is_free[: len(frames)][is_below_end]
        pages = cls(())
        pages._parts = [(0, by_machine_frame.tobytes())]
        return pages

    def any_in(self, address: int, size_bytes: int) -> bool:
        """Whether any page in [address, address + size_bytes) is free or will be."""
        low, high = address >> PAGE_SHIFT, -(-(address + size_bytes) // PAGE_SIZE)
        for first, is_free in self._parts:  # called for each packet
            if high > first and is_free.find(1, max(0, low - first), high - first) >= 0:
                return True
        return False


def _free_in(flags: bytes) -> npt.NDArray[np.uint8]:
    """1 for each page that is free or will be, else 0; shape (pages,)."""
    entries = np.frombuffer(flags, "<u8", len(flags) // ENTRY_BYTES)
    is_free: npt.NDArray[np.uint8] = ((entries & _FREE_SOON_BITS) != 0).astype(np.uint8)
    return is_free
