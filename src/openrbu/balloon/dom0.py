"""dom0 and its balloon, through the files of its driver, as a program on the machine sees them.

dom0 is the Linux of the virtual machine itself. So it is reached as a machine is: in this process,
or in the one that serves the machine. A command opens the machine once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from openrbu.balloon.clock import Clock
from openrbu.drivers.xen_balloon import reachable_pages
from openrbu.drivers.xen_balloon_files import DEVICE_PATH
from openrbu.drivers.xen_balloon_profiles import BalloonProfile, Reaction, balloon_profile
from openrbu.hosts.base import Host, read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.config import MachineConfig
from openrbu.machine.store import InUseError
from openrbu.machine.xen_guests import GuestInUseError
from openrbu.machine.xen_host import xen_config
from openrbu.sharing.access import open_or_connect
from openrbu.system.waiting import Deadline
from openrbu.units import PAGE_KIB

_T = TypeVar("_T")

TIMEOUT_S = 2.0
"""How long to wait for a host or a guest that another command has for a moment."""


def when_free(attempt: Callable[[], _T], clock: Clock, timeout_s: float = TIMEOUT_S) -> _T:
    """What `attempt` returns. It is tried again while another process has the guest that it needs.

    :raise GuestInUseError: when another process has the guest after `timeout_s`, too, or keeps it.
    """
    deadline = Deadline("another command", timeout_s, clock=clock)
    for is_last in deadline.checks():
        try:
            return attempt()
        except GuestInUseError as error:
            if error.is_kept_open or is_last:
                raise
    raise deadline.error()


@dataclass(frozen=True, slots=True)
class Dom0Balloon:
    """What the files of dom0's driver say, as a `DriverState`. `due_s` is inf where there will be
    another try, because the files don't say when."""

    profile: BalloonProfile
    current_pages: int
    target_pages: int
    low_pages: int
    high_pages: int
    due_s: float | None
    hard_limit_pages: int | None

    @property
    def goal_pages(self) -> int:
        frames_left = self.low_pages + self.high_pages
        return reachable_pages(self.target_pages, self.current_pages, frames_left)

    @property
    def credit_pages(self) -> int:
        return self.goal_pages - self.current_pages


class Dom0:
    """dom0 of a machine that is open: `config` is the machine's.

    :raise MachineError: when the machine runs no Xen.
    """

    def __init__(self, host: Host, directory: Path, config: MachineConfig) -> None:
        self.config = config
        self._host = host
        self._profile = balloon_profile(xen_config(directory, config).profile)

    def set_target_kib(self, kib: int) -> None:
        """Write the driver's target. The driver does what is due at once.

        :raise MachineError: when the machine is off.
        """
        self._host.write(f"/sys{DEVICE_PATH}/target_kb", f"{kib}\n".encode())

    def read(self) -> Dom0Balloon:
        """Read the driver's files. Reading has the driver do first what has become due.

        :raise MachineError: when the machine is off.
        """
        profile = self._profile
        limit = None
        if profile.has_hard_limit:
            text = self._text("info/hard_limit_kb")
            limit = int(text) // PAGE_KIB if text.isdecimal() else None
        seen = Dom0Balloon(
            profile,
            current_pages=self._pages("info/current_kb"),
            target_pages=self._pages("target_kb"),
            low_pages=self._pages("info/low_kb"),
            high_pages=self._pages("info/high_kb"),
            due_s=math.inf,
            hard_limit_pages=limit,
        )
        reaction = profile.on_no_grant if seen.credit_pages > 0 else profile.on_short_guest
        has_given_up = reaction is Reaction.GIVE_UP
        if reaction is Reaction.BACK_OFF:  # a driver that gives up sets the count back to 1
            has_given_up = int(self._text("retry_count"), 16) <= 1
        if has_given_up or not seen.credit_pages:
            return replace(seen, due_s=None)
        return seen

    def _text(self, name: str) -> str:
        return read_text(self._host, f"/sys{DEVICE_PATH}/{name}")

    def _pages(self, name: str) -> int:
        return int(self._text(name)) // PAGE_KIB


@contextlib.contextmanager
def open_dom0(directory: Path, clock: Clock, timeout_s: float = TIMEOUT_S) -> Iterator[Dom0]:
    """dom0 of the machine in a directory, until the end of the block.

    :raise InUseError: when another process has the machine after `timeout_s`, too, and does not
        serve it.
    :raise MachineError: when the machine can't be opened, or runs no Xen.
    """
    turn = Deadline("another command", timeout_s, clock=clock)
    with open_or_connect(directory, within=turn) as machine:
        yield Dom0(VirtualHost(machine), directory, machine.config)


def read_dom0_if_free(
    directory: Path, clock: Clock, timeout_s: float = TIMEOUT_S
) -> Dom0Balloon | None:
    """dom0's balloon; None while another process has the machine and does not serve it.

    :raise MachineError: when the machine is off, can't be opened, or runs no Xen.
    """
    try:
        with open_dom0(directory, clock, timeout_s) as dom0:
            return dom0.read()
    except InUseError:
        return None
