"""The page allocator: power-of-two blocks of pages, as Linux has them.

Theory of operation. No block is larger than order 10, so RAM is divided into *chunks* of 1024
pages (4 MiB, naturally aligned) that are independent of each other. A chunk is one integer with a
bit for each free page. A free block of order n is 2**n set bits that begin at a multiple of 2**n
and are not half of a larger free block. So to split and to coalesce blocks is only to clear and to
set bits, and the allocated pages alone determine which blocks are free. A snapshot is therefore the
list of allocated blocks.

One byte per chunk, `_room`, is an upper limit for what a search can find there:

====  ==========================================================================
0     nothing is free, or there is no RAM
1-10  no free block is above order `room - 1`. The largest may be smaller: a
      search that finds nothing lowers the byte, a freed block raises it
11    all pages are free. Such a chunk has no integer, so that 1 TiB of unused
      RAM takes a quarter of a MiB here
====  ==========================================================================

Which block is chosen: the highest zone that has one, as with GFP_KERNEL, and in that zone the
*lowest* address where the block fits. (Linux takes the block that was freed last, of the smallest
order that fits.) So machines with the same history have the same pages, which makes a failure
reproducible; and freed pages are used before unused ones, which keeps a RAM file sparse.
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
"""For each order, a pattern that finds the next byte of `_room` which allows such a block (a
regular expression searches bytes at the speed of C)."""


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """The pages that `BuddyAllocator.fragment` allocated. `release` frees them, once."""

    allocator: BuddyAllocator
    pages: tuple[PhysAddr, ...]

    def release(self) -> None:
        """Free the pages; they coalesce with their neighbours again.

        :raise ValueError: when they were released before.
        """
        for page in self.pages:
            self.allocator.free(page, 0)


class BuddyAllocator:
    """Hands out the pages of `memory`: all of its RAM except each page with a `reserved` byte."""

    def __init__(self, memory: PhysicalMemory, *, reserved: Iterable[Region] = ()) -> None:
        self._memory = memory
        self._reserved = tuple(reserved)
        self._allocated: dict[int, int] = {}  # first frame -> order
        self._free_bits: dict[int, int] = {}  # chunk -> its free pages, unless wholly free
        self._withdrawn: dict[int, int] = {}  # chunk -> its withdrawn pages
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
    def reserved(self) -> tuple[Region, ...]:
        """What is never free."""
        return self._reserved

    @property
    def chunk_count(self) -> int:
        """How many chunks there are up to the end of RAM."""
        return len(self._room)

    @property
    def free_bytes(self) -> int:
        return self._free_pages * PAGE_SIZE

    def allocate(
        self, order: int, *, below: PhysAddr | None = None, above: PhysAddr | None = None
    ) -> PhysAddr:
        """Allocate a block of 2**order pages, naturally aligned. Returns its address.

        The block ends at or below `below` and starts at or above `above`. It is the lowest such
        block of the highest zone that has one.

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
        """Take back a block that `allocate` handed out with this order. Its bytes stay.

        :raise ValueError: when it is not such a block: freed before, never allocated, or allocated
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
        """Withdraw up to `count` free pages, those with the lowest addresses of the highest zone
        first. Returns their frames, shape (n,), ascending within each zone.

        n is less than `count` when there are no more. Withdrawn pages are not handed out until
        `give_pages`. They are not blocks: `free` refuses them.
        """
        taken = [np.empty(0, np.uint32)]
        while count > 0 and (first := self._find(0, 0, self._end)) is not None:
            chunk = first >> MAX_ORDER
            free = self.free_bits(chunk)
            numbers = bit_numbers(free)[:count]
            self._withdraw(chunk, free & (2 << int(numbers[-1])) - 1)
            taken.append((numbers + (chunk << MAX_ORDER)).astype(np.uint32))
            count -= len(numbers)
        return np.concatenate(taken)

    def withdraw_pages(self, frames: Frames) -> None:
        """Withdraw exactly these pages; otherwise as `take_pages`.

        :raise ValueError: when one of them is not free, or is given twice. None is withdrawn then.
        """
        masks = masks_of(frames)
        for chunk, mask in masks.items():
            if chunk >= len(self._room) or mask & ~self.free_bits(chunk):
                raise ValueError("a page to be withdrawn is not free")
        for chunk, mask in masks.items():
            self._withdraw(chunk, mask)

    def withdraw_bits(self, chunk: int, mask: int) -> None:
        """Withdraw the pages of a chunk that `mask` has, as `free_bits` counts them.

        :raise ValueError: when one of them is not free. None is withdrawn then.
        """
        if mask & ~self.free_bits(chunk):
            raise ValueError("a page to be withdrawn is not free")
        self._withdraw(chunk, mask)

    def give_pages(self, frames: Frames) -> None:
        """Make withdrawn pages free again, in any order. Their bytes stay.

        :raise ValueError: when one of them is not withdrawn, or is given twice. None is freed then.
        """
        masks = masks_of(frames)
        for chunk, mask in masks.items():
            if mask & ~self._withdrawn.get(chunk, 0):
                raise ValueError("a page given back is not withdrawn: given twice, or never taken")
        for chunk, mask in masks.items():
            self.give_bits(chunk, mask)

    def give_bits(self, chunk: int, mask: int) -> None:
        """Make these withdrawn pages of a chunk free again."""
        self._withdrawn[chunk] ^= mask
        self._put_back(chunk, mask)

    def largest_free_order(self, below: PhysAddr | None = None) -> int | None:
        """The largest order of which `allocate` would find a block; None when no page is free."""
        limit = self._end if below is None else below >> PAGE_SHIFT
        for order in range(MAX_ORDER, -1, -1):
            if self._find(order, 0, limit) is not None:
                return order
        return None

    def free_counts(self) -> dict[str, tuple[int, ...]]:
        """For each zone that has RAM, by name: how many free blocks of each order (0 to 10)."""
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
        """The free pages of a chunk: bit n is frame 1024 * `chunk` + n."""
        untouched = ALL_PAGES if self._room[chunk] == _WHOLE_ROOM else 0
        return self._free_bits.get(chunk, untouched)

    def buddyinfo(self) -> str:
        """The free blocks as `/proc/buddyinfo` shows them."""
        return format_buddyinfo(
            ZoneFree(0, name, counts) for name, counts in self.free_counts().items()
        )

    def fragment(self, *, keep_free_order: int, rng: Random | None = None) -> Fragmentation:
        """Allocate single pages so that no free block is larger than `keep_free_order`.

        It allocates as few as possible: one page of every block of the next order (the first one;
        with `rng`, a random one). For tests of a machine that has run for a long time.

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
        """The state from which `restore` makes the same allocator, without withdrawn pages."""
        reserved = tuple((region.start, region.end) for region in self._reserved)
        return AllocatorState(reserved, allocated_rows(self._allocated))

    @classmethod
    def restore(cls, memory: PhysicalMemory, state: AllocatorState) -> BuddyAllocator:
        """The allocator of which the snapshot was taken, over memory with the same regions.

        :raise DamagedInputError: when the snapshot does not fit this memory.
        """
        reserved = [Region(PhysAddr(start), PhysAddr(end)) for start, end in state.reserved]
        allocator = cls(memory, reserved=reserved)
        for order, first, count, distance in state.allocated:
            if order > MAX_ORDER:
                raise DamagedInputError(
                    f"a saved block has order {order}: orders are 0 to {MAX_ORDER}",
                    expected=MAX_ORDER,
                    actual=order,
                )
            for position in range(count):
                frame = first + position * distance
                if not allocator._is_free(frame, order):
                    raise DamagedInputError(
                        f"the saved block of order {order} at {frame << PAGE_SHIFT:#x} is not "
                        "RAM, not aligned, reserved, or saved twice"
                    )
                allocator._take(frame, order)
        return allocator

    def _find(self, order: int, floor: int, limit: int) -> int | None:
        """The first frame of the free block that `allocate` would choose, None if there is none.

        All of its frames are at or above `floor` and below `limit`.
        """
        for zone in self._zones:
            frame = self._find_in(zone, order, floor, limit)
            if frame is not None:
                return frame
        return None

    def _find_in(self, zone: Zone, order: int, floor: int, limit: int) -> int | None:
        """`_find` in one zone. Lowers the room of chunks where nothing was found."""
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
        if floor <= hint << MAX_ORDER:  # no chunk from the hint up to here was skipped
            zone.hints[order] = chunk
        frame = (chunk << MAX_ORDER) + (fits & -fits).bit_length() - 1
        # all other candidates are higher: if this one is not below the limit, none is
        return frame if fits and frame + (1 << order) <= limit else None

    def _take(self, frame: int, order: int) -> None:
        """Allocate the block at `frame`, which is free."""
        self._remove(frame >> MAX_ORDER, RUN[order] << (frame & _IN_CHUNK))
        self._allocated[frame] = order

    def _withdraw(self, chunk: int, mask: int) -> None:
        """Withdraw these pages of a chunk, which are free."""
        self._remove(chunk, mask)
        self._withdrawn[chunk] = self._withdrawn.get(chunk, 0) | mask

    def _remove(self, chunk: int, mask: int) -> None:
        """Mark these pages of a chunk, which are free, as not free."""
        self._free_bits[chunk] = self.free_bits(chunk) ^ mask
        self._room[chunk] = min(self._room[chunk], MAX_ORDER)  # not all of it is free
        self._free_pages -= mask.bit_count()

    def _put_back(self, chunk: int, mask: int) -> None:
        """Mark these pages of a chunk, which are not free, as free."""
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
        """Note that a block of order `room - 1` is free in `chunk` now."""
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
        """Mark the frames from `first` up to, not including, `stop` as free."""
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
