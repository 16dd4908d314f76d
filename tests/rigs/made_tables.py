"""Small SMBIOS tables for tests: a BIOS, a system, a structure without strings, and an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.formats import dell, tokens
from openrbu.formats.smbios import (
    END_OF_TABLE,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
)
from openrbu.units import KIB

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


def dell_tables(
    *,
    system_id: int,
    product: str,
    version: str = "A05",
    rom_size_bytes: int = 512 * KIB,
    packets: bool | None = None,
) -> Tables:
    """A machine that RBU updates by a token in CMOS; `packets` None: monolithic images only."""
    structures = [
        dell.make_bios_information(
            vendor="Dell Inc.",
            version=version,
            release_date="02/13/2003",
            rom_size_bytes=rom_size_bytes,
        ),
        dell.make_system_information(vendor="Dell Inc.", product=product, service_tag="MADE"),
        dell.make_oem_strings(["Dell System", f"1[{system_id:04X}]"]),
        tokens.make_indexed_io(
            handle=0xD401,
            index_port=0x70,
            data_port=0x71,
            check=tokens.CheckRange(tokens.CheckType.WORD_SUM, 0x40, 0x5B, 0x6D),
            tokens=[(tokens.ACTIVATE, 0x78, 0xBF, 0x40), (tokens.CANCEL, 0x78, 0xBF, 0x00)],
        ),
        dell.make_rbu(packet=packets),
        END,
    ]
    return make_tables(make_entry_point((2, 6)), structures)


def put_tables(directory: Path, tables: Tables) -> Path:
    """A directory with the tables in it, as a machine is made from."""
    directory.mkdir()
    for name, data in zip(("smbios_entry_point", "DMI"), tables.build(), strict=True):
        (directory / name).write_bytes(data)
    return directory
