"""Pages that somebody holds until the restart, so that nobody else overwrites what is in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from openrbu.lazy import np
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.physical import ReadableMemory, Region, joined


class HeldPages:
    """The pages of these regions, which may come in any sequence and do not overlap."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self._regions = joined(sorted((region.start, region.end) for region in regions))
        self._starts = [region.start for region in self._regions]

    def has_all(self, address: int, size_bytes: int) -> bool:
        """Whether all bytes in [address, address + size_bytes) are in held pages."""
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address + size_bytes <= self._regions[index].end

    def only(self, memory: ReadableMemory, *, image_bytes: int) -> NarrowedMemory:
        """What of a memory a search would find in held pages alone: the packets, and the images of
        `image_bytes`, that are wholly in them."""
        seen = NarrowedMemory.of(memory)
        places = zip(seen.pages.tolist(), seen.sizes(image_bytes).tolist(), strict=True)
        held = [self.has_all(address, size) for address, size in places]
        return seen.only(np.array(held, np.bool_))
