"""The ways to stage an image, in the order in which they are tried.

Theory of operation. `LADDER` is a table: each rung has a name, the troubles that it helps with, and
a function that says how it would be done here, or why it can't be. An update begins with no
trouble, or with the one that can be foreseen: packets that would come to lie above 4 GiB, where a
possible BIOS does not search. It takes the first rung that helps with it. Where that fails, the
failure is the next trouble, and the first rung that helps with that one, and was not taken before,
is the next. As each is taken once, there is an end.

=============  ================================================================================
trouble        what happened
=============  ================================================================================
`NONE`         nothing was tried yet
`TOO_HIGH`     packets are above 4 GiB, or would come to lie there
`SHORT`        the kernel has no free memory in such blocks
`OTHER_DATA`   other data in memory keeps a possible BIOS from what was staged
`NOT_TAKEN`    a possible BIOS would not take what was staged, for another reason
`DIFFERENT`    the driver gave back something else than was delivered
=============  ================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from openrbu.errors import UsageError
from openrbu.formats.buddyinfo import (
    free_in_blocks,
    largest_low_block_bytes,
    low_zones,
)
from openrbu.formats.packet import packets_needed
from openrbu.units import MIB, PAGE_SIZE, human_size, order_for
from openrbu.update.arming_checks import lacks_password
from openrbu.update.checks.situation import Situation
from openrbu.update.driver import Mode

COMPACT_MEMORY = "/proc/sys/vm/compact_memory"

_LARGE_PACKET_BYTES = 2 * MIB
"""As large as the pages that hold the memory above 4 GiB: what they leave there is smaller."""


class Trouble(Enum):
    """Why another way is needed; see the module's docstring."""

    NONE = auto()
    TOO_HIGH = auto()
    SHORT = auto()
    OTHER_DATA = auto()
    NOT_TAKEN = auto()
    DIFFERENT = auto()


@dataclass(frozen=True, slots=True)
class Way:
    """A way to stage an image. `name` is for scripts.

    `packet_size_bytes` counts where `mode` is packet. `in_one_block`: all packets in one block
    below 4 GiB. `holds_memory`: the memory above 4 GiB is held meanwhile. `compacts`: memory is
    compacted before; `drops_caches`: the caches of files are dropped before.
    """

    name: str
    mode: Mode
    packet_size_bytes: int
    in_one_block: bool = False
    holds_memory: bool = False
    compacts: bool = False
    drops_caches: bool = False

    @property
    def how(self) -> str:
        """How it differs from just staging the image, as text; empty: it does not."""
        words = {
            "all in one block below 4 GiB": self.in_one_block,
            "memory above 4 GiB held": self.holds_memory,
            "memory compacted": self.compacts,
            "caches dropped": self.drops_caches,
        }
        told = [text for text, is_so in words.items() if is_so]
        if self.name in ("again", "unchanged") or self.compacts or self.drops_caches:
            told.insert(0, "once more")
        return ", ".join(told)


Made = Way | str
"""A way; or a text that says why it can't be, empty where it makes no sense here."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One row of the ladder. `make` gets what is seen now, and the way that failed last (None: none
    yet)."""

    name: str
    helps: frozenset[Trouble]
    make: Callable[[str, Situation, Way | None], Made]


def _planned(name: str, seen: Situation, last: Way | None) -> Made:
    return Way(name, seen.mode, seen.options.packet_size_bytes) if last is None else ""


def _one_block(name: str, seen: Situation, last: Way | None) -> Made:
    if _as_packets(seen, last) is None or (last is not None and last.in_one_block):
        return ""
    size = seen.options.packet_size_bytes
    size = PAGE_SIZE if size % PAGE_SIZE else size
    staged = staged_bytes(seen, size)
    if not staged or staged > seen.largest_block_bytes:
        largest = human_size(seen.largest_block_bytes)
        return f"packets are staged in one block only up to {largest}"
    if seen.on_xen:
        return "on Xen only single pages are sure to be contiguous in machine memory"
    block = PAGE_SIZE << order_for(staged)
    if seen.zones and seen.host.own_rbu is None and largest_low_block_bytes(seen.zones) < block:
        return f"no block of {human_size(block)} is free below 4 GiB"
    return Way(name, "packet", size, in_one_block=True)


