"""Waiting for something that another process, a kernel or a guest does: the one loop for it.

A `Deadline` says what is waited for, and how long. Its `looks` are the loop: at once, after each
pause, and a last time when the time is over. `wait_for` and `comes_about` are the loop with a
function that looks.

A function that looks may itself wait, for `signals.SIGNAL_CHECK_S` at most, so that signals are
handled; then the pause between two looks is 0. Who waits without a limit for what Python or the
kernel tells of by itself (an event of a thread, a descriptor that gets readable) does not need
this loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

PAUSE_S = 0.05


class Clock(Protocol):
    """A clock, and a way to wait. It is passed in, so that a test can pass its own."""

    def monotonic(self) -> float:
        """Seconds since a fixed moment. It is never set."""

    def wait(self, seconds: float) -> None:
        """Return when so many seconds have passed."""


class MonotonicClock:
    """The clock of this computer that is never set."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


CLOCK = MonotonicClock()


class TimeIsOverError(Exception):
    """What was waited for did not come about in time: `reason` says what, `limit_s` how long."""

    def __init__(self, reason: str, limit_s: float) -> None:
        super().__init__(f"waited {limit_s:g} s for {reason}")
        self.reason, self.limit_s = reason, limit_s


class Deadline:
    """`reason` (a noun: what is waited for) has `limit_s` seconds to come about, from now on."""

    def __init__(self, reason: str, limit_s: float = math.inf, *, clock: Clock = CLOCK) -> None:
        self.reason, self.limit_s = reason, limit_s
        self._clock = clock
        self._start_s = clock.monotonic()

    @property
    def left_s(self) -> float:
        """How many seconds are left: 0 when the time is over, inf without a limit."""
        return max(0.0, self._start_s + self.limit_s - self._clock.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0

    def shorten(self, left_s: float) -> None:
        """Have no more than `left_s` seconds left from now on."""
        passed_s = self._clock.monotonic() - self._start_s
        self.limit_s = min(self.limit_s, passed_s + left_s)

    def looks(self, pause_s: float = PAUSE_S, *, longest_s: float = 0.0) -> Iterator[bool]:
        """Go through the loop's body once for each look; whether it is the last one.

        The first look is at once. Pauses of `pause_s` seconds are between two looks, each twice as
        long as the one before up to `longest_s`, where that is longer. The last look comes when the
        time is over, so there is one look even without any time.
        """
        while not self.is_over:
            yield False
            if pause_s:
                self._clock.wait(min(pause_s, self.left_s))
                pause_s = max(pause_s, min(2 * pause_s, longest_s))
        yield True

    def error(self) -> TimeIsOverError:
        """To be raised when the last look was in vain."""
        return TimeIsOverError(self.reason, self.limit_s)


def wait_for(
    look: Callable[[], T | None],
    deadline: Deadline,
    pause_s: float = PAUSE_S,
    *,
    longest_s: float = 0.0,
) -> T:
    """What `look` returns, which is called until that is neither None nor False. See
    `Deadline.looks` for the pauses.

    :raise TimeIsOverError: when that is not before the deadline.
    """
    for _ in deadline.looks(pause_s, longest_s=longest_s):
        found = look()
        if found is not None and found is not False:
            return found
    raise deadline.error()


def comes_about(
    look: Callable[[], bool],
    deadline: Deadline,
    pause_s: float = PAUSE_S,
    *,
    longest_s: float = 0.0,
) -> bool:
    """Whether `look` says so before the deadline. See `Deadline.looks` for the pauses."""
    return any(look() for _ in deadline.looks(pause_s, longest_s=longest_s))
