"""The page allocator, against a model that knows nothing but a set of free frames."""

import errno
import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.buddy_state import AllocatorState
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region, pc_regions
from openrbu.typed_json import read, to_text
from openrbu.units import GIB, KIB, MAX_ORDER, MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr
from rigs.kept import kept
from rigs.no_bytes import NoBytes, gib_machine

TIB = 1024 * GIB


def region(start: int, end: int) -> Region:
    return Region(PhysAddr(start), PhysAddr(end))


# -- the model --------------------------------------------------------------------------------

# A little of each zone, with ragged ends: 10 frames, then 2 MiB over the 16 MiB line, then 7 MiB
# below 4 GiB, then two adjacent regions whose seam is inside a 4 MiB block.
RAGGED = (
    region(0, 40 * KIB),
    region(15 * MIB, 17 * MIB + 12 * KIB),
    region(4 * GIB - 8 * MIB, 4 * GIB - MIB),
    region(4 * GIB, 4 * GIB + 2 * MIB),
    region(4 * GIB + 2 * MIB, 4 * GIB + 6 * MIB + 4 * KIB),
)
RESERVED = (
    region(0, 1),
    region(4 * GIB - 5 * MIB + 5000, 4 * GIB - 5 * MIB + 5001),
    region(GIB, 2 * GIB),
)
RESERVED_FRAMES = {0, (4 * GIB - 5 * MIB + 5000) >> PAGE_SHIFT}
ZONES = {
    "Normal": range(4 * GIB >> PAGE_SHIFT, 8 * GIB >> PAGE_SHIFT),
    "DMA32": range(16 * MIB >> PAGE_SHIFT, 4 * GIB >> PAGE_SHIFT),
    "DMA": range(16 * MIB >> PAGE_SHIFT),
}


def all_frames() -> set[int]:
    frames = {f for r in RAGGED for f in range(r.start >> PAGE_SHIFT, r.end >> PAGE_SHIFT)}
    return frames - RESERVED_FRAMES


def places(free: set[int], order: int) -> list[int]:
    """Every frame where a whole block of `order` is free, ascending."""
    size = 1 << order
    return sorted(f for f in free if f % size == 0 and free.issuperset(range(f, f + size)))


def model_choice(free: set[int], order: int, floor: int, limit: int) -> int | None:
    fitting = [f for f in places(free, order) if floor <= f and f + (1 << order) <= limit]
    for zone in ZONES.values():
        inside = [f for f in fitting if f in zone]
        if inside:
            return inside[0]
    return None


def model_counts(free: set[int]) -> dict[str, tuple[int, ...]]:
    rows = {}
    for name in ("DMA", "DMA32", "Normal"):
        left = {f for f in free if f in ZONES[name]}
        row = []
        for order in range(MAX_ORDER, -1, -1):
            blocks = places(left, order)
            row.append(len(blocks))
            left -= {f for start in blocks for f in range(start, start + (1 << order))}
        rows[name] = tuple(reversed(row))
    return rows


def as_frames(frames: list[int]) -> Frames:
    return np.array(frames, np.uint32)


ADDRESSES = st.one_of(
    st.none(),
    st.sampled_from([0, 1, MIB, 16 * MIB, 4 * GIB - 4 * MIB, 4 * GIB, 4 * GIB + 4 * MIB, 8 * GIB]),
    st.sampled_from(RAGGED).flatmap(lambda r: st.integers(r.start, r.end)),
)
ORDERS = st.one_of(st.integers(0, 3), st.integers(0, MAX_ORDER))


