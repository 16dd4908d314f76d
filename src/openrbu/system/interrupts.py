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
    """A signal asked this process to end. Its notes say what happened to the operation.

    It is not a KeyboardInterrupt, because libraries catch that.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = EXIT_SIGNAL + signum

    @property
    def text(self) -> str:
        """The message and its notes, as one line."""
        return "; ".join(["interrupted", *getattr(self, "__notes__", [])])


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
