"""How a Xen host and its guests stand: found out, as a table, and for `--json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrbu.cli.show import Block, Cell, Table, bad, caution, good
from openrbu.units import PAGE_KIB, PAGE_SIZE, human_size

if TYPE_CHECKING:
    from openrbu.machine.xen_host import XenHost
    from openrbu.xen.hypervisor import DomainInfo
    from openrbu.xen.samples import BalloonState, Doing


@dataclass(frozen=True, slots=True)
class GuestStanding:
    """How one guest stands. `balloon` and `doing` are None where another process has it, `owner`;
    then there is only what the hypervisor knows."""

    info: DomainInfo
    profile: str
    balloon: BalloonState | None = None
    doing: Doing | None = None
    hard_limit_pages: int | None = None
    retry_in_s: float | None = None
    owner: str | None = None

    @property
    def target_pages(self) -> int:
        if self.balloon is None:
            return self.info.target_kib // PAGE_KIB
        return self.balloon.target_pages

    @property
    def has_settled(self) -> bool | None:
        """Whether nothing more happens by itself; None where another process has it."""
        from openrbu.xen.samples import Doing

        return None if self.doing is None else self.doing in (Doing.SETTLED, Doing.STALLED)

    @property
    def gave_up(self) -> bool:
        """Whether it is short of its goal, and waits for a target to be written."""
        from openrbu.xen.samples import Doing

        return self.doing is Doing.STALLED

    def document(self) -> dict[str, Any]:
        """For `--json`; sizes as in the driver's files."""
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
            "state": None if self.doing is None else self.doing.value,
            "retry_in_s": None if retry_in_s is None else round(retry_in_s, 3),
            "owner_pid": int(self.owner) if self.owner and self.owner.isdecimal() else None,
        }

    def words(self) -> Cell:
        """What the driver is at."""
        from openrbu.xen.samples import Doing

        if self.balloon is None:
            return caution(f"process {self.owner or 'unknown'} has it")
        if self.doing is Doing.MOVING:
            return caution("moving")
        if self.doing is Doing.WAITING:
            when = "" if self.retry_in_s is None else f" in {max(1, math.ceil(self.retry_in_s))} s"
            return caution(f"tries again{when}")
        if self.doing is Doing.STALLED:
            limit = self.hard_limit_pages
            return bad(
                "gave up" if limit is None else f"gave up: hard limit {size_of_pages(limit)}"
            )
        is_below = self.balloon.goal_pages < self.balloon.target_pages
        return good("idle: can't grow further" if is_below else "idle")


def size_of_pages(pages: int) -> str:
    return human_size(pages * PAGE_SIZE)


def standing_of(
    info: DomainInfo, balloon: BalloonState, profile: str, now_s: float
) -> GuestStanding:
    """How a guest stands whose driver is within reach."""
    from openrbu.xen.samples import Doing, doing

    state = doing(balloon, now_s)
    is_timed = state is Doing.WAITING and balloon.due_s is not None and balloon.due_s < math.inf
    return GuestStanding(
        info,
        profile,
        balloon,
        state,
        hard_limit_pages=getattr(balloon, "hard_limit_pages", None),
        retry_in_s=balloon.due_s - now_s if is_timed and balloon.due_s is not None else None,
    )


def host_document(
    host: XenHost, found: Sequence[GuestStanding], lost: Sequence[str]
) -> dict[str, Any]:
    """A host and its guests for `--json`. `lost` are guests that have just been destroyed."""
    hypervisor = host.hypervisor
    return {
        "host": host.name,
        "total_kib": hypervisor.total_pages * PAGE_KIB,
        "free_kib": hypervisor.free_pages * PAGE_KIB,
        "claimed_kib": hypervisor.claimed_pages * PAGE_KIB,
        "guests": [each.document() for each in found],
        "lost": list(lost),
    }


COLUMNS = ("guest", "current", "target", "max", "claim", "balloon", "profile", "driver")


def row_of(each: GuestStanding) -> tuple[Cell, ...]:
    """A guest's row under `COLUMNS`."""
    info = each.info
    return (
        info.name,
        size_of_pages(info.current_pages),
        size_of_pages(each.target_pages),
        size_of_pages(info.max_pages),
        size_of_pages(info.claim_pages) if info.claim_pages else "",
        size_of_pages(info.frame_count - info.current_pages),
        each.profile,
        each.words(),
    )


def host_blocks(host: XenHost, found: Sequence[GuestStanding], lost: Sequence[str]) -> list[Block]:
    """The same for people."""
    table = Table(f"Guests of {host.name}", COLUMNS, [row_of(each) for each in found])
    return [*lost_lines(host.name, lost), table, free_line(host)]


def free_line(host: XenHost) -> str:
    hypervisor = host.hypervisor
    free, total = size_of_pages(hypervisor.free_pages), size_of_pages(hypervisor.total_pages)
    claimed = hypervisor.claimed_pages
    promised = f", {size_of_pages(claimed)} of it claimed" if claimed else ""
    return f"{free} of {total} free on {host.name}{promised}"


def lost_lines(host: str, lost: Sequence[str]) -> list[Cell]:
    return [
        caution(f"guest {name} of {host} has lost its power, and was destroyed") for name in lost
    ]
