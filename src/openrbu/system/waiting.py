"""The loop that waits for something that another process, a kernel or a guest does.

A `Deadline` says what is waited for, and how long. Its `checks` are the loop: one check at once,
one after each pause, and a last one when the time is over. `wait_for` and `comes_about` are this
loop with a function that checks.

A function that checks may itself wait, at most `signals.SIGNAL_CHECK_S`, so that signals are
handled; the pause between two checks is 0 then. This loop is not needed for a wait without a limit
that Python or the kernel ends (an event of a thread, a descriptor that gets readable).
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
        """Seconds since a fixed moment. The clock is never set."""

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
    """The time of a wait is over: `reason` says what was waited for, `limit_s` how long."""

    def __init__(self, reason: str, limit_s: float) -> None:
        super().__init__(f"waited {limit_s:g} s for {reason}")
        self.reason, self.limit_s = reason, limit_s


class Deadline:
    """A wait of at most `limit_s` seconds from now on. `reason`: what is waited for, a noun."""

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
        """Set the time that is left to `left_s` seconds, if it is longer."""
        passed_s = self._clock.monotonic() - self._start_s
        self.limit_s = min(self.limit_s, passed_s + left_s)

    def checks(self, pause_s: float = PAUSE_S, *, longest_s: float = 0.0) -> Iterator[bool]:
        """Run the loop's body once for each check. Yields whether it is the last one.

        The first check is at once. Between two checks is a pause of `pause_s` seconds; if
        `longest_s` is longer, each pause is twice as long as the one before, up to `longest_s`. The
        last check is when the time is over, so there is at least one.
        """
        while not self.is_over:
            yield False
            if pause_s:
                self._clock.wait(min(pause_s, self.left_s))
                pause_s = max(pause_s, min(2 * pause_s, longest_s))
        yield True

    def error(self) -> TimeIsOverError:
        """The error to raise when the last check was not successful."""
        return TimeIsOverError(self.reason, self.limit_s)


def wait_for(
    check: Callable[[], T | None],
    deadline: Deadline,
    pause_s: float = PAUSE_S,
    *,
    longest_s: float = 0.0,
) -> T:
    """Call `check` until it returns something other than None and False; returns that. See
    `Deadline.checks` for the pauses.

    :raise TimeIsOverError: when it does not before the deadline.
    """
    for _ in deadline.checks(pause_s, longest_s=longest_s):
        found = check()
        if found is not None and found is not False:
            return found
    raise deadline.error()


def comes_about(
    check: Callable[[], bool],
    deadline: Deadline,
    pause_s: float = PAUSE_S,
    *,
    longest_s: float = 0.0,
) -> bool:
    """Whether `check` returns True before the deadline. See `Deadline.checks` for the pauses."""
    return any(check() for _ in deadline.checks(pause_s, longest_s=longest_s))
