"""How an update ended that Ctrl-C, SIGTERM or SIGHUP interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openrbu.system.interrupts import TerminatedBySignal

if TYPE_CHECKING:
    from openrbu.update.journal import Journal


class InterruptReport:
    """Adds to an interrupt's message how the update ended, which the journal says."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._before: str | None = None

    def begin(self, journal: Journal, *, is_new: bool = True) -> None:
        """An update will begin now. It becomes the last one in this journal; or, where it is not
        new, it is that already."""
        last = journal.last if is_new else None
        self._before = None if last is None else last.id
        self._journal = journal

    def end(self) -> None:
        """The update is done: later interrupts don't concern it."""
        self._journal = None

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Add the outcome to an interrupt in the block."""
        try:
            yield
        except TerminatedBySignal as stop:
            if self._journal is not None:
                stop.outcome = self._outcome_text(self._journal)
            raise

    def _outcome_text(self, journal: Journal) -> str:
        last = journal.last
        if last is None or last.id == self._before:
            return "nothing was changed"
        if last.outcome == "armed":
            return "the update is armed: rbu cancel undoes it"
        if last.outcome == "staged":
            return "the update is staged, not armed: rbu arm arms it, rbu cancel frees it"
        if left := last.fields.get("left"):
            return f"could not be undone: {', '.join(left)}"
        undone = "the update was undone: what it staged is gone, the BIOS is not armed"
        if last.fields.get("lost"):
            from openrbu.update.undo import LOST

            return f"{undone}; {LOST}"
        return undone
