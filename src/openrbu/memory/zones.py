"""The zones of memory that the page allocator has, and the frames of RAM that it manages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from openrbu.memory.buddy_bits import CHUNK_PAGES
from openrbu.memory.physical import Region
from openrbu.units import GIB, MAX_ORDER, MIB, PAGE_SHIFT, PAGE_SIZE, pages_for

_ZONE_STARTS = (("DMA", 0), ("DMA32", 16 * MIB), ("Normal", 4 * GIB))
"""The zones of 64-bit x86, lowest first; each ends where the next one starts."""

_CHUNK_BYTES = CHUNK_PAGES * PAGE_SIZE


@dataclass(slots=True)
class Zone:
    """The chunks from `first` up to, not including, `end`. No chunk below `hints[order]` has a free
    block of that order."""

    name: str
    first: int
    end: int
    hints: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.hints = [self.first] * (MAX_ORDER + 1)


def populated_zones(regions: tuple[Region, ...]) -> Iterator[Zone]:
    """The zones that have RAM, highest first."""
    end: int = max(region.end for region in regions)
    for name, start in reversed(_ZONE_STARTS):
        if any(region.clip(start, end) for region in regions):
            yield Zone(name, start // _CHUNK_BYTES, -(-end // _CHUNK_BYTES))
        end = min(end, start)


def unreserved(
    regions: tuple[Region, ...], reserved: tuple[Region, ...]
) -> Iterator[tuple[int, int]]:
    """The frames of `regions` in which no byte is `reserved`, as (first, one after the last)."""
    taken = sorted((region.start >> PAGE_SHIFT, pages_for(region.end)) for region in reserved)
    for region in regions:
        position, end = region.start >> PAGE_SHIFT, region.end >> PAGE_SHIFT
        for first, stop in taken:
            if position < min(first, end):
                yield position, min(first, end)
            position = max(position, stop)
        if position < end:
            yield position, end
