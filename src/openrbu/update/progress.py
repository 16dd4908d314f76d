"""Reports of the progress of an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from openrbu.update.driver import Progress


class ProgressReporter(Protocol):
    """An object whose methods are called as an update progresses."""

    def step(self, text: str) -> None:
        """A step begins; `text` says which."""

    def delivering(self, total_bytes: int) -> Progress:
        """The delivery of so many bytes begins. Returns a function that is called with the number
        of bytes delivered since its last call."""


class SilentProgress:
    """Reports nothing."""

    def step(self, text: str) -> None:
        pass

    def delivering(self, total_bytes: int) -> Callable[[int], None]:
        return lambda _: None
