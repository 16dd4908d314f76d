"""What only openrbu's own driver owes an update: its memory is had before, and stays in its place.

The kernel may move a page of a program, even a huge one (compaction, migration, hot-unplug), and
take one out of use (a memory error). So the addresses are read again before the BIOS is armed, and
by each `rbu status`; and what is found in physical memory has to be where the driver put it.
"""

from __future__ import annotations

from collections.abc import Iterable

from openrbu.errors import UpdateFailedError
from openrbu.hosts.base import Host
from openrbu.memory.physical import Region
from openrbu.units import PAGE_SIZE, order_for


class MovedError(UpdateFailedError):
    """Pages of what is staged are no longer where they were staged."""

    kind = "moved"


def reserve(host: Host, staged_bytes: int, piece_bytes: int) -> None:
    """Have the memory for so many bytes in such pieces, at once and not piece by piece.

    :raise OSError: ENOMEM when it is not to be had.
    """
    own = host.own_rbu
    if own is not None and staged_bytes:
        block_bytes = PAGE_SIZE << order_for(piece_bytes)
        own.reserve(-(-staged_bytes // piece_bytes) * block_bytes, block_bytes=block_bytes)


def staged_in(host: Host) -> tuple[Region, ...]:
    """Where the driver says that the staged bytes are; nothing for the kernel's."""
    own = host.own_rbu
    return () if own is None else own.staged_regions


def moved(host: Host) -> tuple[Region, ...]:
    """What of the staged bytes is no longer where it was staged, by the old addresses; nothing with
    the kernel's driver, whose pages stay.

    :raise OSError: when the addresses can't be read again.
    """
    own = host.own_rbu
    return () if own is None else own.moved()


def check_in_place(host: Host, found: Iterable[Region] = ()) -> None:
    """Check that what is staged is where it was staged, and that what a BIOS takes (`found`) is
    that.

    :raise MovedError: when it is not.
    :raise OSError: when the addresses can't be read again.
    """
    own = host.own_rbu
    if own is None:
        return
    if away := moved(host):
        advice = moved_advice(sees_memory=host.physical_memory is not None)
        raise MovedError(f"{moved_text(away)}: {advice}")
    from openrbu.memory.held import HeldPages  # noqa: PLC0415  (start-up time)

    held = HeldPages(own.staged_regions)
    for region in found:
        if not held.has_all(region.start, region.size_bytes):
            raise MovedError(
                f"a BIOS would take what is at {region.start:#x}, where the driver has staged "
                "nothing"
            )


def moved_text(away: tuple[Region, ...]) -> str:
    """What is wrong."""
    places = ", ".join(f"{region.start:#x}" for region in away[:4])
    more = " and others" if len(away) > 4 else ""
    return (
        "the kernel has moved pages of what is staged, or others use their memory now (they were "
        f"at {places}{more}), so the BIOS would not find it"
    )


def moved_advice(*, sees_memory: bool) -> str:
    """What to do then. The pages' bytes may stay at their old addresses; `sees_memory`: the next
    update looks there before it arms the BIOS."""
    if sees_memory:
        return "update again"
    return (
        "switch the machine off and on before you update again: a BIOS may find the old bytes, "
        "which can't be looked for here"
    )