class AgainstASetOfFrames(RuleBasedStateMachine):
    @initialize()
    def a_fresh_allocator(self) -> None:
        self.memory = NoBytes(*RAGGED)
        self.allocator = BuddyAllocator(self.memory, reserved=RESERVED)
        self.fresh_counts = self.allocator.free_counts()
        self.free = all_frames()
        self.blocks: dict[int, int] = {}
        self.held: list[int] = []

    @rule(order=ORDERS, below=ADDRESSES, above=ADDRESSES, times=st.integers(1, 20))
    def allocate(
        self, order: int, below: PhysAddr | None, above: PhysAddr | None, times: int
    ) -> None:
        floor = 0 if above is None else -(-above // PAGE_SIZE)
        limit = 1 << 40 if below is None else below // PAGE_SIZE
        for _ in range(times):
            expected = model_choice(self.free, order, floor, limit)
            if expected is None:
                with pytest.raises(KernelError) as caught:
                    self.allocator.allocate(order, below=below, above=above)
                assert caught.value.errno == errno.ENOMEM
                return
            address = self.allocator.allocate(order, below=below, above=above)
            assert address == expected * PAGE_SIZE
            self.free -= set(range(expected, expected + (1 << order)))
            self.blocks[expected] = order

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), times=st.integers(1, 30))
    def free_some(self, data: st.DataObject, times: int) -> None:
        for _ in range(min(times, len(self.blocks))):
            frames = sorted(self.blocks)
            self.free_one(frames[data.draw(st.integers(0, len(frames) - 1))])

    @rule()
    def free_all(self) -> None:
        for frame in list(self.blocks):
            self.free_one(frame)
        self.give(self.held)
        assert self.allocator.free_counts() == self.fresh_counts
        assert self.allocator.snapshot().allocated == ()

    def free_one(self, frame: int) -> None:
        order = self.blocks.pop(frame)
        self.allocator.free(PhysAddr(frame * PAGE_SIZE), order)
        self.free |= set(range(frame, frame + (1 << order)))

    @rule(count=st.one_of(st.integers(0, 20), st.integers(0, 3000)))
    def take_pages(self, count: int) -> None:
        in_order = [f for zone in ZONES.values() for f in sorted(self.free.intersection(zone))]
        taken = self.allocator.take_pages(count)
        assert taken.dtype == np.uint32
        assert taken.tolist() == in_order[:count]
        self.free -= set(in_order[:count])
        self.held += in_order[:count]

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def withdraw_pages(self, data: st.DataObject) -> None:
        frames = data.draw(st.lists(st.sampled_from(sorted(self.free)), max_size=50, unique=True))
        self.allocator.withdraw_pages(as_frames(frames))
        self.free -= set(frames)
        self.held += frames

    @rule(first=st.integers(0, 5000), count=st.integers(0, 3000), seed=st.integers(0, 9))
    def give_pages(self, first: int, count: int, seed: int) -> None:
        random.Random(seed).shuffle(self.held)
        self.give(self.held[first : first + count])

    def give(self, frames: list[int]) -> None:
        self.allocator.give_pages(as_frames(frames))
        self.free |= set(frames)
        self.held = [frame for frame in self.held if frame not in self.free]

    @rule(keep=st.integers(3, MAX_ORDER), seed=st.one_of(st.none(), st.integers(0, 9)))
    def fragment(self, keep: int, seed: int | None) -> None:
        rng = None if seed is None else random.Random(seed)
        blocks = sum(len(places(self.free, keep + 1)) for _ in range(keep < MAX_ORDER))
        held = self.allocator.fragment(keep_free_order=keep, rng=rng)
        frames = [page // PAGE_SIZE for page in held.pages]
        assert len(frames) == blocks
        self.free -= set(frames)
        self.blocks.update(dict.fromkeys(frames, 0))
        assert (self.allocator.largest_free_order() or 0) <= keep

    @rule()
    def carry_on_from_a_snapshot(self) -> None:
        saved = kept(self.allocator.snapshot())
        self.allocator = BuddyAllocator.restore(self.memory, saved)
        self.allocator.withdraw_pages(as_frames(self.held))
        assert self.allocator.snapshot() == saved

    @rule(below=ADDRESSES)
    def ask_for_the_largest_order(self, below: PhysAddr | None) -> None:
        limit = 1 << 40 if below is None else below // PAGE_SIZE
        choices = {o: model_choice(self.free, o, 0, limit) for o in range(MAX_ORDER + 1)}
        fitting = [order for order, frame in choices.items() if frame is not None]
        assert self.allocator.largest_free_order(below) == max(fitting, default=None)

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self) -> None:
        allocated = sum(1 << order for order in self.blocks.values())
        assert self.allocator.free_bytes == len(self.free) * PAGE_SIZE
        assert len(self.free) + allocated + len(self.held) == len(all_frames())

    @invariant()
    def the_free_blocks_are_counted_right(self) -> None:
        assert self.allocator.free_counts() == model_counts(self.free)


