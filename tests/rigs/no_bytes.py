"""A page allocator over memory of which only the places matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import Region, pc_regions
from openrbu.units import GIB, PhysAddr


class NoBytes:
    """Memory of which only the places matter: whoever asks for its bytes is wrong here."""

    is_mapped = False

    def __init__(self, *regions: Region) -> None:
        self.regions = regions

    def _no_bytes(self, *arguments: object) -> NoReturn:
        raise AssertionError("an allocator looks at no bytes")

    read = read_into = view = write = zero = _no_bytes

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        self._no_bytes()


def gib_machine() -> BuddyAllocator:
    return BuddyAllocator(NoBytes(*pc_regions(GIB)))
