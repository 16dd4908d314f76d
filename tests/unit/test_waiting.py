"""The loop that waits, by a clock that only goes on when it is waited for."""

from __future__ import annotations

import math

import pytest

from openrbu.system.waiting import (
    CLOCK,
    Deadline,
    TimeIsOverError,
    comes_about,
    wait_for,
)


class FakeClock:
    """It stands still but for the waits, which it notes."""

    def __init__(self) -> None:
        self.now_s, self.waits = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_what_is_there_is_not_waited_for(clock: FakeClock) -> None:
    assert wait_for(lambda: "here", Deadline("it", 1.0, clock=clock)) == "here"
    assert comes_about(lambda: True, Deadline("it", 0.0, clock=clock))
    assert clock.waits == []


def test_what_comes_is_waited_for_with_pauses(clock: FakeClock) -> None:
    answers = iter([None, None, "here"])
    assert wait_for(lambda: next(answers), Deadline("it", clock=clock), 0.25) == "here"
    assert clock.waits == [0.25, 0.25]


@pytest.mark.parametrize("nothing", [0, b"", ""])
def test_nothing_is_an_answer_unless_it_is_none_or_false(clock: FakeClock, nothing: object) -> None:
    answers = iter([None, False, nothing])
    assert wait_for(lambda: next(answers), Deadline("it", 9.0, clock=clock)) == nothing
    assert len(clock.waits) == 2


def test_pauses_double_up_to_the_longest(clock: FakeClock) -> None:
    deadline = Deadline("it", 2.0, clock=clock)
    assert not comes_about(lambda: False, deadline, 0.25, longest_s=0.75)
    assert clock.waits == [0.25, 0.5, 0.75, 0.5]  # the last one ends when the time does


def test_a_look_is_the_last_one_when_the_time_is_over(clock: FakeClock) -> None:
    looked_at: list[float] = []
    deadline = Deadline("the other process", 0.5, clock=clock)

    def look() -> None:
        looked_at.append(clock.now_s)

    with pytest.raises(TimeIsOverError, match=r"waited 0\.5 s for the other process") as caught:
        wait_for(look, deadline, 0.25)
    assert looked_at == [1000.0, 1000.25, 1000.5]
    assert (caught.value.reason, caught.value.limit_s) == ("the other process", 0.5)


def test_each_look_says_whether_it_is_the_last(clock: FakeClock) -> None:
    assert list(Deadline("it", 0.5, clock=clock).checks(0.25)) == [False, False, True]
    assert list(Deadline("it", 0.0, clock=clock).checks(0.25)) == [True]


def test_who_waits_in_the_look_is_not_paused(clock: FakeClock) -> None:
    deadline = Deadline("it", 3.0, clock=clock)

    def look() -> bool:
        clock.wait(1.0)
        return False

    assert not comes_about(look, deadline, pause_s=0)
    assert clock.waits == [1.0] * 4


def test_a_deadline_can_be_shortened_and_never_gets_longer(clock: FakeClock) -> None:
    deadline = Deadline("it", 10.0, clock=clock)
    clock.wait(4.0)
    assert deadline.left_s == 6.0
    deadline.shorten(2.0)
    assert deadline.left_s == 2.0
    deadline.shorten(5.0)
    assert deadline.left_s == 2.0
    clock.wait(2.0)
    assert deadline.is_over
    assert deadline.left_s == 0.0


def test_without_a_limit_the_time_is_never_over(clock: FakeClock) -> None:
    deadline = Deadline("it", clock=clock)
    clock.wait(1e9)
    assert deadline.left_s == math.inf
    deadline.shorten(1.0)
    assert deadline.left_s == 1.0


def test_the_clock_of_this_computer_goes_on() -> None:
    before = CLOCK.monotonic()
    CLOCK.wait(0.001)
    assert CLOCK.monotonic() > before
