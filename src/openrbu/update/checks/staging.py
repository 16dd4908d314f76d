"""Can the image be staged: the mode, the sizes of packets, the driver, and memory for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.errors import ExitCode, UsageError
from openrbu.formats import packet
from openrbu.units import human_size
from openrbu.update.checks import driver, memory
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

_check = partial(Check, Question.STAGING)
_in_the_way = partial(_check, verdict=Verdict.IN_THE_WAY)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the image can be staged in the planned mode."""
    yield from _mode(seen)
    yield from driver.checks(seen)
    yield from memory.staging_checks(seen)


def _mode(seen: Situation) -> Iterator[Check]:
    """Whether the machine's BIOS takes the planned mode, and the sizes are possible."""
    problems = list(_mono(seen) if seen.mode == "mono" else _packets(seen))
    if seen.target.rbu is None:
        text = f"{seen.target.title} does not say that it takes RBU updates"
        problems.append(_in_the_way("mode", text, obstacle="no_rbu"))
    elif not problems:
        kinds = "packets and monolithic images" if seen.takes_packets else "monolithic images"
        yield _check("mode", f"{seen.mode}: the BIOS takes {kinds}", Verdict.FINE)
    yield from problems


def _mono(seen: Situation) -> Iterator[Check]:
    if seen.image.size_bytes > seen.largest_block_bytes:
        yield _in_the_way(
            "mode",
            "a monolithic image can't be larger than one block of memory, "
            + human_size(seen.largest_block_bytes)
            + (
                ": use packets (--mode packet)"
                if seen.takes_packets
                else f", and the BIOS of {seen.target.title} takes no packets"
            ),
            advice=_larger_blocks(seen),
            obstacle="too_large_for_mono",
        )
    if seen.password_needs_packets:
        yield _in_the_way(
            "mode",
            "a password is sent in packet 0",
            advice="use --mode packet",
            obstacle="password_needs_packets",
        )


def _larger_blocks(seen: Situation) -> str:
    """What to do where the kernel's driver has no block for an image in one piece."""
    if seen.host.own_rbu is not None or not seen.host.offers_own_rbu:
        return ""
    loaded = ", after rmmod dell_rbu" if seen.host.module_is_loaded("dell_rbu") else ""
    return f"use openrbu's own driver, which has larger blocks (--driver own{loaded})"


def _packets(seen: Situation) -> Iterator[Check]:
    size_bytes = seen.options.packet_size_bytes
    try:
        packet.packets_needed(seen.image.size_bytes, size_bytes)
    except UsageError as error:
        yield _in_the_way(
            "packet_size", str(error), obstacle="too_many_packets", exit_code=ExitCode.USAGE
        )
    if seen.target.rbu is not None and not seen.takes_packets:
        fits = seen.image.size_bytes <= seen.largest_block_bytes
        advice = "use --mode mono" if fits else ""
        text = f"the BIOS of {seen.target.title} takes no packets"
        yield _in_the_way("mode", text, advice=advice, obstacle="no_packets")
    if size_bytes > seen.largest_block_bytes:
        yield _in_the_way(
            "packet_size",
            "a packet can't be larger than one block of memory, "
            + human_size(seen.largest_block_bytes),
            obstacle="packet_too_large",
            exit_code=ExitCode.USAGE,
        )
