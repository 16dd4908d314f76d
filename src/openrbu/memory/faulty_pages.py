"""Page sources that fail because a fault wants it: `memory.faults`."""

from __future__ import annotations

import errno

from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.buddy_bits import places
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import PhysAddr


class FaultyPages:
    """A `PageSource` whose allocations fail on demand. All other calls go to `source`.

    - `fail_nth`: only this allocation fails, counted from 1.
    - `fail_all_after`: all allocations after this many fail.
    - `fail_above_order`: all allocations of a larger order fail.

    `calls` is the number of calls of `allocate`, failed ones included.
    """

    def __init__(
        self,
        source: PageSource,
        *,
        fail_nth: int | None = None,
        fail_all_after: int | None = None,
        fail_above_order: int | None = None,
    ) -> None:
        self._source = source
        self._fail_nth = fail_nth
        self._fail_all_after = fail_all_after
        self._fail_above_order = fail_above_order
        self.calls = 0

    @property
    def memory(self) -> PhysicalMemory:
        """The memory to which the pages belong."""
        return self._source.memory

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """Allocate a block from the source, or fail on demand.

        :raise KernelError: ENOMEM when this call has to fail, or the source has no such block.
        """
        self.calls += 1
        if (
            self.calls == self._fail_nth
            or (self._fail_all_after is not None and self.calls > self._fail_all_after)
            or (self._fail_above_order is not None and order > self._fail_above_order)
        ):
            raise KernelError(
                errno.ENOMEM, detail=f"allocation {self.calls} (order {order}) fails on demand"
            )
        return self._source.allocate(order, below=below)

    def free(self, address: PhysAddr, order: int) -> None:
        """Give a block back to the source."""
        self._source.free(address, order)


class ChangingPages:
    """A `PageSource` whose free blocks above `_KEPT_ORDER` come and go.

    Something has taken a page of each at first. After each look it gives them back, or takes them
    again: what a look sees does not last.
    """

    def __init__(self, source: BuddyAllocator) -> None:
        self._source = source
        self._taken: dict[int, int] = {}  # chunk -> pages
        self._take()

    @property
    def memory(self) -> PhysicalMemory:
        """The memory to which the pages belong."""
        return self._source.memory

    def buddyinfo(self) -> str:
        """A look at `/proc/buddyinfo`."""
        shown = self._source.buddyinfo()
        if self._taken:
            self._give_back()
        else:
            self._take()
        return shown

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """Allocate a block from the source.

        :raise KernelError: ENOMEM when there is none.
        """
        return self._source.allocate(order, below=below)

    def free(self, address: PhysAddr, order: int) -> None:
        """Give a block back to the source."""
        self._source.free(address, order)

    def _take(self) -> None:
        for chunk in range(self._source.chunk_count):
            pages = places(self._source.free_bits(chunk), _KEPT_ORDER + 1)
            if pages:
                self._source.withdraw_bits(chunk, pages)
                self._taken[chunk] = pages

    def _give_back(self) -> None:
        for chunk, pages in self._taken.items():
            self._source.give_bits(chunk, pages)
        self._taken.clear()


_KEPT_ORDER = 2
"""A block of 16 KiB is there all the time."""
