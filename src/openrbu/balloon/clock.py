"""The clocks that balloon commands go by. They are passed in, so that a test can pass its own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, and a way to wait."""

    def wall(self) -> float:
        """Seconds since 1970 (UTC). It may be set forward and back. The time of guests goes on by
        this clock while no process has them."""

    def monotonic(self) -> float:
        """Seconds since a fixed moment. It is never set."""

    def wait(self, seconds: float) -> None:
        """Return when so many seconds have passed."""


class SystemClock:
    """The clocks of this computer."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
