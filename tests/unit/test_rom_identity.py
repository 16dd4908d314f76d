"""The BIOS's own word on who the machine is, in its ROM."""

from __future__ import annotations

import struct

import pytest

from openrbu.formats.rom_identity import IDENTITY, revision_in

GOOD = struct.pack("<H3sBB5x", 0x01B2, b"028", 0xFE, 3)


def test_the_identity_has_12_bytes_and_each_field_its_place() -> None:
    fields = IDENTITY.unpack(bytes(range(12)))
    assert fields == {
        "system_id": 0x0100,
        "version": b"\2\3\4",
        "marker": 5,
        "revision": 6,
        "rest": b"\7\10\11\12\13",
    }


def test_the_revision_is_read_where_marker_and_system_are_right() -> None:
    assert revision_in(GOOD, 0x01B2) == 3
    assert revision_in(GOOD + b"more", 0x01B2) == 3


@pytest.mark.parametrize(
    ("identity", "system_id"),
    [
        (GOOD, 0x01B1),
        (GOOD[:5] + b"\xff" + GOOD[6:], 0x01B2),
        (GOOD[:6] + b"\x08" + GOOD[7:], 0x01B2),
        (b"\xff" * 12, 0xFFFF),
        (bytes(12), 0),
        (GOOD[:11], 0x01B2),
        (b"", 0x01B2),
    ],
)
def test_anything_else_tells_no_revision(identity: bytes, system_id: int) -> None:
    assert revision_in(identity, system_id) is None
