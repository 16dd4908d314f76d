"""The balloon driver when the host, or the guest, is short of memory: what follows, and when."""

from __future__ import annotations

from math import inf

import pytest

from rigs.balloon import Guest, Host, short_times


def test_before_the_change_a_partial_grant_is_given_back_and_ends_it() -> None:
    guest = Guest(Host(700), frames=2000, pages=100, profile="hard-limit")
    balloon = guest.balloon
    balloon.set_target_pages(2000)
    assert (balloon.step(0.0), balloon.step(0.0)) == (512, 0)
    assert (balloon.current_pages, guest.host.free_pages) == (612, 188)
    assert (balloon.hard_limit_pages, balloon.due_s) == (612 + 188, None)
    guest.host.free_pages = 5000
    balloon.run(1e9)
    assert balloon.current_pages == 612
    balloon.set_target_pages(2000)
    assert balloon.hard_limit_pages is None
    balloon.run(1e9)
    assert balloon.current_pages == 2000
    assert guest.log == ["xen_balloon: the hard limit is 800 pages"]


def test_before_the_change_no_grant_at_all_ends_it_too() -> None:
    guest = Guest(Host(0), frames=200, pages=100, profile="hard-limit")
    guest.balloon.set_target_pages(200)
    guest.balloon.run(0.0)
    assert (guest.balloon.hard_limit_pages, guest.balloon.due_s) == (100, None)
    assert guest.freed == []


def test_the_document_s_driver_keeps_a_partial_grant_and_tries_again_each_second() -> None:
    guest = Guest(Host(700), frames=2000, pages=100, profile="linux-2.6.18-xen")
    balloon = guest.balloon
    balloon.set_target_pages(2000)
    assert (balloon.step(7.0), balloon.step(7.0)) == (512, 188)
    assert (balloon.current_pages, balloon.due_s) == (800, 8.0)
    assert short_times(guest, 1000, start_s=8.0) == [1.0] * 1000
    assert balloon.hard_limit_pages is None


@pytest.mark.parametrize("profile", ["hard-limit", "linux-2.6.18-xen"])
def test_a_guest_short_of_memory_is_tried_again_each_second_in_both_old_ones(profile: str) -> None:
    guest = Guest(Host(), frames=1000, pages=1000, profile=profile)
    guest.use(800)
    guest.balloon.set_target_pages(100)
    assert guest.balloon.step(0.0) == 200
    assert guest.balloon.due_s == 1.0
    assert short_times(guest, 1000, start_s=1.0) == [1.0] * 1000
    guest.stop_using()
    guest.balloon.run(2000.0)
    assert guest.balloon.current_pages == 100


def test_later_linux_takes_a_partial_grant_for_success_and_asks_for_more_at_once() -> None:
    guest = Guest(Host(700), frames=2000, pages=100)
    balloon = guest.balloon
    balloon.set_target_pages(2000)
    assert [balloon.step(0.0) for _ in range(2)] == [512, 188]
    assert (balloon.due_s, balloon.retry_count) == (-inf, 1)
    assert short_times(guest, 2) == [2.0, 4.0]
    assert balloon.retry_count == 3


def test_later_linux_backs_off_up_to_the_longest_delay_and_cancels() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    balloon = guest.balloon
    balloon.max_retry_count = 8
    balloon.set_target_pages(200)
    assert short_times(guest, 100) == [2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]
    assert (balloon.due_s, balloon.retry_count, balloon.schedule_delay_s) == (None, 1, 1)
    assert guest.host.calls == 8
    assert guest.log == ["xen_balloon: gave up at 100 of 200 pages"]
    guest.host.free_pages = 500
    balloon.run(1e9)
    assert balloon.current_pages == 100
    balloon.set_target_pages(180)
    balloon.run(1e9)
    assert balloon.current_pages == 180


def test_later_linux_backs_off_the_same_way_when_the_guest_is_short() -> None:
    guest = Guest(Host(), frames=100, pages=100)
    guest.use(90)
    guest.balloon.set_target_pages(50)
    assert guest.balloon.step(0.0) == 10
    assert (guest.balloon.due_s, guest.balloon.retry_count) == (2.0, 2)
    assert short_times(guest, 100, start_s=2.0) == [4.0, 8.0]
    assert guest.balloon.due_s is None


def test_without_a_limit_of_tries_later_linux_never_cancels() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.max_retry_count = 0
    guest.balloon.set_target_pages(200)
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
    guest.balloon.set_target_pages(20)
    assert short_times(guest, 9) == delays
    assert (guest.balloon.due_s, guest.balloon.retry_count) == (None, 1)


def test_a_limit_of_tries_that_is_passed_already_cancels_at_the_next_one() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.max_retry_count = 0
    guest.balloon.set_target_pages(20)
    short_times(guest, 5)
    guest.balloon.max_retry_count = 3
    assert short_times(guest, 9, start_s=1000.0) == []


def test_in_a_back_off_the_same_target_is_no_news() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target_pages(20)
    assert guest.balloon.due_s == 7.0


def test_after_a_cancel_the_same_target_is_no_news() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    short_times(guest, 4)
    guest.balloon.set_target_pages(20)
    assert guest.balloon.due_s is None


@pytest.mark.parametrize("target", [19, 21, 10_000])
def test_after_a_cancel_another_target_is_tried_be_the_goal_the_same(target: int) -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    short_times(guest, 4)
    guest.balloon.set_target_pages(target)
    assert guest.balloon.due_s == -inf


def test_in_a_back_off_a_target_with_another_goal_is_tried_at_once_and_counts() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target_pages(19)
    assert guest.balloon.step(6.0) == 0
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (3, 4)
    assert guest.balloon.due_s == 10.0


def test_in_a_back_off_a_target_that_the_guest_has_already_is_one_more_try_in_vain() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target_pages(10)
    assert short_times(guest, 9, start_s=6.0) == [4.0, 8.0]
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (1, 1)
    assert (guest.balloon.due_s, guest.host.calls) == (None, 1)


def test_in_a_back_off_a_target_below_is_reached_and_ends_it() -> None:
    """Seen on Debian's 6.1.192 under Xen 4.17."""
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    guest.balloon.step(5.0)
    guest.balloon.set_target_pages(8)
    guest.balloon.run(6.0)
    assert (guest.balloon.current_pages, guest.balloon.due_s) == (8, None)
    assert (guest.balloon.retry_count, guest.balloon.schedule_delay_s) == (1, 1)


def test_after_a_cancel_a_target_that_the_guest_has_already_is_no_work() -> None:
    guest = Guest(Host(), frames=20, pages=10)
    guest.balloon.set_target_pages(20)
    short_times(guest, 4)
    guest.balloon.set_target_pages(10)
    assert guest.balloon.due_s is None


def test_success_starts_the_back_off_anew() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.set_target_pages(200)
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
    guest.balloon.set_target_pages(200)
    assert short_times(guest, 4) == [2.0, 3.0, 3.0, 3.0]


def test_a_delay_of_nothing_lasts_a_tick_so_that_a_run_ends() -> None:
    guest = Guest(Host(), frames=200, pages=100)
    guest.balloon.max_retry_count = guest.balloon.max_schedule_delay_s = 0
    guest.balloon.set_target_pages(200)
    guest.balloon.run(0.0)
    assert (guest.host.calls, guest.balloon.due_s) == (1, 0.004)
