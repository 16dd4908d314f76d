"""Ctrl-C and its like, held back where something must not be left half done.

They are held by Python handlers and not by a signal mask. A mask is one thread's: another thread
(numpy brings some, a progress bar has one) takes the signal then, and Python runs the handler in
the main thread all the same.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Self

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_UP_S = 0.25
"""The longest that the main thread may wait for another one, or for a process, in one go. A signal
that another thread took, or that came just before the wait, does not end the wait; its handler runs
after it."""


class Hold:
    """Signals wait until this ends; `let_through` opens it for a while."""

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}
        self._caught: list[int] = []

    @property
    def has_caught(self) -> bool:
        """Whether a signal waits."""
        return bool(self._caught)

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Signals work as ever in this block; the ones that have come so far do so first."""
        try:
            self.end()
            yield
        finally:
            self.begin()

    def begin(self) -> None:
        """Catch the signals. Only the main thread runs handlers; in another there is no need."""
        if threading.current_thread() is not threading.main_thread():
            return
        found = {signum: signal.getsignal(signum) for signum in HELD}
        self._handlers = {
            signum: handler
            for signum, handler in found.items()
            if handler is not None and handler != signal.SIG_IGN
        }
        for signum in self._handlers:
            signal.signal(signum, self._catch)

    def end(self) -> None:
        """Put the handlers back, and let the signals that have come do what they do."""
        if not self._handlers:  # in another thread than the main one
            return
        with contextlib.ExitStack() as stack:  # one that raises does not keep the others
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
        except BaseException:  # a signal came before it was held
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def signals_held() -> Hold:
    """SIGINT, SIGTERM and SIGHUP wait until the block is through."""
    return Hold()
