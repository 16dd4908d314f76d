"""The allocator of the driver's own memory."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.physical import Region
from openrbu.own_driver.blocks import FreeBlocks
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr, order_for

HUGE = 2 * MIB
FOUR_GIB = PhysAddr(4 * GIB)


def region(start: int, size_bytes: int) -> Region:
    return Region(PhysAddr(start), PhysAddr(start + size_bytes))


def blocks_of(*regions: Region) -> FreeBlocks:
    return FreeBlocks(regions, alignment_bytes=HUGE)


def test_memory_above_4_gib_comes_first_unless_the_caller_has_a_limit() -> None:
    free = blocks_of(region(64 * MIB, HUGE), region(5 * GIB, HUGE))
    assert free.allocate(0) == 5 * GIB
    assert free.allocate(0, below=FOUR_GIB) == 64 * MIB
    assert free.allocate(0) == 5 * GIB + PAGE_SIZE


def test_a_block_larger_than_4_mib_lies_in_joined_regions_at_any_huge_page() -> None:
    regions = [region(6 * MIB + number * HUGE, HUGE) for number in range(8)]
    free = blocks_of(*reversed(regions))
    assert free.allocate(order_for(16 * MIB)) == 6 * MIB  # not a multiple of 16 MiB
    assert free.free_bytes == 0


def test_blocks_up_to_the_alignment_are_naturally_aligned() -> None:
    free = blocks_of(region(HUGE, 2 * HUGE))
    first = free.allocate(0)
    second = free.allocate(4)
    assert (first, second % (16 * PAGE_SIZE)) == (HUGE, 0)


def test_a_limit_counts_for_the_end_of_the_block() -> None:
    free = blocks_of(region(4 * GIB - HUGE, 2 * HUGE))
    with pytest.raises(KernelError) as refused:
        free.allocate(10, below=FOUR_GIB)
    assert refused.value.errno == errno.ENOMEM
    assert free.allocate(9, below=FOUR_GIB) == 4 * GIB - HUGE


def test_freeing_something_else_is_refused() -> None:
    free = blocks_of(region(HUGE, HUGE))
    address = free.allocate(1)
    for wrong in ((address, 0), (PhysAddr(address + 1), 1), (PhysAddr(0), 1)):
        with pytest.raises(ValueError, match="no block of order"):
            free.free(*wrong)
    free.free(address, 1)
    with pytest.raises(ValueError, match="no block of order"):
        free.free(address, 1)


def test_a_region_that_is_there_is_not_added_twice() -> None:
    free = blocks_of(region(HUGE, 2 * HUGE))
    for wrong in (region(HUGE, HUGE), region(0, HUGE + 1), region(3 * HUGE - 1, HUGE)):
        with pytest.raises(ValueError, match="free already"):
            free.add(wrong)
    assert free.free_bytes == 2 * HUGE


def test_saved_blocks_that_are_not_there_are_refused() -> None:
    free = blocks_of(region(HUGE, HUGE))
    frame = HUGE // PAGE_SIZE
    for rows in (((0, 0, 1, 0),), ((0, frame, 2, 0),), ((10, frame, 1, 0),), ((99, frame, 1, 0),)):
        with pytest.raises(DamagedInputError, match="saved block"):
            free.copy().take_rows(rows)


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans(), st.integers(0, 63)), max_size=60))
def test_blocks_never_overlap_and_all_is_free_in_the_end(
    steps: list[tuple[int, bool, int]],
) -> None:
    regions = [region(3 * HUGE, 3 * HUGE), region(4 * GIB - 2 * HUGE, 4 * HUGE)]
    free = blocks_of(*regions)
    held: list[tuple[PhysAddr, int]] = []
    for order, is_low, choice in steps:
        if held and choice < 20:
            free.free(*held.pop(choice % len(held)))
            continue
        try:
            held.append((free.allocate(order, below=FOUR_GIB if is_low else None), order))
        except KernelError:
            continue
        if is_low:
            assert held[-1][0] + (PAGE_SIZE << order) <= FOUR_GIB
    spans = sorted((address, address + (PAGE_SIZE << order)) for address, order in held)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    again = blocks_of(*regions)
    again.take_rows(free.allocated_rows())
    assert again.free_bytes == free.free_bytes == 7 * HUGE - sum(b - a for a, b in spans)
    for address, order in held:
        again.free(address, order)
    assert again.free_bytes == 7 * HUGE
    again.allocate(order_for(4 * HUGE))  # neighbours are joined
