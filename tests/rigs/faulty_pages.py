"""Memory that runs out when a test wants it to."""

from __future__ import annotations

import errno

from openrbu.errors import KernelError
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import PhysAddr


class FaultyPages:
    """A `PageSource` whose allocations fail on demand; all else goes to `source`.

    - `fail_nth`: this one allocation fails, counted from 1; a retry works.
    - `fail_all_after`: this many allocations work (or fail for another reason), then none does.
    - `fail_above_order`: all allocations of a larger order fail.

    `calls` is the number of allocations asked for, failed ones included.
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
        """The memory that the pages are of."""
        return self._source.memory

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """What the source allocates.

        :raise KernelError: ENOMEM when a fault is due, or the source has no such block.
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
