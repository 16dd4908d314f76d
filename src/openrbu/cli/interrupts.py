"""What became of an update that Ctrl-C, SIGTERM or SIGHUP interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openrbu.system.interrupts import Stopped

if TYPE_CHECKING:
    from openrbu.update.journal import Journal


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
