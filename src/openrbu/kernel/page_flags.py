"""`/proc/kpageflags` of a simulated kernel. For the meaning of the bits see `memory.page_flags`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from openrbu.drivers.extents import Block
from openrbu.errors import KernelError
from openrbu.lazy import np
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.page_flags import BUDDY_BIT, ENTRY_BYTES, LRU_BIT
from openrbu.units import MAX_ORDER, PAGE_SHIFT

_CHUNK_PAGES = 1 << MAX_ORDER


class PageFlags:
    """The file, made from an allocator's state: BUDDY of free pages, LRU of those in `cached`, the
    blocks that files have. All other bits are 0."""

    def __init__(
        self, allocator: BuddyAllocator, cached: Callable[[], Iterable[Block]] = tuple
    ) -> None:
        self._allocator, self._cached = allocator, cached
        self._frames = max(region.end for region in allocator.memory.regions) >> PAGE_SHIFT

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`.

        :raise KernelError: EINVAL when offset or size is not a multiple of 8, as on Linux.
        """
        if offset % ENTRY_BYTES or size_bytes % ENTRY_BYTES:
            raise KernelError(errno.EINVAL, "/proc/kpageflags")
        first = offset // ENTRY_BYTES
        last = min(first + size_bytes // ENTRY_BYTES, self._frames)
        chunks = range(first >> MAX_ORDER, -(-last >> MAX_ORDER))
        width = _CHUNK_PAGES // 8
        bits = b"".join(self._allocator.free_bits(n).to_bytes(width, "little") for n in chunks)
        free = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
        skip = first - (chunks.start << MAX_ORDER)
        wanted = free[skip : skip + max(0, last - first)].astype("<u8") << BUDDY_BIT
        for block in self._cached():
            start = (block.address >> PAGE_SHIFT) - first
            wanted[max(0, start) : max(0, start + (1 << block.order))] |= np.uint64(1 << LRU_BIT)
        return wanted.tobytes()
