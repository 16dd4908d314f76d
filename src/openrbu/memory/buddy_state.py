"""The state of the page allocator that is saved on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrbu.typed_json import Natural


@dataclass(frozen=True, slots=True)
class AllocatorState:
    """The state from which `BuddyAllocator.restore` makes the same allocator.

    `reserved` has `[start, end)` in bytes. `allocated` has `[order, first frame, count, distance in
    frames]` for blocks of one order at equal distances, so that a set of packets is a row or two.
    Withdrawn pages are not in it: their owner saves them, and withdraws them again.
    """

    reserved: tuple[tuple[Natural, Natural], ...]
    allocated: tuple[tuple[Natural, Natural, Natural, Natural], ...]


def allocated_rows(allocated: Mapping[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    """Allocated blocks, given as first frame → order, as `AllocatorState` has them."""
    rows: list[list[int]] = []
    for order, frame in sorted((order, frame) for frame, order in allocated.items()):
        if rows and rows[-1][0] == order:
            _, first, count, distance = last = rows[-1]
            if count == 1:
                last[3] = distance = frame - first
            if frame == first + count * distance:
                last[2] += 1
                continue
        rows.append([order, frame, 1, 0])
    return tuple((order, first, count, distance) for order, first, count, distance in rows)