def _held(name: str, seen: Situation, last: Way | None) -> Made:
    way = _as_packets(seen, last)
    if way is None or way.holds_memory or not seen.may_be_too_high:
        return ""
    if seen.on_xen:
        return "on Xen the kernel has no huge pages"
    size = way.packet_size_bytes
    from openrbu.update.holding import why_not_held  # noqa: PLC0415  (start-up time)

    why_not = why_not_held(seen.host, seen.zones, staged_bytes(seen, size))
    if why_not:
        return f"memory above 4 GiB can't be held: {why_not}"
    return Way(name, "packet", size, holds_memory=True)


def _held_large(name: str, seen: Situation, last: Way | None) -> Made:
    """What is left above 4 GiB when memory is held is in smaller pieces."""
    if last is None or not last.holds_memory or last.packet_size_bytes >= _LARGE_PACKET_BYTES:
        return ""
    return replace(last, name=name, packet_size_bytes=_LARGE_PACKET_BYTES)


def _again(name: str, seen: Situation, last: Way | None) -> Made:
    if last is None:
        return ""
    return replace(last, name=name, compacts=seen.host.exists(COMPACT_MEMORY))


def _unchanged(name: str, seen: Situation, last: Way | None) -> Made:
    return "" if last is None else replace(last, name=name)


def _without_caches(name: str, seen: Situation, last: Way | None) -> Made:
    if last is None or not seen.options.drop_caches:
        return ""
    return replace(last, name=name, compacts=seen.host.exists(COMPACT_MEMORY), drops_caches=True)


def _packets(name: str, seen: Situation, last: Way | None) -> Made:
    """Packets in place of one block, where the operator has not chosen."""
    if last is None or last.mode == "packet" or not may_become_packets(seen):
        return ""
    way = Way(name, "packet", seen.options.packet_size_bytes)
    held = _held(name, seen, way) if seen.may_be_too_high else way
    return held if isinstance(held, Way) else way


def _one_piece(name: str, seen: Situation, last: Way | None) -> Made:
    """One block in place of packets, where the operator has not chosen. Not with a password, which
    only packets have a place for."""
    is_done = last is None or "mono" in (last.mode, seen.mode)
    has_password = seen.options.password is not None or lacks_password(seen.target, seen.options)
    is_large = seen.image.size_bytes > seen.largest_block_bytes
    if is_done or seen.options.mode is not None or has_password or is_large:
        return ""
    if seen.on_xen:
        return "on Xen only single pages are sure to be contiguous in machine memory"
    return Way(name, "mono", seen.options.packet_size_bytes)


