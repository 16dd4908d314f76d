"""Pages of the page allocator taken and given back many at a time, as a balloon does."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.no_bytes import NoBytes


def ram(*regions: tuple[int, int]) -> NoBytes:
    return NoBytes(*(Region(PhysAddr(start), PhysAddr(end)) for start, end in regions))


def frames(*numbers: int) -> Frames:
    return np.array(numbers, np.uint32)


@pytest.fixture
def allocator() -> BuddyAllocator:
    """16 MiB from 16 MiB on: frames 4096 to 8191."""
    return BuddyAllocator(ram((16 * MIB, 32 * MIB)))


def test_the_lowest_free_pages_of_a_zone_are_taken(allocator: BuddyAllocator) -> None:
    allocator.allocate(0)
    allocator.allocate(3)
    assert allocator.take_pages(10).tolist() == [*range(4097, 4104), 4112, 4113, 4114]


def test_the_highest_zone_goes_first_and_the_next_one_fills_up() -> None:
    allocator = BuddyAllocator(ram((16 * MIB, 16 * MIB + 8 * KIB), (4 * GIB, 4 * GIB + 12 * KIB)))
    above = 4 * GIB // PAGE_SIZE
    assert allocator.take_pages(4).tolist() == [above, above + 1, above + 2, 4096]


def test_fewer_pages_come_when_there_are_no_more(allocator: BuddyAllocator) -> None:
    assert len(allocator.take_pages(5000)) == 4096
    assert allocator.take_pages(1).tolist() == []
    with pytest.raises(KernelError):
        allocator.allocate(0)
    assert allocator.free_bytes == 0


@pytest.mark.parametrize("count", [0, -1])
def test_no_pages_are_taken_when_none_are_wanted(allocator: BuddyAllocator, count: int) -> None:
    assert allocator.take_pages(count).tolist() == []
    assert allocator.free_bytes == 16 * MIB


def test_pages_given_back_in_any_order_coalesce_again(allocator: BuddyAllocator) -> None:
    fresh = allocator.buddyinfo()
    taken = allocator.take_pages(3000)
    assert allocator.buddyinfo() != fresh
    allocator.give_pages(np.random.default_rng(7).permutation(taken))
    assert allocator.buddyinfo() == fresh
    assert allocator.allocate(10) == 16 * MIB


def test_pages_that_come_back_one_by_one_are_found_by_the_next_search(
    allocator: BuddyAllocator,
) -> None:
    allocator.take_pages(4096)
    for frame in (4096 + 1025, 4096 + 1024, 4096 + 7):
        allocator.give_pages(frames(frame))
    assert allocator.allocate(1) == (4096 + 1024) * PAGE_SIZE
    assert allocator.allocate(0) == (4096 + 7) * PAGE_SIZE


def test_withdrawn_pages_are_not_free(allocator: BuddyAllocator) -> None:
    allocator.withdraw_pages(frames(4096, 8191, 5000))
    assert allocator.take_pages(2).tolist() == [4097, 4098]
    assert [allocator.free_bits(chunk).bit_count() for chunk in (4, 5, 6, 7)] == [
        1020,
        1024,
        1024,
        1023,
    ]
    assert allocator.free_bytes == (4096 - 5) * PAGE_SIZE


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ((4096,), "not withdrawn"),
        ((4100, 4096), "not withdrawn"),
        ((4100, 4100), "given twice"),
        ((0,), "not withdrawn"),
        ((2**32 - 1,), "not withdrawn"),
    ],
)
def test_giving_back_what_was_not_taken_is_refused_whole(
    allocator: BuddyAllocator, wrong: tuple[int, ...], why: str
) -> None:
    allocator.allocate(2)
    allocator.take_pages(10)
    before = allocator.free_counts()
    with pytest.raises(ValueError, match=why):
        allocator.give_pages(frames(*wrong))
    assert allocator.free_counts() == before


@pytest.mark.parametrize("wrong", [(4097, 4096), (4097, 4097), (4097, 0), (4097, 2**32 - 1)])
def test_withdrawing_a_page_that_is_not_free_withdraws_none(
    allocator: BuddyAllocator, wrong: tuple[int, ...]
) -> None:
    allocator.allocate(0)
    with pytest.raises(ValueError, match="page"):
        allocator.withdraw_pages(frames(*wrong))
    assert allocator.free_bytes == 16 * MIB - PAGE_SIZE


def test_a_page_is_given_back_once(allocator: BuddyAllocator) -> None:
    taken = allocator.take_pages(3)
    allocator.give_pages(taken)
    with pytest.raises(ValueError, match="given twice"):
        allocator.give_pages(taken[:1])
    assert allocator.free_bytes == 16 * MIB


def test_a_withdrawn_page_is_not_a_block(allocator: BuddyAllocator) -> None:
    taken = allocator.take_pages(1)
    with pytest.raises(ValueError, match="no block is allocated"):
        allocator.free(PhysAddr(int(taken[0]) * PAGE_SIZE), 0)


def test_a_block_is_not_given_back_as_pages(allocator: BuddyAllocator) -> None:
    block = allocator.allocate(1)
    with pytest.raises(ValueError, match="not withdrawn"):
        allocator.give_pages(frames(block // PAGE_SIZE))


def test_a_million_withdrawn_pages_cost_no_memory_to_speak_of() -> None:
    allocator = BuddyAllocator(ram((4 * GIB, 8 * GIB)))
    tracemalloc.start()
    for _ in range(2048):
        allocator.take_pages(512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocator.free_bytes == 0
    assert peak < MIB
