"""Packets with a wrong checksum: which single flipped bit would explain it.

All 16-bit words of an intact packet add up to 0 modulo 65536 (docs/reference/packets.md, P5). One
flipped bit changes the sum by a power of two: it is too large by it when a 0 became a 1, and too
small when a 1 became a 0. So the sum tells which bit of a 16-bit word it was, and in which words
it may have been. Which of these words it was is decided where something else knows the packet's
bytes: an intact copy, or the check words of the image when no other packet is missing.

A flip is left out that would make a header that breaks the rules, or that is not one of its set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import (
    CHECK_WORDS_BYTES,
    changed_byte,
    compare_words,
    register,
)
from openrbu.formats.hdr import MAX_HEADER_LENGTH, Header, image_at
from openrbu.formats.image_check import MAX_DATA_BYTES, ImageState
from openrbu.formats.packet import HEADER_SIZE_BYTES, PacketHeader
from openrbu.lazy import np
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.search_result import DamagedPacket, FoundSet, SearchResult
from openrbu.units import MIB, PhysAddr

MAX_CANDIDATES = 16
"""How many places of a bit are named for one packet; all are counted."""

MAX_JOINED_BYTES = MAX_DATA_BYTES + MIB
"""No image is larger than this, so no larger set is joined."""

WORK_BYTES = 512 * MIB
"""How much is read for all packets together."""

_WORD_BYTES = 2
_TRIED_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Flip:
    """Flip the bits `mask` (one bit) of the byte at `offset` of the packet."""

    offset: int
    mask: int


@dataclass(frozen=True, slots=True)
class Mending:
    """Which flip of a single bit would give a packet a right checksum.

    `candidates` has the first 16 of `candidate_count`. `flip` is the one that it was, where that is
    known, and `decided_by` says by what: `copy` (an intact copy of the packet), `image` (the check
    words of the image) or `only` (there is no other candidate). With `is_checked` False the packet
    was not looked at, because there are too many.
    """

    packet: DamagedPacket
    candidate_count: int = 0
    candidates: tuple[Flip, ...] = ()
    flip: Flip | None = None
    decided_by: str = ""
    is_checked: bool = True


def mendings(memory: ReadableMemory, result: SearchResult) -> tuple[Mending, ...]:
    """How each packet in `result.damaged` could be mended, in the same sequence. (Memory that
    changes meanwhile gives no candidates.)"""
    sets = {found.set_id: found for found in result.packet_sets}
    work = WORK_BYTES
    made: list[Mending] = []
    for packet in result.damaged:
        found = sets.get(packet.header.set_id)
        work -= packet.header.size_bytes
        decider = None
        if found is not None and work >= 0 and _is_last_missing(found, packet):
            work -= found.joined_size_bytes
            decider = found if work >= 0 else None
        if work < 0:
            made.append(Mending(packet, is_checked=False))
            continue
        made.append(_mending(memory, packet, found, joins=decider is not None))
    return tuple(made)


def _mending(
    memory: ReadableMemory, packet: DamagedPacket, found: FoundSet | None, *, joins: bool
) -> Mending:
    data = memory.read(packet.address, packet.header.size_bytes)
    flips = _candidates(data, packet, found)
    flip, decided_by = None, ""
    if found is not None and packet.header.number in found.places:
        flip, decided_by = _by_copy(memory, data, packet, found, flips), "copy"
    elif found is not None and joins:
        flips, flip = _by_image(memory, data, packet, found, flips)
        decided_by = "image"
    elif len(flips) == 1:
        flip, decided_by = flips[0], "only"
    return Mending(
        packet,
        candidate_count=len(flips),
        candidates=tuple(flips[:MAX_CANDIDATES]),
        flip=flip,
        decided_by=decided_by if flip is not None else "",
    )


def _candidates(data: bytes, packet: DamagedPacket, found: FoundSet | None) -> list[Flip]:
    """All flips of one bit that give this packet a right checksum and a possible header."""
    words = np.frombuffer(data, "<u2")
    word_sum = int(words.sum(dtype="u2"))
    places: set[int] = set()
    bit = 0
    for power, became in ((word_sum, 1), (-word_sum & 0xFFFF, 0)):
        if power.bit_count() == 1:
            bit = power.bit_length() - 1
            places.update(np.flatnonzero((words >> bit & 1) == became).tolist())
    flips = [Flip(_WORD_BYTES * word + bit // 8, 1 << bit % 8) for word in sorted(places)]
    return [
        flip
        for flip in flips
        if flip.offset >= HEADER_SIZE_BYTES or _is_possible(_flipped(data, flip), packet, found)
    ]


def _flipped(data: bytes, flip: Flip) -> bytes:
    changed = bytearray(data)
    changed[flip.offset] ^= flip.mask
    return bytes(changed)


def _is_possible(data: bytes, packet: DamagedPacket, found: FoundSet | None) -> bool:
    """Whether a packet may begin with this header: it follows the rules, and has the values of the
    rest of its set, and its number is missing there."""
    try:
        header = PacketHeader.parse(data)
    except DamagedInputError:
        return False
    if header.size_bytes != packet.header.size_bytes:
        return False  # the checksum is over another number of bytes
    if found is None:
        return True
    if header.number != packet.header.number and header.number in found.places:
        return False
    alike = (header.set_id, header.total, header.header_size_bytes)
    return alike == (found.set_id, found.total, found.header_size_bytes)


def _by_copy(
    memory: ReadableMemory,
    data: bytes,
    packet: DamagedPacket,
    found: FoundSet,
    flips: Sequence[Flip],
) -> Flip | None:
    """The flip that makes the packet the same as the intact one with its number."""
    number = packet.header.number
    if found.size_of(number) != len(data):
        return None
    intact = memory.read(found.places[number][0], len(data))
    different = np.flatnonzero(np.frombuffer(data, "u1") != np.frombuffer(intact, "u1"))
    if len(different) != 1:
        return None
    place = int(different[0])
    flip = Flip(place, data[place] ^ intact[place])
    return flip if flip in flips else None


def _is_last_missing(found: FoundSet, packet: DamagedPacket) -> bool:
    """Whether the set would be complete with this packet."""
    header = packet.header
    return (
        not found.conflicts
        and header.number > 0
        and found.missing == (header.number,)
        and header.total == found.total
        and header.header_size_bytes == found.header_size_bytes
        and (header.size_bytes == found.packet_size_bytes)
        and found.joined_size_bytes <= MAX_JOINED_BYTES
    )


def _by_image(
    memory: ReadableMemory,
    data: bytes,
    packet: DamagedPacket,
    found: FoundSet,
    flips: list[Flip],
) -> tuple[list[Flip], Flip | None]:
    """The flips that the image in the set leaves possible, and the one with which its check words
    are right and zeros follow them."""
    skip, number = found.header_size_bytes, packet.header.number
    size, places = found.packet_size_bytes - skip, found.places
    joined = bytearray().join(
        data[skip:] if each == number else memory.view(PhysAddr(places[each][0] + skip), size)
        for each in range(1, found.total)
    )
    start = (number - 1) * size - skip  # the offset in `joined` of the packet's first byte
    image = image_at(memoryview(joined))
    end = 0 if image is None else image.size_bytes
    if image is not None and image.state is ImageState.WHOLE:  # the flip is not in the image
        left = [each for each in flips if each.offset < skip or start + each.offset >= end]
        behind = data[skip + max(0, end - (number - 1) * size) :] if left else b""
        if any(behind):
            left = [each for each in left if _leaves_zeros(data, each, len(behind))]
        return left, left[0] if len(left) == 1 else None
    if image is not None and image.state is ImageState.DATA_CHANGED and flips:
        lead, mask = start - image.header.size_bytes, flips[0].mask
        difference = register(image.flash_data) ^ image.data_word
        first, last = lead + skip, lead + len(data)
        place = changed_byte(image.flash_size_bytes, difference, mask, first, last)
        if place is not None and (flip := Flip(place - lead, mask)) in flips:
            return flips, flip
    near = (MAX_HEADER_LENGTH if image is None else image.header.size_bytes, end)
    inside = [each for each in flips if each.offset >= skip]
    tried = [each for each in inside if _is_near_an_end(start + each.offset, *near)]
    for flip in tried[: max(1, _TRIED_BYTES // len(joined))]:
        if _makes_whole(joined, start + flip.offset, flip.mask, end):
            return flips, flip
    return flips, None


def _leaves_zeros(data: bytes, flip: Flip, size_bytes: int) -> bool:
    """Whether the last `size_bytes` bytes of a packet are 0 after a flip."""
    return not any(_flipped(data, flip)[len(data) - size_bytes :])


def _is_near_an_end(place: int, header_end: int, end: int) -> bool:
    """Whether a byte of an image is in its header or in its check words."""
    return place < header_end or end - CHECK_WORDS_BYTES <= place < end


def _makes_whole(joined: bytearray, place: int, mask: int, end: int) -> bool:
    """Whether a flip makes an image whole. `end` is where it ends; 0: this is not known."""
    joined[place] ^= mask
    try:
        if not end:
            image = image_at(memoryview(joined))
            return image is not None and image.state is ImageState.WHOLE
        header = Header.parse(joined)
        words = compare_words(header.build(), memoryview(joined)[header.size_bytes : end])
        return words.data_word_is_right and words.whole_word_is_right
    except DamagedInputError:
        return False
    finally:
        joined[place] ^= mask
