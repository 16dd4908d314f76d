"""The command `balloon watch`: the guests of a Xen host at work, until they have settled."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrbu.balloon import session as sessions
from openrbu.cli.balloon import HostName
from openrbu.cli.balloon_screen import screen_for
from openrbu.cli.balloon_view import GuestStanding, host_blocks, host_document
from openrbu.cli.options import AsJson
from openrbu.cli.show import Answer, Block, caution, good
from openrbu.errors import MachineError, OpenRbuError, OutputError, UsageError
from openrbu.system.interrupts import EXIT_SIGNAL, Stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openrbu.balloon.charts import Panel
    from openrbu.machine.xen_guests import Guest
    from openrbu.machine.xen_host import XenHost
    from openrbu.system.signals import Hold

FRAME_S = 0.1
"""From one look at the targets to the next."""

LOOK_S = 1.0
"""From one look for new guests, and at dom0, to the next."""

BATCH_S = 0.002
"""How long a guest takes for a batch here, so that there is something to see: 1 GiB a second."""

Seconds = Annotated[
    float | None,
    typer.Option("--for", metavar="SECONDS", help="Watch for so long, even when all have settled."),
]
ChartPath = Annotated[
    Path | None,
    typer.Option("--chart", metavar="FILE", help="Draw what happened (.svg or .png)."),
]


def wait(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)


def monotonic() -> float:
    """Seconds by a clock that nobody sets."""
    return time.monotonic()


def watch(
    host: HostName,
    *,
    seconds: Seconds = None,
    chart: ChartPath = None,
    as_json: AsJson = False,
) -> Answer:
    """Watch the guests of a Xen host move towards their targets.

    All guests that no other process has are run here meanwhile, and targets that other commands set
    are picked up. It ends when each of them has arrived, or has given up; or by Ctrl-C, which is no
    failure. On a terminal there is a live picture, in a pipe a line for each change, and with
    --json one document with all events.

    \b
    Examples:  rbu balloon watch xen1
               rbu balloon watch xen1 --for 60 --chart xen1.svg
    """
    from openrbu.balloon.charts import check_path
    from openrbu.machine.store import existing_directory
    from openrbu.machine.xen_host import XenHost, xen_config
    from openrbu.system.signals import signals_held

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
        try:
            with screen_for(watched, as_json=as_json) as screen:
                screen.update()
                while True:
                    watched.go_on()
                    screen.update()
                    if watched.is_over(seconds) or not _is_left_alone(hold):
                        break
            document, blocks = watched.document(), watched.blocks()
        except MachineError as error:
            # of a host that is gone nothing can be told but what happened before
            return _drawn(Answer(watched.story(), (), watched.why_gone() or error), watched, chart)
        return _drawn(Answer(document, blocks), watched, chart)


def _drawn(answer: Answer, watched: WatchedHost, chart: Path | None) -> Answer:
    """The answer, with the chart drawn that it tells of."""
    from openrbu.balloon.charts import draw

    if chart is None:
        return answer
    try:
        draw(chart, [watched.panel()])
    except OutputError as error:
        return Answer(answer.document, answer.blocks, answer.error or error)
    document = {**answer.document, "chart": str(chart)}
    return Answer(document, [*answer.blocks, good(f"drawn: {chart}")], answer.error)


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
        from openrbu.xen.world import World

        self.host, self._dom0, self._stack = host, dom0, stack
        self.lost: list[str] = []
        self.has_changed = False
        self._clock_start_s = monotonic()
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

    def go_on(self) -> None:
        """Have the guests do what is due by now. Time goes on evenly here, whatever happens to the
        wall clock.

        :raise MachineError: when the host is off, or was restarted: see `why_gone`.
        """
        self._now_s = self.start_s + (monotonic() - self._clock_start_s)
        if self._now_s >= self._looked_s + LOOK_S:
            self._looked_s = self._now_s
            self.host.check_power()
            self._look_for_guests()
            self._look_at_dom0()
        for name, guest in self._guests.items():
            if guest.balloon.is_due(self._now_s):
                guest.begin_change()
                self.has_changed = True
                if guest.balloon.adopt_target():
                    self._world.look(name)
        self._world.run(self._now_s)

    def why_gone(self) -> OpenRbuError | None:
        """That the host is not there any more as it was; None while it is."""
        from openrbu.machine.store import existing_directory

        try:
            existing_directory(self.host.name)
            self.host.check_power()
        except MachineError as gone:
            return gone
        return None

    def _look_for_guests(self) -> None:
        """Attach the guests that are free now."""
        from openrbu.machine.xen_guests import catch_up

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
        from openrbu.xen.hypervisor import DOM0

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

    def standings(self) -> list[GuestStanding]:
        guests = list(self._guests.values())
        return sessions.standings(self.host, guests, self._dom0, self._now_s)

    def is_over(self, seconds: float | None) -> bool:
        """Whether `seconds` are over; where there is no such time, whether all have settled."""
        if seconds is not None:
            return self.elapsed_s >= seconds
        return _have_settled(self.standings()) is not False

    def panel(self) -> Panel:
        """For a chart."""
        from openrbu.balloon.charts import Panel

        free_pages = None if self._had_others else self._free_pages
        return Panel(self.host.name, self._world.samples, max(self.elapsed_s, FRAME_S), free_pages)

    def story(self) -> dict[str, Any]:
        """What happened, for `--json`."""
        return {
            "changed": self.has_changed,
            "host": self.host.name,
            "elapsed_s": round(self.elapsed_s, 3),
            "events": list(self._world.samples.events()),
        }

    def document(self) -> dict[str, Any]:
        """That, and how it is now."""
        found = self.standings()
        return {
            **self.story(),
            **host_document(self.host, found, self.lost),
            "has_settled": _have_settled(found),
        }

    def blocks(self) -> list[Block]:
        found = self.standings()
        blocks = host_blocks(self.host, found, self.lost)
        after = f"after {self.elapsed_s:.1f} s"
        if _have_settled(found) is False:
            return [*blocks, caution(f"{after} there is more to do: rbu balloon watch goes on")]
        blocks += [_try_again(self.host.name, each) for each in found if each.gave_up]
        others = [each for each in found if each.has_settled is None]
        for each in others:
            whose = f"process {each.owner}'s" if each.owner else "another process's"
            blocks.append(caution(f"{each.info.name} is {whose}: it may move yet"))
        if len(others) < len(found):
            blocks.append(f"{'the others' if others else 'all'} have settled {after}")
        return blocks


def _have_settled(found: Sequence[GuestStanding]) -> bool | None:
    """Whether nothing more happens by itself; None where that is up to other processes."""
    states = {each.has_settled for each in found}
    if False in states:
        return False
    return None if None in states else True


def _try_again(host: str, each: GuestStanding) -> Block:
    """How to have a guest that gave up try again."""
    from openrbu.drivers.xen_balloon_profiles import balloon_profile

    name = each.info.name
    size = "SIZE" if balloon_profile(each.profile).same_target_is_tried else "ANOTHER_SIZE"
    return caution(f"{name} gave up; have it try again: rbu balloon target {host} {name} {size}")
