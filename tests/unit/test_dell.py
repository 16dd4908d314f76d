"""What Dell puts into SMBIOS: identity, BIOS, and the word on the last update."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import UsageError
from openrbu.formats import dell
from openrbu.formats.dell import (
    BiosInformation,
    CompletionCode,
    RbuInformation,
    SystemInformation,
    describe_completion,
)
from openrbu.formats.smbios import (
    Structure,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
)
from openrbu.units import GIB, KIB, MIB
from rigs.made_tables import some_tables
from rigs.systems import each, each_system, expected_of, files_of, like, tables_of

WHEN = dt.datetime(2026, 11, 23, 4, 21)  # noqa: DTZ001  (a PC's clock has no zone)


def tables_with(*structures: Structure) -> Tables:
    return make_tables(make_entry_point(), structures)


def bios(rom_size_bytes: int = 512 * KIB) -> Structure:
    return dell.make_bios_information(
        vendor="Dell Inc.",
        version="A05",
        release_date="02/13/2003",
        rom_size_bytes=rom_size_bytes,
    )


def rbu_of(*fields: int) -> RbuInformation | None:
    """What a type 0xDE says whose bytes from offset 4 on are these."""
    return RbuInformation.of(tables_with(make_structure(dell.RBU, 0xDE00, bytes(fields))))


# Real machines


@each_system
def test_a_real_machine_is_who_it_is_known_to_be(name: str) -> None:
    tables, expected = tables_of(name), expected_of(name)
    system, information = SystemInformation.of(tables), BiosInformation.of(tables)
    assert system.vendor == expected["vendor"]
    assert system.product == expected["product"]
    assert system.service_tag == expected["service_tag"]
    if (
        like(name) == "PE8450"
    ):  # an Intel board: its system ID and Dell's version are nowhere in SMBIOS
        assert dell.system_id(tables) is None
        assert re.fullmatch(r"[A-Z0-9]{5}\.86[A-Z]\.\d{4}\.P\d\d\.\d{10}", information.version)
    else:
        assert dell.system_id(tables) == int(expected["system_id"], 16)
        assert information.version == expected["bios_version"]


@each_system
def test_the_service_tag_in_a_real_uuid_is_the_one_that_is_known(name: str) -> None:
    tables, expected = tables_of(name), expected_of(name)
    system = tables.first(dell.SYSTEM_INFORMATION)
    assert system is not None
    without_serial = tables.replaced(system, system.with_string_at(7, ""))
    from_uuid = SystemInformation.of(without_serial).service_tag
    assert from_uuid == ("" if like(name) == "PE8450" else expected["service_tag"])


@each_system
def test_an_old_machine_says_nothing_of_packets_and_a_new_one_may(name: str) -> None:
    information = RbuInformation.of(tables_of(name))
    if like(name) in ("PAweb110", "dimension_4400"):
        assert information is None
    else:
        assert information is not None
        takes_packets = name == "made-640" or like(name) == "Precision_390"
        assert information.packet_supported == takes_packets


@each(["Precision_390"])
def test_a_real_machine_s_last_update(name: str) -> None:
    assert RbuInformation.of(tables_of(name)) == RbuInformation(
        minimum_size_kib=449,
        completion_code=CompletionCode.COMPLETED,
        when=dt.datetime(2008, 1, 31, 15, 13),  # noqa: DTZ001
        boot_flags=0,
        packet_supported=True,
    )


@each(["PE8450"])
def test_a_real_machine_that_did_not_find_its_image(name: str) -> None:
    information = RbuInformation.of(tables_of(name))
    assert information is not None
    assert information.completion_code == CompletionCode.IMAGE_NOT_FOUND
    assert information.when == dt.datetime(2003, 8, 4, 14, 17)  # noqa: DTZ001


@each_system
def test_setting_what_a_real_machine_says_already_changes_nothing(name: str) -> None:
    tables = tables_of(name)
    information = BiosInformation.of(tables)
    assert dell.with_bios(tables, information.version, information.release_date) == tables
    assert information.rom_size_bytes is not None
    assert dell.with_rom_size(tables, information.rom_size_bytes) == tables


@each_system
def test_a_real_machine_keeps_the_rest_when_its_bios_and_result_change(name: str) -> None:
    tables = tables_of(name)
    fresh = dell.with_bios(tables, "A99", "11/23/2026")
    fresh = Tables.parse(*dell.with_result(fresh, CompletionCode.MISCOMPARE, WHEN).build())
    information = BiosInformation.of(fresh)
    assert (information.version, information.release_date) == ("A99", "11/23/2026")
    result = RbuInformation.of(fresh)
    if result is not None:
        assert (result.completion_code, result.when) == (CompletionCode.MISCOMPARE, WHEN)
    pairs = zip(tables.structures, fresh.structures, strict=True)
    changed = [old.type for old, new in pairs if old != new]
    assert changed == ([0] if result is None else sorted({0, dell.RBU}))


@each(["PE2650", "xps9365"])
def test_a_real_table_cut_at_any_byte_is_asked_everything_without_an_error(name: str) -> None:
    entry_point, table = files_of(name)
    for size in range(len(table)):
        ask_everything(Tables.parse(entry_point, table[:size]))


def ask_everything(tables: Tables) -> None:
    dell.system_id(tables)
    BiosInformation.of(tables)
    SystemInformation.of(tables)
    RbuInformation.of(tables)
    changed = dell.with_bios(tables, "A06", "11/23/2026")
    changed = dell.with_result(changed, 0, WHEN)
    dell.with_rom_size(changed, 512 * KIB).build()


# System ID


def test_the_system_id_is_the_oem_string_with_tag_1() -> None:
    strings = dell.make_oem_strings(["Dell System", "5[0000]", "1[0495]", "7[ACME]"])
    tables = tables_with(strings, dell.make_revisions_and_ids(0x0121))
    assert dell.system_id(tables) == 0x0495


def test_oem_strings_of_another_maker_are_not_asked() -> None:
    strings = dell.make_oem_strings(["Some System", "1[0495]", "7[ACME]"])
    tables = tables_with(strings, dell.make_revisions_and_ids(0x0121))
    assert dell.system_id(tables) == 0x0121


def test_the_first_oem_string_is_dell_s_mark_and_never_a_value() -> None:
    assert dell.system_id(tables_with(dell.make_oem_strings(["1[0495]"]))) is None


@pytest.mark.parametrize("text", ["1[]", "1[xyz]", "1[12345]", "11[0495]", "1[0495", "1 0495]"])
def test_an_oem_string_that_is_no_system_id_leaves_it_to_structure_0xd0(text: str) -> None:
    strings = dell.make_oem_strings(["Dell System", text])
    assert dell.system_id(tables_with(strings, dell.make_revisions_and_ids(0x0121))) == 0x0121


def test_a_short_system_id_is_a_byte_of_structure_0xd0() -> None:
    ids = make_structure(dell.REVISIONS_AND_IDS, 0xD000, bytes([1, 3, 0xA6, 0, 0x21, 0x01]))
    assert dell.system_id(tables_with(ids)) == 0xA6


@pytest.mark.parametrize("body", [b"", b"\1\3", b"\1\3\xfe", b"\1\3\xfe\0\x21"])
def test_a_structure_0xd0_without_room_for_an_id_has_none(body: bytes) -> None:
    short = make_structure(dell.REVISIONS_AND_IDS, 0xD000, body)
    assert dell.system_id(tables_with(short)) is None
    assert dell.system_id(tables_with(short, dell.make_revisions_and_ids(0x0121))) == 0x0121


def test_a_machine_without_dell_s_structures_has_no_system_id() -> None:
    assert dell.system_id(some_tables()) is None


# Names, and the service tag in a UUID


def test_what_is_not_there_is_empty() -> None:
    nothing = tables_with()
    assert BiosInformation.of(nothing) == BiosInformation("", "", "", None)
    assert SystemInformation.of(nothing) == SystemInformation("", "", "")
    assert RbuInformation.of(nothing) is None
    assert dell.with_bios(nothing, "A06", "11/23/2026") == nothing
    assert dell.with_result(nothing, 0, WHEN) == nothing
    assert dell.with_rom_size(nothing, 512 * KIB) == nothing


def test_made_structures_are_read_as_they_were_made() -> None:
    system = dell.make_system_information(
        vendor="Dell Inc.", product="PowerEdge 2650", service_tag="OPENRBU"
    )
    tables = tables_with(bios(), system)
    expected = BiosInformation("Dell Inc.", "A05", "02/13/2003", 512 * KIB)
    assert BiosInformation.of(tables) == expected
    assert SystemInformation.of(tables) == SystemInformation(
        "Dell Inc.", "PowerEdge 2650", "OPENRBU"
    )


def tag_in(uuid: bytes) -> str:
    system = make_structure(1, 0x0100, b"\1\2\0\0" + uuid, ["Dell Inc.", "PowerEdge"])
    return SystemInformation.of(tables_with(system)).service_tag


def test_a_uuid_spells_the_service_tag_where_no_serial_number_does() -> None:
    assert tag_in(b"DELL" + b"B\0\x10C\0D\xc1\xc0\x4fEFG") == "ABCDEFG"


def test_a_tag_of_five_letters_has_nuls_before_it() -> None:
    assert tag_in(b"DELL" + b"\0\xa6\x101\x806\x80\xc0\x4f5IK") == "165IK"


def test_a_uuid_with_dell_s_prefix_mirrored_spells_the_tag_mirrored() -> None:
    assert tag_in(b"DELL" + b"\0\x8e\x100\x80E\x80\x4f\xc0YYB") == "BYYE0"


@pytest.mark.parametrize(
    "uuid",
    [
        b"DELL" + bytes(12),
        b"LEDL" + b"B\0\x10C\0D\xc1\xc0\x4fEFG",
        b"DELL" + b"b\0\x10C\0D\xc1\xc0\x4fEFG",
        b"DELL" + b"B\0\x10\xc3\0D\xc1\xc0\x4fEFG",
        b"DELL" + b"B\0\x10\0\0D\xc1\xc0\x4fEFG",
        b"DELL" + b"B\0\x10C\0D\xc1\xc0\x4fEF",
    ],
    ids=["empty", "not Dell's", "small letter", "high bit", "NUL inside", "cut"],
)
def test_a_uuid_that_spells_no_service_tag_gives_none(uuid: bytes) -> None:
    assert tag_in(uuid) == ""


# The size of the flash


@pytest.mark.parametrize(
    ("rom_byte", "word", "size"),
    [
        (0x00, 0, 64 * KIB),
        (0x07, 0x1234, 512 * KIB),
        (0xFE, 0, 16 * MIB - 64 * KIB),
        (0xFF, 0, 16 * MIB),
        (0xFF, 16, 16 * MIB),
        (0xFF, 32, 32 * MIB),
        (0xFF, 0x3FFF, 16383 * MIB),
        (0xFF, 0x4001, 1 * GIB),
        (0xFF, 0x8001, None),
    ],
)
def test_the_size_of_a_rom_is_a_byte_or_a_word(rom_byte: int, word: int, size: int | None) -> None:
    structure = bios().with_field(9, bytes([rom_byte]))
    structure = structure.with_field(0x18, word.to_bytes(2, "little"))
    assert BiosInformation.of(tables_with(structure)).rom_size_bytes == size


@pytest.mark.parametrize("size", [64 * KIB, 576 * KIB, 1 * MIB, 16 * MIB - 64 * KIB])
def test_a_small_rom_size_is_written_and_read(size: int) -> None:
    assert BiosInformation.of(tables_with(bios(size))).rom_size_bytes == size
    fresh = dell.with_rom_size(tables_with(bios(32 * MIB)), size)
    assert BiosInformation.of(fresh).rom_size_bytes == size
    old = Structure(bios().formatted[:0x12], bios().tail)
    assert BiosInformation.of(dell.with_rom_size(tables_with(old), size)).rom_size_bytes == size


@pytest.mark.parametrize("size", [16 * MIB, 17 * MIB, 64 * MIB, 16383 * MIB])
def test_a_large_rom_size_is_written_and_read(size: int) -> None:
    assert BiosInformation.of(tables_with(bios(size))).rom_size_bytes == size
    fresh = dell.with_rom_size(tables_with(bios()), size)
    assert BiosInformation.of(fresh).rom_size_bytes == size


@pytest.mark.parametrize("size", [0, 1, 63 * KIB, 65 * KIB, 16 * MIB + 64 * KIB, 16384 * MIB])
def test_a_rom_size_that_smbios_can_not_say_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="SMBIOS can't express"):
        bios(size)
    with pytest.raises(UsageError, match="SMBIOS can't express"):
        dell.with_rom_size(tables_with(bios()), size)


def test_an_old_structure_has_no_room_for_a_rom_above_16_mib() -> None:
    old = tables_with(Structure(bios().formatted[:0x12], bios().tail))
    assert BiosInformation.of(dell.with_rom_size(old, 16 * MIB)).rom_size_bytes == 16 * MIB
    with pytest.raises(UsageError, match="too old to express a ROM size of 17 MiB"):
        dell.with_rom_size(old, 17 * MIB)


def test_a_rom_size_that_is_there_already_stays_as_it_is_written() -> None:
    in_gib = bios(32 * MIB).with_field(0x18, (0x4000 | 16).to_bytes(2, "little"))
    assert dell.with_rom_size(tables_with(in_gib), 16 * GIB) == tables_with(in_gib)


# RBU information


def test_thirteen_bytes_mean_monolithic_updates_only() -> None:
    structure = dell.make_rbu(packet=None)
    assert len(structure.formatted) == 13
    assert RbuInformation.of(tables_with(structure)) == RbuInformation(0, 0xFFFF, None, 0, False)


@pytest.mark.parametrize("packet", [True, False])
def test_sixteen_bytes_say_whether_packets_are_supported(packet: bool) -> None:
    structure = dell.make_rbu(packet=packet)
    assert len(structure.formatted) == 16
    information = RbuInformation.of(tables_with(structure))
    assert information == RbuInformation(0, 0xFFFF, None, 0, packet)


def test_each_field_of_the_rbu_structure_is_where_it_is_documented() -> None:
    fields = bytes([0x01, 0x02, 0x0C, 0x00, 0x26, 0x11, 0x23, 0x04, 0x21, 0x34, 0x12, 0xFD])
    assert rbu_of(*fields) == RbuInformation(0x0201, 0x000C, WHEN, 0x1234, True)
    assert rbu_of(*fields[:11], 0xFE) == RbuInformation(0x0201, 0x000C, WHEN, 0x1234, False)


@pytest.mark.parametrize("length", [9, 10, 11])
def test_a_packet_part_that_is_not_whole_is_not_read(length: int) -> None:
    fields = bytes([1, 2, 0, 0, 0x26, 0x11, 0x23, 0x04, 0x21, 0x34, 0x12, 0xFF])
    assert rbu_of(*fields[:length]) == RbuInformation(0x0201, 0, WHEN, 0, False)


@pytest.mark.parametrize("length", range(9))
def test_an_rbu_structure_that_is_too_short_says_nothing(length: int) -> None:
    tables = tables_with(make_structure(dell.RBU, 0xDE00, bytes(length)))
    assert RbuInformation.of(tables) is None
    assert dell.with_result(tables, 0, WHEN) == tables


@pytest.mark.parametrize(
    "date",
    [
        (0x00, 0x00, 0x00, 0x00, 0x00),
        (0x26, 0x13, 0x01, 0x00, 0x00),
        (0x26, 0x02, 0x30, 0x00, 0x00),
        (0x26, 0x11, 0x23, 0x24, 0x00),
        (0x26, 0x11, 0x23, 0x04, 0x60),
        (0x26, 0x0B, 0x23, 0x04, 0x21),
        (0xA6, 0x11, 0x23, 0x04, 0x21),
        (0xFF, 0xFF, 0xFF, 0xFF, 0xFF),
    ],
    ids=["zeros", "month 13", "30 February", "hour 24", "minute 60", "hex digit", "A6", "ones"],
)
def test_a_date_that_is_nonsense_is_none(date: tuple[int, ...]) -> None:
    assert rbu_of(1, 2, 0, 0, *date) == RbuInformation(0x0201, 0, None, 0, False)


@pytest.mark.parametrize(("digits", "year"), [(0x00, 2000), (0x79, 2079), (0x80, 1980)])
def test_a_year_of_two_digits_is_in_1980_to_2079(digits: int, year: int) -> None:
    information = rbu_of(0, 0, 0, 0, digits, 0x01, 0x01, 0, 0)
    assert information is not None
    assert information.when == dt.datetime(year, 1, 1)  # noqa: DTZ001


@settings(deadline=None)
@given(
    packet=st.sampled_from([None, True, False]),
    code=st.integers(0, 0xFFFF),
    when=st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2079, 12, 31, 23, 59)),  # noqa: DTZ001
)
def test_a_result_is_read_as_it_was_written(
    packet: bool | None, code: int, when: dt.datetime
) -> None:
    tables = tables_with(bios(), dell.make_rbu(packet=packet))
    fresh = Tables.parse(*dell.with_result(tables, code, when).build())
    minute = when.replace(second=0, microsecond=0)
    assert RbuInformation.of(fresh) == RbuInformation(0, code, minute, 0, bool(packet))
    assert fresh.structures[0] == tables.structures[0]


def test_every_completion_code_has_words_of_its_own() -> None:
    texts = {describe_completion(code) for code in CompletionCode}
    assert len(texts) == len(CompletionCode) == 15
    assert describe_completion(0x000D) == "no image was found in memory"
    assert describe_completion(0x1234) == "unknown completion code 0x1234"


@settings(deadline=None)
@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from([0x00, 0x01, 0x0B, 0xD0, 0xDE]),
            st.binary(max_size=24),
            st.lists(st.sampled_from(["Dell System", "1[0121]", "7[", "x"]), max_size=4),
        ),
        max_size=4,
    )
)
def test_any_contents_of_dell_s_structures_can_be_asked_everything(
    kinds: list[tuple[int, bytes, list[str]]],
) -> None:
    ask_everything(
        tables_with(*(make_structure(kind, 0, body, texts) for kind, body, texts in kinds))
    )
