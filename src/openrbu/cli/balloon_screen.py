"""How a Xen host is shown while it is watched: a live picture, or a line for each change."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from openrbu.cli import show
from openrbu.cli.balloon_view import driver_cell, free_line, orphan_lines, size_of_pages
from openrbu.cli.show import Block, Cell, StyledText, cell_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from openrbu.balloon.status import GuestStatus
    from openrbu.balloon.watch import WatchedHost

_BAR_MIN, _BAR_MAX = 10, 60


class Screen(Protocol):
    """Shows the status of a host that is watched."""

    def update(self) -> None:
        """Show the status as it is now."""


class NoScreen:
    """Shows nothing: the document at the end has it all."""

    def update(self) -> None: ...


class LineScreen:
    """Writes a line for each guest whose target has changed, or what its driver does."""

    def __init__(self, watched: WatchedHost) -> None:
        self._watched = watched
        self._last: dict[str, tuple[object, ...]] = {}
        self._lost = 0

    def update(self) -> None:
        watched = self._watched
        lines: list[Block] = [*orphan_lines(watched.name, watched.lost[self._lost :])]
        self._lost = len(watched.lost)
        for each in watched.status.guests:
            name, state = each.info.name, (each.target_pages, each.activity, each.owner)
            if self._last.get(name) != state:
                self._last[name] = state
                lines.append(f"{watched.elapsed_s:7.1f} s  {name}: {_progress(each)}")
        show.emit(lines)


def _progress(each: GuestStatus) -> str:
    current, wanted = size_of_pages(each.info.current_pages), size_of_pages(each.target_pages)
    return f"{current} of {wanted}, {cell_text(driver_cell(each))}"


class LiveScreen:
    """Shows a table with bars, which is drawn anew in the same place."""

    def __init__(self, watched: WatchedHost, live: Live) -> None:
        self._watched, self._live = watched, live

    def update(self) -> None:
        self._live.update(_picture(self._watched, self._live.console), refresh=True)


@contextlib.contextmanager
def screen_for(watched: WatchedHost, *, as_json: bool) -> Iterator[Screen]:
    """The screen for this process's output, until the end of the block."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = show.error_console() if as_json or is_terminal else None
    if console is None:
        yield NoScreen() if as_json else LineScreen(watched)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield LiveScreen(watched, live)


def _picture(watched: WatchedHost, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = watched.status.guests
    table = Table.grid(padding=(0, 1))
    for column in range(5):
        table.add_column(justify="right" if column in (2, 3) else "left", no_wrap=True)
    texts = [
        (
            each.info.name,
            size_of_pages(each.info.current_pages),
            _target_text(each),
            driver_cell(each),
        )
        for each in found
    ]
    taken = sum(max(len(_plain(row[column])) for row in texts) for column in range(4)) + 5
    width = max(_BAR_MIN, min(_BAR_MAX, console.width - taken))
    most = max(max(each.info.frame_count, each.info.current_pages) for each in found)
    for each, (name, current, wanted, words) in zip(found, texts, strict=True):
        bar = _bar(each, most, width)
        table.add_row(Text(_plain(name)), bar, current, wanted, _styled(words))
    head = f"{watched.name}  {watched.elapsed_s:.1f} s  (Ctrl-C ends)"
    lost = [_styled(line) for line in orphan_lines(watched.name, watched.lost)]
    return Group(Text(_plain(head), style="bold"), table, Text(free_line(watched.status)), *lost)


def _target_text(each: GuestStatus) -> str:
    return f"→ {size_of_pages(each.target_pages)}"


def _plain(cell: Cell) -> str:
    return cell_text(cell)


def _styled(cell: Cell) -> Text:
    from rich.text import Text

    return Text(_plain(cell), style=cell.meaning.value if isinstance(cell, StyledText) else "")


def _bar(each: GuestStatus, most: int, width: int) -> Text:
    """The memory that a guest has as a filled bar, in its frames as a dotted one; `┃` marks its
    target. The largest guest, which has `most` pages, takes the whole width."""
    from rich.text import Text

    def place(pages: int) -> int:
        return min(width, round(pages / most * width))

    filled, end = place(each.info.current_pages), max(place(each.info.frame_count), 1)
    bar = "█" * filled + "·" * max(0, end - filled)
    text = Text(bar.ljust(width))
    text.stylize("green" if each.has_settled and not each.has_given_up else "yellow", 0, filled)
    mark = max(0, min(place(each.target_pages), width) - 1)
    if each.target_pages != each.info.current_pages:
        text = Text.assemble(text[:mark], ("┃", "bold"), text[mark + 1 :])
    return text
