"""The clock of a machine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

Clock = Callable[[], dt.datetime]


def local_now() -> dt.datetime:
    """The wall clock, as a PC's real-time clock shows it."""
    return dt.datetime.now().astimezone()
