"""The balloon driver in a running kernel: what it moves, its files, and who sets its target.

Time passes for the driver at each system call: before the call, the driver does what has become
due (`run_due`), each step at the time when it was due (`catch_up`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openrbu.drivers.objects import add_text
from openrbu.drivers.sysfs import SysfsTree
from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_files import XenMemory
from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.errors import DamagedInputError
from openrbu.kernel.states import KernelBalloonState
from openrbu.lazy import np
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.frames import Frames, frame_runs
from openrbu.units import PAGE_KIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr
from openrbu.xen.hypervisor import INVALID, Domain
from openrbu.xen.simulation import BalloonSimulation

CATCH_UP_S = 120.0
"""The longest time for which the missed steps of a balloon are made. It limits the cost of a call
after months without one. What the host is like at the start of that time counts as if it had been
so always."""

_HYPERVISOR = (
    ("type", "xen"),
    ("guest_type", "PV"),
    ("uuid", "00000000-0000-0000-0000-000000000000"),
    ("version/major", "4"),
    ("version/minor", "17"),
    ("version/extra", ".7"),
)
"""What Linux shows of the hypervisor (Debian's 6.1.192 as dom0 of Xen 4.17.7; not all of it)."""


@dataclass(frozen=True, slots=True)
class XenGuest:
    """What a kernel needs as a guest of Xen: its own domain, and the behaviour of its balloon
    driver."""

    domain: Domain
    profile: BalloonProfile


class KernelBalloon:
    """The balloon driver of the guest `xen`, whose kernel has the allocator `pages` and the trees
    `sys` and `proc`.

    Pages of the guest that have no machine page at the start are in the balloon.
    """

    def __init__(
        self,
        xen: XenGuest,
        pages: BuddyAllocator,
        sys: SysfsTree,
        proc: SysfsTree,
        *,
        log: Callable[[str], None],
    ) -> None:
        self.name = xen.domain.name
        self._domain, self._pages = xen.domain, pages
        ballooned = np.flatnonzero(xen.domain.table == INVALID).astype(np.uint32)
        pages.withdraw_pages(ballooned)
        self.driver = XenBalloon(
            pages,
            xen.domain,
            profile=xen.profile,
            current_pages=xen.domain.current_pages,
            ballooned=ballooned,
            scrub=self._scrub,
            log=log,
        )
        self._serial = xen.domain.target_serial
        XenMemory(self.driver, sys, proc).install()
        for name, text in _HYPERVISOR:
            add_text(sys, f"/hypervisor/{name}", f"{text}\n")
        if xen.profile.has_proc_file:  # newer kernels have them in xenfs, which is not mounted
            add_text(proc, "/xen/capabilities", "control_d\n" if xen.domain.id == 0 else "")

    def is_due(self, now_s: float) -> bool:
        """Whether a step is due, or the toolstack has set a new target."""
        self.driver.clock_is(now_s)
        due_s = self.driver.due_s
        return self._domain.target_serial != self._serial or (due_s is not None and due_s <= now_s)

    def run_due(self, now_s: float) -> None:
        """Do what is due at `now_s`, and what was due before."""
        catch_up([self], now_s)
        self.adopt_target()
        self.driver.run(now_s)

    def is_late(self, now_s: float) -> bool:
        """Whether the time of a step has come, and the step was not made then."""
        self.driver.clock_is(now_s)
        due_s = self.driver.due_s
        return due_s is not None and -math.inf < due_s <= now_s

    def adopt_target(self) -> bool:
        """Give the driver the toolstack's target, if the toolstack has set one since the last call.
        Returns whether it has."""
        serial = self._domain.target_serial
        if serial == self._serial:
            return False
        self._serial = serial
        self.driver.set_target_pages(self._domain.target_kib // PAGE_KIB)
        return True

    def snapshot(self) -> KernelBalloonState:
        """The driver's state, for `restore`."""
        return KernelBalloonState(self._serial, self.driver.snapshot())

    def restore(self, state: KernelBalloonState) -> None:
        """Continue as the driver that `snapshot` was called on.

        :raise DamagedInputError: when the state and the hypervisor's frame table disagree about the
            guest's pages.
        """
        ballooned = np.flatnonzero(self._domain.table == INVALID)
        count = sum(count for _, count, _ in state.driver.frames)
        if count == len(ballooned):  # checked first, because a damaged count may be of any size
            self.driver.restore(state.driver)
        if (
            count != len(ballooned)
            or self.driver.current_pages != self._domain.current_pages
            or not np.array_equal(np.sort(self.driver.ballooned()), ballooned)
        ):
            raise DamagedInputError("the balloon is not what the frame table says")
        self._serial = state.serial

    def _scrub(self, frames: Frames) -> None:
        """Clear pages before the hypervisor gets them."""
        for first, count in frame_runs(np.sort(frames)):
            self._pages.memory.zero(PhysAddr(first << PAGE_SHIFT), count * PAGE_SIZE)


def catch_up(balloons: Sequence[KernelBalloon], now_s: float) -> None:
    """Make the timed steps of the balloons of one host that were due before `now_s`, each at its
    time. A balloon whose next step is due at once, without a time, is left as it is."""
    simulation = BalloonSimulation(start_s=now_s - CATCH_UP_S)
    for balloon in balloons:
        if balloon.is_late(now_s):
            simulation.add(balloon.name, balloon.driver)
    simulation.run(now_s)
