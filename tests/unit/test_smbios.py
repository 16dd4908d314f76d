"""SMBIOS tables: the entry points, the structures, and what real tables have instead of them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.entry_point import EntryPoint
from openrbu.formats.smbios import (
    END_OF_TABLE,
    STRUCTURE_HEADER,
    Structure,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
    parse_memory_dump,
)
from rigs.made_tables import (
    BARE,
    BIOS,
    END,
    SYSTEM,
    VERSIONS,
    both_kinds,
    entry_point_for,
    some_tables,
)
from rigs.systems import each, each_system, files_of, like, tables_of

# Structures


def test_the_fields_of_a_structure_are_read_where_they_are() -> None:
    structure = Structure(bytes([0x80, 12, 0x34, 0x12, 4, 5, 6, 7, 8, 9, 10, 11]), b"\0\0")
    assert (structure.type, structure.handle) == (0x80, 0x1234)
    assert structure.byte(11) == 11
    assert structure.word(10) == 0x0B0A
    assert STRUCTURE_HEADER.unpack(structure.formatted)["length"] == 12


def test_a_field_behind_the_end_of_a_structure_is_none() -> None:
    structure = Structure(bytes([0x80, 5, 0, 0, 4]), b"\0\0")
    assert structure.byte(5) is structure.word(4) is None


def test_strings_count_from_one_and_lose_the_blanks_around_them() -> None:
    structure = make_structure(1, 1, b"\1\2\0\3", [" Dell Inc.   ", "second"])
    assert structure.strings == (b" Dell Inc.   ", b"second")
    assert structure.string_at(4) == "Dell Inc."
    assert structure.string_at(5) == "second"
    assert structure.string_at(6) == ""  # number 0: there is none
    assert structure.string_at(7) == ""  # number 3 of 2
    assert structure.string_at(8) == ""  # behind the end


def test_a_structure_without_strings_ends_with_two_nuls() -> None:
    assert BARE.build() == b"\xde\x0d\x00\xde" + bytes(9) + b"\0\0"
    assert BARE.strings == ()


def test_with_field_changes_its_bytes_and_no_others() -> None:
    fresh = BIOS.with_field(6, b"\x34\x12")
    assert fresh.word(6) == 0x1234
    assert fresh.formatted[:6] + fresh.formatted[8:] == BIOS.formatted[:6] + BIOS.formatted[8:]
    assert fresh.tail == BIOS.tail
    with pytest.raises(ValueError, match="2 bytes do not fit at offset 0x9"):
        BIOS.with_field(9, b"\0\0")


def test_with_string_at_changes_that_string_and_no_other() -> None:
    fresh = BIOS.with_string_at(5, "A06 or so")
    assert fresh.formatted == BIOS.formatted
    assert fresh.tail == b"Dell Inc.\0A06 or so\x0002/13/2003\0\0"


def test_with_string_at_adds_a_string_where_there_is_none() -> None:
    fresh = SYSTEM.with_string_at(6, "rev 1")
    assert fresh.strings == (*SYSTEM.strings, b"rev 1")
    assert fresh.formatted == SYSTEM.with_field(6, b"\4").formatted
    first = BARE.with_string_at(4, "the only one")
    assert first.build() == b"\xde\x0d\x00\xde\1" + bytes(8) + b"the only one\0\0"


def test_with_string_at_leaves_a_structure_that_says_it_already() -> None:
    padded = make_structure(1, 1, b"\1", ["Dell Inc.      "])
    assert padded.with_string_at(4, "Dell Inc.") is padded
    assert BARE.with_string_at(4, "") is BARE


def test_an_empty_text_takes_the_number_away_and_no_string() -> None:
    fresh = SYSTEM.with_string_at(4, "")
    assert fresh.string_at(4) == ""
    assert fresh.string_at(5) == "PowerEdge 2650"
    assert fresh.tail == SYSTEM.tail


def test_a_text_outside_latin_1_becomes_question_marks() -> None:
    assert SYSTEM.with_string_at(5, "Größe Ω").string_at(5) == "Größe ?"


def test_a_string_that_would_end_the_strings_is_refused() -> None:
    for text in ("", "A\0B"):
        with pytest.raises(ValueError, match="can't be a string"):
            make_structure(1, 1, b"\1", [text])
    with pytest.raises(ValueError, match="can't be a string"):
        BIOS.with_string_at(5, "A06\0\0")


def test_a_structure_has_room_for_255_bytes_and_as_many_strings() -> None:
    full = make_structure(0x80, 1, bytes(251), ["x"] * 255)
    assert full.formatted[1] == 255
    with pytest.raises(ValueError, match="at most 255 bytes"):
        make_structure(0x80, 1, bytes(252))
    with pytest.raises(ValueError, match="at most 255 strings"):
        full.with_string_at(4, "one more")


# Tables


@both_kinds
def test_made_tables_are_read_as_they_were_made(version: tuple[int, int]) -> None:
    made = some_tables(version)
    read = Tables.parse(*made.build())
    assert read == made
    assert read.problems == ()
    assert read.first(1) == SYSTEM
    assert read.first(2) is None
    assert read.all(END_OF_TABLE) == [END]


@both_kinds
def test_a_table_cut_at_any_byte_is_read_as_far_as_it_goes(version: tuple[int, int]) -> None:
    entry_point, table = some_tables(version).build()
    for size in range(len(table)):
        cut = Tables.parse(entry_point, table[:size])
        assert cut.build() == (entry_point, table[:size])
        assert cut.problems, f"{size} bytes of {len(table)} without a word"
        whole = [found for found in cut.structures if found in some_tables().structures]
        assert list(cut.structures[: len(whole)]) == whole
        assert len(cut.structures) <= len(whole) + 1  # one more that has lost strings
        assert sum(found.size_bytes for found in cut.structures) + len(cut.junk) == size


def test_the_end_of_a_table_is_where_type_127_ends() -> None:
    table = some_tables().build()[1] + SYSTEM.build()
    tables = Tables.parse(entry_point_for(table, count=4), table)
    assert tables.structures == some_tables().structures
    assert tables.junk == SYSTEM.build()
    assert tables.build()[1] == table


def test_a_table_without_an_end_says_so() -> None:
    table = BIOS.build() + SYSTEM.build()
    tables = Tables.parse(entry_point_for(table, count=2), table)
    assert tables.structures == (BIOS, SYSTEM)
    assert tables.problems == ("the table has no end marker (type 127)",)


def test_an_empty_table_says_so() -> None:
    assert Tables.parse(entry_point_for(b""), b"").problems == (
        "the table has no end marker (type 127)",
    )


@pytest.mark.parametrize("length", range(4))
def test_a_structure_shorter_than_its_header_ends_the_reading(length: int) -> None:
    table = BIOS.build() + bytes([0x80, length, 0, 0, 0, 0]) + END.build()
    tables = Tables.parse(entry_point_for(table, count=1), table)
    assert tables.structures == (BIOS,)
    assert tables.junk == table[BIOS.size_bytes :]
    assert tables.problems == (f"a structure at {BIOS.size_bytes:#x} claims {length} bytes",)


def test_strings_that_do_not_end_are_still_read() -> None:
    table = BIOS.build() + SYSTEM.formatted + b"Dell Inc.\0PowerEdge 26"
    tables = Tables.parse(entry_point_for(table, count=2), table)
    system = tables.first(1)
    assert system is not None
    assert (system.string_at(4), system.string_at(5)) == ("Dell Inc.", "PowerEdge 26")
    assert tables.problems == ("the last structure's strings do not end",)
    assert tables.build()[1] == table
    ended = tables.replaced(system, system.with_string_at(5, "PowerEdge 2650"))
    again = Tables.parse(*ended.build())
    assert again.structures == (BIOS, system.with_string_at(5, "PowerEdge 2650"))
    assert again.structures[1].tail == b"Dell Inc.\0PowerEdge 2650\0\0"


@both_kinds
def test_what_is_behind_the_size_of_a_table_is_not_read(version: tuple[int, int]) -> None:
    table = BIOS.build()
    entry_point = entry_point_for(table, version, count=1)
    tables = Tables.parse(entry_point, table + SYSTEM.build())
    assert tables.structures == (BIOS,)
    assert tables.junk == SYSTEM.build()
    sizes = f"gives the table {len(table)} bytes, it has {len(table) + SYSTEM.size_bytes}"
    assert sizes in tables.problems[-1]
    fresh = tables.replaced(BIOS, BIOS.with_string_at(5, "another version"))
    again = Tables.parse(*fresh.build())
    assert again.structures == fresh.structures
    assert again.junk == SYSTEM.build()


def test_a_table_shorter_than_its_size_is_a_problem_in_version_2_only() -> None:
    table = some_tables().build()[1]
    longer = entry_point_for(table + bytes(100), count=4)
    said = Tables.parse(longer, table).problems
    assert said == (
        f"the entry point gives the table {len(table) + 100} bytes, it has {len(table)}",
    )
    newer = entry_point_for(table + bytes(100), (3, 2))
    assert Tables.parse(newer, table).problems == ()


def test_a_wrong_count_of_structures_is_a_problem() -> None:
    table = some_tables().build()[1]
    tables = Tables.parse(entry_point_for(table, count=7), table)
    assert tables.structures == some_tables().structures
    assert tables.problems == ("the entry point counts 7 structures, the table has 4",)


def test_replaced_wants_a_structure_of_these_tables() -> None:
    with pytest.raises(ValueError, match="not in these tables"):
        some_tables().replaced(make_structure(2, 2, b""), BARE)


def test_an_old_table_can_not_grow_beyond_what_its_entry_point_can_say() -> None:
    large = make_structure(0x80, 0x8000, bytes(200), ["x" * 65000])
    with pytest.raises(UsageError, match="at most 65535 bytes"):
        make_tables(make_entry_point((2, 8)), [large, large, END])
    tables = make_tables(make_entry_point((2, 8)), [BIOS, large, END])
    with pytest.raises(UsageError, match="at most 65535 bytes"):
        tables.replaced(BIOS, BIOS.with_string_at(5, "x" * 500))
    make_tables(make_entry_point((3, 0)), [large, large, END])


# Any bytes


structures = st.builds(
    make_structure,
    st.integers(0, 255).filter(lambda kind: kind != END_OF_TABLE),
    st.integers(0, 0xFFFF),
    st.binary(max_size=40),
    st.lists(st.from_regex(r"[!-~ÿ][ -~]{0,20}", fullmatch=True), max_size=5),
)
tables_of_any = st.builds(
    lambda version, found: make_tables(make_entry_point(version), [*found, END]),
    st.sampled_from(VERSIONS),
    st.lists(structures, max_size=8),
)


def look_at_everything(tables: Tables) -> None:
    for structure in tables.structures:
        assert len(structure.formatted) >= 4
        for offset in range(len(structure.formatted) + 1):
            structure.string_at(offset)
            structure.word(offset)
        for number in range(len(structure.strings) + 2):
            structure.string(number)


@settings(deadline=None)
@given(table=st.binary(max_size=300), version=st.sampled_from(VERSIONS))
@example(table=b"\x7f\x04", version=(2, 6))
@example(table=b"\x01\x04\0\0", version=(2, 6))
@example(table=b"\x01\x04\0\0\0", version=(2, 6))
def test_any_bytes_are_a_table_that_is_kept(table: bytes, version: tuple[int, int]) -> None:
    entry_point = entry_point_for(table, version)
    tables = Tables.parse(entry_point, table)
    assert tables.build() == (entry_point, table)
    look_at_everything(tables)


@settings(deadline=None)
@given(made=tables_of_any, data=st.data())
def test_a_table_with_bytes_lost_added_or_changed_is_still_read(
    made: Tables, data: st.DataObject
) -> None:
    entry_point, table = made.build()
    start = data.draw(st.integers(0, len(table)))
    end = data.draw(st.integers(start, min(len(table), start + 8)))
    broken = table[:start] + data.draw(st.binary(max_size=8)) + table[end:]
    tables = Tables.parse(entry_point, broken)
    assert tables.build() == (entry_point, broken)
    look_at_everything(tables)


@settings(deadline=None)
@given(made=tables_of_any)
def test_what_is_built_is_what_is_parsed(made: Tables) -> None:
    assert Tables.parse(*made.build()) == made


texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)


@settings(deadline=None)
@given(made=tables_of_any, data=st.data(), text=texts)
def test_a_replaced_structure_leaves_everything_else_and_sound_sums(
    made: Tables, data: st.DataObject, text: str
) -> None:
    old = data.draw(st.sampled_from(made.structures))
    if len(old.formatted) == 4:
        new = Structure(old.formatted, b"fresh\0\0")
    else:
        new = old.with_string_at(data.draw(st.integers(4, len(old.formatted) - 1)), text)
    changed = made.replaced(old, new)
    read = Tables.parse(*changed.build())  # the sums are checked here
    assert read == changed
    assert read.problems == ()
    at = made.structures.index(old)
    assert read.structures[at] == new
    assert read.structures[:at] == made.structures[:at]
    assert read.structures[at + 1 :] == made.structures[at + 1 :]
    before, after = made.entry_point, read.entry_point
    assert (after.version, after.table_address) == (before.version, before.table_address)
    assert after == EntryPoint(made.entry_point.raw).updated(
        [found.size_bytes for found in read.structures], len(read.build()[1])
    )


# Memory dumps and real machines


def test_a_memory_dump_has_its_table_behind_the_entry_point_and_one_byte() -> None:
    entry_point, table = some_tables().build()
    assert parse_memory_dump(entry_point + b"\xff" + table) == some_tables()


def test_a_memory_dump_that_is_longer_than_its_table_says_so() -> None:
    entry_point, table = some_tables().build()
    tables = parse_memory_dump(entry_point + b"\0" + table + BARE.build())
    assert tables.structures == some_tables().structures
    assert tables.junk == BARE.build()
    assert "the entry point gives the table" in tables.problems[0]


@pytest.mark.parametrize("size", [0, 5, 6, 30])
def test_a_memory_dump_cut_in_its_entry_point_is_damaged(size: int) -> None:
    with pytest.raises(DamagedInputError):
        parse_memory_dump(some_tables().build()[0][:size])


@each_system
def test_real_tables_are_built_as_they_were_read(name: str) -> None:
    entry_point, table = files_of(name)
    tables = Tables.parse(entry_point, table)
    assert tables.build() == (entry_point, table)
    assert tables.structures == tables_of(name).structures
    assert tables.junk == b""


@each_system
def test_real_tables_have_no_problem_but_an_end_that_is_missing_once(name: str) -> None:
    missing = ("the table has no end marker (type 127)",)
    assert tables_of(name).problems == (missing if like(name) == "PE8450" else ())


@each(["PE2650", "PE8450", "dimension_4400", "precisiont7600", "xps9365"])
def test_real_tables_cut_at_any_byte_are_read_as_far_as_they_go(name: str) -> None:
    entry_point, table = files_of(name)
    whole = Tables.parse(entry_point, table)
    for size in range(len(table)):
        cut = Tables.parse(entry_point, table[:size])
        assert cut.build()[1] == table[:size]
        assert cut.problems, f"{size} bytes of {len(table)} without a word"
        assert cut.structures[:-1] == whole.structures[: max(0, len(cut.structures) - 1)]
