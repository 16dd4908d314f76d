"""The clocks that balloon commands go by. They are passed in, so that a test can pass its own."""

from __future__ import annotations

import time
from typing import Protocol

from openrbu.system import waiting


class Clock(waiting.Clock, Protocol):
    """Two clocks, and a way to wait."""

    def wall(self) -> float:
        """Seconds since 1970 (UTC). It may be set forward and back. The time of guests goes on by
        this clock while no process has them."""


class SystemClock(waiting.MonotonicClock):
    """The clocks of this computer."""

    def wall(self) -> float:
        return time.time()
