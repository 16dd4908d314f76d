"""Ctrl-C, SIGTERM and SIGHUP, raised as an exception."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a process to end."""

EXIT_SIGNAL = 128
"""Plus the number of the signal: the exit code that a shell shows for a process that a signal
ended."""


class TerminatedBySignal(BaseException):
    """A signal asked this process to end. `outcome` says what happened to the operation.

    It is not a KeyboardInterrupt, because libraries catch that. The outcome is not a note
    (PEP 678): Python adds notes of its own from 3.12 on, such as which class was being made.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = EXIT_SIGNAL + signum
        self.outcome: str | None = None

    @property
    def text(self) -> str:
        """The message for the user, and the outcome where it is known, as one line."""
        return "; ".join(filter(None, ["interrupted", self.outcome]))


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `TerminatedBySignal` for SIGINT, SIGTERM and SIGHUP in the block; a signal that is
    ignored stays ignored."""

    def raise_it(signum: int, _frame: FrameType | None) -> None:
        raise TerminatedBySignal(signum)

    before = {}
    for signum in ENDING_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, raise_it)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
