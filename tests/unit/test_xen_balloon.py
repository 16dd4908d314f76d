"""The balloon driver's state machine: what a step moves, what follows, and when."""

from __future__ import annotations

import json
from math import inf

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balloon_rig import Guest, Host
from openrbu.drivers.balloon_profiles import BALLOON_PROFILES, balloon_profile
from openrbu.drivers.xen_balloon import (
    BATCH_PAGES,
    from_runs,
    minimum_pages_for,
    to_runs,
)
from openrbu.errors import UsageError
from openrbu.units import PAGES_PER_MIB

ALL_PROFILES = pytest.mark.parametrize("profile", BALLOON_PROFILES)


def short_times(guest: Guest, count: int, *, start_s: float = 0.0) -> list[float]:
    """How long the driver waits after each of so many steps that fall short."""
    delays, now_s = [], start_s
    for _ in range(count):
        assert guest.balloon.step(now_s) == 0
        if guest.balloon.due_s is None:
            break
        delays.append(guest.balloon.due_s - now_s)
        now_s = guest.balloon.due_s
    return delays


# -- batches ------------------------------------------------------------------------------------


@ALL_PROFILES
def test_a_new_driver_is_idle_at_what_the_guest_has(profile: str) -> None:
    balloon = Guest(Host(), frames=100, pages=60, profile=profile).balloon
    assert (balloon.current_pages, balloon.target_pages, balloon.goal_pages) == (60, 60, 60)
    assert (balloon.low_pages, balloon.high_pages) == (40, 0)
    assert balloon.due_s is None


@ALL_PROFILES
def test_a_guest_shrinks_by_512_pages_a_step(profile: str) -> None:
    guest = Guest(Host(), frames=2000, pages=2000, profile=profile)
    balloon = guest.balloon
    balloon.set_target(2000 - 1100)
    assert balloon.due_s == -inf
    assert [balloon.step(0.0) for _ in range(4)] == [512, 512, 76, 0]
    assert (balloon.current_pages, balloon.low_pages, guest.host.free_pages) == (900, 1100, 1100)
    assert balloon.due_s is None


@ALL_PROFILES
def test_a_guest_grows_by_512_pages_a_step(profile: str) -> None:
    guest = Guest(Host(5000), frames=2000, pages=900, profile=profile)
    balloon = guest.balloon
    balloon.set_target(2000)
    assert [balloon.step(0.0) for _ in range(4)] == [512, 512, 76, 0]
    assert (balloon.current_pages, balloon.low_pages, guest.host.free_pages) == (2000, 0, 3900)
    assert balloon.due_s is None


def test_a_guest_grows_to_the_frames_that_it_has_and_no_further() -> None:
    balloon = Guest(Host(5000), frames=1000, pages=700).balloon
    balloon.set_target(4000)
    assert balloon.goal_pages == 1000
    balloon.run(0.0)
    assert (balloon.current_pages, balloon.target_pages, balloon.due_s) == (1000, 4000, None)


def test_the_frames_that_went_last_come_back_first() -> None:
    guest = Guest(Host(), frames=2000, pages=2000)
    guest.balloon.set_target(2000 - 600)
    guest.balloon.run(0.0)
    assert guest.freed == [list(range(512)), list(range(512, 600))]
    guest.balloon.set_target(2000 - 50)
    guest.balloon.run(0.0)
    assert guest.offered == [list(range(599, 87, -1)), list(range(87, 49, -1))]
    assert guest.balloon.ballooned().tolist() == list(range(50))


def test_the_frames_that_were_offered_first_are_the_ones_granted() -> None:
    guest = Guest(Host(3), frames=20, pages=10)
    guest.balloon.set_target(18)
    assert guest.balloon.step(0.0) == 3
    assert guest.offered == [[19, 18, 17, 16, 15, 14, 13, 12]]
    assert np.flatnonzero(guest.is_free).tolist() == [*range(10), 17, 18, 19]
    assert guest.balloon.ballooned().tolist() == list(range(10, 17))


def test_pages_are_scrubbed_before_they_go_unless_told_not_to() -> None:
    guest = Guest(Host(), frames=20, pages=20)
    guest.balloon.set_target(15)
    guest.balloon.run(0.0)
    assert np.flatnonzero(guest.is_clean).tolist() == guest.freed[0] == [0, 1, 2, 3, 4]
    guest.balloon.scrub_pages = False
    guest.balloon.set_target(10)
    guest.balloon.run(0.0)
    assert np.flatnonzero(guest.is_clean).tolist() == [0, 1, 2, 3, 4]


