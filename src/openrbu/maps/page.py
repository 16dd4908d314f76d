"""A map as a page: one HTML file without outside resources, in which one can zoom and click.

The page's files are in `page_files/`; `html/page.py` makes one of them. In its data, ranges are
short: differences of addresses as numbers of variable length, as base64.
"""

from __future__ import annotations

import base64
from importlib import resources
from typing import Any

from openrbu.formats.packet_header import PACKET_HEADER, PASSWORD_ITEM, set_id_text
from openrbu.html.page import page_from
from openrbu.lazy import np, npt
from openrbu.maps.kinds import KINDS
from openrbu.maps.memory_map import MappedSet, MemoryMap, Ranges
from openrbu.memory.ram_array import Addresses
from openrbu.units import PAGE_SIZE

MOST_RANGES = 30_000
"""So many ranges of one kind are shown; where there are more, those that lie next to each other are
joined."""

_FILES = resources.files("openrbu.maps") / "page_files"


def page_of(mapped: MemoryMap) -> str:
    """The page."""
    return page_from(_FILES, _data(mapped))


def _data(mapped: MemoryMap) -> dict[str, Any]:
    return {
        "name": mapped.name,
        "end": mapped.end,
        "kinds": [
            {
                "key": kind.key,
                "letter": kind.letter,
                "title": kind.title,
                "colour": kind.colour,
                "ink": kind.ink,
                "isMark": kind.is_mark,
                **_ranges(mapped.ranges.get(kind.key, Ranges.of(()))),
            }
            for kind in KINDS
        ],
        "zones": [
            {"name": zone.name, "start": zone.start, "end": zone.end, "free": zone.free_counts}
            for zone in mapped.zones
        ],
        "sets": [_set(each) for each in mapped.sets],
        "marks": [
            {
                "kind": mark.kind,
                "start": mark.address,
                "size": mark.size_bytes,
                "title": mark.title,
                "facts": mark.facts,
            }
            for mark in mapped.marks
        ],
        "rejectCount": mapped.reject_count,
        "notes": mapped.notes,
        "fields": _fields(PACKET_HEADER.fields, PACKET_HEADER.offset_of),
        "item": _fields(PASSWORD_ITEM.fields, PASSWORD_ITEM.offset_of),
    }


def _fields(fields: Any, offset_of: Any) -> list[list[Any]]:
    """Name, offset, size and unit of each field of a structure."""
    return [[each.name, offset_of(each.name), each.size_bytes, each.unit] for each in fields]


def _ranges(ranges: Ranges) -> dict[str, Any]:
    """Ranges as a unit and numbers: the bytes from the end of the one before, and its own."""
    starts, ends = _fewer(ranges.starts, ranges.ends)
    is_whole = not ((starts % PAGE_SIZE).any() or (ends % PAGE_SIZE).any())
    unit = PAGE_SIZE if is_whole else 1
    gaps = starts - np.concatenate(([0], ends[:-1])) if len(starts) else starts
    numbers = np.stack((gaps, ends - starts), axis=1).ravel() // unit
    return {"unit": unit, "ranges": _packed(numbers), "size": ranges.size_bytes}


def _fewer(starts: Addresses, ends: Addresses) -> tuple[Addresses, Addresses]:
    """At most `MOST_RANGES` ranges: those with the smallest gaps between them are joined."""
    if len(starts) <= MOST_RANGES:
        return starts, ends
    gaps = starts[1:] - ends[:-1]
    largest = np.sort(np.argpartition(-gaps, MOST_RANGES - 1)[: MOST_RANGES - 1])
    return starts[np.append(0, largest + 1)], ends[np.append(largest, len(ends) - 1)]


def _packed(numbers: Addresses) -> str:
    """Numbers from 0 up, each in groups of 7 bits, the lowest first (LEB128), as base64."""
    columns: list[npt.NDArray[np.uint8]] = []
    is_there: list[npt.NDArray[np.bool_]] = []
    rest, alive = numbers.astype(np.uint64), np.ones(len(numbers), np.bool_)
    while alive.any():
        more = rest >= 0x80
        columns.append(
            (rest & np.uint64(0x7F) | (more.astype(np.uint64) << np.uint64(7))).astype(np.uint8)
        )
        is_there.append(alive)
        rest, alive = rest >> np.uint64(7), alive & more
    if not columns:
        return ""
    table, mask = np.stack(columns, axis=1), np.stack(is_there, axis=1)
    return base64.b64encode(table[mask].tobytes()).decode()


def _set(mapped: MappedSet) -> dict[str, Any]:
    found = mapped.found
    numbers = mapped.numbers.astype(np.int64)
    step = np.diff(numbers, prepend=0)
    ghosts = None if mapped.is_ghost is None else np.packbits(mapped.is_ghost, bitorder="little")
    return {
        "id": set_id_text(found.set_id),
        "title": mapped.title,
        "total": found.total,
        "size": found.packet_size_bytes,
        "size0": found.packet_0_size_bytes,
        "header": base64.b64encode(mapped.header).decode(),
        "conflicts": found.conflicts,
        "password": f"{found.password.crc:#010x}" if found.password.present else None,
        "addresses": _packed(np.diff(mapped.addresses, prepend=0)),
        "numbers": _packed(np.where(step < 0, -2 * step - 1, 2 * step)),  # the sign is the last bit
        "checksums": base64.b64encode(mapped.checksums.astype("<u2").tobytes()).decode(),
        "ghosts": None if ghosts is None else base64.b64encode(ghosts.tobytes()).decode(),
    }
