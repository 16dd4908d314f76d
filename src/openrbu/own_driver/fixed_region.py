"""Memory for the driver that is one region with a fixed place, kept free by a prepared boot.

The region is there from the start of Linux to its end. So nothing is taken or moved, and what is
handed out is all that the record has to say beside it. When it is given back, all of it is
cleared: whatever a killed process has written is in it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.physical import Region
from openrbu.own_driver.blocks import FreeBlocks
from openrbu.own_driver.own_memory import LARGEST_ORDER, AllocatedRows, Note, OwnMemoryRecord
from openrbu.own_driver.written_memory import Door, WrittenMemory
from openrbu.units import HUGE_PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE, PhysAddr, human_size, order_for

MakeRecord = Callable[[bool, AllocatedRows], OwnMemoryRecord]
"""Makes the record: whether something was ever handed out, and the blocks that are."""


class FixedRegion:
    """An `OwnMemory` of one region. `make_record` makes its record."""

    def __init__(
        self, kind: str, region: Region, door: Door, make_record: MakeRecord, note: Note
    ) -> None:
        self.kind = kind
        self._region, self._door, self._make_record, self._note = region, door, make_record, note
        pages = region.size_bytes >> PAGE_SHIFT
        self.largest_order = min(LARGEST_ORDER, max(0, pages.bit_length() - 1))
        self._memory = WrittenMemory(region, door)
        self._free = self._all_free()
        self._is_used = False

    def _all_free(self) -> FreeBlocks:
        return FreeBlocks([self._region], alignment_bytes=HUGE_PAGE_BYTES)

    @property
    def memory(self) -> WrittenMemory:
        return self._memory

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        address = self._free.allocate(order, below=below)
        if not self._is_used:
            self._is_used = True
            self._note(self.record())  # before anything is written
        return address

    def free(self, address: PhysAddr, order: int) -> None:
        self._free.free(address, order)

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        trial, order = self._free.copy(), order_for(block_bytes)
        blocks = -(-size_bytes // block_bytes)
        for number in range(blocks):
            try:
                trial.allocate(order, below=below)
            except KernelError:
                raise KernelError(
                    errno.ENOMEM,
                    detail=f"{number} of {blocks} blocks of {human_size(PAGE_SIZE << order)} are "
                    f"free from {self._region.start:#x} to {self._region.end:#x}",
                ) from None

    def moved(self) -> tuple[Region, ...]:
        """All of it where the region is no longer what it was, or somebody else uses it."""
        return () if self._door.is_in_place() else (self._region,)

    def flush(self, regions: Iterable[Region]) -> bool:
        """Write all that was written so far to memory, and verify it there: see `OwnMemory`.
        Caches are not flushed: no process has this memory mapped.

        :raise OSError: when it can't be written.
        """
        self._memory.commit()
        return False

    def record(self) -> OwnMemoryRecord:
        return self._make_record(self._is_used, self._free.allocated_rows())

    def restore(self, allocated: AllocatedRows, *, is_used: bool) -> None:
        """Have these blocks handed out; there are none yet.

        :raise DamagedInputError: when they are not in the region.
        """
        self._free.take_rows(allocated)
        self._is_used = is_used

    def give_back(self) -> None:
        if self._is_used:
            self._memory.clear()
        self._free, self._is_used = self._all_free(), False
        self._note(self.record())


def region_of(start: int, end: int) -> Region:
    """The region of a record.

    :raise DamagedInputError: when it is not whole pages.
    """
    if start % PAGE_SIZE or end % PAGE_SIZE or start >= end:
        raise DamagedInputError(f"there is no memory for a driver from {start:#x} to {end:#x}")
    return Region(PhysAddr(start), PhysAddr(end))