def _fitting(name: str, seen: Situation, last: Way | None) -> Made:
    """The largest packets, smaller than those that failed, for which enough blocks are free.
    Nothing with openrbu's own driver: packets of up to a huge page need as many for any size."""
    way = _as_packets(seen, last)
    if last is None or way is None or last.in_one_block or seen.host.own_rbu is not None:
        return ""
    size = PAGE_SIZE << order_for(way.packet_size_bytes)
    zones = low_zones(seen.zones) if way.holds_memory else seen.zones
    while (size := size // 2) > PAGE_SIZE:
        if staged_bytes(seen, size) // size <= free_in_blocks(zones, order_for(size)):
            return _plain(way, name, size)
    return ""


def _smallest(name: str, seen: Situation, last: Way | None) -> Made:
    way = _as_packets(seen, last)
    if last is None or way is None or not staged_bytes(seen, PAGE_SIZE):
        return ""
    if last.mode == "packet" and last.packet_size_bytes <= PAGE_SIZE:
        return ""
    return _plain(way, name, PAGE_SIZE)


_AFTER_REFUSAL = frozenset({Trouble.OTHER_DATA, Trouble.NOT_TAKEN, Trouble.DIFFERENT})
"""What can be wrong with what was staged, beside its being too high."""

LADDER: tuple[Rung, ...] = (
    Rung("again", frozenset({Trouble.SHORT}), _again),
    Rung("without_caches", frozenset({Trouble.SHORT}), _without_caches),
    Rung("unchanged", frozenset({Trouble.DIFFERENT}), _unchanged),
    Rung("packets", frozenset({Trouble.SHORT}) | _AFTER_REFUSAL, _packets),
    Rung("smaller_packets", frozenset({Trouble.SHORT}), _fitting),
    Rung(
        "smallest_packets",
        frozenset({Trouble.SHORT, Trouble.NOT_TAKEN, Trouble.DIFFERENT}),
        _smallest,
    ),
    Rung("one_block", frozenset({Trouble.TOO_HIGH}) | _AFTER_REFUSAL, _one_block),
    Rung("one_piece", _AFTER_REFUSAL, _one_piece),
    Rung("held", frozenset({Trouble.TOO_HIGH, Trouble.SHORT}), _held),
    Rung("held_large", frozenset({Trouble.TOO_HIGH}), _held_large),
    Rung("planned", frozenset({Trouble.NONE, Trouble.TOO_HIGH}), _planned),
)
"""All ways; of those that help, the first is tried first."""


def may_become_packets(seen: Situation) -> bool:
    """Whether an image in one piece may be staged in packets instead."""
    return (
        seen.options.mode is None
        and seen.takes_packets
        and not lacks_password(seen.target, seen.options)
    )


def _as_packets(seen: Situation, last: Way | None) -> Way | None:
    """The way that failed last, or the planned one, where that is packets; packets as asked for
    where they may take its place; else None."""
    mode = seen.mode if last is None else last.mode
    if mode == "packet" and last is not None:
        return last
    if mode == "packet" or may_become_packets(seen):
        return Way("", "packet", seen.options.packet_size_bytes)
    return None


def _plain(way: Way, name: str, packet_size_bytes: int) -> Way:
    """Packets of this size, with memory held where it was."""
    return Way(name, "packet", packet_size_bytes, holds_memory=way.holds_memory)


def staged_bytes(seen: Situation, packet_size_bytes: int) -> int:
    """How much is staged in packets of this size; 0: a set can't have so many."""
    try:
        return packets_needed(seen.image.size_bytes, packet_size_bytes) * packet_size_bytes
    except UsageError:
        return 0


def first_trouble(seen: Situation) -> Trouble:
    """What can be foreseen before anything was tried."""
    is_high = seen.mode == "packet" and seen.may_be_too_high
    return Trouble.TOO_HIGH if is_high else Trouble.NONE


def first_way(seen: Situation) -> Way:
    """The way that an update tries first."""
    way, _ = next_way(first_trouble(seen), seen, None, ())
    assert way is not None, "the planned way is always one"
    return way


def next_way(
    trouble: Trouble, seen: Situation, last: Way | None, taken: Sequence[str]
) -> tuple[Way | None, tuple[str, ...]]:
    """The next way, and why those before it in the ladder can't be; None: there is none. `taken`
    has the names of the rungs that were taken."""
    why_not: list[str] = []
    for rung in LADDER:
        if trouble in rung.helps and rung.name not in taken:
            made = rung.make(rung.name, seen, last)
            if isinstance(made, Way):
                return made, tuple(why_not)
            why_not += [made] if made else []
    return None, tuple(why_not)


def advice(trouble: Trouble, seen: Situation, last: Way | None) -> str:
    """What the operator can do when no way is left."""
    if trouble is Trouble.TOO_HIGH:
        mono = seen.mode == "packet" and seen.image.size_bytes <= seen.largest_block_bytes
        words = "use --mode mono, or " if mono and seen.options.password is None else ""
        return f"{words}start Linux with mem=4G for the update; --memory-above-4g ignores this"
    if trouble is not Trouble.SHORT:
        return ""
    if seen.host.own_rbu is not None:
        return "free some memory, or do it soon after a restart: huge pages are whole then"
    pages = staged_bytes(seen, PAGE_SIZE) // PAGE_SIZE
    if last is not None and last.mode == "mono" and seen.takes_packets and pages:
        fit = "packets would fit: " if pages <= free_in_blocks(seen.zones, 0) else ""
        return f"{fit}use --mode packet, free some memory or restart the machine"
    caches = "" if seen.options.drop_caches else ", try --drop-caches"
    return f"free some memory{caches} or restart the machine"
