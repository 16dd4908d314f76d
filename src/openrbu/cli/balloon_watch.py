"""The command `balloon watch`: the guests of a Xen host at work, until they have settled."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from openrbu.cli import balloon_session as sessions
from openrbu.cli import show
from openrbu.cli.balloon import HostName
from openrbu.cli.balloon_view import (
    Standing,
    free_line,
    host_blocks,
    host_document,
    lost_lines,
    size_of_pages,
)
from openrbu.cli.interrupts import EXIT_SIGNAL, Stopped
from openrbu.cli.options import AsJson
from openrbu.cli.show import Answer, Block, Cell, Marked, OutputError, caution, cell_text, good
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from openrbu.cli.charts import Panel
    from openrbu.machine.xen.guests import Guest
    from openrbu.machine.xen.host import XenHost
    from openrbu.signals import Hold

FRAME_S = 0.1
"""From one look at the targets to the next."""

LOOK_S = 1.0
"""From one look for new guests, and at dom0, to the next."""

BATCH_S = 0.002
"""How long a guest takes for a batch here, so that there is something to see: 1 GiB a second."""

_BAR_MIN, _BAR_MAX = 10, 60


def wait(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)


def watch(
    host: HostName,
    *,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", metavar="SECONDS", help="Watch for so long, even when all have settled."
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option("--chart", metavar="FILE", help="Draw what happened (.svg or .png)."),
    ] = None,
    as_json: AsJson = False,
) -> Answer:
    """Watch the guests of a Xen host move towards their targets.

    All guests that no other process has are run here meanwhile, and targets that other commands set
    are picked up. It ends when every guest has arrived, or has given up; or by Ctrl-C, which is no
    failure. On a terminal there is a live picture, in a pipe a line for each change, and with
    --json one document with all events.

    \b
    Examples:  rbu balloon watch xen1
               rbu balloon watch xen1 --for 60 --chart xen1.svg
    """
    from openrbu.cli.charts import check_path, draw
    from openrbu.machine.store import existing_directory
    from openrbu.machine.xen.host import XenHost, xen_config
    from openrbu.signals import signals_held

    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"--for: {seconds:g} is not a time in seconds")
    if chart is not None:
        check_path(chart)
        if not os.access(chart.parent, os.W_OK):
            raise OutputError(f"{chart} can't be written: there is no directory to write to")
    directory = existing_directory(host)
    xen_config(directory)
    with signals_held() as hold, contextlib.ExitStack() as stack:
        # dom0 first: a host that has lost its power is found out by opening the machine
        dom0 = sessions.look_at_dom0(directory, xen_config(directory).profile)
        opened = stack.enter_context(XenHost(directory, now=sessions.now, keeps=True))
        watched = WatchedHost(opened, dom0, stack)
        with _screen(watched, as_json=as_json) as screen:
            screen.update()
            while True:
                watched.go_on(sessions.now())
                screen.update()
                if watched.is_over(seconds) or not _is_left_alone(hold):
                    break
        document = {"changed": watched.has_changed, **watched.document()}
        blocks = watched.blocks()
        try:
            if chart is not None:
                draw(chart, [watched.panel()])
                document["chart"] = str(chart)
                blocks.append(good(f"drawn: {chart}"))
        except OutputError as error:
            return Answer(document, blocks, error)
        return Answer(document, blocks)


def _is_left_alone(hold: Hold) -> bool:
    """Wait for the next look; False when Ctrl-C comes meanwhile."""
    try:
        with hold.let_through():
            wait(FRAME_S)
    except Stopped as stopped:
        if stopped.exit_code != EXIT_SIGNAL + signal.SIGINT:
            raise
        return False
    return True


class WatchedHost:
    """A host whose free guests are run here; they are attached until the stack unwinds."""

    def __init__(
        self, host: XenHost, dom0: sessions.Dom0Balloon | None, stack: contextlib.ExitStack
    ) -> None:
        from openrbu.machine.xen.world import World

        self.host, self._dom0, self._stack = host, dom0, stack
        self.lost: list[str] = []
        self.has_changed = False
        self.start_s = self._now_s = self._looked_s = sessions.now()
        self._world = World(seconds_per_batch=BATCH_S, start_s=self.start_s)
        self._guests: dict[str, Guest] = {}
        self._dom0_mark = self._mark_of_dom0()
        self._free_pages = host.hypervisor.free_pages
        self._had_others = False
        self._look_for_guests()
        self._note_dom0()

    @property
    def elapsed_s(self) -> float:
        return self._now_s - self.start_s

    def go_on(self, now_s: float) -> None:
        """Have the guests do what is due by now.

        :raise MachineError: when the host was switched off, or restarted.
        """
        self._now_s = max(now_s, self._now_s)
        if self._now_s >= self._looked_s + LOOK_S:
            self._looked_s = self._now_s
            self._look_for_guests()
            self._look_at_dom0()
        for name, guest in self._guests.items():
            if guest.balloon.is_due(self._now_s):
                guest.begin_change()
                self.has_changed = True
                if (pages := guest.balloon.take_target()) is not None:
                    self._world.set_target(name, pages)
        self._world.run(self._now_s)

    def _look_for_guests(self) -> None:
        """Attach the guests that are free now."""
        from openrbu.errors import MachineError
        from openrbu.machine.xen.guests import catch_up

        self.lost += self.host.bury_lost()
        fresh = []
        for name in self.host.guest_names():
            if name not in self._guests:
                try:
                    fresh.append(self._stack.enter_context(self.host.attach(name)))
                except MachineError:
                    self._had_others = True
        catch_up(fresh, self._now_s)
        for guest in fresh:
            self._guests[guest.name] = guest
            self._world.add(guest.name, guest.driver)

    def _mark_of_dom0(self) -> tuple[object, ...]:
        """What is another one after dom0 has done anything, or was told to."""
        from openrbu.machine.xen.hypervisor import DOM0

        info = self.host.hypervisor.domain(DOM0).info()
        with contextlib.suppress(FileNotFoundError):
            state = (self.host.directory / "state.json").stat()
            return info, state.st_ino, state.st_mtime_ns
        return info, None, None  # a process has it

    def _look_at_dom0(self) -> None:
        """Have dom0 do what is due, where it has something to do; unless the host is in use."""
        mark = self._mark_of_dom0()
        is_idle = self._dom0 is not None and self._dom0.due_s is None
        if is_idle and mark == self._dom0_mark:
            return
        profile = self.host.profile_of("dom0")
        self._dom0 = sessions.look_at_dom0(self.host.directory, profile, patience_s=0)
        self._dom0_mark = self._mark_of_dom0()
        self._note_dom0()

    def _note_dom0(self) -> None:
        if self._dom0 is not None:
            self._world.samples.note(self._now_s, "dom0", self._dom0)

    # -- what there is to see ---------------------------------------------------------------

    def standings(self) -> list[Standing]:
        guests = list(self._guests.values())
        return sessions.standings(self.host, guests, self._dom0, self._now_s)

    def is_over(self, seconds: float | None) -> bool:
        """Whether `seconds` are over; where there is no such time, whether all have settled."""
        if seconds is not None:
            return self.elapsed_s >= seconds
        return all(each.has_settled for each in self.standings())

    def panel(self) -> Panel:
        """For a chart."""
        from openrbu.cli.charts import Panel

        free_pages = None if self._had_others else self._free_pages
        return Panel(self.host.name, self._world.samples, max(self.elapsed_s, FRAME_S), free_pages)

    def document(self) -> dict[str, Any]:
        found = self.standings()
        return {
            **host_document(self.host, found, self.lost),
            "elapsed_s": round(self.elapsed_s, 3),
            "has_settled": all(each.has_settled for each in found),
            "events": list(self._world.samples.events()),
        }

    def blocks(self) -> list[Block]:
        found = self.standings()
        blocks = host_blocks(self.host, found, self.lost)
        after = f"after {self.elapsed_s:.1f} s"
        if not all(each.has_settled for each in found):
            return [*blocks, caution(f"{after} there is more to do: rbu balloon watch goes on")]
        for each in found:
            if each.gave_up:
                again = f"rbu balloon target {self.host.name} {each.info.name} SIZE"
                blocks.append(caution(f"{each.info.name} gave up; have it try again: {again}"))
        return [*blocks, f"all have settled {after}"]


# -- how it is shown meanwhile --------------------------------------------------------------


class Screen(Protocol):
    """Shows how it goes."""

    def update(self) -> None:
        """Something may have changed."""


class NoScreen:
    def update(self) -> None: ...


class LineScreen:
    """A line for each guest whose target, or what its driver is at, has changed."""

    def __init__(self, watched: WatchedHost) -> None:
        self._watched = watched
        self._last: dict[str, tuple[object, ...]] = {}
        self._lost = 0

    def update(self) -> None:
        watched = self._watched
        lines: list[Block] = [*lost_lines(watched.host.name, watched.lost[self._lost :])]
        self._lost = len(watched.lost)
        for each in watched.standings():
            name, state = each.info.name, (each.target_pages, each.doing, each.owner)
            if self._last.get(name) != state:
                self._last[name] = state
                lines.append(f"{watched.elapsed_s:7.1f} s  {name}: {_progress(each)}")
        show.emit(lines)


def _progress(each: Standing) -> str:
    current, wanted = size_of_pages(each.info.current_pages), size_of_pages(each.target_pages)
    return f"{current} of {wanted}, {cell_text(each.words())}"


class LiveScreen:
    """A table with bars that changes in its place."""

    def __init__(self, watched: WatchedHost, live: Live) -> None:
        self._watched, self._live = watched, live

    def update(self) -> None:
        self._live.update(_picture(self._watched, self._live.console), refresh=True)


@contextlib.contextmanager
def _screen(watched: WatchedHost, *, as_json: bool) -> Iterator[Screen]:
    """Somebody who shows it, for the length of the block."""
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

    found = watched.standings()
    table = Table.grid(padding=(0, 1))
    for column in range(5):
        table.add_column(justify="right" if column in (2, 3) else "left", no_wrap=True)
    texts = [
        (each.info.name, size_of_pages(each.info.current_pages), _wanted(each), each.words())
        for each in found
    ]
    taken = sum(max(len(_plain(row[column])) for row in texts) for column in range(4)) + 5
    width = max(_BAR_MIN, min(_BAR_MAX, console.width - taken))
    most = max(max(each.info.frame_count, each.info.current_pages) for each in found)
    for each, (name, current, wanted, words) in zip(found, texts, strict=True):
        bar = _bar(each, most, width)
        table.add_row(Text(_plain(name)), bar, current, wanted, _styled(words))
    head = f"{watched.host.name}  {watched.elapsed_s:.1f} s  (Ctrl-C ends)"
    lost = [_styled(line) for line in lost_lines(watched.host.name, watched.lost)]
    return Group(Text(_plain(head), style="bold"), table, Text(free_line(watched.host)), *lost)


def _wanted(each: Standing) -> str:
    return f"→ {size_of_pages(each.target_pages)}"


def _plain(cell: Cell) -> str:
    return cell_text(cell)


def _styled(cell: Cell) -> Text:
    from rich.text import Text

    return Text(_plain(cell), style=cell.meaning.value if isinstance(cell, Marked) else "")


def _bar(each: Standing, most: int, width: int) -> Text:
    """What a guest has, filled, of what it may have, dotted; `┃` is where it shall go. The largest
    guest, of `most` pages, has the whole width."""
    from rich.text import Text

    def place(pages: int) -> int:
        return min(width, round(pages / most * width))

    filled, end = place(each.info.current_pages), max(place(each.info.frame_count), 1)
    bar = "█" * filled + "·" * max(0, end - filled)
    text = Text(bar.ljust(width))
    text.stylize("green" if each.has_settled and not each.gave_up else "yellow", 0, filled)
    mark = max(0, min(place(each.target_pages), width) - 1)
    if each.target_pages != each.info.current_pages:
        text = Text.assemble(text[:mark], ("┃", "bold"), text[mark + 1 :])
    return text
