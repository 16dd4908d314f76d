"""A page source that fails when a test or an option wants it to."""

from __future__ import annotations

import errno

from openrbu.errors import KernelError
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
