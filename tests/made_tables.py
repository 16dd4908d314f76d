"""Small SMBIOS tables for tests: a BIOS, a system, a structure without strings, and an end."""

from __future__ import annotations

import pytest

from openrbu.formats.smbios import (
    END_OF_TABLE,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
)

VERSIONS = [(2, 6), (3, 2)]
both_kinds = pytest.mark.parametrize("version", VERSIONS, ids=["SMBIOS 2", "SMBIOS 3"])

BIOS = make_structure(0, 0x0000, b"\1\2\0\xf0\3\7", ["Dell Inc.", "A05", "02/13/2003"])
SYSTEM = make_structure(1, 0x0100, b"\1\2\0\3", ["Dell Inc.", "PowerEdge 2650", "1LWBP21"])
BARE = make_structure(0xDE, 0xDE00, bytes(9))
END = make_structure(END_OF_TABLE, 0x7F00, b"")


def some_tables(version: tuple[int, int] = (2, 6)) -> Tables:
    return make_tables(make_entry_point(version), [BIOS, SYSTEM, BARE, END])


def entry_point_for(table: bytes, version: tuple[int, int] = (2, 6), count: int = 0) -> bytes:
    """An entry point that gives the table its true size, and a count of structures."""
    return make_entry_point(version).updated([0] * count, len(table)).build()
