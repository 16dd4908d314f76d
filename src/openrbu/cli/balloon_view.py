"""The status of a Xen host and of its guests, as people read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrbu.cli.show import Block, Cell, Table, bad, caution, good
from openrbu.units import PAGE_SIZE, human_size

if TYPE_CHECKING:
    from openrbu.balloon.status import GuestStatus, HostStatus

_COLUMNS = ("guest", "current", "target", "max", "claim", "balloon", "profile", "driver")


def size_of_pages(pages: int) -> str:
    return human_size(pages * PAGE_SIZE)


def host_blocks(status: HostStatus) -> list[Block]:
    """A table of the guests, and what the host has free."""
    rows = [_row_of(each) for each in status.guests]
    table = Table(f"Guests of {status.host}", _COLUMNS, rows)
    problems = [bad(each.problem) for each in status.guests if each.problem is not None]
    return [*orphan_lines(status.host, status.lost), table, *problems, free_line(status)]


def _row_of(guest: GuestStatus) -> tuple[Cell, ...]:
    info = guest.info
    return (
        info.name,
        size_of_pages(info.current_pages),
        size_of_pages(guest.target_pages),
        size_of_pages(info.max_pages),
        size_of_pages(info.claim_pages) if info.claim_pages else "",
        size_of_pages(info.frame_count - info.current_pages),
        guest.profile,
        driver_cell(guest),
    )


def driver_cell(guest: GuestStatus) -> Cell:
    """What the guest's driver does now."""
    from openrbu.xen.samples import BalloonActivity

    if guest.problem is not None:
        return bad("refused")
    if guest.activity is None:
        return caution(f"process {guest.owner or 'unknown'} has it")
    if guest.activity is BalloonActivity.MOVING:
        return caution("moving")
    if guest.activity is BalloonActivity.WAITING:
        when = "" if guest.retry_in_s is None else f" in {max(1, math.ceil(guest.retry_in_s))} s"
        return caution(f"tries again{when}")
    if guest.activity is BalloonActivity.STALLED:
        limit = guest.hard_limit_pages
        return bad("gave up" if limit is None else f"gave up: hard limit {size_of_pages(limit)}")
    return good("idle: can't grow further" if guest.has_all_frames else "idle")


def free_line(status: HostStatus) -> str:
    """What the host has free."""
    free, total = size_of_pages(status.free_pages), size_of_pages(status.total_pages)
    claimed = status.claimed_pages
    promised = f", {size_of_pages(claimed)} of it claimed" if claimed else ""
    return f"{free} of {total} free on {status.host}{promised}"


def orphan_lines(host: str, lost: Sequence[str]) -> list[Cell]:
    """A line for each guest that was destroyed because the process that had it died."""
    return [
        caution(f"guest {name} of {host} has lost its power, and was destroyed") for name in lost
    ]
