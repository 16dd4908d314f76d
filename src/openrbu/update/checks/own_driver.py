"""openrbu's own driver in the questions of a plan: can it have the memory that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from openrbu.formats.buddyinfo import free_bytes, free_in_blocks, low_zones
from openrbu.hosts.base import OwnRbu
from openrbu.linux.files import number_of
from openrbu.linux.memory import BUDDYINFO
from openrbu.units import HUGE_PAGE_BYTES, PAGE_SIZE, human_size, order_for
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.ways import first_way, staged_bytes

FREE_PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
"""How many huge pages the kernel has that nobody uses."""

_check = partial(Check, Question.STAGING)


def memory_checks(seen: Situation, own: OwnRbu) -> Iterator[Check]:
    """Whether huge pages at known addresses are to be had, and enough of them below 4 GiB."""
    if seen.on_xen:
        yield _check(
            "own_driver",
            "on Xen a Linux does not see where its memory is: openrbu's own driver can't be used",
            Verdict.IN_THE_WAY,
            "use a kernel with the dell_rbu module",
            "own_driver_on_xen",
        )
        return
    needed = _Needed.of(seen)
    obstacles = own.obstacles(needed.pages * HUGE_PAGE_BYTES)
    for each in obstacles:
        yield _check(
            "own_driver",
            f"openrbu's own driver can't have memory: {each.text}",
            Verdict.IN_THE_WAY,
            each.remedy,
            each.name,
        )
    if not obstacles:
        yield _pages(seen, own, needed)


@dataclass(frozen=True, slots=True)
class _Needed:
    """So many huge pages are needed, `together` of them side by side."""

    pages: int
    together: int

    @classmethod
    def of(cls, seen: Situation) -> _Needed:
        """What the first way of staging needs."""
        way = first_way(seen)
        piece = whole = seen.image.size_bytes
        if way.mode == "packet":
            whole = staged_bytes(seen, way.packet_size_bytes)
            piece = whole if way.in_one_block else way.packet_size_bytes
        block = PAGE_SIZE << order_for(piece)
        pages = -(-(-(-whole // piece) * block) // HUGE_PAGE_BYTES)
        return cls(pages, -(-block // HUGE_PAGE_BYTES))


def _pages(seen: Situation, own: OwnRbu, needed: _Needed) -> Check:
    """Whether there is memory for enough huge pages below 4 GiB."""
    if own.memory_bytes >= needed.pages * HUGE_PAGE_BYTES:
        text = f"openrbu's own driver has {human_size(own.memory_bytes)} of memory"
        return _check("own_driver", text, Verdict.FINE)
    pages = "a huge page" if needed.pages == 1 else f"{needed.pages} huge pages"
    text = f"openrbu's own driver needs {pages} of 2 MiB below 4 GiB"
    if needed.together > 1:
        text += f", {needed.together} of them side by side"
    check = partial(_check, "own_driver")
    if not seen.zones:
        text = f"{text}; which memory is free can't be known ({BUDDYINFO})"
        return check(text, Verdict.UNKNOWN, "run this as root")
    low = low_zones(seen.zones)
    free, there = free_in_blocks(low, order_for(HUGE_PAGE_BYTES)), free_bytes(low)
    text = f"{text}; {free} could be had at once, of {human_size(there)} that are free there"
    if free >= needed.pages:
        return check(text, Verdict.FINE)
    if there < needed.pages * HUGE_PAGE_BYTES:
        advice = "end some programs first, or do it soon after a restart"
        return check(text, Verdict.UNKNOWN, advice)
    if free or number_of(seen.host, FREE_PAGES):
        return check(text, Verdict.HANDLED, "memory is compacted for the rest")
    advice = "compacting memory is tried, and may fail; then do it soon after a restart"
    return check(text, Verdict.UNKNOWN, advice)


def cache_checks(own: OwnRbu) -> Iterator[Check]:
    """Whether what is staged is in memory, and not in the processor's caches only."""
    check = partial(Check, Question.RESTART, "processor_caches")
    text = "a reset may drop what is only in the processor's caches"
    if why_not := own.cannot_flush:
        found = f"{text}, and they can't be flushed from here ({why_not})"
        yield check(found, Verdict.UNKNOWN, "only the restart shows whether the image is there")
    else:
        kept = "what is staged is flushed to memory; only the restart shows whether it stays there"
        yield check(text, Verdict.HANDLED, kept)
