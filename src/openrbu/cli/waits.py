"""What a command of the lab waits for: on a terminal with a spinner, and with a bar for a download.

Where standard error is not a terminal, what is waited for is a line there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.cli import letters, show

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


_BAR_LETTERS = 16
_BESIDE, _BESIDE_DOWNLOAD = 13, 56
"""How many letters are beside the words about what is waited for: spinner, time, and the bar with
its bytes."""


class Waits:
    """Says what is waited for, until `end`. `console`: the terminal; None: there is none."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """What is waited for from now on, in place of what was before."""
        if self._console is None:
            show.print_note(text)
            return
        if self._progress is None:
            self._progress = _spinner(self._console)
            self._progress.start()
        if self._task is not None:
            self._progress.remove_task(self._task)
        shown = show.printable(text).removesuffix(" \N{HORIZONTAL ELLIPSIS}").removesuffix(" ...")
        self._task = self._progress.add_task(shown, total=None, grown=None)

    def end(self) -> None:
        """Nothing is waited for, or something else is going to write to the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    @contextlib.contextmanager
    def downloading(self, download: tuple[Path, int]) -> Iterator[None]:
        """Show in the block how far a download is: how much is in a directory of the bytes that
        will be there."""
        directory, size_bytes = download
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=size_bytes, grown=directory)
        try:
            yield
        finally:
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, total=None, grown=None)


@contextlib.contextmanager
def waits() -> Iterator[Waits]:
    """What says what is waited for in the block."""
    shown = Waits(show.error_console())
    try:
        yield shown
    finally:
        shown.end()


def _spinner(console: Console) -> Progress:
    from rich.progress import (
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TimeElapsedColumn,
    )
    from rich.text import Text

    from openrbu.units import human_size

    class Words(ProgressColumn):
        """What is waited for, cut where the bar and the time would have no room."""

        def render(self, task: Task) -> Text:
            beside = _BESIDE if task.fields.get("grown") is None else _BESIDE_DOWNLOAD
            words = Text(task.description)
            words.truncate(max(20, console.width - beside), overflow="ellipsis")
            return words

    class Download(ProgressColumn):
        """The bar and the bytes of a download; nothing where there is none."""

        def render(self, task: Task) -> Text:
            grown, total = task.fields.get("grown"), task.total
            if grown is None or not total:
                return Text("")
            task.completed = min(total, _bytes_in(grown))
            done = f"{human_size(int(task.completed))} of {human_size(int(total))}"
            return Text(f"{letters.like(_bar(task.completed / total), console.encoding)} {done}")

    is_ascii = not (console.encoding or "").startswith("utf")
    return Progress(
        SpinnerColumn("line" if is_ascii else "dots"),
        Words(),
        Download(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _bar(part: float) -> str:
    filled = round(part * _BAR_LETTERS)
    return "\N{FULL BLOCK}" * filled + "\N{MIDDLE DOT}" * (_BAR_LETTERS - filled)


def _bytes_in(directory: Path) -> int:
    """The bytes of the files in a directory, such as one that is being downloaded."""
    found = 0
    with contextlib.suppress(OSError):
        for each in directory.iterdir():
            if each.is_file():
                found += each.stat().st_size
    return found
