"""A Xen host at work: opened, its guests attached and settled, dom0 reached through its files."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu.cli.balloon_view import GuestStanding, host_blocks, host_document, standing_of
from openrbu.cli.show import Block
from openrbu.errors import MachineError
from openrbu.sharing.session import Session, open_session
from openrbu.units import KIB, PAGE_KIB

if TYPE_CHECKING:
    from openrbu.machine.xen_guests import Guest
    from openrbu.machine.xen_host import XenHost
    from openrbu.machine.xen_orders import GuestOrder
    from openrbu.xen.samples import BalloonState

PATIENCE_S = 2.0
"""How long to wait for a host or a guest that another command has for a moment."""

STEP_S = 0.05


def now() -> float:
    """The wall clock, by which guests' time goes on."""
    return time.time()


@dataclass(frozen=True, slots=True)
class Dom0Balloon:
    """What the files of dom0's driver say: a `BalloonState`. A time that they don't tell is inf."""

    current_pages: int
    target_pages: int
    low_pages: int
    high_pages: int
    due_s: float | None
    hard_limit_pages: int | None

    @property
    def goal_pages(self) -> int:
        return min(self.target_pages, self.current_pages + self.low_pages + self.high_pages)

    @property
    def credit_pages(self) -> int:
        return self.goal_pages - self.current_pages