def test_a_step_before_its_time_does_nothing() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(100.0)
    due_s = guest.balloon.due_s
    assert due_s is not None
    calls = guest.host.calls
    guest.host.free_pages = 100
    assert guest.balloon.step(due_s - 0.001) == 0
    assert guest.host.calls == calls
    assert guest.balloon.step(due_s) == 10


@pytest.mark.parametrize(
    ("profile", "steps", "due_s"),
    [("linux-2.6.18-xen", 1, -999.0), ("linux", 1, -998.0), ("linux", 3, -992.0)],
)
def test_a_clock_set_back_makes_no_timer_longer_than_it_was_set(
    profile: str, steps: int, due_s: float
) -> None:
    guest = Guest(Host(), frames=20, pages=10, profile=profile)
    guest.balloon.set_target(20)
    short_times(guest, steps)
    before = guest.balloon.due_s
    guest.balloon.clock_is(before or 0.0)
    assert guest.balloon.due_s == before
    guest.balloon.clock_is(-1000.0)
    assert guest.balloon.due_s == due_s


def test_without_a_back_off_a_target_that_the_guest_has_already_is_no_work() -> None:
    guest = Guest(Host(), frames=20, pages=10, profile="linux-2.6.18-xen")
    guest.balloon.set_target(12)
    guest.balloon.step(0.0)
    assert guest.balloon.due_s == 1.0
    guest.balloon.set_target(10)
    assert guest.balloon.due_s is None


def test_a_new_target_is_worked_on_before_the_timer_runs_out() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(0.0)
    guest.balloon.set_target(5)
    assert guest.balloon.step(0.0) == 5


def test_a_guest_that_is_told_to_have_nothing_gives_what_it_has_free() -> None:
    guest = Guest(Host(), frames=1000, pages=1000)
    guest.use(300)
    guest.balloon.set_target(0)
    guest.balloon.run(0.0)
    assert guest.balloon.current_pages == 300
    assert guest.balloon.due_s is not None


# -- shortages ----------------------------------------------------------------------------------


def test_before_the_change_a_partial_grant_is_given_back_and_ends_it() -> None:
    guest = Guest(Host(700), frames=2000, pages=100, profile="hard-limit")
    balloon = guest.balloon
    balloon.set_target(2000)
    assert (balloon.step(0.0), balloon.step(0.0)) == (512, 0)
    assert (balloon.current_pages, guest.host.free_pages) == (612, 188)
    assert (balloon.hard_limit_pages, balloon.due_s) == (612 + 188, None)
    guest.host.free_pages = 5000
    balloon.run(1e9)
    assert balloon.current_pages == 612
    balloon.set_target(2000)
    assert balloon.hard_limit_pages is None
    balloon.run(1e9)
    assert balloon.current_pages == 2000
    assert guest.log == ["xen_balloon: the hard limit is 800 pages"]


def test_before_the_change_no_grant_at_all_ends_it_too() -> None:
    guest = Guest(Host(0), frames=200, pages=100, profile="hard-limit")
    guest.balloon.set_target(200)
    guest.balloon.run(0.0)
    assert (guest.balloon.hard_limit_pages, guest.balloon.due_s) == (100, None)
    assert guest.freed == []


def test_the_document_s_driver_keeps_a_partial_grant_and_tries_again_each_second() -> None:
    guest = Guest(Host(700), frames=2000, pages=100, profile="linux-2.6.18-xen")
    balloon = guest.balloon
    balloon.set_target(2000)
    assert (balloon.step(7.0), balloon.step(7.0)) == (512, 188)
    assert (balloon.current_pages, balloon.due_s) == (800, 8.0)
    assert short_times(guest, 1000, start_s=8.0) == [1.0] * 1000
    assert balloon.hard_limit_pages is None


@pytest.mark.parametrize("profile", ["hard-limit", "linux-2.6.18-xen"])
def test_a_guest_short_of_memory_is_tried_again_each_second_in_both_old_ones(profile: str) -> None:
    guest = Guest(Host(), frames=1000, pages=1000, profile=profile)
    guest.use(800)
    guest.balloon.set_target(100)
    assert guest.balloon.step(0.0) == 200
    assert guest.balloon.due_s == 1.0
    assert short_times(guest, 1000, start_s=1.0) == [1.0] * 1000
    guest.stop_using()
    guest.balloon.run(2000.0)
    assert guest.balloon.current_pages == 100


