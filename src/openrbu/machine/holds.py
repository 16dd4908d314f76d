"""Paths that one program at a time holds, by agreement: what `lockf` is to files on a disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator

from openrbu.errors import ObstacleError
from openrbu.system.waiting import CLOCK, Clock, Deadline, comes_about

PATIENCE_S = 30.0
"""How long to wait for a path: far more than an SMI call takes."""

STEP_S = 0.2
"""How long one try waits; between two tries a signal comes through."""


class Holds:
    """Who holds which path. Any thread may call."""

    def __init__(self) -> None:
        self._holders: dict[str, Hashable] = {}
        self._changed = threading.Condition()

    def take(self, path: str, holder: Hashable, *, wait_s: float = STEP_S) -> bool:
        """Have `holder` hold `path`, which it may do already; False when another one still does."""
        with self._changed:
            if self._changed.wait_for(lambda: self._is_free(path, holder), wait_s):
                self._holders[path] = holder
                return True
        return False

    def _is_free(self, path: str, holder: Hashable) -> bool:
        return self._holders.get(path, holder) == holder

    def release(self, path: str, holder: Hashable) -> None:
        """Let go of `path`, where this holder has it."""
        with self._changed:
            if self._holders.get(path) == holder:
                del self._holders[path]
                self._changed.notify_all()


@contextlib.contextmanager
def held(
    path: str,
    take: Callable[[], bool],
    release: Callable[[], None],
    *,
    clock: Clock = CLOCK,
) -> Iterator[None]:
    """Lock a path in the block: `take` is tried until it gets it.

    `release` is called even when it is not known whether `take` got it: a signal may have come in
    between.

    :raise ObstacleError: when `take` does not get it for `PATIENCE_S` seconds.
    """
    deadline = Deadline(path, PATIENCE_S, clock=clock)
    try:
        if not comes_about(take, deadline, pause_s=0):  # `take` waits itself
            raise ObstacleError(
                f"another program has held {path} for {PATIENCE_S:.0f} s: wait for it, or end it"
            )
        yield
    finally:
        release()
