"""An allocator of blocks in a few regions of memory, of any size that is contiguous there.

The page allocator of the simulated kernel (`memory.buddy`) is a kernel's: no block of it is larger
than 4 MiB. This one keeps the free parts of its regions in one list, joins what is adjacent, and
takes the lowest part that fits.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.buddy_state import allocated_rows
from openrbu.memory.physical import Region
from openrbu.own_driver.own_memory import AllocatedRows
from openrbu.units import GIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr, human_size

_HIGH = 4 * GIB

_MAX_ROW_ORDER = 40
"""No memory has a block of a larger order."""


class FreeBlocks:
    """Hands out blocks of `regions`, and takes them back.

    A block of up to `alignment_bytes` bytes is naturally aligned; a larger one starts on a multiple
    of `alignment_bytes`.
    """

    def __init__(self, regions: Iterable[Region] = (), *, alignment_bytes: int) -> None:
        self._alignment = alignment_bytes
        self._free: list[tuple[int, int]] = []  # [start, end), ascending, none adjacent
        self._allocated: dict[int, int] = {}  # first frame -> order
        for region in regions:
            self.add(region)

    def copy(self) -> FreeBlocks:
        """Another allocator with the same free parts and blocks."""
        other = FreeBlocks(alignment_bytes=self._alignment)
        other._free, other._allocated = list(self._free), dict(self._allocated)
        return other

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self._free)

    @property
    def is_used(self) -> bool:
        """Whether a block is handed out."""
        return bool(self._allocated)

    def add(self, region: Region) -> None:
        """Have this region, too; it is free.

        :raise ValueError: when a byte of it is free already.
        """
        start, end = int(region.start), int(region.end)
        place = bisect_left(self._free, (start, end))
        before = self._free[place - 1] if place else (-1, -1)
        after = self._free[place] if place < len(self._free) else (end + 1, end + 1)
        if before[1] > start or after[0] < end:
            raise ValueError(f"a byte from {start:#x} to {end:#x} is free already")
        if after[0] == end:
            end = after[1]
            del self._free[place]
        if before[1] == start:
            self._free[place - 1] = (before[0], end)
        else:
            self._free.insert(place, (start, end))

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """Allocate a block of 2**order pages that ends at or below `below`. Returns its address.

        It is the lowest one above 4 GiB; where there is none, or with a `below` of up to 4 GiB, the
        lowest one of all.

        :raise KernelError: ENOMEM when there is no such block.
        :raise ValueError: when `order` is negative.
        """
        found = self._find(PAGE_SIZE << order, below)
        if found is None:
            limit = "" if below is None else f" below {below:#x}"
            size = human_size(PAGE_SIZE << order)
            raise KernelError(errno.ENOMEM, detail=f"no free block of {size}{limit}")
        place, address = found
        self._take(place, address, order)
        return PhysAddr(address)

    def free(self, address: PhysAddr, order: int) -> None:
        """Take back a block that `allocate` handed out with this order. Its bytes stay.

        :raise ValueError: when it is not such a block. Nothing is freed then.
        """
        frame = address >> PAGE_SHIFT
        if address % PAGE_SIZE or self._allocated.get(frame) != order:
            raise ValueError(f"no block of order {order} is allocated at {address:#x}")
        del self._allocated[frame]
        self.add(Region(address, PhysAddr(address + (PAGE_SIZE << order))))

    def allocated_rows(self) -> AllocatedRows:
        """The blocks that are handed out, as they are saved."""
        return allocated_rows(self._allocated)

    def take_rows(self, rows: AllocatedRows) -> None:
        """Hand out the blocks of a saved list again.

        :raise DamagedInputError: when one of them is not free here.
        """
        for order, first, count, distance in rows:
            for number in range(count):
                address = (first + number * distance) << PAGE_SHIFT
                place = bisect_right(self._free, (address, 1 << 64)) - 1
                size_bytes = PAGE_SIZE << min(order, _MAX_ROW_ORDER)
                if place < 0 or address + size_bytes > self._free[place][1]:
                    raise DamagedInputError(
                        f"the saved block of order {order} at {address:#x} is not in the memory "
                        "that was taken, or is saved twice"
                    )
                self._take(place, address, order)

    def _find(self, size_bytes: int, below: int | None) -> tuple[int, int] | None:
        """The block that `allocate` chooses: the place of its free part, and its address."""
        alignment = min(size_bytes, self._alignment)
        if below is None or below > _HIGH:
            found = self._find_from(_HIGH, size_bytes, alignment, below)
            if found is not None:
                return found
        return self._find_from(0, size_bytes, alignment, below)

    def _find_from(
        self, floor: int, size_bytes: int, alignment: int, below: int | None
    ) -> tuple[int, int] | None:
        """The lowest block that starts at or above `floor`."""
        first = max(0, bisect_right(self._free, (floor, 1 << 64)) - 1)
        for place in range(first, len(self._free)):
            start, end = self._free[place]
            address = -(-max(start, floor) // alignment) * alignment
            stop = end if below is None else min(end, below)
            if address + size_bytes <= stop:
                return place, address
            if below is not None and start >= below:
                return None
        return None

    def _take(self, place: int, address: int, order: int) -> None:
        """Allocate the block at `address`, which is in the free part at `place`."""
        start, end = self._free.pop(place)
        stop = address + (PAGE_SIZE << order)
        for part in ((start, address), (stop, end)):
            if part[0] < part[1]:
                insort(self._free, part)
        self._allocated[address >> PAGE_SHIFT] = order
