"""Who is shown how an update goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from openrbu.update.driver import Progress


class Watcher(Protocol):
    """Somebody who is shown how it goes."""

    def step(self, text: str) -> None:
        """A step begins."""

    def delivering(self, total_bytes: int) -> Progress:
        """Bytes are about to go to the driver; the result is called with how many went."""


class SilentWatcher:
    """Shows nothing."""

    def step(self, text: str) -> None:
        pass

    def delivering(self, total_bytes: int) -> Callable[[int], None]:
        return lambda _: None
