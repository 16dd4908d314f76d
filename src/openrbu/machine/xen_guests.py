"""The guests of a Xen host that is kept in a directory, and how their time goes on.

::

    MACHINE/xen/guests/NAME/
        guest.json   what it was made as
        state.*      its running kernel, put away: see `machine.state`
        lock         held by the process that has the guest
    MACHINE/xen/guests/.making
                     locked while one of these directories comes or goes

Theory of operation. What the hypervisor knows is shared by all processes (`hypervisor`). A guest's
own kernel is *attached* by one process at a time, so that several processes have several guests at
once. From the first change on a guest lives and dies with the process that has it, as a machine
does: a process that is killed takes its guests' power with it, and `XenHost.bury_lost` destroys
what is left of them.

Nobody's timer runs while no process has a guest. Its time goes on when it is attached: `settle`
does what has become due meanwhile, each step at the time when it was due, and those of several
guests in the order of these times. Who attaches all guests that are free before anything changes on
the host finds it as if they had been running all the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from openrbu.errors import MachineError
from openrbu.kernel import balloon
from openrbu.kernel.kernel import Kernel
from openrbu.kernel.states import KernelState
from openrbu.machine import store
from openrbu.machine.state import StateFile
from openrbu.machine.state_formats import MachineState
from openrbu.machine.xen_orders import GuestOrder, read_order
from openrbu.system.lockfile import LockFile, TakenError, owned
from openrbu.system.signals import signals_held
from openrbu.xen.hypervisor import Hypervisor
from openrbu.xen.simulation import BalloonSimulation

_KEEPING = "keeping"


class GuestInUseError(MachineError):
    """Another process has the guest: `owner`, None while it has not said so yet. `is_kept`: for as
    long as it runs."""

    def __init__(self, host: str, name: str, owner: str | None, *, is_kept: bool) -> None:
        self.owner, self.is_kept = owner, is_kept
        super().__init__(
            f"guest {name!r} of {host!r} is in use by process {owner or 'unknown'}: wait for it, "
            "or end it"
        )


def hold(
    stack: contextlib.ExitStack,
    directory: Path,
    host: str,
    *,
    keeps: bool = False,
    create: bool = True,
) -> LockFile:
    """Hold the guest in a directory, one of this host's, until the stack unwinds; its lock, which
    is made where it is missing, if `create`.

    :raise GuestInUseError: when another process has it.
    :raise FileNotFoundError: when it has been removed.
    :raise OSError: when the disk refuses.
    """
    try:
        role = _KEEPING if keeps else ""
        return stack.enter_context(owned(directory / "lock", role, create=create))
    except TakenError as taken:
        is_kept = taken.role == _KEEPING
        raise GuestInUseError(host, directory.name, taken.owner, is_kept=is_kept) from None


class Host(Protocol):
    """What a guest needs to know of the Xen host that it is on: `xen_host.XenHost` is one.

    `keeps`: the guests that this process attaches, it has for as long as it runs.
    """

    name: str
    directory: Path
    keeps: bool
    hypervisor: Hypervisor

    def make_kernel(
        self, name: str, order: GuestOrder, boot_id: str, saved: KernelState | None = None
    ) -> Kernel:
        """The kernel of a guest, as it is when it starts or as it was saved."""


class Guest:
    """A guest that this process has until `close`. See `XenHost.attach`."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.name = directory.name
        self._host, self._is_open = host, True
        with contextlib.ExitStack() as stack, store.disk_errors(host.directory):
            self._lock = hold(stack, directory, host.name, keeps=host.keeps, create=False)
            self._state = StateFile.of_guest(directory, host.name)
            self._wake(directory)
            self._open = stack.pop_all()
        assert self.kernel.balloon is not None
        self._domain = host.hypervisor.domain(self.name)
        self.balloon = self.kernel.balloon
        self.driver = self.balloon.driver

    def _wake(self, directory: Path) -> None:
        """Go on with the kernel that was put away.

        :raise StateRefusedError: when it is not understood, or does not fit this guest. Then
            nothing has changed.
        :raise MachineError: when there is none.
        """
        order, state = read_order(directory), self._state.read()
        if order is None or state is None:
            raise MachineError(
                f"guest {self.name!r} of {self._host.name!r} has lost its power; it is destroyed "
                f"with: rbu balloon show {self._host.name}"
            )
        self._boot_id = state.boot_id
        with self._state.refused_if_unfit():
            self.kernel = self._host.make_kernel(self.name, order, state.boot_id, state.kernel)

    def begin_change(self) -> None:
        """From here on the guest's power is this process's. To be called before anything changes.

        :raise MachineError: when there is no room on the disk to put the guest away later, or the
            guest is gone with its host.
        """
        if self._state.is_taken:
            return
        if not self._is_there:
            raise MachineError(f"guest {self.name!r} was destroyed")
        with store.disk_errors(self._host.directory):
            self._state.take()

    @property
    def _is_there(self) -> bool:
        """Whether it has not been destroyed. Its directory may be another guest's by now."""
        return self._domain.is_there and self._lock.is_in_place()

    def close(self) -> None:
        """Put the guest away and let go of it."""
        if not self._is_open:
            return
        self._is_open = False
        with signals_held(), self._open, store.disk_errors(self._host.directory):
            if not self._is_there:  # its host was switched off, or removed
                return
            self._state.put(MachineState(self._boot_id, self.kernel.snapshot()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def catch_up(guests: Sequence[Guest], now_s: float) -> None:
    """Let what time has done to guests, which are attached together, until `now_s` happen. See
    `kernel.balloon.catch_up`."""
    late = [guest for guest in guests if guest.balloon.is_late(now_s)]
    for guest in late:
        guest.begin_change()
    balloon.catch_up([guest.balloon for guest in late], now_s)


def settle(guests: Sequence[Guest], now_s: float) -> None:
    """`catch_up`, and have the guests do what is to be done now."""
    catch_up(guests, now_s)
    simulation = BalloonSimulation(start_s=now_s)
    for guest in guests:
        if guest.balloon.is_due(now_s):
            guest.begin_change()
            guest.balloon.adopt_target()
            simulation.add(guest.name, guest.driver)
    simulation.run(now_s)
