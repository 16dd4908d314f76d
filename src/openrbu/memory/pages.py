"""Where a driver gets its pages from: interfaces, so that it needs no particular allocator."""

from __future__ import annotations

from typing import Protocol

from openrbu.memory.frames import Frames
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import PhysAddr


class PageSource(Protocol):
    """Hands out power-of-two blocks of pages and takes them back."""

    @property
    def memory(self) -> PhysicalMemory:
        """The memory to which the pages belong."""

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """Allocate a block of 2**order pages, naturally aligned, that ends at or below `below`.
        Returns its address.

        Without `below`, memory above 4 GiB is used first, as with the kernel's GFP_KERNEL. The
        bytes in the block stay as they were.

        :raise KernelError: ENOMEM when there is no such block.
        """

    def free(self, address: PhysAddr, order: int) -> None:
        """Take back a block that `allocate` handed out with this order. Its bytes stay."""


class BalloonPages(Protocol):
    """Hands out single pages, many at a time, and takes them back."""

    def take_pages(self, count: int) -> Frames:
        """The frames of up to `count` free pages, shape (n,): fewer when there are no more. Their
        bytes stay as they were."""

    def give_pages(self, frames: Frames) -> None:
        """Take back pages that `take_pages` handed out. Their bytes stay."""
