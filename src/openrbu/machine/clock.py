"""The clock of a machine."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

Clock = Callable[[], dt.datetime]


def seconds_of(clock: Clock) -> Callable[[], float]:
    """The same clock in seconds since 1970. Of the wall clock they are had without a date, which
    takes ten times as long."""
    return time.time if clock is local_now else lambda: clock().timestamp()


def local_now() -> dt.datetime:
    """The wall clock, as a PC's real-time clock shows it."""
    return dt.datetime.now().astimezone()
