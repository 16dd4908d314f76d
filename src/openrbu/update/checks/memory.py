"""Memory in the questions of a plan: can the image be staged in it, will the BIOS find it there,
will the restart keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.formats.buddyinfo import (
    free_bytes,
    free_in_blocks,
    high_zones,
    largest_block_bytes,
    low_zones,
)
from openrbu.linux.memory import BUDDYINFO, MEMINFO, read_available_bytes
from openrbu.units import MIB, PAGE_SIZE, human_size, human_sizes, order_for
from openrbu.update.checks import own_driver
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.ways import Way, first_way, staged_bytes

_OWN_BYTES = 40 * MIB
"""What this program and its neighbours need beside what is staged. (In a guest with 35 MiB
available an update went through; with 28 MiB the run did not come back.)"""


def staging_checks(seen: Situation) -> Iterator[Check]:
    """Whether memory has free blocks of the size that is needed, and enough of them."""
    own = seen.host.own_rbu
    if own is not None:
        yield from own_driver.memory_checks(seen, own)
    elif seen.zones:
        yield _free_blocks(seen, first_way(seen))
    else:
        text = f"which memory is free, also above 4 GiB, can't be known ({BUDDYINFO})"
        yield Check(Question.STAGING, "free_blocks", text, Verdict.UNKNOWN, "run this as root")
    available = read_available_bytes(seen.host)
    if available is not None:
        yield _available(seen, available)
    elif seen.host.exists(MEMINFO):
        text = f"how much memory is available can't be known ({MEMINFO})"
        advice = f"the update needs about {human_size(_needed_bytes(seen))}"
        yield Check(Question.STAGING, "available_memory", text, Verdict.UNKNOWN, advice)


def _free_blocks(seen: Situation, way: Way) -> Check:
    is_low = way.mode == "mono" or way.in_one_block or way.holds_memory
    zones = low_zones(seen.zones) if is_low else list(seen.zones)
    whole = seen.image.size_bytes
    if way.mode == "packet":
        whole = staged_bytes(seen, way.packet_size_bytes)
    in_one = way.mode == "mono" or way.in_one_block
    order = order_for(whole if in_one else way.packet_size_bytes)
    needed = 1 if in_one else whole // way.packet_size_bytes
    there = free_in_blocks(zones, order)
    block = human_size(PAGE_SIZE << order)
    blocks = f"{needed} block{'s' if needed > 1 else ''} of {block}"
    where = " below 4 GiB" if is_low else ""
    free = f"{there} {'is' if there == 1 else 'are'} free{where}"
    found = f"{blocks} {'are' if needed > 1 else 'is'} needed, {free}"
    if there >= needed:
        return Check(Question.STAGING, "free_blocks", f"{found}{_largest(seen)}", Verdict.FINE)
    found = f"{found}; the largest free block{where} is {human_size(largest_block_bytes(zones))}"
    if in_one and way.mode == "mono":
        advice = "it may not fit in one piece: memory is compacted"
        packets = ", then packets are tried" if seen.options.mode is None else ""
        advice += packets if seen.takes_packets else ""
        return Check(Question.STAGING, "free_blocks", found, Verdict.UNKNOWN, advice)
    if way.packet_size_bytes > PAGE_SIZE:
        advice = f"memory is compacted, then smaller packets are tried, down to {PAGE_SIZE} bytes"
        return Check(Question.STAGING, "free_blocks", found, Verdict.HANDLED, advice)
    return Check(Question.STAGING, "free_blocks", found, Verdict.UNKNOWN, "free some memory")


def _largest(seen: Situation) -> str:
    """The largest free block in each zone, as text."""
    zones = [
        f"{zone.zone} {human_size(largest_block_bytes([zone]))}"
        for zone in seen.zones
        if any(zone.counts)
    ]
    return f" (the largest: {', '.join(zones)})" if zones else ""


def _needed_bytes(seen: Situation) -> int:
    """An estimate, so in whole MiB: it is compared with what is shown."""
    needed = 2 * seen.image.size_bytes + _OWN_BYTES
    return -(-needed // MIB) * MIB


def _available(seen: Situation, available_bytes: int) -> Check:
    """Whether there is memory for the delivery, for what is staged, and for this program."""
    needed = _needed_bytes(seen)
    there, least = human_sizes(available_bytes, needed)
    text = f"{there} are available, and about {least} are needed"
    if available_bytes >= needed:
        return Check(Question.STAGING, "available_memory", text, Verdict.FINE)
    advice = "end some programs first (a kernel without free memory ends some by itself)"
    return Check(Question.STAGING, "available_memory", text, Verdict.UNKNOWN, advice)


def search_checks(seen: Situation) -> Iterator[Check]:
    """Whether what is staged lies where a BIOS searches."""
    high = free_bytes(high_zones(seen.zones))
    if high and seen.takes_packets:
        yield _above_4_gib(seen, first_way(seen), high)
    traits = seen.linux.memory
    if traits.has_page_flags:
        text = "the kernel says which pages are free: leftover copies are told from what is staged"
        yield Check(Question.SEARCH, "page_flags", text, Verdict.FINE)
    elif seen.host.physical_memory is not None:
        text = "which pages are free can't be seen here (/proc/kpageflags)"
        advice = "a leftover copy in free memory may be taken for what is staged"
        yield Check(Question.SEARCH, "page_flags", text, Verdict.UNKNOWN, advice)


def _above_4_gib(seen: Situation, way: Way, high_bytes: int) -> Check:
    """Packets that would come to lie where a possible BIOS does not search."""
    check = partial(Check, Question.SEARCH, "memory_above_4_gib")
    there = f"{human_size(high_bytes)} are free above 4 GiB"
    if not seen.may_be_too_high:
        names = ", ".join(seen.bioses.names)
        return check(f"{there}, where a BIOS with the rules {names} searches, too", Verdict.FINE)
    text = (
        f"{there}: packets may be placed there, where a BIOS with the published rules does not "
        "search (that of a PowerEdge 2950 does)"
    )
    if way.mode == "mono":
        kept = "the image is staged in one piece, which the driver places below"
        return check(text, Verdict.HANDLED, kept)
    if way.in_one_block:
        return check(text, Verdict.HANDLED, "they are staged all in one block below 4 GiB")
    if way.holds_memory:
        return check(text, Verdict.HANDLED, "that memory is held in huge pages meanwhile")
    return check(
        text,
        Verdict.UNKNOWN,
        "verification will show it; start Linux with mem=4G for the update to keep them below, or "
        "ignore this with --memory-above-4g",
    )


def restart_checks(seen: Situation) -> Iterator[Check]:
    """What becomes of memory at the restart."""
    traits = seen.linux.memory
    encryption = ", ".join(traits.encryption)
    if traits.is_encrypted:
        yield Check(
            Question.RESTART,
            "memory_encryption",
            f"memory is encrypted ({encryption or 'mem_encrypt=on'}) with a key that is new after "
            "each reset: what is staged is lost then, and verification, which reads it with "
            "today's key, does not show that",
            Verdict.UNKNOWN,
            "start Linux with mem_encrypt=off for the update",
        )
    elif encryption and traits.is_encrypted is None:
        yield Check(
            Question.RESTART,
            "memory_encryption",
            f"the processor can encrypt memory ({encryption}), and from here it can't be seen "
            "whether it does; then what is staged may be lost at the restart, which verification "
            "does not show",
            Verdict.UNKNOWN,
            "look for it in the setup of the BIOS and in the kernel's log (dmesg)",
        )
    yield from _added(seen)
    if seen.host.own_rbu is not None:
        yield from own_driver.cache_checks(seen.host.own_rbu)
    if traits.clears and seen.host.own_rbu is not None:
        yield Check(
            Question.RESTART,
            "cleared_pages",
            f"pages are cleared when they are freed ({', '.join(traits.clears)}): what is staged "
            "in huge pages is lost where the shutdown unmounts their file system",
            Verdict.UNKNOWN,
            "systemd leaves it alone; without systemd, start Linux without that for the update",
        )
    elif traits.clears:
        text = f"pages are cleared when they are freed ({', '.join(traits.clears)})"
        yield Check(
            Question.RESTART, "cleared_pages", text, Verdict.FINE, "what is staged is not freed"
        )
    if traits.resume:
        yield Check(
            Question.RESTART,
            "hibernation",
            f"this machine can hibernate (to device {traits.resume})",
            Verdict.UNKNOWN,
            "restart it, and do not hibernate it, until the update is done: the power goes off "
            "then, and the image with it",
        )


def _added(seen: Situation) -> Iterator[Check]:
    """Memory that a BIOS may not have when it starts."""
    added = seen.linux.memory_added
    if added is None:
        return
    if not added.text:
        text = "all memory was there when the machine was started"
        yield Check(Question.RESTART, "hot_plugged_memory", text, Verdict.FINE)
        return
    yield Check(
        Question.RESTART,
        "hot_plugged_memory",
        f"memory can come and go while this machine runs ({added.text}): a BIOS that starts anew "
        "may not have what was added, and what is staged there is lost",
        Verdict.UNKNOWN,
        "if memory was added since the machine was started, restart it once before the update",
    )
