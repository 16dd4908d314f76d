"""Faults of a machine's memory, on purpose.

Theory of operation. Two of them hold pages back when a kernel begins, as programs do that run for a
long time: no allocation gets these pages, and `/proc/buddyinfo` does not count them. Which pages
that are follows from the machine's RAM alone, so that a kernel which continues from a saved state
has the same ones. The other faults let an allocation fail although there is memory: `FaultyPages`.
"""

from __future__ import annotations

from collections.abc import Callable

from openrbu.faults import FaultKind, Faults
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.buddy_bits import CHUNK_PAGES, places
from openrbu.memory.faulty_pages import ChangingPages, FaultyPages
from openrbu.memory.pages import PageSource
from openrbu.units import GIB, MAX_ORDER, MIB, PAGE_SIZE

FRAGMENTED = FaultKind(
    "fragmented",
    "Memory is in pieces that compacting does not join: no free block is above ORDER, which "
    "--fragment ORDER says, too.",
    value="ORDER",
    values=range(MAX_ORDER),
)
LITTLE_MEMORY = FaultKind(
    "little-memory",
    "Programs hold all memory except for MIB (1) MiB.",
    value="MIB",
    values=range(1, 1025),
    default=1,
)
ALLOCATION_FAILS = FaultKind(
    "allocation-fails",
    "The Nth allocation of a block fails, and the next one works; each start of the kernel, and "
    "each command, counts anew.",
    value="N",
    values=range(1, 1_000_001),
)
ALLOCATIONS_FAIL_AFTER = FaultKind(
    "allocations-fail-after",
    "Memory runs out for good after N allocations of a block; each start of the kernel, and each "
    "command, counts anew.",
    value="N",
    values=range(1_000_001),
)
ALLOCATIONS_FAIL_ABOVE = FaultKind(
    "allocations-fail-above",
    "Each allocation of a block above ORDER fails, although /proc/buddyinfo shows such blocks.",
    value="ORDER",
    values=range(MAX_ORDER),
)
MEMORY_CHANGES = FaultKind(
    "memory-changes",
    "Free blocks above 16 KiB come and go: those that a look at /proc/buddyinfo sees are gone "
    "after it, and those that it does not see are back.",
)

FAULTS = (
    FRAGMENTED,
    LITTLE_MEMORY,
    ALLOCATION_FAILS,
    ALLOCATIONS_FAIL_AFTER,
    ALLOCATIONS_FAIL_ABOVE,
    MEMORY_CHANGES,
)

_LEFT_BELOW = 4 * GIB // (CHUNK_PAGES * PAGE_SIZE)
"""The chunk below which the memory of `LITTLE_MEMORY` is left: a BIOS searches there."""


def hold_back(allocator: BuddyAllocator, faults: Faults) -> int:
    """Hold back the pages that no allocation gets with these faults; how many bytes that are.

    :raise ValueError: when one of them is allocated: the allocator continues another machine.
    """
    if FRAGMENTED not in faults and LITTLE_MEMORY not in faults:
        return 0
    fresh = BuddyAllocator(allocator.memory, reserved=allocator.reserved)
    pages = 0
    left = faults.get(LITTLE_MEMORY, 0) * MIB // PAGE_SIZE
    for chunk in reversed(range(fresh.chunk_count)):
        held, free = 0, fresh.free_bits(chunk)
        if LITTLE_MEMORY in faults:
            kept = _highest(free, left if chunk < _LEFT_BELOW else 0)
            left -= kept.bit_count()
            held, free = free ^ kept, kept
        if FRAGMENTED in faults:
            held |= places(free, faults[FRAGMENTED] + 1)
        if held:
            allocator.withdraw_bits(chunk, held)
            pages += held.bit_count()
    return pages * PAGE_SIZE


def _highest(free: int, count: int) -> int:
    """The `count` highest bits of those that are set."""
    if not count:
        return 0
    while free.bit_count() > count:
        free &= free - 1
    return free


def faulty_pages(allocator: BuddyAllocator, faults: Faults) -> tuple[PageSource, Callable[[], str]]:
    """The pages of a kernel with these faults, and what its `/proc/buddyinfo` shows."""
    pages: PageSource = allocator
    buddyinfo = allocator.buddyinfo
    if MEMORY_CHANGES in faults:
        pages = changing = ChangingPages(allocator)
        buddyinfo = changing.buddyinfo
    if faults.keys() & {ALLOCATION_FAILS, ALLOCATIONS_FAIL_AFTER, ALLOCATIONS_FAIL_ABOVE}:
        pages = FaultyPages(
            pages,
            fail_nth=faults.get(ALLOCATION_FAILS),
            fail_all_after=faults.get(ALLOCATIONS_FAIL_AFTER),
            fail_above_order=faults.get(ALLOCATIONS_FAIL_ABOVE),
        )
    return pages, buddyinfo
