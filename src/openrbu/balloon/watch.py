"""Watching a Xen host: its free guests run in this process until they have settled."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openrbu.balloon.charts import Panel
from openrbu.balloon.clock import Clock
from openrbu.balloon.dom0 import read_dom0_if_free
from openrbu.balloon.status import DriverState, HostStatus, host_status
from openrbu.errors import MachineError, OpenRbuError
from openrbu.machine.store import existing_directory
from openrbu.machine.xen_guests import AttachedGuest, GuestInUseError, catch_up
from openrbu.machine.xen_host import XenHost
from openrbu.system.interrupts import EXIT_SIGNAL, TerminatedBySignal
from openrbu.system.signals import DeferredSignals, signals_deferred
from openrbu.xen.hypervisor import DOM0
from openrbu.xen.simulation import BalloonSimulation

FRAME_S = 0.1
"""The time between two looks at the targets."""

RESCAN_S = 1.0
"""The time between two searches for new guests. dom0 is looked at as often."""

BATCH_S = 0.002
"""How long a guest takes here to move a batch: a rate of 1 GiB/s, so that its way can be seen."""


class WatchedHost:
    """A host whose free guests run here: they are attached until the stack unwinds.

    `status` is the status of the host after the last `advance`. `lost` are the guests that were
    destroyed because the process that had them died, and `refused` is what is wrong with those
    whose files are not understood: they stay as they are.

    :raise MachineError: when the host is off, or its machine can't be opened.
    """

    def __init__(
        self, directory: Path, stack: contextlib.ExitStack, signals: DeferredSignals, clock: Clock
    ) -> None:
        self._signals, self._clock, self._stack = signals, clock, stack
        # the machine first: opening it finds out that a host has lost its power
        self._dom0 = read_dom0_if_free(directory, clock)
        self._host = stack.enter_context(XenHost(directory, now=clock.wall, keeps=True))
        self.lost: list[str] = []
        self.refused: dict[str, MachineError] = {}
        self._has_changed = False
        self._clock_start_s = clock.monotonic()
        self._start_s = self._now_s = self._scanned_s = clock.wall()
        self._simulation = BalloonSimulation(seconds_per_batch=BATCH_S, start_s=self._start_s)
        self._guests: dict[str, AttachedGuest] = {}
        self._dom0_fingerprint = self._fingerprint_of_dom0()
        self._free_pages = self._host.hypervisor.free_pages
        self._has_guests_elsewhere = False
        self._attach_free_guests()
        self._sample_dom0()
        self.status = self._read_status()

    @property
    def name(self) -> str:
        """The host's name."""
        return self._host.name

    @property
    def elapsed_s(self) -> float:
        return self._now_s - self._start_s

    def run(self, seconds: float | None, show: Callable[[], None]) -> None:
        """Advance until `seconds` have passed or, where that is None, until all guests have
        settled; or until Ctrl-C. `show` is called at the start and after each step.

        :raise MachineError: when the host is off, or was restarted: see `problem`.
        """
        show()
        while True:
            self.advance()
            show()
            if self._is_finished(seconds) or not self._wait_for_next_frame():
                return

    def advance(self) -> None:
        """Let the guests do what is due by now. Their time goes on by the monotonic clock, so that
        somebody who sets the wall clock has no effect on it.

        :raise MachineError: when the host is off, or was restarted: see `problem`.
        """
        self._now_s = self._start_s + (self._clock.monotonic() - self._clock_start_s)
        if self._now_s >= self._scanned_s + RESCAN_S:
            self._scanned_s = self._now_s
            self._host.check_power()
            self._attach_free_guests()
            self._refresh_dom0()
        for name, guest in self._guests.items():
            if guest.balloon.is_due(self._now_s):
                guest.begin_change()
                self._has_changed = True
                if guest.balloon.adopt_target():
                    self._simulation.refresh(name)
        self._simulation.run(self._now_s)
        self.status = self._read_status()

    def problem(self) -> OpenRbuError | None:
        """Why the host can't be watched any more: it was removed, switched off or restarted. None
        where it is as it was."""
        try:
            existing_directory(self._host.name)
            self._host.check_power()
        except MachineError as error:
            return error
        return None

    def _is_finished(self, seconds: float | None) -> bool:
        if seconds is not None:
            return self.elapsed_s >= seconds
        return self.status.has_settled is not False

    def _wait_for_next_frame(self) -> bool:
        """Wait; False when Ctrl-C comes meanwhile."""
        try:
            with self._signals.deliver_pending():
                self._clock.wait(FRAME_S)
        except TerminatedBySignal as stopped:
            if stopped.exit_code != EXIT_SIGNAL + signal.SIGINT:
                raise
            return False
        return True

    def _attach_free_guests(self) -> None:
        """Attach the guests that no process has. They do first what was due before now."""
        self.refused.clear()
        self.lost += self._host.destroy_orphans()
        fresh = []
        for name in self._host.guest_names():
            if name not in self._guests:
                try:
                    fresh.append(self._stack.enter_context(self._host.attach(name)))
                except GuestInUseError:
                    self._has_guests_elsewhere = True
                except MachineError as error:
                    if self._host.hypervisor.find(name) is not None:  # it may be gone
                        self.refused[name] = error
        catch_up(fresh, self._now_s)
        for guest in fresh:
            self._guests[guest.name] = guest
            self._simulation.add(guest.name, guest.driver)

    def _fingerprint_of_dom0(self) -> tuple[object, ...]:
        """A value that is another one after dom0 has done something, or its target was set."""
        info = self._host.hypervisor.find(DOM0)
        with contextlib.suppress(FileNotFoundError):
            state = (self._host.directory / "state.json").stat()
            return info, state.st_ino, state.st_mtime_ns
        return info, None, None  # a process has the machine

    def _refresh_dom0(self) -> None:
        """Let dom0 do what is due, where there may be something, and another process does not have
        the machine."""
        fingerprint = self._fingerprint_of_dom0()
        is_idle = self._dom0 is not None and self._dom0.due_s is None
        if is_idle and fingerprint == self._dom0_fingerprint:
            return
        self._dom0 = read_dom0_if_free(self._host.directory, self._clock, timeout_s=0)
        self._dom0_fingerprint = self._fingerprint_of_dom0()
        self._sample_dom0()

    def _sample_dom0(self) -> None:
        if self._dom0 is not None:
            self._simulation.samples.record(self._now_s, DOM0, self._dom0)

    # -- what there is to see ---------------------------------------------------------------

    def _read_status(self) -> HostStatus:
        balloons: dict[str, DriverState] = {
            name: guest.driver for name, guest in self._guests.items()
        }
        if self._dom0 is not None:
            balloons[DOM0] = self._dom0
        return host_status(self._host, balloons, self.lost, self._now_s, refused=self.refused)

    def panel(self) -> Panel:
        """What happened, for a chart. What the host had free is known where all guests ran here."""
        free_pages = None if self._has_guests_elsewhere else self._free_pages
        return Panel(self.name, self._simulation.samples, max(self.elapsed_s, FRAME_S), free_pages)

    def events_document(self) -> dict[str, Any]:
        """What happened, for `--json`."""
        return {
            "changed": self._has_changed,
            "host": self.name,
            "elapsed_s": round(self.elapsed_s, 3),
            "events": list(self._simulation.samples.events()),
        }

    def document(self) -> dict[str, Any]:
        """What happened and the status after it, for `--json`."""
        status = self.status
        return {**self.events_document(), **status.document(), "has_settled": status.has_settled}


@contextlib.contextmanager
def open_watched_host(name: str, *, clock: Clock) -> Iterator[WatchedHost]:
    """A host to watch, until the end of the block. A signal waits until then, except while `run`
    waits.

    :raise MachineError: when there is no such host, it is off, or its machine can't be opened.
    """
    directory = existing_directory(name)
    with signals_deferred() as signals, contextlib.ExitStack() as stack:
        yield WatchedHost(directory, stack, signals, clock)