AgainstASetOfFrames.TestCase.settings = settings(
    max_examples=50, stateful_step_count=20, deadline=None
)
TestAgainstASetOfFrames = AgainstASetOfFrames.TestCase


# -- where blocks come from -------------------------------------------------------------------


def test_memory_above_4_gib_goes_first_and_the_dma_zone_last() -> None:
    allocator = BuddyAllocator(
        NoBytes(region(8 * MIB, 20 * MIB), region(4 * GIB, 4 * GIB + 4 * MIB))
    )
    assert [allocator.allocate(10) for _ in range(4)] == [4 * GIB, 16 * MIB, 8 * MIB, 12 * MIB]
    with pytest.raises(KernelError, match="no free block of order 10") as caught:
        allocator.allocate(10)
    assert caught.value.name == "ENOMEM"


def test_below_a_limit_means_that_the_last_byte_is_below_it() -> None:
    allocator = BuddyAllocator(NoBytes(region(16 * MIB, 24 * MIB)))
    with pytest.raises(KernelError):
        allocator.allocate(1, below=PhysAddr(16 * MIB + 2 * PAGE_SIZE - 1))
    assert allocator.allocate(1, below=PhysAddr(16 * MIB + 2 * PAGE_SIZE)) == 16 * MIB


def test_above_a_floor_means_that_the_first_byte_is_at_or_above_it() -> None:
    allocator = BuddyAllocator(NoBytes(region(16 * MIB, 24 * MIB)))
    assert allocator.allocate(1, above=PhysAddr(16 * MIB + 1)) == 16 * MIB + 2 * PAGE_SIZE
    assert allocator.allocate(0, above=PhysAddr(20 * MIB)) == 20 * MIB
    with pytest.raises(KernelError):
        allocator.allocate(10, above=PhysAddr(16 * MIB))


def test_a_search_above_a_floor_does_not_hide_what_lies_below_it() -> None:
    allocator = BuddyAllocator(NoBytes(region(16 * MIB, 32 * MIB)))
    allocator.allocate(0, above=PhysAddr(25 * MIB))
    assert allocator.allocate(0) == 16 * MIB


def test_nor_does_one_whose_floor_lies_inside_the_first_free_block() -> None:
    allocator = BuddyAllocator(NoBytes(region(16 * MIB, 32 * MIB)))
    assert allocator.allocate(10, above=PhysAddr(16 * MIB + PAGE_SIZE)) == 20 * MIB
    assert allocator.allocate(10) == 16 * MIB


def test_freed_pages_are_used_again_before_untouched_ones() -> None:
    allocator = gib_machine()
    pages = [allocator.allocate(0) for _ in range(10)]
    allocator.free(pages[3], 0)
    assert allocator.allocate(0) == pages[3]
    assert allocator.allocate(0) == pages[9] + PAGE_SIZE


def test_reserved_bytes_cost_the_whole_page() -> None:
    allocator = BuddyAllocator(
        NoBytes(region(MIB, MIB + 16 * KIB)), reserved=[region(MIB + 4095, MIB + 4097)]
    )
    assert allocator.free_bytes == 8 * KIB
    assert allocator.allocate(0) == MIB + 8 * KIB


def test_the_block_at_address_0_can_be_had_and_given_back() -> None:
    allocator = BuddyAllocator(NoBytes(region(0, 8 * KIB)))
    assert allocator.allocate(1) == 0
    allocator.free(PhysAddr(0), 1)
    assert allocator.largest_free_order() == 1


def test_there_is_no_largest_order_when_all_is_taken() -> None:
    allocator = BuddyAllocator(NoBytes(region(0, 4 * KIB)))
    allocator.allocate(0)
    assert allocator.largest_free_order() is None
    assert allocator.free_bytes == 0


# -- mistakes of the caller -------------------------------------------------------------------


@pytest.mark.parametrize("order", [-1, 11])
def test_there_are_no_orders_but_0_to_10(order: int) -> None:
    allocator = gib_machine()
    with pytest.raises(ValueError, match="orders are 0 to 10"):
        allocator.allocate(order)
    with pytest.raises(ValueError, match="orders are 0 to 10"):
        allocator.fragment(keep_free_order=order)


def test_freeing_twice_is_refused_and_frees_nothing() -> None:
    allocator = gib_machine()
    page = allocator.allocate(0)
    allocator.free(page, 0)
    before = allocator.free_counts()
    with pytest.raises(ValueError, match="freed twice, or never given"):
        allocator.free(page, 0)
    assert allocator.free_counts() == before


