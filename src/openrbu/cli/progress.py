"""Progress of an update: bars on standard error where that is a terminal, else nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from openrbu.cli import show

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from openrbu.update.progress import ProgressReporter


class ProgressBars:
    """Shows a line for each step, with a bar for the delivered bytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def step(self, text: str) -> None:
        self.finish()
        self._task = self._progress.add_task(show.printable(text), total=None)

    def delivering(self, total_bytes: int) -> Callable[[int], None]:
        task = self._task
        if task is None:
            task = self._task = self._progress.add_task("delivering", total=None)
        self._progress.update(task, total=total_bytes)
        return lambda count: self._progress.advance(task, count)

    def finish(self) -> None:
        """The current step is done."""
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1)


@contextlib.contextmanager
def progress_reporter() -> Iterator[ProgressReporter]:
    """What shows the progress of an update in the block."""
    console = show.error_console()
    if console is None:
        from openrbu.update.progress import SilentProgress

        yield SilentProgress()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        reporter = ProgressBars(progress)
        yield reporter
        reporter.finish()
