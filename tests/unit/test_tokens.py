"""Dell tokens: where they are, what they do to a byte, and the check values over CMOS."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats import dell
from openrbu.formats.smbios import (
    Structure,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
)
from openrbu.formats.tokens import (
    ACTIVATE,
    CALLING_INTERFACE,
    CANCEL,
    INDEXED_IO,
    SMI_CALL,
    CheckRange,
    CheckType,
    IndexedIoToken,
    SmiCall,
    SmiToken,
    UpdateTokens,
    all_tokens,
    check_value,
    effective_check_type,
    make_calling_interface,
    make_indexed_io,
    port_pairs,
    tokens_for_update,
)
from rigs.systems import cmos_of, each, each_system, files_of, like, tables_of

NO_CHECK = CheckRange(CheckType.WORD_SUM, 0, 0, 0)
UPPER_RANGE = CheckRange(CheckType.NEGATED_WORD_SUM, 0x40, 0x5B, 0x6D)

INDEXED_PAIR = [(ACTIVATE, 0x78, 0xBF, 0x40), (CANCEL, 0x78, 0xBF, 0x00)]
CALLING_PAIR = [(ACTIVATE, 0x5C, 1), (CANCEL, 0x5D, 0)]


def tables_with(*structures: Structure) -> Tables:
    return make_tables(make_entry_point(), structures)


def indexed(
    tokens: list[tuple[int, int, int, int]],
    *,
    check: CheckRange = UPPER_RANGE,
    handle: int = 0xD401,
) -> Structure:
    return make_indexed_io(
        handle=handle, index_port=0x70, data_port=0x71, check=check, tokens=tokens
    )


def calling(tokens: list[tuple[int, int, int]]) -> Structure:
    return make_calling_interface(
        handle=0xDA00, port=0xB2, code=0x4F, supported=0x0003, tokens=tokens
    )


def in_cmos(token_id: int, or_value: int, check: CheckRange = UPPER_RANGE) -> IndexedIoToken:
    return IndexedIoToken(token_id, 0x70, 0x71, 0x78, 0xBF, or_value, check, 0xD401)


PAIR_IN_CMOS = UpdateTokens(
    in_cmos(ACTIVATE, 0x40), in_cmos(CANCEL, 0x00), (in_cmos(ACTIVATE, 0x40),)
)


# Real machines


def ranges_of(tables: Tables) -> list[tuple[int, CheckRange, int]]:
    """The index port, checked range and handle of each structure 0xD4."""
    found = {
        (token.index_port, token.check, token.structure_handle)
        for token in all_tokens(tables)
        if isinstance(token, IndexedIoToken)
    }
    return sorted(found, key=lambda item: item[2])


@each_system
def test_every_check_value_in_a_real_cmos_is_the_one_that_we_compute(name: str) -> None:
    tables, cmos = tables_of(name), cmos_of(name)
    for port, check, handle in ranges_of(tables):
        assert check.is_sound
        if check.is_none or not cmos:
            continue
        bank = cmos[256 * port :]
        kind = effective_check_type(check.type, handle, dell.system_id(tables))
        expected = check_value(kind, bank[check.first : check.last + 1])
        assert bank[check.index :].startswith(expected), f"structure {handle:#x}"


def kinds_that_hold(cmos: bytes, port: int, check: CheckRange) -> set[CheckType]:
    """The check types whose value over a range is the one that CMOS keeps."""
    bank = cmos[256 * port :]
    values = {kind: check_value(kind, bank[check.first : check.last + 1]) for kind in CheckType}
    return {
        kind
        for kind, value in values.items()
        if bank[check.index : check.index + len(value)] == value
    }


@each(["PE2650", "Precision_390"])
def test_a_real_cmos_keeps_word_sums_and_negated_word_sums(name: str) -> None:
    cmos = cmos_of(name)
    ranges = ranges_of(tables_of(name))
    assert {CheckType(check.type) for _, check, _ in ranges} == {0, 3}
    for port, check, _ in ranges:
        assert kinds_that_hold(cmos, port, check) == {check.type}


@each(["PE1650", "PE6600"])
def test_a_real_structure_0xd402_says_negated_word_sum_and_means_word_sum(name: str) -> None:
    ranges = {handle: (port, check) for port, check, handle in ranges_of(tables_of(name))}
    port, check = ranges[0xD402]
    assert check.type == CheckType.NEGATED_WORD_SUM
    assert kinds_that_hold(cmos_of(name), port, check) == {CheckType.WORD_SUM}


@each_system
def test_a_real_machine_has_the_two_tokens_of_rbu_where_it_can_be_updated(name: str) -> None:
    tables = tables_of(name)
    tokens = tokens_for_update(tables)
    if dell.RbuInformation.of(tables) is None:
        assert tokens is None
        return
    assert tokens is not None
    assert (tokens.activate.id, tokens.cancel.id) == (0x5C, 0x5D)
    if isinstance(tokens.activate, IndexedIoToken) and like(name) != "PE8450":
        for token, or_value in ((tokens.activate, 0x40), (tokens.cancel, 0x00)):
            assert isinstance(token, IndexedIoToken)
            assert (token.index_port, token.data_port) == (0x70, 0x71)
            assert (token.location, token.and_mask, token.or_value) == (0x78, 0xBF, or_value)


@each(["PE8450"])
def test_a_poweredge_8450_has_its_tokens_behind_other_ports(name: str) -> None:
    def token(token_id: int, or_value: int) -> IndexedIoToken:
        return IndexedIoToken(token_id, 0x72, 0x73, 0x68, 0xF8, or_value, NO_CHECK, 0x007A)

    expected = UpdateTokens(token(ACTIVATE, 0x02), token(CANCEL, 0x00))
    assert tokens_for_update(tables_of(name)) == expected


@each(["precisiont7600"])
def test_a_precision_t7600_has_its_tokens_behind_the_smi(name: str) -> None:
    assert tokens_for_update(tables_of(name)) == UpdateTokens(
        SmiToken(ACTIVATE, 0x5C, 1, 0xB2, 0x37), SmiToken(CANCEL, 0x5D, 0, 0xB2, 0x37)
    )


@each(["PE2650", "PE8450"])
def test_a_real_table_cut_at_any_byte_gives_its_tokens_or_none(name: str) -> None:
    entry_point, table = files_of(name)
    whole = tokens_for_update(Tables.parse(entry_point, table))
    found = [
        tokens_for_update(Tables.parse(entry_point, table[:size])) for size in range(len(table))
    ]
    first = next(size for size, tokens in enumerate(found) if tokens is not None)
    assert set(found[:first]) == {None}
    assert set(found[first:]) == {whole}


def rows_of(structure: Structure, start: int, form: str) -> list[Any]:
    """The rows of a real list, unused slots too, up to its end mark or its end."""
    size = struct.calcsize(form)
    body = structure.formatted[start:]
    rows = list(struct.iter_unpack(form, body[: len(body) // size * size]))
    ends = [at for at, row in enumerate(rows) if row[0] == 0xFFFF]
    return rows[: ends[0]] if ends else rows


def same_but_for_the_end(made: Structure, real: Structure, row_bytes: int) -> bool:
    """Some real lists lack their end mark, the one that `made` has; and so are shorter."""
    size = len(made.formatted) - row_bytes
    ends = real.formatted[size : size + 2] in (b"\xff\xff", b"")
    return made.formatted[2:size] == real.formatted[2:size] and ends


@each_system
def test_real_indexed_io_structures_can_be_made(name: str) -> None:
    for structure in tables_of(name).all(INDEXED_IO):
        made = make_indexed_io(
            handle=structure.handle,
            index_port=structure.word(4) or 0,
            data_port=structure.word(6) or 0,
            check=CheckRange(*structure.formatted[8:12]),
            tokens=rows_of(structure, 12, "<HBBB"),
        )
        assert same_but_for_the_end(made, structure, 5)


@each_system
def test_real_calling_interface_structures_can_be_made(name: str) -> None:
    for structure in tables_of(name).all(CALLING_INTERFACE):
        made = make_calling_interface(
            handle=structure.handle,
            port=structure.word(4) or 0,
            code=structure.byte(6) or 0,
            supported=int.from_bytes(structure.formatted[7:11], "little"),
            tokens=rows_of(structure, 11, "<HHH"),
        )
        assert same_but_for_the_end(made, structure, 6)


# Lists of tokens


def test_an_indexed_io_token_is_read_from_where_each_byte_is_its_own_offset() -> None:
    structure = Structure(bytes([0xD4, 17, *range(2, 17)]), b"\0\0")
    check = CheckRange(type=8, first=9, last=10, index=11)
    assert all_tokens(tables_with(structure)) == [
        IndexedIoToken(0x0D0C, 0x0504, 0x0706, 14, 15, 16, check, structure_handle=0x0302)
    ]


def test_a_calling_interface_token_is_read_from_where_each_byte_is_its_own_offset() -> None:
    structure = Structure(bytes([0xDA, 17, *range(2, 17)]), b"\0\0")
    assert all_tokens(tables_with(structure)) == [
        SmiToken(id=0x0C0B, location=0x0E0D, value=0x100F, command_port=0x0504, command_code=6)
    ]


def test_made_lists_are_read_as_they_were_made() -> None:
    tokens = all_tokens(tables_with(calling(CALLING_PAIR), indexed(INDEXED_PAIR)))
    assert tokens == [
        in_cmos(ACTIVATE, 0x40),
        in_cmos(CANCEL, 0x00),
        SmiToken(ACTIVATE, 0x5C, 1, 0xB2, 0x4F),
        SmiToken(CANCEL, 0x5D, 0, 0xB2, 0x4F),
    ]


def test_unused_slots_are_passed_over() -> None:
    unused = (0x0000, 0x12, 0x34, 0x56)
    activate, cancel = INDEXED_PAIR
    gaps = indexed([unused, activate, unused, unused, cancel])
    assert all_tokens(tables_with(gaps)) == all_tokens(tables_with(indexed(INDEXED_PAIR)))
    gaps = calling([(0, 1, 2), CALLING_PAIR[0], (0, 0, 0), CALLING_PAIR[1]])
    assert all_tokens(tables_with(gaps)) == all_tokens(tables_with(calling(CALLING_PAIR)))


def test_nothing_is_read_behind_the_end_of_a_list() -> None:
    end = (0xFFFF, 0, 0, 0)
    assert all_tokens(tables_with(indexed([end, *INDEXED_PAIR]))) == []
    assert all_tokens(tables_with(calling([(0xFFFF, 0xFFFF, 0), *CALLING_PAIR]))) == []


@pytest.mark.parametrize(
    ("structure", "end_bytes"), [(indexed(INDEXED_PAIR), 5), (calling(CALLING_PAIR), 6)]
)
def test_a_list_may_lack_its_end(structure: Structure, end_bytes: int) -> None:
    body = structure.formatted[4:-end_bytes]
    endless = make_structure(structure.type, structure.handle, body)
    assert all_tokens(tables_with(endless)) == all_tokens(tables_with(structure))


@pytest.mark.parametrize(
    ("structure", "head", "row"), [(indexed(INDEXED_PAIR), 12, 5), (calling(CALLING_PAIR), 11, 6)]
)
def test_a_list_cut_anywhere_gives_its_whole_tokens(
    structure: Structure, head: int, row: int
) -> None:
    whole = all_tokens(tables_with(structure))
    for size in range(len(structure.formatted) - 4):
        cut = make_structure(structure.type, structure.handle, structure.formatted[4 : 4 + size])
        rows = max(0, min(2, (4 + size - head) // row))
        assert all_tokens(tables_with(cut)) == whole[:rows]


@settings(deadline=None)
@given(kind=st.sampled_from([INDEXED_IO, CALLING_INTERFACE]), body=st.binary(max_size=60))
def test_any_bytes_are_a_list_of_tokens(kind: int, body: bytes) -> None:
    tables = tables_with(make_structure(kind, 0xD402, body))
    assert all(token.id not in (0, 0xFFFF) for token in all_tokens(tables))
    tokens_for_update(tables)


indexed_rows = st.tuples(
    st.integers(1, 0xFFFE), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)
)


@settings(deadline=None)
@given(rows=st.lists(indexed_rows, max_size=20), check=st.tuples(*[st.integers(0, 255)] * 4))
def test_indexed_lists_are_read_as_they_were_built(
    rows: list[tuple[int, int, int, int]], check: tuple[int, int, int, int]
) -> None:
    structure = indexed(rows, check=CheckRange(*check))
    read = all_tokens(Tables.parse(*tables_with(structure).build()))
    assert read == [
        IndexedIoToken(token_id, 0x70, 0x71, at, mask, value, CheckRange(*check), 0xD401)
        for token_id, at, mask, value in rows
    ]


# What a token does


@pytest.mark.parametrize("byte", [0x00, 0x3F, 0x40, 0xBF, 0xFF])
def test_activate_and_cancel_change_one_bit_and_know_it(byte: int) -> None:
    activate, cancel = in_cmos(ACTIVATE, 0x40), in_cmos(CANCEL, 0x00)
    assert activate.apply(byte) == byte | 0x40
    assert cancel.apply(byte) == byte & ~0x40
    assert activate.is_active(byte) == bool(byte & 0x40)
    assert cancel.is_active(byte) == (not byte & 0x40)


@settings(deadline=None)
@given(byte=st.integers(0, 255), and_mask=st.integers(0, 255), or_value=st.integers(0, 255))
def test_a_token_in_force_is_active_and_leaves_the_bits_of_its_mask(
    byte: int, and_mask: int, or_value: int
) -> None:
    or_value &= ~and_mask
    token = IndexedIoToken(1, 0x70, 0x71, 0, and_mask, or_value, NO_CHECK, 0xD400)
    applied = token.apply(byte)
    assert token.is_active(applied)
    assert applied & and_mask == byte & and_mask
    assert token.is_active(byte) == (applied == byte)


def test_a_token_with_mask_zero_is_a_text_and_no_switch() -> None:
    text = indexed([(ACTIVATE, 0x20, 0x00, 0x0A), (CANCEL, 0x20, 0x00, 0x0A)])
    tokens = all_tokens(tables_with(text))
    assert [isinstance(token, IndexedIoToken) and token.is_string for token in tokens] == [True] * 2
    assert tokens_for_update(tables_with(text)) is None
    both = tables_with(text, indexed(INDEXED_PAIR))
    assert tokens_for_update(both) == tokens_for_update(tables_with(indexed(INDEXED_PAIR)))


# The pair for an update


def test_the_two_tokens_of_an_update_are_of_one_kind() -> None:
    activate, cancel = indexed(INDEXED_PAIR[:1]), calling(CALLING_PAIR[1:])
    assert tokens_for_update(tables_with(activate, cancel)) is None
    both = tables_with(activate, calling(CALLING_PAIR))
    assert tokens_for_update(both) == tokens_for_update(tables_with(calling(CALLING_PAIR)))


def test_tokens_in_cmos_come_before_those_behind_the_smi() -> None:
    tokens = tokens_for_update(tables_with(calling(CALLING_PAIR), indexed(INDEXED_PAIR)))
    assert tokens == PAIR_IN_CMOS


def test_of_two_tokens_with_one_id_the_first_counts() -> None:
    second = indexed([(ACTIVATE, 0x10, 0xFE, 1), (CANCEL, 0x10, 0xFE, 0)], handle=0xD403)
    tokens = tokens_for_update(tables_with(indexed(INDEXED_PAIR), second))
    assert tokens == PAIR_IN_CMOS


LOWER_RANGE = CheckRange(CheckType.WORD_SUM, 0x10, 0x2D, 0x2E)


def test_all_checked_ranges_behind_the_ports_of_the_tokens_are_named_once() -> None:
    other = [(0x0001, 0x20, 0xFE, 1)]
    structures = [
        indexed(other, check=LOWER_RANGE, handle=0xD400),
        indexed(INDEXED_PAIR),
        indexed(other, check=LOWER_RANGE, handle=0xD402),
        indexed(other, check=NO_CHECK, handle=0xD403),
        make_indexed_io(
            handle=0xD404,
            index_port=0x72,
            data_port=0x73,
            check=CheckRange(CheckType.WORD_SUM, 0x40, 0x5D, 0x5E),
            tokens=other,
        ),
    ]
    tokens = tokens_for_update(tables_with(*structures))
    assert tokens is not None
    assert [token.check for token in tokens.checked] == [UPPER_RANGE, LOWER_RANGE]
    assert [token.structure_handle for token in tokens.checked] == [0xD401, 0xD400]


@each_system
def test_every_check_value_that_a_real_bios_keeps_beside_the_token_is_right(name: str) -> None:
    tables, cmos = tables_of(name), cmos_of(name)
    tokens = tokens_for_update(tables)
    for token in tokens.checked if tokens and cmos else ():
        bank = cmos[256 * token.index_port :][:256]
        kind = effective_check_type(
            token.check.type, token.structure_handle, dell.system_id(tables)
        )
        expected = check_value(kind, bank[token.check.first : token.check.last + 1])
        assert bank[token.check.index :].startswith(expected)


def test_the_port_pairs_of_a_machine_are_those_of_its_tokens() -> None:
    second = make_indexed_io(
        handle=0xD405, index_port=0x74, data_port=0x77, check=NO_CHECK, tokens=[(5, 1, 0xFE, 1)]
    )
    tables = tables_with(indexed(INDEXED_PAIR), second, calling(CALLING_PAIR))
    assert port_pairs(tables) == ((0x70, 0x71), (0x74, 0x77))


def test_one_token_alone_is_no_pair() -> None:
    assert tokens_for_update(tables_with(indexed(INDEXED_PAIR[:1]))) is None
    assert tokens_for_update(tables_with(calling(CALLING_PAIR[1:]))) is None
    assert tokens_for_update(tables_with()) is None


@pytest.mark.parametrize(
    "check",
    [
        CheckRange(4, 0x40, 0x5B, 0x6D),
        CheckRange(0, 0x5B, 0x40, 0x6D),
        CheckRange(0, 0x40, 0x5B, 0xFF),  # its second byte would be behind the bank
    ],
)
def test_tokens_whose_check_value_can_not_be_kept_are_no_switch(check: CheckRange) -> None:
    assert tokens_for_update(tables_with(indexed(INDEXED_PAIR, check=check))) is None


def test_a_check_value_of_one_byte_may_be_the_last_of_the_bank() -> None:
    check = CheckRange(CheckType.BYTE_SUM, 0x40, 0x5B, 0xFF)
    assert tokens_for_update(tables_with(indexed(INDEXED_PAIR, check=check))) is not None


def test_tokens_without_a_check_value_are_a_switch_whatever_their_type_says() -> None:
    unchecked = CheckRange(0xFF, 0, 0, 0)
    tokens = tokens_for_update(tables_with(indexed(INDEXED_PAIR, check=unchecked)))
    assert tokens == UpdateTokens(
        in_cmos(ACTIVATE, 0x40, unchecked), in_cmos(CANCEL, 0x00, unchecked)
    )


# Check values


def test_a_word_sum_is_stored_high_byte_first() -> None:
    assert check_value(CheckType.WORD_SUM, bytes([0xFF] * 3 + [0x05])) == b"\x03\x02"
    assert check_value(CheckType.WORD_SUM, b"") == b"\0\0"


def test_a_negated_word_sum_and_the_word_sum_make_zero() -> None:
    assert check_value(CheckType.NEGATED_WORD_SUM, bytes([0xFF] * 3 + [0x05])) == b"\xfc\xfe"
    assert check_value(CheckType.NEGATED_WORD_SUM, bytes(20)) == b"\0\0"


def test_a_byte_sum_is_one_byte() -> None:
    assert check_value(CheckType.BYTE_SUM, bytes([0xFF] * 3 + [0x05])) == b"\x02"


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        # Worked out on paper: seven shifts, and where a 1 is shifted out, bit 15 is set and then
        # 0xA001 is XORed in, which clears it again.
        (b"", 0x0000),
        (b"\x00", 0x0000),
        # 0x80 shifts seven times to 0x01 and nothing falls out; an eighth shift would take it.
        (b"\x80", 0x0001),
        # 0x40 shifts six times to 0x01; the seventh takes it: 0x0000 | 0x8000 ^ 0xA001 = 0x2001.
        (b"\x40", 0x2001),
        # 0x20: one shift more; 0x2001 has a 1 at its end: 0x1000 | 0x8000 ^ 0xA001 = 0x3001.
        (b"\x20", 0x3001),
        # 0x01: 2001, 3001, 3801, 3C01, 3E01, 3F01, 3F81.
        (b"\x01", 0x3F81),
        # From 0x0001, 0x01 XORed in leaves 0.
        (b"\x80\x01", 0x0000),
        # From 0x2001, 0x01 XORed in leaves 0x2000; seven shifts make 0x0040.
        (b"\x40\x01", 0x0040),
    ],
)
def test_the_crc_shifts_seven_times_a_byte(data: bytes, crc: int) -> None:
    assert check_value(CheckType.CRC, data) == crc.to_bytes(2, "big")


def test_a_check_type_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 is not a valid CheckType"):
        check_value(4, b"")


def test_a_range_of_three_zeros_is_no_check() -> None:
    assert NO_CHECK.is_none
    assert not CheckRange(0, 0, 0, 1).is_none
    assert not CheckRange(0, 0, 1, 0).is_none


@pytest.mark.parametrize(
    "system", [0x134, 0x141, 0x135, 0x11B, 0x8012, 0x124, 0x14A, 0x123, 0x121, 0x106, 0x109]
)
def test_eleven_systems_mean_a_word_sum_in_structure_0xd402(system: int) -> None:
    assert effective_check_type(3, 0xD402, system) == CheckType.WORD_SUM
    assert effective_check_type(3, 0xD401, system) == CheckType.NEGATED_WORD_SUM
    assert effective_check_type(2, 0xD402, system) == CheckType.CRC


def test_one_system_means_a_byte_sum_in_structure_0xd402() -> None:
    assert effective_check_type(3, 0xD402, 0x008E) == CheckType.BYTE_SUM
    assert effective_check_type(3, 0xD401, 0x008E) == CheckType.NEGATED_WORD_SUM


@pytest.mark.parametrize("system", [None, 0x0000, 0x01DE, 0x0122])
def test_other_systems_mean_what_they_say(system: int | None) -> None:
    assert effective_check_type(3, 0xD402, system) == CheckType.NEGATED_WORD_SUM


# SMI calls


def test_each_field_of_an_smi_call_is_at_its_documented_offset() -> None:
    fields = SMI_CALL.unpack(bytes(range(52)))
    assert SMI_CALL.size_bytes == 16 + 36
    words = {start: int.from_bytes(bytes(range(start, start + 4)), "little") for start in range(49)}
    assert fields == {
        "magic": 0x03020100,
        "ebx": 0x07060504,
        "ecx": 0x0B0A0908,
        "command_port": 0x0D0C,
        "command_code": 0x0E,
        "reserved": 0x0F,
        "smi_class": 0x1110,
        "smi_select": 0x1312,
        "arguments": (words[20], words[24], words[28], words[32]),
        "results": (words[36], words[40], words[44], words[48]),
    }


def test_a_call_is_packed_with_its_magic_numbers() -> None:
    call = SmiCall(0xB2, 0x4F, 1, 0, arguments=(0x5C, 1, 0, 0))
    packed = call.pack()
    assert packed[:16] == b"1IMS" + bytes(4) + b"1ISB" + b"\xb2\0\x4f\0"
    assert packed[16:] == b"\1\0\0\0" + b"\x5c\0\0\0\1\0\0\0" + bytes(24)
    assert SmiCall.unpack(packed) == call


def test_a_result_is_signed() -> None:
    packed = SmiCall(0xB2, 0x4F, 0, 0).pack()
    assert SmiCall.unpack(packed[:36] + b"\xfe\xff\xff\xff" + packed[40:]).results == (-2, 0, 0, 0)


@settings(deadline=None)
@given(
    call=st.builds(
        SmiCall,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 4),
        st.tuples(*[st.integers(-(1 << 31), (1 << 31) - 1)] * 4),
    ),
    behind=st.binary(max_size=8),
)
def test_a_call_is_read_as_it_was_packed_whatever_is_behind_it(
    call: SmiCall, behind: bytes
) -> None:
    assert SmiCall.unpack(memoryview(call.pack() + behind)) == call


def test_a_call_that_is_cut_or_has_no_magic_is_damaged() -> None:
    packed = SmiCall(0xB2, 0x4F, 0, 0).pack()
    for size in range(52):
        with pytest.raises(DamagedInputError, match=f"{size} of 52 bytes"):
            SmiCall.unpack(packed[:size])
    with pytest.raises(DamagedInputError, match="its magic is 0x534d4930") as caught:
        SmiCall.unpack(b"0" + packed[1:])
    assert (caught.value.offset, caught.value.expected) == (0, 0x534D4931)
