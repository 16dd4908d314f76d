"""The guests of a Xen host that is kept in a directory, and how time passes for them.

::

    MACHINE/xen/guests/NAME/
        guest.json   what it was made from: a `GuestSpec`
        state.*      its running kernel, saved: see `machine.state`
        lock         locked by the process that has the guest
    MACHINE/xen/guests/.making
                     locked while one of these directories is made or removed

Theory of operation. What the hypervisor knows is shared by all processes (`hypervisor`). A guest's
own kernel is *attached* by one process at a time, so that several processes can have several guests
at once. From the first change on, a guest depends on the process that has it, as a machine does: if
that process is killed, its guests lose their power. They are *orphans* then, and
`XenHost.destroy_orphans` destroys what is left of them.

No timer runs while no process has a guest. Time passes for it when it is attached: `run_due` does
what has become due meanwhile, each step at the time when it was due, and the steps of several
guests in the order of these times. So a process that attaches all free guests before anything
changes on the host finds the host as if they had been running all the time.
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
from openrbu.machine.guest_spec import GuestSpec, read_guest_spec
from openrbu.machine.state import StateFile
from openrbu.machine.state_formats import MachineState
from openrbu.system.lockfile import LockFile, TakenError, owned
from openrbu.system.signals import signals_deferred
from openrbu.xen.hypervisor import Hypervisor
from openrbu.xen.simulation import BalloonSimulation

_KEEPING = "keeping"


class GuestInUseError(MachineError):
    """Another process has the guest. `owner` is its number; None while it has not written that yet.
    `is_kept_open`: it has the guest for as long as it runs."""

    kind = "guest_in_use"

    def __init__(self, host: str, name: str, owner: str | None, *, is_kept_open: bool) -> None:
        self.owner, self.is_kept_open = owner, is_kept_open
        super().__init__(
            f"guest {name!r} of {host!r} is in use by process {owner or 'unknown'}: wait for it, "
            "or end it"
        )


def lock_guest(
    stack: contextlib.ExitStack,
    directory: Path,
    host: str,
    *,
    keeps: bool = False,
    create: bool = True,
) -> LockFile:
    """Lock the guest in a directory of this host until the stack unwinds. Returns the lock, whose
    file is made if it is missing and `create` is set.

    :raise GuestInUseError: when another process has it.
    :raise FileNotFoundError: when it has been removed.
    :raise OSError: when the disk refuses.
    """
    try:
        role = _KEEPING if keeps else ""
        return stack.enter_context(owned(directory / "lock", role, create=create))
    except TakenError as taken:
        is_kept_open = taken.role == _KEEPING
        raise GuestInUseError(
            host, directory.name, taken.owner, is_kept_open=is_kept_open
        ) from None


class Host(Protocol):
    """What a guest uses of its Xen host: `xen_host.XenHost` is one.

    `keeps`: this process has the guests that it attaches for as long as it runs.
    """

    name: str
    directory: Path
    keeps: bool
    hypervisor: Hypervisor

    def make_kernel(
        self, name: str, spec: GuestSpec, boot_id: str, saved: KernelState | None = None
    ) -> Kernel:
        """The kernel of a guest, as it is when it starts or as it was saved."""


class AttachedGuest:
    """A guest that this process has until `close`. Made by `XenHost.attach`.

    :raise GuestInUseError: when another process has it.
    :raise MachineError: when it lost its power, or its files don't allow it.
    """

    def __init__(self, host: Host, directory: Path) -> None:
        self.name = directory.name
        self._host, self._is_open = host, True
        with contextlib.ExitStack() as stack, store.disk_errors(host.directory):
            self._lock = lock_guest(stack, directory, host.name, keeps=host.keeps, create=False)
            self._state = StateFile.of_guest(directory, host.name)
            self._resume(directory)
            self._open = stack.pop_all()
        assert self.kernel.balloon is not None
        self._domain = host.hypervisor.domain(self.name)
        self.balloon = self.kernel.balloon
        self.driver = self.balloon.driver

    def _resume(self, directory: Path) -> None:
        """Resume the kernel that was saved.

        :raise StateRefusedError: when the saved state is not understood, or does not fit this
            guest. Then nothing has changed.
        :raise MachineError: when it lost its power.
        """
        try:
            spec = read_guest_spec(directory)
        except MachineError as error:
            raise self._state.refusal(str(error)) from None
        state = self._state.read()
        if state is None and not self._state.is_lost:
            raise self._state.refusal("state.json is missing")
        if state is not None and spec is None:
            raise self._state.refusal("guest.json is missing")
        if spec is None or state is None:
            raise MachineError(
                f"guest {self.name!r} of {self._host.name!r} has lost its power; it is destroyed "
                f"with: rbu balloon show {self._host.name}"
            )
        self._boot_id = state.boot_id
        with self._state.refused_if_unfit():
            self.kernel = self._host.make_kernel(self.name, spec, state.boot_id, state.kernel)

    def begin_change(self) -> None:
        """Make the guest's power depend on this process. This must be called before a change.

        :raise MachineError: when there is no room on the disk to save the guest later, or the guest
            was destroyed.
        """
        if self._state.is_in_use:
            return
        if not self._is_there:
            raise MachineError(f"guest {self.name!r} was destroyed")
        with store.disk_errors(self._host.directory):
            self._state.mark_in_use()

    @property
    def _is_there(self) -> bool:
        """Whether the guest was not destroyed. Its directory may have another guest by now."""
        return self._domain.is_there and self._lock.is_in_place()

    def close(self) -> None:
        """Save the guest and release its lock."""
        if not self._is_open:
            return
        self._is_open = False
        with signals_deferred(), self._open, store.disk_errors(self._host.directory):
            if not self._is_there:  # its host was switched off, or removed
                return
            self._state.save(MachineState(self._boot_id, self.kernel.snapshot()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def catch_up(guests: Sequence[AttachedGuest], now_s: float) -> None:
    """Do all timed steps of guests, which are attached together, that were due before `now_s`. See
    `kernel.balloon.catch_up`."""
    late = [guest for guest in guests if guest.balloon.is_late(now_s)]
    for guest in late:
        guest.begin_change()
    balloon.catch_up([guest.balloon for guest in late], now_s)


def run_due(guests: Sequence[AttachedGuest], now_s: float) -> None:
    """`catch_up`, and then do what is due now."""
    catch_up(guests, now_s)
    simulation = BalloonSimulation(start_s=now_s)
    for guest in guests:
        if guest.balloon.is_due(now_s):
            guest.begin_change()
            guest.balloon.adopt_target()
            simulation.add(guest.name, guest.driver)
    simulation.run(now_s)
