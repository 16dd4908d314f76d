"""Ctrl-C and similar signals, deferred while something must not be left half done.

Python handlers defer them, not a signal mask. A mask applies to one thread only: another thread
(numpy starts some, a progress bar has one) would take the signal, and Python would run the handler
in the main thread nevertheless.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Self

from openrbu.system.interrupts import ENDING_SIGNALS

SIGNAL_CHECK_S = 0.25
"""The longest time that the main thread may wait for another thread, or for a process, in one call.
A signal that another thread took, or that came just before the wait, does not end the wait; its
handler runs after the wait."""


class DeferredSignals:
    """Defers signals until it ends; within `deliver_pending` they are delivered at once."""

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}
        self._caught: list[int] = []

    @property
    def has_pending(self) -> bool:
        """Whether a signal has come and was not delivered yet."""
        return bool(self._caught)

    @contextlib.contextmanager
    def deliver_pending(self) -> Iterator[None]:
        """Deliver the signals that are pending, and then each signal of this block as it comes."""
        try:
            self.end()
            yield
        finally:
            self.begin()

    def begin(self) -> None:
        """Catch the signals. In other threads than the main one this does nothing: only the main
        thread runs handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        found = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
        self._handlers = {
            signum: handler
            for signum, handler in found.items()
            if handler is not None and handler != signal.SIG_IGN
        }
        for signum in self._handlers:
            signal.signal(signum, self._catch)

    def end(self) -> None:
        """Restore the handlers, and deliver the signals that are pending."""
        if not self._handlers:  # in another thread than the main one
            return
        with contextlib.ExitStack() as stack:  # all are restored, even when one raises
            for signum, handler in self._handlers.items():
                stack.callback(signal.signal, signum, handler)
        self._handlers = {}
        caught, self._caught = dict.fromkeys(self._caught), []
        for number in caught:
            signal.raise_signal(number)

    def _catch(self, signum: int, _frame: FrameType | None) -> None:
        self._caught.append(signum)

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:  # a signal came before it was deferred
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def signals_deferred() -> DeferredSignals:
    """Defer SIGINT, SIGTERM and SIGHUP until the block ends."""
    return DeferredSignals()
