"""POST: anything at all in memory is answered, and only what is right is flashed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openrbu.bios.post import find_update, post
from openrbu.bios.rules import RejectedError
from openrbu.formats.hdr import HEADER, HEADER_SIZE_BYTES
from openrbu.formats.packet import PACKET_HEADER
from openrbu.units import KIB, MIB, PAGE_SIZE
from rigs.boards import (
    IMAGE,
    NEW,
    NOT_FOUND,
    NOW,
    OLD,
    PAGES,
    REFUSED,
    Computer,
    image_with_long_header,
    resummed,
    scatter,
)

PACKET_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "pktSize": st.sampled_from([0, 1, 3, 4, 8, 64, 0xFFFF]),
        "hdrSize": st.sampled_from([0, 1, 2, 3, 16, 63, 64, 256, 257, 0xFFFF]),
        "reserved1": st.integers(0, 1),
        "pktSetId": st.integers(0, 1),
        "pktNum": st.integers(0, 5) | st.just(0xFFFF),
        "totPkts": st.integers(0, 5) | st.just(0xFFFF),
        "pktVer": st.integers(0, 2),
    },
)
IMAGE_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "header_length": st.integers(0, 255) | st.integers(83, 129),
        "num_systems": st.integers(0, 255) | st.integers(0, 13),
        "header_major_ver": st.integers(0, 255),
        "bios_version": st.binary(min_size=3, max_size=3),
    },
)
SIZED = st.sampled_from([KIB, PAGE_SIZE, 2 * PAGE_SIZE])


def packet_like(fields: dict[str, int], size_bytes: int, data: bytes, sound: bool) -> bytes:
    header = PACKET_HEADER.pack({"pktSize": size_bytes // KIB, "totPkts": 3, **fields})
    packet = (header + data).ljust(size_bytes, data[-1:] or b"\0")[:size_bytes]
    return resummed(packet) if sound else packet


def image_like(fields: dict[str, int | bytes], body: bytes) -> bytes:
    return HEADER.pack(HEADER.unpack(IMAGE) | fields) + body


PIECES = st.one_of(
    st.builds(packet_like, PACKET_FIELDS, SIZED, st.binary(max_size=100), st.booleans()),
    st.builds(
        packet_like, PACKET_FIELDS, SIZED, st.just(IMAGE[: PAGE_SIZE - 32]), st.just(value=True)
    ),
    st.builds(image_like, IMAGE_FIELDS, st.sampled_from([b"", b"x", IMAGE[84:-1], bytes(9000)])),
    st.binary(max_size=64).map(lambda data: b"$RPK" + data),
    st.binary(max_size=64).map(lambda data: b"$RBU" + data),
)


@given(
    pieces=st.lists(PIECES, max_size=12),
    places=st.randoms(use_true_random=False),
    knows_packets=st.booleans(),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rubbish_in_memory_is_answered_with_a_code_and_never_flashed(
    computer: Computer, pieces: list[bytes], places: random.Random, knows_packets: bool
) -> None:
    computer.lose_ram()
    pages = places.sample([page for page in PAGES if page < 3 * MIB], len(pieces))
    pages[:1] = [PAGES[-1]] if pieces and len(pieces[0]) <= PAGE_SIZE else pages[:1]
    computer.put_all(pieces, pages)
    computer.arm()
    with computer.board() as board:
        report = post(replace(board, knows_packets=knows_packets), NOW)
    assert report.completion_code in (REFUSED, NOT_FOUND)
    assert computer.bios == OLD
    assert not computer.is_armed


@given(
    paragraphs=st.sampled_from([2, 63, 113, 256]),
    header_length=st.integers(84, 128),
    missing=st.sampled_from([0, 0, 0, 1, 16, 200]),
    filler=st.sampled_from([b"\0", b"\1"]),
    more_packets=st.integers(0, 1),
)
@example(paragraphs=113, header_length=84, missing=0, filler=b"\0", more_packets=1)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_sound_set_is_taken_only_with_an_image_of_exactly_the_size_of_the_flash(
    *,
    computer: Computer,
    paragraphs: int,
    header_length: int,
    missing: int,
    filler: bytes,
    more_packets: int,
) -> None:
    """Whatever the length of the image's header and of the packets' headers.

    In the example 20 bytes of padding are followed by a packet of nothing but padding.
    """
    size = 16 * KIB
    room = size - 16 * paragraphs
    image = image_with_long_header(NEW[missing:], bytes(header_length - HEADER_SIZE_BYTES))
    padded = image + filler * (-len(image) % room) + bytes(more_packets * room)
    chunks = [b"", *(padded[start : start + room] for start in range(0, len(padded), room))]
    fields = {"pktSize": size // KIB, "hdrSize": paragraphs, "totPkts": len(chunks)}
    headers = [PACKET_HEADER.pack(fields, pktNum=number) for number in range(len(chunks))]
    packets = [
        resummed(header.ljust(16 * paragraphs, b"\0") + chunk.ljust(room, b"\0"))
        for header, chunk in zip(headers, chunks, strict=True)
    ]
    computer.lose_ram()
    scatter(computer, *packets)
    padding_is_right = not more_packets and (filler == b"\0" or len(padded) == len(image))
    with computer.board() as board:
        if missing == 0 and padding_is_right:
            assert find_update(board).image.flash_data == NEW
        else:
            with pytest.raises(RejectedError) as raised:
                find_update(board)
            assert raised.value.code == REFUSED
