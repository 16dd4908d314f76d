"""Who uses the pages of a system that runs: from its files, on a virtual machine and a real one.

`/proc/kpageflags` says of each page whether it is free, and so where the free blocks of each order
are (docs/reference/linux-files.md, L5); a real computer's zones are in `/proc/zoneinfo`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from openrbu.errors import OpenRbuError
from openrbu.hosts.base import Host, read_text
from openrbu.lazy import np, npt
from openrbu.linux.memory import KPAGEFLAGS
from openrbu.maps.kinds import free_key
from openrbu.maps.memory_map import MappedZone, Ranges
from openrbu.memory.page_flags import ANON_BIT, BUDDY_BIT, ENTRY_BYTES, LRU_BIT, MMAP_BIT
from openrbu.memory.physical import Region
from openrbu.memory.ram_array import Addresses
from openrbu.units import GIB, MAX_ORDER, MIB, PAGE_SHIFT, PAGE_SIZE
from openrbu.update.target import is_on_xen

ZONEINFO = "/proc/zoneinfo"

_OFFLINE_BIT = 23
"""A page that a balloon has given away (the kernel's document pagemap: OFFLINE)."""

_CACHE_BITS = 1 << LRU_BIT | 1 << MMAP_BIT | 1 << ANON_BIT
_READ_BYTES = 16 * MIB
_BLOCK_PAGES = 1 << MAX_ORDER

_X86_ZONES = (("DMA", 0, 16 * MIB), ("DMA32", 16 * MIB, 4 * GIB), ("Normal", 4 * GIB, 1 << 62))

_ZONE = re.compile(r"^Node \d+, zone +(\S+)$(.*?)(?=^Node |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Usage:
    """The pages of a system: ranges by the key of a kind, its zones, and notes on what could not be
    seen. It is empty where the system shows nothing."""

    ranges: dict[str, Ranges] = field(default_factory=dict)
    zones: tuple[MappedZone, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return bool(self.ranges)


class _Collector:
    """Collects ranges of pages by kind, in ascending sequence; those that touch are joined."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Addresses, Addresses]]] = {}

    def add(self, kind: str, mask: npt.NDArray[np.bool_], first: int, unit: int) -> None:
        """Add the units of `unit` pages that `mask` has, from page `first` on."""
        padded = np.zeros(len(mask) + 2, np.int8)
        padded[1:-1] = mask
        edges = np.flatnonzero(np.diff(padded)).astype(np.int64)
        if len(edges):
            at = (first + edges * unit) << PAGE_SHIFT
            self._parts.setdefault(kind, []).append((at[0::2], at[1::2]))

    def ranges(self) -> dict[str, Ranges]:
        made: dict[str, Ranges] = {}
        for kind, parts in self._parts.items():
            starts = np.concatenate([start for start, _ in parts])
            ends = np.concatenate([end for _, end in parts])
            apart = starts[1:] != ends[:-1]
            made[kind] = Ranges(starts[np.append(True, apart)], ends[np.append(apart, True)])
        return made


def usage_of(host: Host, regions: tuple[Region, ...]) -> Usage:
    """Who uses the RAM in `regions`, which are of the machine that the host runs on."""
    table = host.frame_table
    if table is None and is_on_xen(host):
        note = "who uses the pages can't be seen: on Xen, a system's page numbers are its own"
        return Usage(notes=(note,))
    try:
        if table is None:
            parts: Iterable[tuple[int, npt.NDArray[np.uint64]]] = _flags(host)
        else:
            entries = np.concatenate([entries for _, entries in _flags(host)])
            end = max(region.end for region in regions) >> PAGE_SHIFT
            by_machine = np.full(
                -(-end // _BLOCK_PAGES) * _BLOCK_PAGES, 1 << _OFFLINE_BIT, np.uint64
            )
            frames = table[: len(entries)]
            is_there = frames < end
            by_machine[frames[is_there]] = entries[: len(frames)][is_there]
            parts = [(0, by_machine)]
        ranges = _collect(parts, regions)
    except OSError as error:
        note = f"who uses the pages can't be seen: {KPAGEFLAGS}: {error.strerror}"
        return Usage(zones=_zones(host, regions), notes=(note,))
    if table is not None:  # the zones are of the system's own page numbers
        return Usage(ranges)
    return Usage(ranges, _counted(_zones(host, regions), ranges))


def _flags(host: Host) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """The flags of all pages: a first page, and the flags from there on."""
    page = 0
    for chunk in host.chunks(KPAGEFLAGS, _READ_BYTES):
        entries = np.frombuffer(chunk, "<u8", len(chunk) // ENTRY_BYTES)
        yield page, entries
        page += len(entries)


def _collect(
    parts: Iterable[tuple[int, npt.NDArray[np.uint64]]], regions: tuple[Region, ...]
) -> dict[str, Ranges]:
    """The kinds of all pages of RAM, from their flags."""
    collector = _Collector()
    for first, flags in parts:
        ram = _ram_mask(regions, first, len(flags))
        free = (flags >> np.uint64(BUDDY_BIT) & np.uint64(1)).astype(np.bool_) & ram
        away = (flags >> np.uint64(_OFFLINE_BIT) & np.uint64(1)).astype(np.bool_) & ram & ~free
        cached = ((flags & np.uint64(_CACHE_BITS)) != 0) & ram & ~free & ~away
        collector.add("balloon", away, first, 1)
        collector.add("cache", cached, first, 1)
        collector.add("used", ram & ~(free | away | cached), first, 1)
        _add_free(collector, free, first)
    return collector.ranges()


def _ram_mask(regions: tuple[Region, ...], first: int, count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` pages from `first` on are RAM."""
    mask = np.zeros(count, np.bool_)
    for region in regions:
        low, high = (region.start >> PAGE_SHIFT) - first, (region.end >> PAGE_SHIFT) - first
        mask[max(low, 0) : max(high, 0)] = True
    return mask


def _add_free(collector: _Collector, free: npt.NDArray[np.bool_], first: int) -> None:
    """Add the free blocks: of each order the naturally aligned ones that are in no larger one.
    `first` is a multiple of the largest block's pages."""
    padded = np.zeros(-(-len(free) // _BLOCK_PAGES) * _BLOCK_PAGES, np.bool_)
    padded[: len(free)] = free
    level = padded
    for order in range(MAX_ORDER + 1):
        if order == MAX_ORDER:
            collector.add(free_key(order), level, first, 1 << order)
            return
        above = level[0::2] & level[1::2]
        collector.add(free_key(order), level & ~np.repeat(above, 2), first, 1 << order)
        level = above


def _zones(host: Host, regions: tuple[Region, ...]) -> tuple[MappedZone, ...]:
    """The zones that have RAM; where the kernel does not show them, those of 64-bit x86."""
    spans = list(_X86_ZONES)
    try:
        if host.exists(ZONEINFO):
            spans = _parsed_zones(read_text(host, ZONEINFO)) or spans
    except (OSError, OpenRbuError):
        pass
    end = max(region.end for region in regions)
    return tuple(
        MappedZone(name, start, min(stop, end))
        for name, start, stop in spans
        if any(region.clip(start, stop) for region in regions)
    )


def _parsed_zones(text: str) -> list[tuple[str, int, int]]:
    """The zones in `/proc/zoneinfo`: name, start and end in bytes; of all nodes together."""
    spans: dict[str, tuple[int, int]] = {}
    for name, body in _ZONE.findall(text):
        numbers = dict(re.findall(r"^ +(spanned|start_pfn):? +(\d+)$", body, re.MULTILINE))
        if "start_pfn" not in numbers or int(numbers.get("spanned", 0)) == 0:
            continue
        start = int(numbers["start_pfn"]) * PAGE_SIZE
        end = start + int(numbers["spanned"]) * PAGE_SIZE
        low, high = spans.get(name, (start, end))
        spans[name] = (min(low, start), max(high, end))
    return sorted(((name, *span) for name, span in spans.items()), key=lambda zone: zone[1:])


def _counted(zones: tuple[MappedZone, ...], ranges: dict[str, Ranges]) -> tuple[MappedZone, ...]:
    """The zones with the number of their free blocks."""
    starts = np.array([zone.start for zone in zones], np.int64)
    ends = np.array([zone.end for zone in zones], np.int64)
    none = Ranges.of(())
    sizes = [
        ranges.get(free_key(order), none).bytes_in(starts, ends) // (PAGE_SIZE << order)
        for order in range(MAX_ORDER + 1)
    ]
    return tuple(
        MappedZone(zone.name, zone.start, zone.end, tuple(int(size[place]) for size in sizes))
        for place, zone in enumerate(zones)
    )
