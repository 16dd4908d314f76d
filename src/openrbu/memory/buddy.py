"""The page allocator: power-of-two blocks of pages, as Linux has them.

Theory of operation. No block is larger than order 10, so RAM falls into *chunks* of 1024 pages
(4 MiB, naturally aligned) that never have to do with each other. A chunk is one integer with a
bit for each free page. A free block of order n is 2**n set bits on a multiple of 2**n that is
not half of a larger one: splitting and coalescing are nothing but clearing and setting bits, and
what is free follows from which pages are allocated alone. So a snapshot is the allocated blocks.

One byte per chunk, `_room`, says what a search may hope for there:

====  ==========================================================================
0     nothing free, or no RAM
1-10  nothing free above order `room - 1`. It may be less: a search in vain
      lowers it, a block given back raises it
11    wholly free. Only such a chunk has no integer, so that 1 TiB of untouched
      RAM is a quarter of a MiB here
====  ==========================================================================

Which block: zones from the highest down as with GFP_KERNEL, and in a zone the *lowest* address
where the block fits. (Linux takes the most recently freed block of the smallest order that does.)
So machines with the same history have the same pages, which makes a failure reproducible, and
freed pages are used again before untouched ones, which keeps a RAM file sparse.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, KernelError
from openrbu.formats.buddyinfo import ZoneFree, format_buddyinfo
from openrbu.lazy import np
from openrbu.memory.buddy_bits import (
    ALL_PAGES,
    CHUNK_PAGES,
    RUN,
    bit_numbers,
    block_counts,
    largest_order,
    masks_of,
    places,
)
from openrbu.memory.buddy_state import AllocatorState, allocated_rows
from openrbu.memory.frames import Frames
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.zones import Zone, populated_zones, unreserved
from openrbu.units import MAX_ORDER, PAGE_SHIFT, PAGE_SIZE, PhysAddr, pages_for

if TYPE_CHECKING:
    from random import Random

_IN_CHUNK = CHUNK_PAGES - 1
_WHOLE_ROOM = MAX_ORDER + 1

_ROOM_FOR = tuple(
    re.compile(b"[%c-%c]" % (order + 1, _WHOLE_ROOM)) for order in range(MAX_ORDER + 1)
)
"""Finds the next byte of `_room` that promises a block of an order, at the speed of C."""


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """The pages that `BuddyAllocator.fragment` holds. `release` gives them back, once."""

    allocator: BuddyAllocator
    pages: tuple[PhysAddr, ...]

    def release(self) -> None:
        """Free the held pages; their neighbours coalesce again.

        :raise ValueError: when they have been released before.
        """
        for page in self.pages:
            self.allocator.free(page, 0)


class BuddyAllocator:
    """Hands out pages of `memory`, all of its RAM but what is `reserved` (whole pages of it)."""

    def __init__(self, memory: PhysicalMemory, *, reserved: Iterable[Region] = ()) -> None:
        self._memory = memory
        self._reserved = tuple(reserved)
        self._allocated: dict[int, int] = {}  # first frame -> order
        self._free_bits: dict[int, int] = {}  # chunk -> its free pages, unless wholly free
        self._held: dict[int, int] = {}  # chunk -> its pages that `take_pages` handed out
        self._free_pages = 0
        self._end = pages_for(max(region.end for region in memory.regions))
        self._room = bytearray(-(-self._end // CHUNK_PAGES))
        self._zones = tuple(populated_zones(memory.regions))
        for first, stop in unreserved(memory.regions, self._reserved):
            self._add_ram(first, stop)

    @property
    def memory(self) -> PhysicalMemory:
        return self._memory

    @property
    def free_bytes(self) -> int:
        return self._free_pages * PAGE_SIZE

    def allocate(
        self, order: int, *, below: PhysAddr | None = None, above: PhysAddr | None = None
    ) -> PhysAddr:
        """The address of a block of 2**order pages, naturally aligned.

        It lies wholly below `below` and starts at or above `above`. The highest zone that has
        such a block is used, and the lowest such address in it.

        :raise KernelError: ENOMEM when there is no such block.
        :raise ValueError: when `order` is not 0 to 10.
        """
        _check_order(order)
        floor = 0 if above is None else pages_for(above)
        limit = self._end if below is None else below >> PAGE_SHIFT
        frame = self._find(order, floor, limit)
        if frame is None:
            limits = f" from {above or 0:#x}" + (f" to {below:#x}" if below is not None else "")
            raise KernelError(errno.ENOMEM, detail=f"no free block of order {order}{limits}")
        self._take(frame, order)
        return PhysAddr(frame << PAGE_SHIFT)

    def free(self, address: PhysAddr, order: int) -> None:
        """Take back a block that `allocate` handed out with this order. Nothing is cleared.

        :raise ValueError: when it is no such block: freed before, never allocated, or allocated
            with another order. Nothing is freed then.
        """
        frame = address >> PAGE_SHIFT
        actual = self._allocated.get(frame)
        if actual is None or address % PAGE_SIZE:
            raise ValueError(f"no block is allocated at {address:#x}: freed twice, or never given")
        if actual != order:
            raise ValueError(f"the block at {address:#x} is of order {actual}, not {order}")
        del self._allocated[frame]
        self._put_back(frame >> MAX_ORDER, RUN[order] << (frame & _IN_CHUNK))

    def take_pages(self, count: int) -> Frames:
        """The frames of up to `count` free pages: the lowest ones of a zone, highest zone first.

        Fewer than asked when there are no more. Each zone's come in ascending order. They are
        *held* then, until `give_pages`, and no blocks: `free` refuses them.
        """
        taken = [np.empty(0, np.uint32)]
        while count > 0 and (first := self._find(0, 0, self._end)) is not None:
            chunk = first >> MAX_ORDER
            free = self.free_bits(chunk)
            numbers = bit_numbers(free)[:count]
            self._hold(chunk, free & (2 << int(numbers[-1])) - 1)
            taken.append((numbers + (chunk << MAX_ORDER)).astype(np.uint32))
            count -= len(numbers)
        return np.concatenate(taken)

    def hold_pages(self, frames: Frames) -> None:
        """Take these very pages, as `take_pages` does.

        :raise ValueError: when one of them is not free, or there twice. Then nothing is taken.
        """
        masks = masks_of(frames)
        for chunk, mask in masks.items():
            if chunk >= len(self._room) or mask & ~self.free_bits(chunk):
                raise ValueError("a page to be held is not free")
        for chunk, mask in masks.items():
            self._hold(chunk, mask)

    def give_pages(self, frames: Frames) -> None:
        """Take back pages that `take_pages` or `hold_pages` took, in any order. Nothing is cleared.

        :raise ValueError: when one of them is not held, or there twice. Then nothing is freed.
        """
        masks = masks_of(frames)
        for chunk, mask in masks.items():
            if mask & ~self._held.get(chunk, 0):
                raise ValueError("a page given back is not held: given twice, or never taken")
        for chunk, mask in masks.items():
            self._held[chunk] ^= mask
            self._put_back(chunk, mask)

    def largest_free_order(self, below: PhysAddr | None = None) -> int | None:
        """The largest order that `allocate` would find a block of, or None when all is taken."""
        limit = self._end if below is None else below >> PAGE_SHIFT
        for order in range(MAX_ORDER, -1, -1):
            if self._find(order, 0, limit) is not None:
                return order
        return None

    def free_counts(self) -> dict[str, tuple[int, ...]]:
        """How many free blocks of each order, 0 to 10, each zone that has RAM has."""
        counts = {
            zone.name: [0] * MAX_ORDER + [self._room.count(_WHOLE_ROOM, zone.first, zone.end)]
            for zone in reversed(self._zones)
        }
        for chunk, free in self._free_bits.items():
            row = counts[self._zone_of(chunk).name]
            for order, count in enumerate(block_counts(free)):
                row[order] += count
        return {name: tuple(row) for name, row in counts.items()}

    def free_bits(self, chunk: int) -> int:
        """A bit for each free page of the 1024 that begin at frame 1024 * `chunk`."""
        untouched = ALL_PAGES if self._room[chunk] == _WHOLE_ROOM else 0
        return self._free_bits.get(chunk, untouched)

    def buddyinfo(self) -> str:
        """The free blocks as `/proc/buddyinfo` shows them."""
        return format_buddyinfo(
            ZoneFree(0, name, counts) for name, counts in self.free_counts().items()
        )

    def fragment(self, *, keep_free_order: int, rng: Random | None = None) -> Fragmentation:
        """Hold single pages so that no free block is larger than `keep_free_order`.

        As few as that takes: one page of every block of the next order, its first one, or with
        `rng` any one. For tests of what happens on a machine that has been up for long.

        :raise ValueError: when `keep_free_order` is not 0 to 10.
        """
        _check_order(keep_free_order)
        order = keep_free_order + 1
        pages: list[PhysAddr] = []
        chunk = -1
        while order <= MAX_ORDER:
            match = _ROOM_FOR[order].search(self._room, chunk + 1)
            if match is None:
                break
            chunk = match.start()
            fitting = places(self._free_bits.get(chunk, ALL_PAGES), order)
            for offset in bit_numbers(fitting).tolist():
                frame = chunk * CHUNK_PAGES + offset
                frame += rng.randrange(1 << order) if rng is not None else 0
                self._take(frame, 0)
                pages.append(PhysAddr(frame << PAGE_SHIFT))
        return Fragmentation(self, tuple(pages))

    def has_block(self, address: int, order: int) -> bool:
        """Whether a block of this order is allocated at this address."""
        return not address % PAGE_SIZE and self._allocated.get(address >> PAGE_SHIFT) == order

    def snapshot(self) -> AllocatorState:
        """What `restore` makes the same allocator from. Pages that are held are not in it."""
        reserved = tuple((region.start, region.end) for region in self._reserved)
        return AllocatorState(reserved, allocated_rows(self._allocated))

    @classmethod
    def restore(cls, memory: PhysicalMemory, state: AllocatorState) -> BuddyAllocator:
        """The allocator that the snapshot was taken of, over memory with the same regions.

        :raise DamagedInputError: when it is not one of this memory.
        """
        reserved = [Region(PhysAddr(start), PhysAddr(end)) for start, end in state.reserved]
        allocator = cls(memory, reserved=reserved)
        for order, first, count, distance in state.allocated:
            if order > MAX_ORDER:
                raise DamagedInputError("no block has this order", expected=10, actual=order)
            for position in range(count):
                frame = first + position * distance
                if not allocator._is_free(frame, order):
                    raise DamagedInputError(
                        f"the saved block of order {order} at {frame << PAGE_SHIFT:#x} is not "
                        "RAM, not aligned, reserved, or there twice"
                    )
                allocator._take(frame, order)
        return allocator

    def _find(self, order: int, floor: int, limit: int) -> int | None:
        """The frame that a block of `order` would get, at or above `floor`, all below `limit`."""
        for zone in self._zones:
            frame = self._find_in(zone, order, floor, limit)
            if frame is not None:
                return frame
        return None

    def _find_in(self, zone: Zone, order: int, floor: int, limit: int) -> int | None:
        """The same in one zone."""
        room, next_room = self._room, _ROOM_FOR[order].search
        floor_chunk = floor >> MAX_ORDER
        end = min(zone.end, -(-limit >> MAX_ORDER))
        hint = zone.hints[order]
        chunk = max(hint, floor_chunk)
        fits = 0
        while match := next_room(room, chunk, end):
            chunk = match.start()
            fits = places(self._free_bits.get(chunk, ALL_PAGES), order)
            if not fits:
                room[chunk] = order
            elif chunk == floor_chunk:
                fits &= -1 << (floor & _IN_CHUNK)
            if fits:
                break
            chunk += 1
        else:
            chunk = max(chunk, end)
        if floor <= hint << MAX_ORDER:  # nothing from the hint up to here has been left out
            zone.hints[order] = chunk
        frame = (chunk << MAX_ORDER) + (fits & -fits).bit_length() - 1
        # all other places lie higher, so that with this one none is below the limit
        return frame if fits and frame + (1 << order) <= limit else None

    def _take(self, frame: int, order: int) -> None:
        """Allocate the block at `frame`, which is free."""
        self._remove(frame >> MAX_ORDER, RUN[order] << (frame & _IN_CHUNK))
        self._allocated[frame] = order

    def _hold(self, chunk: int, mask: int) -> None:
        """Hold these pages of a chunk, which are free."""
        self._remove(chunk, mask)
        self._held[chunk] = self._held.get(chunk, 0) | mask

    def _remove(self, chunk: int, mask: int) -> None:
        """Have these pages of a chunk free no more."""
        self._free_bits[chunk] = self.free_bits(chunk) ^ mask
        self._room[chunk] = min(self._room[chunk], MAX_ORDER)  # wholly free no more
        self._free_pages -= mask.bit_count()

    def _put_back(self, chunk: int, mask: int) -> None:
        """Make these pages of a chunk free, which are not."""
        self._free_pages += mask.bit_count()
        free = self._free_bits[chunk] | mask
        if free == ALL_PAGES:
            del self._free_bits[chunk]
            self._raise_room(chunk, _WHOLE_ROOM)
            return
        self._free_bits[chunk] = free
        if self._room[chunk] < MAX_ORDER:
            self._raise_room(chunk, largest_order(free) + 1)

    def _is_free(self, frame: int, order: int) -> bool:
        chunk, offset = frame >> MAX_ORDER, frame & _IN_CHUNK
        if offset % (1 << order) or chunk >= len(self._room):
            return False
        return bool(places(self.free_bits(chunk), order) >> offset & 1)

    def _raise_room(self, chunk: int, room: int) -> None:
        """A block of order `room - 1` is free in `chunk` now."""
        before = self._room[chunk]
        if room <= before:
            return
        self._room[chunk] = room
        hints = self._zone_of(chunk).hints
        for order in range(before, room):
            hints[order] = min(hints[order], chunk)

    def _zone_of(self, chunk: int) -> Zone:
        return next(zone for zone in self._zones if zone.first <= chunk < zone.end)

    def _add_ram(self, first: int, stop: int) -> None:
        """Make the frames from `first` up to `stop` free ones."""
        self._free_pages += stop - first
        first_chunk, last_chunk = first >> MAX_ORDER, (stop - 1) >> MAX_ORDER
        inner = max(0, last_chunk - first_chunk - 1)
        self._room[first_chunk + 1 : first_chunk + 1 + inner] = bytes([_WHOLE_ROOM]) * inner
        for chunk in {first_chunk, last_chunk}:
            start = chunk << MAX_ORDER
            low, high = max(first - start, 0), min(stop - start, CHUNK_PAGES)
            free = self._free_bits.pop(chunk, 0) | (1 << high) - (1 << low)
            self._room[chunk] = _WHOLE_ROOM if free == ALL_PAGES else MAX_ORDER
            if free != ALL_PAGES:
                self._free_bits[chunk] = free


def _check_order(order: int) -> None:
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"there is no order {order}: orders are 0 to {MAX_ORDER}")
