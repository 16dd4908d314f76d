"""The balloon driver through a snapshot, and through anything that can happen to it."""

from __future__ import annotations

from math import inf

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openrbu.drivers.xen_balloon import (
    BATCH_PAGES,
    from_runs,
    to_runs,
)
from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES
from openrbu.typed_json import to_text
from rigs.balloon import Guest, Host
from rigs.kept import kept

# -- snapshots ----------------------------------------------------------------------------------


def test_a_snapshot_of_a_large_balloon_is_small() -> None:
    guest = Guest(Host(), frames=300_000, pages=300_000)
    guest.use(1000)
    guest.balloon.set_target_pages(1000)
    guest.balloon.run(0.0)
    assert len(to_text(guest.balloon.snapshot())) < 300


@pytest.mark.parametrize("now_s", [0.0, 0.5, 1.0])
def test_a_driver_goes_on_where_its_snapshot_was_taken(now_s: float) -> None:
    guest = Guest(Host(5), frames=20, pages=10, profile="linux-2.6.18-xen")
    guest.balloon.set_target_pages(20)
    guest.balloon.run(0.0)
    snapshot = kept(guest.balloon.snapshot())
    again = guest.make_balloon("linux-2.6.18-xen")
    again.restore(snapshot)
    guest.host.free_pages = 100
    again.run(now_s)
    assert again.current_pages == (20 if now_s == 1.0 else 15)


def test_a_snapshot_knows_that_a_step_is_due_at_once() -> None:
    guest = Guest(Host(5), frames=20, pages=10)
    guest.balloon.set_target_pages(5)
    again = guest.make_balloon("linux")
    again.restore(kept(guest.balloon.snapshot()))
    assert again.due_s == -inf


@pytest.mark.parametrize(
    ("frames", "runs"),
    [
        ([], ()),
        ([7], ((7, 1, 0),)),
        ([0, 1, 2, 10, 11, 12, 5], ((0, 3, 1), (10, 3, 1), (5, 1, 0))),
        ([9, 7, 5, 3], ((9, 4, -2),)),
        ([4, 4_294_967_295, 4], ((4, 2, 4_294_967_291), (4, 1, 0))),
    ],
)
def test_frames_become_runs_of_even_steps_and_back(
    frames: list[int], runs: tuple[tuple[int, int, int], ...]
) -> None:
    assert to_runs(np.array(frames, np.uint32)) == runs
    assert from_runs(runs).tolist() == frames


# -- whatever happens ---------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """A guest and its host through anything that can happen to them."""

    @initialize(
        profile=st.sampled_from(list(BALLOON_PROFILES)),
        pages=st.integers(0, 2000),
        free=st.integers(0, 1500),
        more=st.integers(0, 1500),
    )
    def start(self, profile: str, pages: int, free: int, more: int) -> None:
        self.profile = profile
        self.host = Host(free)
        self.guest = Guest(self.host, frames=pages + more, pages=pages, profile=profile)
        self.balloon = self.guest.balloon
        self.machine_pages = free + pages
        self.now_s = 0.0

    @rule(pages=st.integers(0, 4000))
    def tell_a_target(self, pages: int) -> None:
        before, due_s = self.balloon.target_pages, self.balloon.due_s
        self.balloon.set_target_pages(pages)
        if self.balloon.target_pages == before and self.profile == "linux":
            assert self.balloon.due_s == due_s
        elif self.balloon.retry_count == 1:
            assert (self.balloon.due_s is None) == (self.balloon.credit_pages == 0)
        else:
            assert self.balloon.due_s == -inf

    @rule(pages=st.integers(0, 2000))
    def start_a_program(self, pages: int) -> None:
        self.guest.use(pages)

    @rule()
    def end_all_programs(self) -> None:
        self.guest.stop_using()

    @rule(pages=st.integers(-1000, 1000))
    def change_what_others_leave(self, pages: int) -> None:
        pages = max(pages, -self.host.free_pages)
        self.host.free_pages += pages
        self.machine_pages += pages

    @rule(passed_s=st.floats(0, 40))
    def let_time_pass(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule()
    def step(self) -> None:
        before, goal = self.balloon.current_pages, self.balloon.goal_pages
        was_due, calls = self.balloon.due_s, self.host.calls
        moved = self.balloon.step(self.now_s)
        after = self.balloon.current_pages
        assert min(before, goal) <= after <= max(before, goal)
        assert abs(after - before) == moved <= BATCH_PAGES
        if was_due is None or was_due > self.now_s:
            assert (moved, self.host.calls, self.balloon.due_s) == (0, calls, was_due)

    @rule()
    def run_all(self) -> None:
        self.balloon.run(self.now_s)
        assert self.balloon.due_s is None or self.balloon.due_s > self.now_s

    @rule()
    def put_away_and_take_out(self) -> None:
        snapshot = kept(self.balloon.snapshot())
        again = self.guest.make_balloon(self.profile)
        again.restore(snapshot)
        assert again.snapshot() == self.balloon.snapshot()
        assert again.due_s == self.balloon.due_s
        self.balloon = again

    @precondition(lambda self: self.balloon.due_s is not None and self.balloon.credit_pages)
    @rule()
    def arrive_where_memory_is_there(self) -> None:
        self.guest.stop_using()
        self.machine_pages += 10_000 - self.host.free_pages
        self.host.free_pages = 10_000
        self.now_s += 64
        self.balloon.run(self.now_s)
        assert self.balloon.current_pages == self.balloon.goal_pages
        assert (self.balloon.due_s, self.balloon.retry_count) == (None, 1)

    @invariant()
    def every_frame_is_in_one_place(self) -> None:
        inside = np.zeros(self.guest.frame_count, int)
        np.add.at(inside, self.balloon.ballooned(), 1)
        assert (inside == ~self.guest.populated).all()
        assert self.balloon.low_pages == inside.sum()
        assert self.balloon.current_pages == self.guest.populated.sum()

    @invariant()
    def no_machine_page_is_lost(self) -> None:
        assert self.host.free_pages + self.balloon.current_pages == self.machine_pages

    @invariant()
    def pages_leave_scrubbed(self) -> None:
        assert self.guest.is_clean[~self.guest.populated].all()

    @invariant()
    def the_back_off_is_a_power_of_two_that_the_tries_tell(self) -> None:
        count, delay_s = self.balloon.retry_count, self.balloon.schedule_delay_s
        assert delay_s == min(2 ** (count - 1), 32)
        assert 1 <= count <= 4
        if self.profile != "linux":
            assert count == 1


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
