"""The balloon driver in a running kernel: what it moves, its files, and who sets its target.

Time goes on when somebody looks: whoever makes a system call has the driver do first what has
become due (`settle`), each step at the time when it was due (`catch_up`).
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
"""How far back time goes on for a balloon that was left alone for longer: it bounds what a look
costs after months. What happened on the host before then counts as if it had been so all along."""

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
    """What a kernel has to know of the hypervisor below it: which guest it is, and how its balloon
    driver works."""

    domain: Domain
    profile: BalloonProfile


class KernelBalloon:
    """The driver of the guest `xen`, whose kernel has these pages and trees.

    A page of the guest that has no machine page at the start is in the balloon.
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
        pages.hold_pages(ballooned)
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
        if xen.profile.has_proc_file:  # today they are in a file system that nobody has mounted
            add_text(proc, "/xen/capabilities", "control_d\n" if xen.domain.id == 0 else "")

    def is_due(self, now_s: float) -> bool:
        """Whether there is something to do: a step, or a new target from the toolstack."""
        self.driver.clock_is(now_s)
        due_s = self.driver.due_s
        return self._domain.target_serial != self._serial or (due_s is not None and due_s <= now_s)

    def settle(self, now_s: float) -> None:
        """Do what has become due."""
        catch_up([self], now_s)
        self.adopt_target()
        self.driver.run(now_s)

    def is_late(self, now_s: float) -> bool:
        """Whether a step had a time that has come, and was not made then."""
        self.driver.clock_is(now_s)
        due_s = self.driver.due_s
        return due_s is not None and -math.inf < due_s <= now_s

    def adopt_target(self) -> bool:
        """Go for the toolstack's target, where it has set one since; whether it has."""
        serial = self._domain.target_serial
        if serial == self._serial:
            return False
        self._serial = serial
        self.driver.set_target_pages(self._domain.target_kib // PAGE_KIB)
        return True

    def snapshot(self) -> KernelBalloonState:
        """What `restore` needs."""
        return KernelBalloonState(self._serial, self.driver.snapshot())

    def restore(self, state: KernelBalloonState) -> None:
        """Be the driver that the snapshot was taken of.

        :raise DamagedInputError: when the hypervisor has another idea of what the guest has.
        """
        ballooned = np.flatnonzero(self._domain.table == INVALID)
        count = sum(count for _, count, _ in state.driver.frames)
        if count == len(ballooned):  # asked first: a number may be of any size
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
    """Let what time has done to the balloons of one host until `now_s` happen: each step that had a
    time, at its time. What is due at once is left to do, where no such step comes first."""
    simulation = BalloonSimulation(start_s=now_s - CATCH_UP_S)
    for balloon in balloons:
        if balloon.is_late(now_s):
            simulation.add(balloon.name, balloon.driver)
    simulation.run(now_s)
