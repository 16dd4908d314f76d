"""Will the BIOS find what is staged: where it is in memory, and whether that can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.units import PAGE_SIZE, human_size
from openrbu.update.checks import memory
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

_check = partial(Check, Question.SEARCH)

_SCATTERED = (
    "on Xen one block of the driver's memory may be scattered in the machine's memory, where no "
    "BIOS finds it, although it reads back right"
)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the BIOS will find what is staged."""
    is_seen = seen.host.physical_memory is not None
    yield _physical_memory(is_seen=is_seen)
    yield from memory.search_checks(seen)
    if seen.on_xen and seen.piece_bytes > PAGE_SIZE:
        yield _scattered(seen, is_seen=is_seen)


def _physical_memory(*, is_seen: bool) -> Check:
    if is_seen:
        return _check(
            "physical_memory",
            "physical memory can be read: the image is verified where the BIOS will search",
            Verdict.FINE,
        )
    return _check(
        "physical_memory",
        "physical memory can't be read here",
        Verdict.UNKNOWN,
        "only the driver's read-back is compared",
    )


def _scattered(seen: Situation, *, is_seen: bool) -> Check:
    """A block of more than a page on Xen. Where the machine's memory can't be read, read-back
    proves nothing."""
    if is_seen:
        return _check("scattered_on_xen", _SCATTERED, Verdict.UNKNOWN, "verification will show it")
    return _check(
        "scattered_on_xen",
        f"{_SCATTERED}, and that can't be checked from here",
        Verdict.IN_THE_WAY,
        f"blocks of {human_size(seen.piece_bytes)} are too large (use --mode packet --packet-size "
        f"{PAGE_SIZE}, or start Linux without Xen for the update)",
    )