@pytest.mark.parametrize("off_by", [1, PAGE_SIZE])
def test_freeing_what_is_not_the_start_of_a_block_is_refused(off_by: int) -> None:
    allocator = gib_machine()
    block = allocator.allocate(1)
    with pytest.raises(ValueError, match="no block is allocated at"):
        allocator.free(PhysAddr(block + off_by), 1)


def test_freeing_with_another_order_is_refused_and_frees_nothing() -> None:
    allocator = gib_machine()
    block = allocator.allocate(2)
    with pytest.raises(ValueError, match="is of order 2, not 3"):
        allocator.free(block, 3)
    allocator.free(block, 2)


# -- fragmentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("rng", [None, random.Random(5)], ids=["first page", "any page"])
@pytest.mark.parametrize("keep", [0, 4, 9])
def test_fragmented_memory_has_no_larger_block_until_it_is_released(
    keep: int, rng: random.Random | None
) -> None:
    allocator = gib_machine()
    fresh = allocator.free_counts()
    held = allocator.fragment(keep_free_order=keep, rng=rng)
    assert allocator.largest_free_order() == keep
    with pytest.raises(KernelError):
        allocator.allocate(keep + 1)
    held.release()
    assert allocator.free_counts() == fresh
    assert allocator.largest_free_order() == MAX_ORDER


def test_fragmenting_down_to_single_pages_takes_every_other_page() -> None:
    allocator = gib_machine()
    before = allocator.free_bytes
    allocator.fragment(keep_free_order=0)
    assert allocator.free_bytes == before // 2


def test_keeping_the_largest_order_allocates_nothing() -> None:
    assert gib_machine().fragment(keep_free_order=MAX_ORDER).pages == ()


def test_releasing_twice_is_refused() -> None:
    held = gib_machine().fragment(keep_free_order=9)
    held.release()
    with pytest.raises(ValueError, match="freed twice"):
        held.release()


# -- size and snapshots -----------------------------------------------------------------------


def test_a_tebibyte_untouched_costs_neither_memory_nor_a_large_snapshot() -> None:
    memory = NoBytes(*pc_regions(TIB))
    tracemalloc.start()
    allocator = BuddyAllocator(memory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MIB
    assert len(to_text(allocator.snapshot())) < 200
    assert allocator.free_bytes == TIB - 384 * KIB  # the gap below 1 MiB is no RAM
    assert allocator.free_counts()["Normal"][10] == (TIB - 3 * GIB) // (4 * MIB)


def test_the_snapshot_of_a_set_of_packets_is_a_row_or_two() -> None:
    allocator = gib_machine()
    for _ in range(5000):
        allocator.allocate(0)
    assert len(to_text(allocator.snapshot())) < 200


@pytest.mark.parametrize(
    "snapshot",
    [
        {},
        {"reserved": [], "allocated": None},
        {"reserved": [[0]], "allocated": []},
        {"reserved": [], "allocated": [[0, 4096, 1]]},
        {"reserved": [], "allocated": [[0, -1, 1, 0]]},
        {"reserved": [], "allocated": [["0", 4096, 1, 0]]},
        {"reserved": [], "allocated": [7]},
        {"reserved": [], "allocated": [[11, 4096, 1, 0]]},
        {"reserved": [], "allocated": [[1, 4097, 1, 0]]},
        {"reserved": [], "allocated": [[0, 4096, 2, 0]]},
        {"reserved": [], "allocated": [[1, 4096, 1, 0], [0, 4097, 1, 0]]},
        {"reserved": [], "allocated": [[0, 200, 1, 0]]},
        {"reserved": [], "allocated": [[0, 10**30, 1, 0]]},
        {"reserved": [], "allocated": [[0, 4096, 10**30, 1]]},
        {"reserved": [[16 * MIB, 17 * MIB]], "allocated": [[0, 4096, 1, 0]]},
    ],
    ids=json.dumps,
)
def test_a_broken_snapshot_is_damaged_input(snapshot: dict[str, object]) -> None:
    with pytest.raises(DamagedInputError):
        BuddyAllocator.restore(NoBytes(*pc_regions(64 * MIB)), read(AllocatorState, snapshot))
