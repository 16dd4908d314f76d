"""openrbu's own driver in the questions of a plan: can it have the memory that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.formats.buddyinfo import free_bytes, free_in_blocks, low_zones
from openrbu.linux.memory import BUDDYINFO
from openrbu.linux.own_memory import HUGE_PAGES, PAGEMAP, read_own_memory
from openrbu.units import HUGE_PAGE_BYTES, PAGE_SIZE, human_size, order_for
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.ways import first_way, staged_bytes

_check = partial(Check, Question.STAGING)


def memory_checks(seen: Situation) -> Iterator[Check]:
    """Whether huge pages at known addresses are to be had, and enough of them below 4 GiB."""
    refusals = list(_refusals(seen))
    yield from refusals
    if not refusals:
        yield _pages(seen)


def _refusals(seen: Situation) -> Iterator[Check]:
    facts = read_own_memory(seen.host)
    refuse = partial(_check, "own_driver", verdict=Verdict.IN_THE_WAY)
    if seen.on_xen:
        yield refuse(
            "on Xen a Linux has no huge pages, and does not see where its memory is: openrbu's own "
            "driver can't be used",
            advice="use a kernel with the dell_rbu module",
            obstacle="own_driver_on_xen",
        )
        return
    if not facts.has_huge_pages:
        yield refuse(
            f"this kernel has no huge pages of 2 MiB ({HUGE_PAGES}, hugetlbfs), which openrbu's "
            "own driver needs",
            advice="use a kernel that has them (CONFIG_HUGETLBFS), or the dell_rbu module",
            obstacle="no_huge_pages",
        )
    if not facts.has_pagemap:
        yield refuse(
            f"this kernel does not show where the pages of a process are ({PAGEMAP})",
            advice="use a kernel that does (CONFIG_PROC_PAGE_MONITOR), or the dell_rbu module",
            obstacle="no_pagemap",
        )
    elif facts.is_admin is False:
        yield refuse(
            f"{PAGEMAP} shows this process no addresses: that takes CAP_SYS_ADMIN",
            advice="run this as root, and not in a container",
            obstacle="no_pagemap",
        )
    if facts.read_only:
        yield refuse(
            f"{facts.read_only} is mounted read-only, as in a container: the kernel can't be asked "
            "for huge pages",
            advice="run this outside of the container",
            obstacle="read_only_kernel_files",
        )


def _pages(seen: Situation) -> Check:
    """Whether there is memory for enough huge pages below 4 GiB."""
    way = first_way(seen)
    piece = whole = seen.image.size_bytes
    if way.mode == "packet":
        whole = staged_bytes(seen, way.packet_size_bytes)
        piece = whole if way.in_one_block else way.packet_size_bytes
    block = PAGE_SIZE << order_for(piece)
    needed = -(-(-(-whole // piece) * block) // HUGE_PAGE_BYTES)
    together = -(-block // HUGE_PAGE_BYTES)
    text = f"openrbu's own driver needs {needed} huge pages of 2 MiB below 4 GiB"
    if together > 1:
        text += f", {together} of them side by side"
    check = partial(_check, "own_driver")
    if not seen.zones:
        text = f"{text}; which memory is free can't be known ({BUDDYINFO})"
        return check(text, Verdict.UNKNOWN, "run this as root")
    low = low_zones(seen.zones)
    free, there = free_in_blocks(low, order_for(HUGE_PAGE_BYTES)), free_bytes(low)
    text = f"{text}; {free} could be had at once, of {human_size(there)} that are free there"
    if free >= needed:
        return check(text, Verdict.FINE)
    if there >= needed * HUGE_PAGE_BYTES:
        return check(text, Verdict.HANDLED, "memory is compacted for the rest")
    return check(text, Verdict.UNKNOWN, "end some programs first, or do it soon after a restart")
