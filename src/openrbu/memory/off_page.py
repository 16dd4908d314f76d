"""A quick look, where the search at pages found nothing, for what begins inside of a page.

A dump that begins inside of a page, or lost some bytes, has everything off a page. Where nothing
was found, that must not look like memory without an update.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from openrbu.errors import AddressError, DamagedInputError
from openrbu.formats.hdr import HEADER_SIZE_BYTES, MAGIC, Header
from openrbu.formats.packet_header import HEADER_RULES, PACKET_HEADER, PACKET_ID
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.windows import windows
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr, human_size

LOOK_BYTES = GIB
"""So much memory is looked through at most; holes do not count."""

FEW_BYTES = 128 * MIB
"""To look through so much with `re` takes less time than to load numpy, which is three times as
fast on the rest."""

MAX_HITS = 10_000
"""So many places with the right first bytes are looked at, at most."""

_BEGINS = re.compile(b"|".join(re.escape(each) for each in (PACKET_ID, MAGIC)))
"""Both begin with the same two bytes; that makes it several times as fast as two searches."""


def off_page_note(memory: ReadableMemory, part: Region, look_bytes: int = LOOK_BYTES) -> str:
    """A text of one line about what begins off a page in a part of a memory, or about what was not
    looked at; empty when there is nothing to say."""
    count, left, is_cut = 0, look_bytes, False
    for hits, (address, size) in enumerate(_hits(memory, part)):
        left -= size
        is_cut = left < 0 or hits >= MAX_HITS
        if is_cut:
            break
        count += address is not None and address % PAGE_SIZE != 0 and _is_sane(memory, address)
    if count:
        places = f"{count} places begin" if count > 1 else "1 place begins"
        least = "at least " if is_cut else ""
        return (
            f"{least}{places} like a packet or an image, but off a page: --any-alignment finds "
            "them (or --offset, if the dump itself begins inside of a page)"
        )
    if is_cut:
        return (
            "nothing was found at pages; what begins off a page was looked for only in the first "
            f"{human_size(look_bytes - max(left, 0))} (--any-alignment looks everywhere)"
        )
    return ""


def _hits(memory: ReadableMemory, part: Region) -> Iterator[tuple[int | None, int]]:
    """The places with the first bytes of a packet or an image, and how many bytes were gone through
    since the one before; None for the place at the end of each window."""
    before = 0
    for base, window in windows(memory, part.start, part.end):
        seen = 0
        for at in _starts_in(window) if before < FEW_BYTES else _starts_in_much(window):
            yield base + at, at - seen
            seen = at
        yield None, len(window) - seen
        before += len(window)


def _starts_in(window: memoryview) -> Iterator[int]:
    return (hit.start() for hit in _BEGINS.finditer(window))


def _starts_in_much(window: memoryview) -> Iterator[int]:
    """The same with numpy. Slices have so many bytes in common that none has a whole text there."""
    from openrbu.memory.any_alignment import SLICE_BYTES, Compared  # noqa: PLC0415  (start-up time)

    compared = Compared()
    for low in range(0, len(window), SLICE_BYTES - len(MAGIC) + 1):
        packets, images = compared.starts_in(window[low : low + SLICE_BYTES])
        yield from (low + at for at in sorted(packets + images))


def _is_sane(memory: ReadableMemory, address: int) -> bool:
    """Whether a packet's or an image's header is there, by its own rules."""
    with contextlib.suppress(AddressError, DamagedInputError):
        head = memory.read(PhysAddr(address), PACKET_HEADER.size_bytes)
        if head.startswith(PACKET_ID):
            fields = PACKET_HEADER.unpack(head)
            return not any(rule.is_broken(fields) for rule in HEADER_RULES)
        Header.parse(memory.read(PhysAddr(address), HEADER_SIZE_BYTES))
        return True
    return False