class OpenedHost:
    """A host, with those of its guests attached that no other process has, and settled."""

    def __init__(
        self, host: XenHost, dom0: Dom0Balloon | None, stack: contextlib.ExitStack
    ) -> None:
        self.host, self._dom0, self._stack = host, dom0, stack
        self.lost = host.bury_lost()
        self._guests = stack.enter_context(host.attached())
        self._settle()

    def _settle(self) -> None:
        from openrbu.machine.xen_guests import settle

        settle(self._guests, now())

    def create(self, name: str, order: GuestOrder) -> None:
        """Make a guest. See `XenHost.create`."""
        from openrbu.machine.xen_guests import GuestInUseError

        self.host.create(name, order)
        with contextlib.suppress(GuestInUseError):  # who watches the host may be faster
            self._guests.append(self._stack.enter_context(self.host.attach(name)))

    def destroy(self, name: str) -> None:
        """Destroy a guest; one that has just been lost is.

        :raise MachineError: when there is none of that name, or another process has it.
        """
        if name in self.lost:
            return
        for guest in self._guests:
            if guest.name == name:
                self._guests.remove(guest)
                guest.close()
                break
        self.host.remove(name)

    def standing(self, name: str) -> GuestStanding:
        """How a guest stands.

        :raise MachineError: when there is no such guest, or it has just been lost.
        """
        if name in self.lost:
            raise MachineError(
                f"guest {name!r} of {self.host.name!r} lost its power with the process that had "
                f"it, and was destroyed{self._other_losses(name)}"
            )
        self.host.domain_of(name)
        return next(each for each in self.standings() if each.info.name == name)

    def _other_losses(self, name: str) -> str:
        others = [each for each in self.lost if each != name]
        return f"; so were: {', '.join(others)}" if others else ""

    def set_target_bytes(self, name: str, size_bytes: int) -> bool:
        """Tell a guest, and have it move; one that another command has for a moment is waited for.
        Whether its target, or what it has, is another one then.

        :raise MachineError: as `standing`; when another process has the host, and does not serve
            its dom0.
        """
        before = self.standing(name)
        if name == "dom0":
            self._set_dom0_target(size_bytes)
        else:
            self._set_guest_target(name, size_bytes)
        self._settle()
        after = self.standing(name)
        return (before.target_pages, before.info.current_pages) != (
            after.target_pages,
            after.info.current_pages,
        )

    def _set_guest_target(self, name: str, size_bytes: int) -> None:
        from openrbu.machine.xen_guests import GuestInUseError

        self.host.hypervisor.domain(name).set_target_kib(size_bytes // KIB)
        until = time.monotonic() + PATIENCE_S
        while name not in {each.name for each in self._guests}:
            try:
                self._guests.append(self._stack.enter_context(self.host.attach(name)))
            except GuestInUseError as in_use:
                if in_use.is_kept or time.monotonic() >= until:
                    return
                time.sleep(STEP_S)

    def _set_dom0_target(self, size_bytes: int) -> None:
        """Tell dom0 through its file.

        :raise MachineError: when another process has the host, and does not serve it.
        """
        from openrbu.drivers.xen_balloon_files import DEVICE_PATH

        with patient_session(self.host.name) as session:
            text = f"{size_bytes // KIB}\n"
            session.host.write(f"/sys{DEVICE_PATH}/target_kb", text.encode())
            self._dom0 = read_dom0(session, self.host.profile_of("dom0"))

    def standings(self) -> list[GuestStanding]:
        return standings(self.host, self._guests, self._dom0, now())

    def document(self) -> dict[str, Any]:
        return host_document(self.host, self.standings(), self.lost)

    def blocks(self) -> list[Block]:
        return host_blocks(self.host, self.standings(), self.lost)


@contextlib.contextmanager
def opened_host(name: str) -> Iterator[OpenedHost]:
    """A host that is on, until the end of the block. No signal comes in between.

    :raise MachineError: when there is none, or it is off.
    """
    from openrbu.machine.store import existing_directory
    from openrbu.machine.xen_host import XenHost, xen_config
    from openrbu.system.signals import signals_held

    directory = existing_directory(name)
    dom0 = look_at_dom0(directory, xen_config(directory).profile)
    with signals_held(), contextlib.ExitStack() as stack:
        host = stack.enter_context(XenHost(directory, now=now))
        yield OpenedHost(host, dom0, stack)


def standings(
    host: XenHost, guests: Sequence[Guest], dom0: Dom0Balloon | None, now_s: float
) -> list[GuestStanding]:
    """How all guests of a host stand, of which this process has some; dom0 first."""
    from openrbu.xen.hypervisor import DOM0

    drivers: dict[str, BalloonState] = {guest.name: guest.driver for guest in guests}
    if dom0 is not None:
        drivers[DOM0] = dom0
    profiles = {guest.name: guest.driver.profile.name for guest in guests}
    found = []
    for info in host.hypervisor.domains():
        profile = profiles.get(info.name) or host.profile_of(info.name)
        if info.name in drivers:
            found.append(standing_of(info, drivers[info.name], profile, now_s))
        else:
            found.append(GuestStanding(info, profile, owner=host.owner_of(info.name)))
    return found


# -- dom0 -----------------------------------------------------------------------------------


@contextlib.contextmanager
def patient_session(name: str, patience_s: float | None = None) -> Iterator[Session]:
    """The machine of that name, which another command may have for a moment;
    `patience_s` None: the usual.

    :raise MachineError: as `open_session`.
    """
    from openrbu.machine.store import InUseError

    until = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                session = stack.enter_context(open_session(name))
                break
            except InUseError:
                if time.monotonic() >= until:
                    raise
            time.sleep(STEP_S)
        yield session


def read_dom0(session: Session, profile_name: str) -> Dom0Balloon:
    """How dom0's driver stands, after its files. It is settled by looking at them.

    :raise MachineError: when the machine is off.
    """
    from openrbu.drivers.xen_balloon_files import DEVICE_PATH
    from openrbu.drivers.xen_balloon_profiles import Reaction, balloon_profile
    from openrbu.hosts.base import read_text

    def pages(name: str) -> int:
        return int(read_text(session.host, f"/sys{DEVICE_PATH}/{name}")) // PAGE_KIB

    profile = balloon_profile(profile_name)
    limit = None
    if profile.has_hard_limit:
        text = read_text(session.host, f"/sys{DEVICE_PATH}/info/hard_limit_kb")
        limit = int(text) // PAGE_KIB if text.isdecimal() else None
    seen = Dom0Balloon(
        current_pages=pages("info/current_kb"),
        target_pages=pages("target_kb"),
        low_pages=pages("info/low_kb"),
        high_pages=pages("info/high_kb"),
        due_s=math.inf,
        hard_limit_pages=limit,
    )
    reaction = profile.on_no_grant if seen.credit_pages > 0 else profile.on_short_guest
    gave_up = reaction is Reaction.GIVE_UP
    if reaction is Reaction.BACK_OFF:  # the count starts anew when it gives up
        gave_up = int(read_text(session.host, f"/sys{DEVICE_PATH}/retry_count"), 16) <= 1
    if gave_up or not seen.credit_pages:
        return replace(seen, due_s=None)
    return seen


def look_at_dom0(
    directory: Path, profile_name: str, patience_s: float | None = None
) -> Dom0Balloon | None:
    """The same; None while another process has the host, and does not serve it.

    :raise MachineError: when the host is off, or can't be opened.
    """
    from openrbu.machine.store import InUseError

    try:
        with patient_session(directory.name, patience_s) as session:
            return read_dom0(session, profile_name)
    except InUseError:
        return None
