"""The status of a Xen host and of its guests at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.errors import MachineError
from openrbu.machine.xen_host import XenHost
from openrbu.units import PAGE_KIB
from openrbu.xen.hypervisor import DomainInfo
from openrbu.xen.samples import BalloonActivity, BalloonState, activity_of


class DriverState(BalloonState, Protocol):
    """The state of a balloon driver: a `XenBalloon`, or what the files of one say."""

    @property
    def profile(self) -> BalloonProfile: ...

    @property
    def hard_limit_pages(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """The status of one guest.

    `balloon` and `activity` are None while another process has the guest: `owner` is the number of
    that process, where it is known. They are None, too, where its files are not understood:
    `problem` says why. Then only what the hypervisor knows is known.
    """

    info: DomainInfo
    profile: str
    balloon: DriverState | None = None
    activity: BalloonActivity | None = None
    retry_in_s: float | None = None
    owner: str | None = None
    problem: str | None = None

    @property
    def target_pages(self) -> int:
        if self.balloon is None:
            return self.info.target_kib // PAGE_KIB
        return self.balloon.target_pages

    @property
    def hard_limit_pages(self) -> int | None:
        """The hard limit that the driver has found; None where there is none."""
        return None if self.balloon is None else self.balloon.hard_limit_pages

    @property
    def has_settled(self) -> bool | None:
        """Whether the guest stays as it is until somebody sets a target; None while another process
        has it, or where it has a problem."""
        return (
            None
            if self.activity is None
            else self.activity in (BalloonActivity.SETTLED, BalloonActivity.STALLED)
        )

    @property
    def has_given_up(self) -> bool:
        """Whether the guest has not reached its goal, and does not try again by itself."""
        return self.activity is BalloonActivity.STALLED

    @property
    def has_all_frames(self) -> bool:
        """Whether the target is more than the guest can get: all its frames have memory then."""
        return self.balloon is not None and self.balloon.goal_pages < self.balloon.target_pages

    def document(self) -> dict[str, Any]:
        """The guest for `--json`; sizes in KiB, as in the driver's files."""
        info = self.info
        retry_in_s = self.retry_in_s
        return {
            "name": info.name,
            "current_kib": info.current_pages * PAGE_KIB,
            "target_kib": self.target_pages * PAGE_KIB,
            "max_kib": info.max_pages * PAGE_KIB,
            "claim_kib": info.claim_pages * PAGE_KIB,
            "balloon_kib": (info.frame_count - info.current_pages) * PAGE_KIB,
            "profile": self.profile,
            "state": None if self.activity is None else self.activity.value,
            "retry_in_s": None if retry_in_s is None else round(retry_in_s, 3),
            "owner_pid": int(self.owner) if self.owner and self.owner.isdecimal() else None,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class HostStatus:
    """The status of a host: its memory in pages, and its guests, dom0 first. `lost` are the guests
    that a command has just destroyed, because the process that had them died."""

    host: str
    total_pages: int
    free_pages: int
    claimed_pages: int
    guests: Sequence[GuestStatus]
    lost: Sequence[str]

    @property
    def has_settled(self) -> bool | None:
        """Whether all guests stay as they are until somebody sets a target; None where that depends
        on guests that another process has, or that have a problem."""
        states = {each.has_settled for each in self.guests}
        if False in states:
            return False
        return None if None in states else True

    def document(self) -> dict[str, Any]:
        """The host for `--json`; sizes in KiB."""
        return {
            "host": self.host,
            "total_kib": self.total_pages * PAGE_KIB,
            "free_kib": self.free_pages * PAGE_KIB,
            "claimed_kib": self.claimed_pages * PAGE_KIB,
            "guests": [each.document() for each in self.guests],
            "lost": list(self.lost),
        }


def guest_status(
    host: XenHost, info: DomainInfo, balloon: DriverState | None, now_s: float
) -> GuestStatus:
    """The status of a guest; `balloon` is None while another process has it."""
    if balloon is None:
        owner = host.owner_of(info.name)
        try:
            return GuestStatus(info, host.profile_of(info.name), owner=owner)
        except MachineError as error:  # its file was damaged since that process read it
            return GuestStatus(info, "", owner=owner, problem=str(error))
    activity, due_s = activity_of(balloon, now_s), balloon.due_s
    is_timed = activity is BalloonActivity.WAITING and due_s is not None and due_s < math.inf
    retry_in_s = due_s - now_s if is_timed and due_s is not None else None
    return GuestStatus(info, balloon.profile.name, balloon, activity, retry_in_s)


def host_status(
    host: XenHost,
    balloons: Mapping[str, DriverState],
    lost: Sequence[str],
    now_s: float,
    *,
    refused: Mapping[str, MachineError],
) -> HostStatus:
    """The status of a host. `balloons` are those that this process has, by the guest's name;
    `refused` is what is wrong with guests that no process can have."""
    guests = [
        GuestStatus(info, "", problem=str(refused[info.name]))
        if info.name in refused
        else guest_status(host, info, balloons.get(info.name), now_s)
        for info in host.hypervisor.domains()
    ]
    hypervisor = host.hypervisor
    return HostStatus(
        host.name,
        hypervisor.total_pages,
        hypervisor.free_pages,
        hypervisor.claimed_pages,
        guests,
        tuple(lost),
    )
