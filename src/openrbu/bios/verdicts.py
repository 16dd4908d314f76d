"""What the known BIOSes would take of what was found in a memory.

A BIOS takes an image for its own machine. So for each image that was found, each rule set searches
the memory as the BIOS of a machine that the image is for: the first system in the image's list, a
flash of the size of its data, and the password that packet 0 has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openrbu.bios.rules import RULE_SETS, Identity, RejectedError
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import CHECK_WORDS_BYTES
from openrbu.formats.hdr import Header, SystemId
from openrbu.memory.joined_image import joined_image
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.search_result import FoundSet, SearchResult

MAX_IDENTITIES = 8
"""For so many different machines it is tried what their BIOSes would take."""


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What the rule set `rules` does on the machine `identity`: it takes the image with `header`,
    in `mode` (`mono` or `packet`), from `extents`, of which there are `copies`; or nothing, and
    `why` says why."""

    rules: str
    identity: Identity
    header: Header | None = None
    mode: str = ""
    extents: tuple[Region, ...] = ()
    copies: int = 0
    why: str = ""

    @property
    def takes_one(self) -> bool:
        return self.header is not None


def verdicts(memory: ReadableMemory, result: SearchResult) -> tuple[RuleVerdict, ...]:
    """The verdict of each rule set for each machine that something in `result` is for, at most
    8 machines. `memory` is the one that was searched."""
    identities = tuple(dict.fromkeys(_identities(memory, result)))[:MAX_IDENTITIES]
    return tuple(_verdict(memory, name, identity) for identity in identities for name in RULE_SETS)


def _verdict(memory: ReadableMemory, name: str, identity: Identity) -> RuleVerdict:
    try:
        found = RULE_SETS[name].find_update(memory, identity)
    except RejectedError as refused:
        why = str(refused)
        if why.startswith("nothing in memory"):  # something was found, but elsewhere
            why += f" (searched: {RULE_SETS[name].searched})"
        return RuleVerdict(name, identity, why=why)
    header = found.image.header
    return RuleVerdict(name, identity, header, found.mode, found.extents, found.copies)


def _identities(memory: ReadableMemory, result: SearchResult) -> Iterator[Identity]:
    for found in result.packet_sets:
        if found.image_header is not None:
            crc = found.password.crc if found.password.present else None
            yield _identity(found.image_header, _flash_size_bytes(memory, found), crc)
    for image in result.images:
        size = image.size_bytes - image.header.size_bytes - CHECK_WORDS_BYTES
        yield _identity(image.header, size, None)


def _identity(header: Header, flash_size_bytes: int, password_crc: int | None) -> Identity:
    system = next(iter(header.systems), SystemId(0))
    return Identity(
        system_id=system.id,
        revision=system.revision,
        flash_size_bytes=flash_size_bytes,
        password_crc=password_crc,
    )


def _flash_size_bytes(memory: ReadableMemory, found: FoundSet) -> int:
    """The size of the data in a set's image. Where it can't be joined: the roundest one that needs
    all of the set's packets. (Sizes of flash are round numbers; the last packet may have zeros at
    its end.)"""
    try:
        return joined_image(memory, found).flash_size_bytes
    except DamagedInputError:
        assert found.image_header is not None
        room = found.joined_size_bytes - found.image_header.size_bytes - CHECK_WORDS_BYTES
        return _roundest(room - found.data_size_bytes, room)


def _roundest(low: int, high: int) -> int:
    """The number in (low, high] that the largest power of two divides; 0 if there is none
    above 0."""
    low, high = max(low, 0), max(high, 0)
    if low == high:
        return 0
    bits = (low ^ high).bit_length() - 1
    return high >> bits << bits
