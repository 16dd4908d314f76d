"""`/proc/buddyinfo`: how many free blocks of each order each zone of memory has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from openrbu.errors import DamagedInputError


@dataclass(frozen=True, slots=True)
class ZoneFree:
    """One line: `counts[order]` free blocks of 2**order pages, from order 0 up."""

    node: int
    zone: str
    counts: tuple[int, ...]


def format_buddyinfo(zones: Iterable[ZoneFree]) -> str:
    """The file as Linux writes it (seen on Linux 6: columns, and the blank that ends a line)."""
    return "".join(
        f"Node {zone.node}, zone {zone.zone:>8} "
        + "".join(f"{count:6} " for count in zone.counts)
        + "\n"
        for zone in zones
    )


def parse_buddyinfo(text: str) -> list[ZoneFree]:
    """The lines of the file, of any machine: any nodes, zones and number of orders.

    :raise DamagedInputError: when a line is none of its lines, or there is none at all.
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


_LINE = re.compile(
    r"Node +(?P<node>[0-9]{1,9}), +zone +(?P<zone>\S+)(?P<counts>(?: +[0-9]{1,19})+)"
)
