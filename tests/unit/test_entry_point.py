"""The SMBIOS entry points, of both kinds, sound and not."""

from __future__ import annotations

import pytest

from openrbu.errors import DamagedInputError
from openrbu.formats.entry_point import ENTRY_POINT_2, ENTRY_POINT_3, EntryPoint
from openrbu.formats.smbios import Tables, parse_memory_dump
from rigs.made_tables import BARE, BIOS, END, SYSTEM, both_kinds, some_tables
from rigs.systems import each_system, tables_of


def resummed(entry: bytearray, summed_bytes: int) -> bytes:
    """An old entry point with its checksum over that many bytes put right."""
    entry[4] = 0
    entry[4] = -sum(entry[:summed_bytes]) & 0xFF
    return bytes(entry)


def test_the_fields_of_the_old_entry_point_are_where_the_specification_has_them() -> None:
    fields = ENTRY_POINT_2.unpack(bytes(range(31)))
    assert ENTRY_POINT_2.size_bytes == 0x1F
    assert fields == {
        "anchor": bytes([0, 1, 2, 3]),
        "checksum": 0x04,
        "length": 0x05,
        "major": 0x06,
        "minor": 0x07,
        "max_structure_size": 0x0908,
        "revision": 0x0A,
        "formatted_area": bytes(range(0x0B, 0x10)),
        "dmi_anchor": bytes(range(0x10, 0x15)),
        "dmi_checksum": 0x15,
        "table_size": 0x1716,
        "table_address": 0x1B1A1918,
        "structure_count": 0x1D1C,
        "bcd_revision": 0x1E,
    }


def test_the_fields_of_the_new_entry_point_are_where_the_specification_has_them() -> None:
    fields = ENTRY_POINT_3.unpack(bytes(range(24)))
    assert ENTRY_POINT_3.size_bytes == 0x18
    assert fields == {
        "anchor": bytes([0, 1, 2, 3, 4]),
        "checksum": 0x05,
        "length": 0x06,
        "major": 0x07,
        "minor": 0x08,
        "docrev": 0x09,
        "revision": 0x0A,
        "reserved": 0x0B,
        "table_size": 0x0F0E0D0C,
        "table_address": 0x1716151413121110,
    }


def test_a_made_old_entry_point_says_where_the_table_is_and_what_is_in_it() -> None:
    entry = EntryPoint.parse(some_tables((2, 6)).build()[0])
    structures = [BIOS, SYSTEM, BARE, END]
    assert entry.version == (2, 6)
    assert entry.table_address == 0xE0000
    assert entry.table_size_bytes == sum(len(structure.build()) for structure in structures)
    assert entry.structure_count == 4
    fields = ENTRY_POINT_2.unpack(entry.raw)
    assert fields["max_structure_size"] == len(SYSTEM.build())
    assert (fields["length"], fields["bcd_revision"]) == (31, 0x26)
    assert sum(entry.raw) & 0xFF == sum(entry.raw[0x10:]) & 0xFF == 0


def test_a_made_new_entry_point_says_where_the_table_is_and_how_large() -> None:
    entry = EntryPoint.parse(some_tables((3, 2)).build()[0])
    assert entry.version == (3, 2)
    assert entry.table_address == 0xE0000
    assert entry.table_size_bytes == len(some_tables().build()[1])
    assert entry.structure_count is None
    assert len(entry.raw) == entry.raw[6] == 24
    assert sum(entry.raw) & 0xFF == 0


@both_kinds
def test_any_byte_of_an_entry_point_that_is_wrong_is_noticed(version: tuple[int, int]) -> None:
    good = some_tables(version).build()[0]
    for offset in range(len(good)):
        for change in range(1, 256):
            bad = bytearray(good)
            bad[offset] ^= change
            with pytest.raises(DamagedInputError):
                EntryPoint.parse(bytes(bad))


@both_kinds
def test_an_entry_point_that_is_cut_anywhere_is_damaged(version: tuple[int, int]) -> None:
    good = some_tables(version).build()[0]
    for size in range(len(good)):
        with pytest.raises(DamagedInputError, match=r"cut short|not an SMBIOS entry point"):
            Tables.parse(good[:size], b"")


def test_damage_to_an_entry_point_comes_with_evidence() -> None:
    entry = bytearray(some_tables().build()[0])
    entry[6] += 1
    with pytest.raises(DamagedInputError, match="sum to 0x01, not 0") as caught:
        EntryPoint.parse(bytes(entry))
    assert (caught.value.offset, caught.value.expected, caught.value.actual) == (0, 0, 1)


def test_the_inner_checksum_of_the_old_entry_point_counts_too() -> None:
    entry = bytearray(some_tables().build()[0])
    entry[0x1E] += 1
    with pytest.raises(DamagedInputError, match="sum to 0x01, not 0") as caught:
        EntryPoint.parse(resummed(entry, 31))
    assert caught.value.offset == 0x10


def test_an_old_entry_point_without_its_second_anchor_is_damaged() -> None:
    entry = bytearray(some_tables().build()[0])
    entry[0x10], entry[0x11] = entry[0x11], entry[0x10]  # the sums stay right
    with pytest.raises(DamagedInputError, match="no b'_DMI_' at offset 16"):
        EntryPoint.parse(bytes(entry))


@pytest.mark.parametrize(("claimed", "summed"), [(30, 30), (30, 31), (32, 31), (32, 32), (0, 31)])
def test_an_old_entry_point_may_claim_another_length(claimed: int, summed: int) -> None:
    entry = bytearray(some_tables().build()[0] + b"\x0f")
    entry[5] = claimed
    odd = Tables.parse(resummed(entry, summed), some_tables().build()[1])
    assert odd.structures == some_tables().structures
    assert odd.build()[0] == bytes(entry)
    changed = odd.replaced(odd.structures[0], odd.structures[0].with_string_at(5, "A06, fresh"))
    again = changed.build()[0]
    assert EntryPoint.parse(again).structure_count == 4
    assert again[5] == claimed
    assert sum(again[:summed]) & 0xFF == 0


def test_an_old_entry_point_of_thirty_bytes_is_read_and_stays_one() -> None:
    entry = bytearray(some_tables().build()[0][:30])
    entry[5] = 30
    tables = Tables.parse(resummed(entry, 30), some_tables().build()[1])
    assert tables.problems == ()
    fresh = tables.replaced(tables.structures[0], BIOS.with_string_at(5, "A06, fresh")).build()[0]
    assert len(fresh) == 30
    assert EntryPoint.parse(fresh).table_size_bytes == tables.entry_point.table_size_bytes + 7


def test_thirty_bytes_that_claim_more_are_cut_short() -> None:
    with pytest.raises(DamagedInputError, match="30 of 31 bytes"):
        EntryPoint.parse(some_tables().build()[0][:30])


def test_an_entry_point_in_a_memory_dump_has_32_bytes_where_it_claims_them() -> None:
    entry_point, table = some_tables().build()
    entry = bytearray(entry_point + b"\x0f")
    entry[5] = 32
    tables = parse_memory_dump(resummed(entry, 32) + table)
    assert tables.entry_point.raw == bytes(entry)
    assert tables.structures == some_tables().structures


@each_system
def test_real_entry_points_count_what_we_count(name: str) -> None:
    tables = tables_of(name)
    sizes = [structure.size_bytes for structure in tables.structures]
    assert tables.entry_point.updated(sizes, sum(sizes)) == tables.entry_point
