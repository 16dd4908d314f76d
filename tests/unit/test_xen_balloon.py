"""The balloon driver's state machine: what a step moves, and which targets it takes."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from openrbu.drivers.xen_balloon import (
    minimum_pages_for,
)
from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES, balloon_profile
from openrbu.errors import UsageError
from openrbu.units import PAGES_PER_MIB
from rigs.balloon import Guest, Host, short_times

ALL_PROFILES = pytest.mark.parametrize("profile", BALLOON_PROFILES)


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
    balloon.set_target_pages(2000 - 1100)
    assert balloon.due_s == -inf
    assert [balloon.step(0.0) for _ in range(4)] == [512, 512, 76, 0]
    assert (balloon.current_pages, balloon.low_pages, guest.host.free_pages) == (900, 1100, 1100)
    assert balloon.due_s is None


@ALL_PROFILES
def test_a_guest_grows_by_512_pages_a_step(profile: str) -> None:
    guest = Guest(Host(5000), frames=2000, pages=900, profile=profile)
    balloon = guest.balloon
    balloon.set_target_pages(2000)
    assert [balloon.step(0.0) for _ in range(4)] == [512, 512, 76, 0]
    assert (balloon.current_pages, balloon.low_pages, guest.host.free_pages) == (2000, 0, 3900)
    assert balloon.due_s is None


def test_a_guest_grows_to_the_frames_that_it_has_and_no_further() -> None:
    balloon = Guest(Host(5000), frames=1000, pages=700).balloon
    balloon.set_target_pages(4000)
    assert balloon.goal_pages == 1000
    balloon.run(0.0)
    assert (balloon.current_pages, balloon.target_pages, balloon.due_s) == (1000, 4000, None)


def test_the_frames_that_went_last_come_back_first() -> None:
    guest = Guest(Host(), frames=2000, pages=2000)
    guest.balloon.set_target_pages(2000 - 600)
    guest.balloon.run(0.0)
    assert guest.freed == [list(range(512)), list(range(512, 600))]
    guest.balloon.set_target_pages(2000 - 50)
    guest.balloon.run(0.0)
    assert guest.offered == [list(range(599, 87, -1)), list(range(87, 49, -1))]
    assert guest.balloon.ballooned().tolist() == list(range(50))


def test_the_frames_that_were_offered_first_are_the_ones_granted() -> None:
    guest = Guest(Host(3), frames=20, pages=10)
    guest.balloon.set_target_pages(18)
    assert guest.balloon.step(0.0) == 3
    assert guest.offered == [[19, 18, 17, 16, 15, 14, 13, 12]]
    assert np.flatnonzero(guest.is_free).tolist() == [*range(10), 17, 18, 19]
    assert guest.balloon.ballooned().tolist() == list(range(10, 17))


def test_pages_are_scrubbed_before_they_go_unless_told_not_to() -> None:
    guest = Guest(Host(), frames=20, pages=20)
    guest.balloon.set_target_pages(15)
    guest.balloon.run(0.0)
    assert np.flatnonzero(guest.is_clean).tolist() == guest.freed[0] == [0, 1, 2, 3, 4]
    guest.balloon.scrub_pages = False
    guest.balloon.set_target_pages(10)
    guest.balloon.run(0.0)
    assert np.flatnonzero(guest.is_clean).tolist() == [0, 1, 2, 3, 4]


def test_a_step_before_its_time_does_nothing() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
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
    guest.balloon.set_target_pages(20)
    short_times(guest, steps)
    before = guest.balloon.due_s
    guest.balloon.clock_is(before or 0.0)
    assert guest.balloon.due_s == before
    guest.balloon.clock_is(-1000.0)
    assert guest.balloon.due_s == due_s


def test_without_a_back_off_a_target_that_the_guest_has_already_is_no_work() -> None:
    guest = Guest(Host(), frames=20, pages=10, profile="linux-2.6.18-xen")
    guest.balloon.set_target_pages(12)
    guest.balloon.step(0.0)
    assert guest.balloon.due_s == 1.0
    guest.balloon.set_target_pages(10)
    assert guest.balloon.due_s is None


def test_a_new_target_is_worked_on_before_the_timer_runs_out() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    guest.balloon.step(0.0)
    guest.balloon.set_target_pages(5)
    assert guest.balloon.step(0.0) == 5


def test_a_guest_that_is_told_to_have_nothing_gives_what_it_has_free() -> None:
    guest = Guest(Host(), frames=1000, pages=1000)
    guest.use(300)
    guest.balloon.set_target_pages(0)
    guest.balloon.run(0.0)
    assert guest.balloon.current_pages == 300
    assert guest.balloon.due_s is not None


@pytest.mark.parametrize(
    ("max_mib", "minimum_mib"),
    [(64, 40), (128, 72), (256, 104), (512, 168), (1024, 232), (2048, 360), (4096, 424)],
)
def test_the_smallest_target_follows_from_the_maximum(max_mib: int, minimum_mib: int) -> None:
    assert minimum_pages_for(max_mib * PAGES_PER_MIB) == minimum_mib * PAGES_PER_MIB


def test_a_target_below_the_minimum_counts_as_the_minimum() -> None:
    guest = Guest(Host(10_000), frames=2000, pages=1000, minimum_pages=600)
    guest.balloon.set_target_pages(10)
    assert guest.balloon.target_pages == 600
    guest.balloon.set_target_pages(601)
    assert guest.balloon.target_pages == 601


def test_the_minimum_does_not_make_a_guest_grow() -> None:
    balloon = Guest(Host(10_000), frames=2000, pages=500, minimum_pages=600).balloon
    balloon.set_target_pages(10)
    assert (balloon.target_pages, balloon.due_s) == (500, None)


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'xp'; there are: linux, linux-2\.6\.18-xen, hard-limit"):
        balloon_profile("xp")
