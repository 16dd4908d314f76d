"""A page allocator over memory of which only the places matter."""

from __future__ import annotations

from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import Region, pc_regions
from openrbu.units import GIB


class NoBytes:
    """Memory of which only the places matter."""

    def __init__(self, *regions: Region) -> None:
        self.regions = regions


def gib_machine() -> BuddyAllocator:
    return BuddyAllocator(NoBytes(*pc_regions(GIB)))
