"""Where a driver gets its pages from: an interface, so that it never knows whose they are."""

from __future__ import annotations

from typing import Protocol

from openrbu.memory.frames import Frames
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import PhysAddr


class PageSource(Protocol):
    """Hands out power-of-two blocks of pages and takes them back."""

    @property
    def memory(self) -> PhysicalMemory:
        """The memory that the pages are of."""

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """The address of a block of 2**order pages, naturally aligned, wholly below `below`.

        Without `below`, memory above 4 GiB goes first, as with the kernel's GFP_KERNEL. The
        bytes are whatever was there.

        :raise KernelError: ENOMEM when there is no such block.
        """

    def free(self, address: PhysAddr, order: int) -> None:
        """Take back a block that `allocate` handed out with this order. Nothing is cleared."""


class BalloonPages(Protocol):
    """Hands out single pages, many at a time, and takes them back."""

    def take_pages(self, count: int) -> Frames:
        """The frames of up to `count` free pages, without trying hard: fewer when there are no
        more. The bytes are whatever was there."""

    def give_pages(self, frames: Frames) -> None:
        """Take back pages that `take_pages` handed out. Nothing is cleared."""
