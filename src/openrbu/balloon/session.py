"""A Xen host that a command works on: its free guests are attached, and have done what was due."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from openrbu.balloon.clock import Clock
from openrbu.balloon.dom0 import Dom0, Dom0Balloon, open_dom0, when_free
from openrbu.balloon.status import DriverState, GuestStatus, HostStatus, guest_status, host_status
from openrbu.errors import MachineError
from openrbu.machine.guest_spec import GuestSpec
from openrbu.machine.store import InUseError, existing_directory
from openrbu.machine.xen_guests import GuestInUseError, run_due
from openrbu.machine.xen_host import XenHost
from openrbu.system.signals import signals_deferred
from openrbu.units import KIB
from openrbu.xen.hypervisor import DOM0


class XenHostSession:
    """A host that is open. Its guests are attached here, but for those that another process has and
    those that are `refused`: their files are not understood, and each has its error there. Commands
    about the other guests work.

    `dom0` is set where the machine is open for the whole session, and `dom0_balloon` is None where
    another process has the machine. `lost` are the guests that were destroyed at the start, because
    the process that had them died.
    """

    def __init__(
        self,
        host: XenHost,
        stack: contextlib.ExitStack,
        clock: Clock,
        *,
        dom0: Dom0 | None,
        dom0_balloon: Dom0Balloon | None,
    ) -> None:
        self.host, self._stack, self._clock = host, stack, clock
        self._dom0, self._dom0_balloon = dom0, dom0_balloon
        self.lost = host.destroy_orphans()
        self.refused: dict[str, MachineError] = {}
        self._guests = stack.enter_context(host.attached(refused=self.refused))
        self._run_due()

    def _run_due(self) -> None:
        run_due(self._guests, self._clock.wall())

    def create(self, name: str, spec: GuestSpec) -> None:
        """Make a guest. See `XenHost.create`."""
        self.host.create(name, spec)
        with contextlib.suppress(GuestInUseError):  # a process that watches the host may be faster
            self._guests.append(self._stack.enter_context(self.host.attach(name)))

    def destroy(self, name: str) -> None:
        """Destroy a guest. One in `lost` is destroyed already.

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
        self.refused.pop(name, None)

    def set_target_bytes(self, name: str, size_bytes: int) -> tuple[GuestStatus, bool]:
        """Set a guest's target and let the guest move. A guest that another command has for a
        moment is waited for.

        Returns the guest's status after that, and whether its target or its memory has changed.

        :raise MachineError: when there is no such guest, or it is in `lost` or in `refused`. Then
            nothing was changed.
        """
        before = self._status_of(name)
        if name == DOM0:
            self._set_dom0_target_kib(size_bytes // KIB)
        else:
            self.host.hypervisor.domain(name).set_target_kib(size_bytes // KIB)
            self._attach_when_free(name)
        self._run_due()
        after = self._status_of(name)
        has_changed = (before.target_pages, before.info.current_pages) != (
            after.target_pages,
            after.info.current_pages,
        )
        return after, has_changed

    def _set_dom0_target_kib(self, kib: int) -> None:
        assert self._dom0 is not None, "the session was not opened for dom0"
        self._dom0.set_target_kib(kib)
        self._dom0_balloon = self._dom0.read()

    def _attach_when_free(self, name: str) -> None:
        """Attach a guest, unless another process keeps it: that one moves it."""
        if any(guest.name == name for guest in self._guests):
            return
        with contextlib.suppress(GuestInUseError):
            guest = when_free(
                lambda: self._stack.enter_context(self.host.attach(name)), self._clock
            )
            self._guests.append(guest)

    def _status_of(self, name: str) -> GuestStatus:
        """The status of one guest.

        :raise MachineError: when there is no such guest, or it is in `lost` or in `refused`.
        """
        if name in self.lost:
            others = [each for each in self.lost if each != name]
            and_others = f"; so were: {', '.join(others)}" if others else ""
            raise MachineError(
                f"guest {name!r} of {self.host.name!r} lost its power with the process that had "
                f"it, and was destroyed{and_others}"
            )
        if name in self.refused:
            raise self.refused[name]
        info = self.host.domain_of(name)
        return guest_status(self.host, info, self._balloons().get(name), self._clock.wall())

    def status(self) -> HostStatus:
        """The status of the host and of all its guests."""
        return host_status(
            self.host, self._balloons(), self.lost, self._clock.wall(), refused=self.refused
        )

    def _balloons(self) -> dict[str, DriverState]:
        """The balloons that can be seen here, by their guests' names."""
        balloons: dict[str, DriverState] = {guest.name: guest.driver for guest in self._guests}
        if self._dom0_balloon is not None:
            balloons[DOM0] = self._dom0_balloon
        return balloons


@contextlib.contextmanager
def open_xen_host(name: str, *, clock: Clock, for_dom0: bool = False) -> Iterator[XenHostSession]:
    """A host that is on, until the end of the block. A signal waits until then.

    The machine is opened once, before the guests are attached, so that dom0 does what is due there.
    It is closed right after that unless the session is `for_dom0`, because the machine is in use by
    this process as long as it is open here.

    :raise StateRefusedError: when the state of the machine is not understood.
    :raise MachineError: when there is no such host, it is off, or, `for_dom0`, another process has
        the machine and does not serve it.
    """
    directory = existing_directory(name)
    with contextlib.ExitStack() as machine:
        dom0, balloon, config = None, None, None
        try:
            dom0 = machine.enter_context(open_dom0(directory, clock))
        except InUseError:
            if for_dom0:
                raise
        else:
            balloon, config = dom0.read(), dom0.config
            if not for_dom0:
                machine.close()
                dom0 = None
        with signals_deferred(), contextlib.ExitStack() as stack:
            host = stack.enter_context(XenHost(directory, now=clock.wall, config=config))
            yield XenHostSession(host, stack, clock, dom0=dom0, dom0_balloon=balloon)
