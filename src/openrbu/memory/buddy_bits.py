"""The free pages of a chunk of the page allocator as the bits of one integer.

A chunk is 1024 pages, naturally aligned; bit n is its page n. See `memory.buddy`.
"""

from __future__ import annotations

from itertools import pairwise

from openrbu.lazy import np, npt
from openrbu.memory.frames import Frames
from openrbu.units import MAX_ORDER

CHUNK_PAGES = 1 << MAX_ORDER

RUN = tuple((1 << (1 << order)) - 1 for order in range(MAX_ORDER + 1))
"""The bits of a block of each order at the start of a chunk."""
ALL_PAGES = RUN[MAX_ORDER]
_STARTS = tuple(ALL_PAGES // run for run in RUN)
"""The bits where a block of each order may start."""


def places(free: int, order: int) -> int:
    """A bit for each aligned position in a chunk where 2**order pages are free, also those inside
    of a larger free block. `free`: the free pages of the chunk."""
    for step in range(order):
        free &= free >> (1 << step)
    return free & _STARTS[order]


def block_counts(free: int) -> list[int]:
    """How many free blocks of each order, 0 to 9, are in a chunk that is not wholly free."""
    counts: list[int] = []
    for order in range(MAX_ORDER):
        larger = free & (free >> (1 << order)) & _STARTS[order + 1]
        counts.append(free.bit_count() - 2 * larger.bit_count())
        free = larger
    return counts


def largest_order(free: int) -> int:
    """The order of the largest free block. `free` is not 0."""
    order = 0
    while free := free & (free >> (1 << order)) & _STARTS[order + 1]:
        order += 1
        if order == MAX_ORDER:
            break
    return order


def bit_numbers(mask: int) -> npt.NDArray[np.intp]:
    """The numbers of the bits that are set, ascending, shape (n,)."""
    raw = np.frombuffer(mask.to_bytes(CHUNK_PAGES // 8, "little"), np.uint8)
    return np.unpackbits(raw, bitorder="little").nonzero()[0]


def masks_of(frames: Frames) -> dict[int, int]:
    """For each chunk with some of these frames: the bits of the frames. They come in any order.

    :raise ValueError: when a frame is given twice.
    """
    ordered = np.sort(frames)
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError("a page is given twice")
    chunks = ordered >> MAX_ORDER
    numbers = ordered & (CHUNK_PAGES - 1)
    cuts = [0, *((chunks[1:] != chunks[:-1]).nonzero()[0] + 1).tolist(), len(frames)]
    masks: dict[int, int] = {}
    for start, end in pairwise(cuts if len(frames) else ()):
        if end - start == CHUNK_PAGES:
            masks[int(chunks[start])] = ALL_PAGES
            continue
        raw = np.zeros(CHUNK_PAGES, np.uint8)
        raw[numbers[start:end]] = 1
        packed = np.packbits(raw, bitorder="little").tobytes()
        masks[int(chunks[start])] = int.from_bytes(packed, "little")
    return masks
