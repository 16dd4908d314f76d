"""`/proc/buddyinfo`: how many free blocks of each order are in each zone of memory.

Facts: docs/reference/linux-files.md, L4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.units import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class ZoneFree:
    """One line: `counts[order]` free blocks of 2**order pages, from order 0 up."""

    node: int
    zone: str
    counts: tuple[int, ...]


def format_buddyinfo(zones: Iterable[ZoneFree]) -> str:
    """The file as Linux 6 writes it (measured: the columns, and the blank at a line's end)."""
    return "".join(
        f"Node {zone.node}, zone {zone.zone:>8} "
        + "".join(f"{count:6} " for count in zone.counts)
        + "\n"
        for zone in zones
    )


def parse_buddyinfo(text: str) -> list[ZoneFree]:
    """The lines of the file of any machine: any nodes, zones and number of orders.

    :raise DamagedInputError: when a line has another form, or there are no lines.
    """
    zones: list[ZoneFree] = []
    offset = 0
    for line in text.splitlines(keepends=True):
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            counts = tuple(int(count) for count in match["counts"].split())
            zones.append(ZoneFree(int(match["node"]), match["zone"], counts))
        elif line.strip():
            raise DamagedInputError(
                f"not a line of /proc/buddyinfo: {line.strip()[:80]!r}",
                offset=offset,
                expected="Node N, zone NAME COUNT…",
                actual=line,
            )
        offset += len(line)
    if not zones:
        raise DamagedInputError("there is no zone in this /proc/buddyinfo", offset=0)
    return zones


def without_dma(zones: Iterable[ZoneFree]) -> tuple[ZoneFree, ...]:
    """The zones without DMA, where there are others: a kernel keeps most of that one for devices
    that reach no other memory (`/proc/sys/vm/lowmem_reserve_ratio`), and gives nothing of it to
    drivers such as `dell_rbu` as long as others have some."""
    found = tuple(zones)
    return tuple(zone for zone in found if zone.zone != "DMA") or found


def low_zones(zones: Iterable[ZoneFree]) -> list[ZoneFree]:
    """The zones below 4 GiB: DMA and DMA32; all, where there is no zone DMA32."""
    found = list(zones)
    if not any(zone.zone == "DMA32" for zone in found):
        return found
    return [zone for zone in found if zone.zone.startswith("DMA")]


def high_zones(zones: Iterable[ZoneFree]) -> list[ZoneFree]:
    """The zones above 4 GiB, from which a kernel takes its pages first."""
    found = list(zones)
    low = low_zones(found)
    return [zone for zone in found if zone not in low]


def free_bytes(zones: Iterable[ZoneFree]) -> int:
    """How much is free in these zones."""
    return free_in_blocks(zones, 0) * PAGE_SIZE


def free_in_blocks(zones: Iterable[ZoneFree], order: int) -> int:
    """How many blocks of this order the free memory of these zones makes: a larger block is so many
    of them, and smaller ones are none."""
    return sum(
        count << each - order
        for zone in zones
        for each, count in enumerate(zone.counts)
        if each >= order
    )


def largest_block_bytes(zones: Iterable[ZoneFree]) -> int:
    """The size in bytes of the largest free block in these zones; 0 if there is none."""
    orders = [order for zone in zones for order, count in enumerate(zone.counts) if count]
    return PAGE_SIZE << max(orders) if orders else 0


def largest_low_block_bytes(zones: Sequence[ZoneFree]) -> int:
    """The size in bytes of the largest free block below 4 GiB; 0 if there is none."""
    return largest_block_bytes(low_zones(zones))


def has_high_memory(zones: Sequence[ZoneFree]) -> bool:
    """Whether there is free memory above 4 GiB."""
    return any(any(zone.counts) for zone in high_zones(zones) if zone.zone == "Normal")


_LINE = re.compile(
    r"Node +(?P<node>[0-9]{1,9}), +zone +(?P<zone>\S+)(?P<counts>(?: +[0-9]{1,19})+)"
)
