"""Advisory locks on the paths of a virtual machine: what flock(2) is for files on a disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator

from openrbu.errors import ObstacleError
from openrbu.system.waiting import CLOCK, Clock, Deadline, comes_about

TIMEOUT_S = 30.0
"""How long to wait for a path: far more than an SMI call takes."""

STEP_S = 0.2
"""How long one try waits. Signals are handled between two tries."""


def still_locked(path: str, holder: str = "another program") -> ObstacleError:
    """The error of a program that has waited `TIMEOUT_S` for a path that `holder` has locked."""
    return ObstacleError(
        f"{holder} has had {path} locked for {TIMEOUT_S:.0f} s: wait for it, or end it"
    )


class PathLocks:
    """Which holder has locked which path. Any thread may call."""

    def __init__(self) -> None:
        self._holders: dict[str, Hashable] = {}
        self._changed = threading.Condition()

    def acquire(self, path: str, holder: Hashable, *, wait_s: float = STEP_S) -> bool:
        """Lock `path` for `holder`, which may have locked it already. False when another holder
        still has it after `wait_s` seconds."""
        with self._changed:
            if self._changed.wait_for(lambda: self._is_free(path, holder), wait_s):
                self._holders[path] = holder
                return True
        return False

    def _is_free(self, path: str, holder: Hashable) -> bool:
        return self._holders.get(path, holder) == holder

    def release(self, path: str, holder: Hashable) -> None:
        """Unlock `path` if this holder has locked it."""
        with self._changed:
            if self._holders.get(path) == holder:
                del self._holders[path]
                self._changed.notify_all()


@contextlib.contextmanager
def path_lock(
    path: str,
    acquire: Callable[[], bool],
    release: Callable[[], None],
    *,
    clock: Clock = CLOCK,
) -> Iterator[None]:
    """Lock a path in the block: `acquire` is tried until it succeeds.

    `release` is called even when it is not known whether `acquire` succeeded: a signal may have
    come in between.

    :raise ObstacleError: when `acquire` has not succeeded after `TIMEOUT_S` seconds.
    """
    deadline = Deadline(path, TIMEOUT_S, clock=clock)
    try:
        if not comes_about(acquire, deadline, pause_s=0):  # `acquire` itself waits
            raise still_locked(path)
        yield
    finally:
        release()
