"""Ctrl-C, SIGTERM and SIGHUP: raised as an exception, told with what became of an update."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.update.journal import Journal

EXIT_SIGNAL = 128
"""Plus the number of the signal: what a shell says of a process that a signal ended."""


class Stopped(BaseException):
    """A signal asked this process to end. Its notes say what became of what was under way.

    No KeyboardInterrupt, which libraries turn into other things on the way.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_code = EXIT_SIGNAL + signum

    @property
    def text(self) -> str:
        """It and its notes, as one line."""
        return "; ".join(["interrupted", *getattr(self, "__notes__", [])])


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Stopped` for the signals that ask a process to end; one that is ignored stays so."""

    def raise_it(signum: int, _frame: FrameType | None) -> None:
        raise Stopped(signum)

    before = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, raise_it)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class UpdateTeller:
    """Notes on an interrupt what became of an update: the journal has it."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._before: str | None = None

    def begin(self, journal: Journal) -> None:
        """An update is about to begin, and will be the last one in this journal."""
        last = journal.last
        self._before = None if last is None else last.id
        self._journal = journal

    def end(self) -> None:
        """What comes now is not the update any more."""
        self._journal = None

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Note it for an interrupt in the block."""
        try:
            yield
        except Stopped as stop:
            if self._journal is not None:
                stop.add_note(self._what_became(self._journal))
            raise

    def _what_became(self, journal: Journal) -> str:
        last = journal.last
        if last is None or last.id == self._before:
            return "nothing was changed"
        if last.outcome == "armed":
            return "the update is armed: rbu cancel takes it back"
        if left := last.fields.get("left"):
            return f"could not be put back: {', '.join(left)}"
        return "what was begun is undone: nothing is staged, the BIOS is not armed"