def test_later_linux_takes_a_partial_grant_for_success_and_asks_for_more_at_once() -> None:
    guest = Guest(Host(700), frames=2000, pages=100)
    balloon = guest.balloon
    balloon.set_target(2000)
    assert [balloon.step(0.0) for _ in range(2)] == [512, 188]
    assert (balloon.due_s, balloon.retry_count) == (-inf, 1)
    assert short_times(guest, 2) == [2.0, 4.0]
    assert balloon.retry_count == 3


def test_later_linux_backs_off_up_to_the_longest_delay_and_cancels() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    balloon = guest.balloon
    balloon.max_retry_count = 8
    balloon.set_target(200)
    assert short_times(guest, 100) == [2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]
    assert (balloon.due_s, balloon.retry_count, balloon.schedule_delay_s) == (None, 1, 1)
    assert guest.host.calls == 8
    assert guest.log == ["xen_balloon: gave up at 100 of 200 pages"]
    guest.host.free_pages = 500
    balloon.run(1e9)
    assert balloon.current_pages == 100
    balloon.set_target(180)
    balloon.run(1e9)
    assert balloon.current_pages == 180


def test_later_linux_backs_off_the_same_way_when_the_guest_is_short() -> None:
    guest = Guest(Host(), frames=100, pages=100)
    guest.use(90)
    guest.balloon.set_target(50)
    assert guest.balloon.step(0.0) == 10
    assert (guest.balloon.due_s, guest.balloon.retry_count) == (2.0, 2)
    assert short_times(guest, 100, start_s=2.0) == [4.0, 8.0]
    assert guest.balloon.due_s is None


def test_without_a_limit_of_tries_later_linux_never_cancels() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.max_retry_count = 0
    guest.balloon.set_target(200)
    assert short_times(guest, 1000)[5:] == [32.0] * 995
    assert guest.balloon.retry_count == 1001


@pytest.mark.parametrize(
    ("max_retry_count", "max_schedule_delay_s", "delays"),
    [(1, 32, []), (2, 32, [2.0]), (3, 1, [1.0, 1.0]), (3, 3, [2.0, 3.0]), (4, 32, [2.0, 4.0, 8.0])],
)
def test_the_limits_of_the_back_off_are_kept(
    max_retry_count: int, max_schedule_delay_s: int, delays: list[float]
) -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.max_retry_count = max_retry_count
    guest.balloon.max_schedule_delay_s = max_schedule_delay_s
    guest.balloon.set_target(20)
    assert short_times(guest, 9) == delays
    assert (guest.balloon.due_s, guest.balloon.retry_count) == (None, 1)


def test_a_limit_of_tries_that_is_passed_already_cancels_at_the_next_one() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.max_retry_count = 0
    guest.balloon.set_target(20)
    short_times(guest, 5)
    guest.balloon.max_retry_count = 3
    assert short_times(guest, 9, start_s=1000.0) == []


def test_in_a_back_off_the_same_target_is_no_news() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target(20)
    assert guest.balloon.due_s == 7.0


def test_after_a_cancel_the_same_target_is_no_news() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    short_times(guest, 4)
    guest.balloon.set_target(20)
    assert guest.balloon.due_s is None


@pytest.mark.parametrize("target", [19, 21, 10_000])
def test_after_a_cancel_another_target_is_tried_be_the_goal_the_same(target: int) -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    short_times(guest, 4)
    guest.balloon.set_target(target)
    assert guest.balloon.due_s == -inf


def test_in_a_back_off_a_target_with_another_goal_is_tried_at_once_and_counts() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target(19)
    assert guest.balloon.step(6.0) == 0
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (3, 4)
    assert guest.balloon.due_s == 10.0


def test_in_a_back_off_a_target_that_the_guest_has_already_is_one_more_try_in_vain() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target(10)
    assert short_times(guest, 9, start_s=6.0) == [4.0, 8.0]
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (1, 1)
    assert (guest.balloon.due_s, guest.host.calls) == (None, 1)


def test_in_a_back_off_a_target_below_is_reached_and_ends_it() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target(8)
    guest.balloon.run(6.0)
    assert (guest.balloon.current_pages, guest.balloon.due_s) == (8, None)
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (1, 1)


