"""In which order machine frames are handed out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.xen.heap import WORDS, Heap
from rigs.xen_hosts import frames, up


def heap_of(*spans: tuple[int, int]) -> Heap:
    total = sum(end - first for first, end in spans)
    words = memoryview(bytearray(WORDS * 8)).cast("Q")
    return Heap(spans, words, np.empty(total, np.uint32))


def take(heap: Heap, count: int) -> list[int]:
    taken = heap.peek(count)
    heap.drop(count)
    frames: list[int] = taken.tolist()
    return frames


def test_fresh_frames_come_in_ascending_order_and_skip_what_is_no_ram() -> None:
    heap = heap_of((3, 6), (10, 12), (20, 24))
    assert heap.free_pages == heap.total_pages == 9
    assert take(heap, 2) == [3, 4]
    assert take(heap, 4) == [5, 10, 11, 20]
    assert take(heap, 3) == [21, 22, 23]
    assert heap.free_pages == 0


def test_looking_at_the_next_frames_changes_nothing() -> None:
    heap = heap_of((0, 10))
    take(heap, 4)
    heap.give(frames(1, 2))
    assert heap.peek(4).tolist() == heap.peek(4).tolist() == [1, 2, 4, 5]
    assert heap.free_pages == 8


def test_what_was_looked_at_stays_as_it_was_when_others_come_on_top() -> None:
    heap = heap_of((0, 10))
    take(heap, 4)
    heap.give(frames(0, 1, 2, 3))
    taken = heap.peek(2)
    heap.drop(2)
    heap.give(frames(2, 3))
    assert taken.tolist() == [0, 1]


def test_the_most_recently_freed_batch_comes_first_in_ascending_order() -> None:
    heap = heap_of((0, 100))
    take(heap, 60)
    heap.give(up(10, 13))
    heap.give(frames(40, 50))
    assert take(heap, 3) == [40, 50, 10]
    heap.give(frames(7))
    assert take(heap, 5) == [7, 11, 12, 60, 61]


def test_nothing_lies_before_the_mark_but_what_was_handed_out() -> None:
    heap = heap_of((0, 10), (20, 30))
    take(heap, 12)
    heap.give(frames(3, 4))
    assert heap.marked_pages == 12
    assert [heap.mark_after(count) for count in (0, 2, 3, 5)] == [12, 12, 13, 15]
    assert list(heap.fresh_spans()) == [(22, 30)]
    assert list(heap.fresh_spans(3)) == [(22, 25)]
    assert heap.stacked().tolist() == [4, 3]


def test_fresh_frames_are_counted_over_all_spans() -> None:
    heap = heap_of((0, 10), (20, 30))
    take(heap, 6)
    assert list(heap.fresh_spans()) == [(6, 10), (20, 30)]
    assert list(heap.fresh_spans(5)) == [(6, 10), (20, 21)]
    assert list(heap.fresh_spans(0)) == []


@pytest.mark.parametrize(
    ("used", "free", "mark"),
    [
        ([], [], 0),
        ([0, 1, 2], [], 3),
        ([2, 21], [0, 1, 3, 4, 20], 7),
        ([24], [0, 1, 2, 3, 4, 20, 21, 22, 23], 10),
        ([1], [0], 2),
    ],
)
def test_a_heap_made_anew_has_all_but_the_used_frames(
    used: list[int], free: list[int], mark: int
) -> None:
    heap = heap_of((0, 5), (20, 25))
    take(heap, 4)
    flags = np.zeros(heap.end, np.bool_)
    flags[used] = True
    assert heap.rebuild(flags).tolist() == free
    assert heap.marked_pages == mark
    assert heap.free_pages == 10 - len(used)
    assert take(heap, len(free)) == free


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40),
    seed=st.integers(0, 99),
)
def test_every_frame_is_free_or_handed_out_and_none_is_both(
    steps: list[tuple[bool, int]], seed: int
) -> None:
    heap = heap_of((5, 20), (30, 37))
    every = {*range(5, 20), *range(30, 37)}
    rng = np.random.default_rng(seed)
    out: list[int] = []
    for is_taking, count in steps:
        if is_taking:
            taken = take(heap, min(count, heap.free_pages))
            assert not set(taken) & set(out)
            out += taken
        else:
            rng.shuffle(out)
            back, out = out[:count], out[count:]
            heap.give(np.sort(frames(*back)))
        assert heap.free_pages == len(every) - len(out)
    assert set(take(heap, heap.free_pages)) == every - set(out)
