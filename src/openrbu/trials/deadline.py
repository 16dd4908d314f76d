"""When a tool is killed with all that it has started: after a time, or when the trial is given up.

The process that serves the machine waits for the tool in `run.programs`, where most signals are
passed on to the tool. So two signals that nothing else uses kill the processes below this one; then
that wait ends as usual.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from openrbu.system.processes import be_told_of_parents_end, signal_descendants

GIVE_UP = signal.SIGUSR1
"""The signal by which a trial is given up."""


class GivenUpError(Exception):
    """The trial is not wanted any more."""


class Deadline:
    """From now on the signal `GIVE_UP`, or the end of the process `parent`, gives the trial up."""

    def __init__(self, parent: int) -> None:
        self.has_passed = False
        self._is_given_up = False
        signal.signal(GIVE_UP, self._give_up)
        signal.signal(signal.SIGALRM, self._pass)
        be_told_of_parents_end(GIVE_UP, parent)

    @contextlib.contextmanager
    def running(self, timeout_s: float) -> Iterator[None]:
        """In this block a tool runs, for so long at most.

        :raise GivenUpError: when the trial is given up.
        """
        self.check()
        signal.setitimer(signal.ITIMER_REAL, timeout_s, 1.0)  # again: it may have started another
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """
        :raise GivenUpError: when the trial is given up.
        """
        if self._is_given_up:
            raise GivenUpError

    def _pass(self, _signum: int, _frame: FrameType | None) -> None:
        self.has_passed = True
        signal_descendants(os.getpid(), signal.SIGKILL)

    def _give_up(self, _signum: int, _frame: FrameType | None) -> None:
        self._is_given_up = True
        signal_descendants(os.getpid(), signal.SIGKILL)