def test_after_a_cancel_a_target_that_the_guest_has_already_is_no_work() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target(20)
    short_times(guest, 4)
    guest.balloon.set_target(10)
    assert guest.balloon.due_s is None


def test_success_starts_the_back_off_anew() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.set_target(200)
    short_times(guest, 2)
    guest.host.free_pages = 1
    assert guest.balloon.due_s is not None
    assert guest.balloon.step(guest.balloon.due_s) == 1
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (1, 1)
    assert short_times(guest, 2, start_s=100.0) == [2.0, 4.0]


def test_the_longest_delay_can_be_set() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.max_retry_count = 0
    guest.balloon.max_schedule_delay_s = 3
    guest.balloon.set_target(200)
    assert short_times(guest, 4) == [2.0, 3.0, 3.0, 3.0]


def test_a_delay_of_nothing_lasts_a_tick_so_that_a_run_ends() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.max_retry_count = guest.balloon.max_schedule_delay_s = 0
    guest.balloon.set_target(200)
    guest.balloon.run(0.0)
    assert (guest.host.calls, guest.balloon.due_s) == (1, 0.004)


@pytest.mark.parametrize(
    ("max_mib", "minimum_mib"),
    [(64, 40), (128, 72), (256, 104), (512, 168), (1024, 232), (2048, 360), (4096, 424)],
)
def test_the_smallest_target_follows_from_the_maximum(max_mib: int, minimum_mib: int) -> None:
    assert minimum_pages_for(max_mib * PAGES_PER_MIB) == minimum_mib * PAGES_PER_MIB


def test_a_target_below_the_minimum_counts_as_the_minimum() -> None:
    guest = Guest(Host(10_000), frames=2000, pages=1000, minimum_pages=600)
    guest.balloon.set_target(10)
    assert guest.balloon.target_pages == 600
    guest.balloon.set_target(601)
    assert guest.balloon.target_pages == 601


def test_the_minimum_does_not_make_a_guest_grow() -> None:
    balloon = Guest(Host(10_000), frames=2000, pages=500, minimum_pages=600).balloon
    balloon.set_target(10)
    assert (balloon.target_pages, balloon.due_s) == (500, None)


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'xp'; there are: linux, linux-2\.6\.18-xen, hard-limit"):
        balloon_profile("xp")


# -- snapshots ----------------------------------------------------------------------------------


def test_a_snapshot_of_a_large_balloon_is_small() -> None:
    guest = Guest(Host(), frames=300_000, pages=300_000)
    guest.use(1000)
    guest.balloon.set_target(1000)
    guest.balloon.run(0.0)
    assert len(json.dumps(guest.balloon.snapshot())) < 300


@pytest.mark.parametrize("now_s", [0.0, 0.5, 1.0])
def test_a_driver_goes_on_where_its_snapshot_was_taken(now_s: float) -> None:
    guest = Guest(Host(5), frames=20, pages=10, profile="linux-2.6.18-xen")
    guest.balloon.set_target(20)
    guest.balloon.run(0.0)
    snapshot = json.loads(json.dumps(guest.balloon.snapshot(), allow_nan=False))
    again = guest.make_balloon("linux-2.6.18-xen")
    again.restore(snapshot)
    guest.host.free_pages = 100
    again.run(now_s)
    assert again.current_pages == (20 if now_s == 1.0 else 15)


def test_a_snapshot_knows_that_a_step_is_due_at_once() -> None:
    guest = Guest(Host(5), frames=20, pages=10)
    guest.balloon.set_target(5)
    again = guest.make_balloon("linux")
    again.restore(json.loads(json.dumps(guest.balloon.snapshot(), allow_nan=False)))
    assert again.due_s == -inf


@pytest.mark.parametrize(
    ("frames", "runs"),
    [
        ([], []),
        ([7], [[7, 1, 0]]),
        ([0, 1, 2, 10, 11, 12, 5], [[0, 3, 1], [10, 3, 1], [5, 1, 0]]),
        ([9, 7, 5, 3], [[9, 4, -2]]),
        ([4, 4_294_967_295, 4], [[4, 2, 4_294_967_291], [4, 1, 0]]),
    ],
)
def test_frames_become_runs_of_even_steps_and_back(
    frames: list[int], runs: list[list[int]]
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
        self.balloon.set_target(pages)
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
        snapshot = json.loads(json.dumps(self.balloon.snapshot(), allow_nan=False))
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
