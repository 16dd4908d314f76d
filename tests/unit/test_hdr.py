"""The `.HDR` file: header, data, check words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats import hdr
from openrbu.formats.hdr import (
    HEADER,
    HEADER_SIZE_BYTES,
    Header,
    Image,
    SystemId,
    image_at,
    make_image,
)
from openrbu.formats.image_check import ImageState
from openrbu.formats.version import BiosVersion
from openrbu.units import MIB
from rigs.images import headers

A06 = BiosVersion.parse("A06")
POWEREDGE_2650 = SystemId(0x0121)


def image_of(flash_data: bytes = b"flash data", version: BiosVersion = A06) -> bytes:
    return make_image(flash_data, version=version, systems=[POWEREDGE_2650])


def changed(image: bytes, offset: int, new: bytes) -> bytes:
    return image[:offset] + new + image[offset + len(new) :]


any_header = st.builds(
    Header,
    header_major_ver=st.integers(0, 255),
    header_minor_ver=st.integers(0, 255),
    num_systems=st.integers(0, 12),
    quick_check=st.from_regex(rb"Copyright[ -~]{31}", fullmatch=True),
    bios_version=st.binary(min_size=3, max_size=3),
    misc_flags=st.integers(0, 255),
    bios_internal_use=st.integers(0, 255),
    reserved=st.binary(min_size=5, max_size=5),
    compat_flags=st.integers(0, 0xFFFF),
    system_id_list=st.tuples(*[st.integers(0, 0xFFFF)] * 12),
    extra=st.binary(max_size=hdr.MAX_HEADER_LENGTH - HEADER_SIZE_BYTES),
)


# The layout


def test_each_header_field_is_at_its_documented_offset() -> None:
    fields = HEADER.unpack(bytes(range(84)))
    assert HEADER.size_bytes == HEADER_SIZE_BYTES == 84
    assert fields == {
        "header_id": bytes([0, 1, 2, 3]),
        "header_length": 4,
        "header_major_ver": 5,
        "header_minor_ver": 6,
        "num_systems": 7,
        "quick_check": bytes(range(8, 48)),
        "bios_version": bytes([48, 49, 50]),
        "misc_flags": 51,
        "bios_internal_use": 52,
        "reserved": bytes(range(53, 58)),
        "compat_flags": 58 | 59 << 8,
        "system_id_list": tuple(low | (low + 1) << 8 for low in range(60, 84, 2)),
    }


# Headers of files


def test_headers_say_what_is_known_of_them() -> None:
    for name, (raw, facts) in headers().items():
        if "error" in facts:
            with pytest.raises(DamagedInputError, match=r"\$RBU"):
                Image.parse(raw)
            continue
        image = Image.parse(raw)
        said = {
            "header_length": image.header.size_bytes,
            "header_version": image.header.header_version,
            "bios_version": image.header.version.text,
            "quick_check": image.header.quick_check_text,
            "systems": [
                {"id": str(SystemId(system.id)), "revision": system.revision}
                for system in image.header.systems
            ],
            "data_size": image.flash_size_bytes,
        }
        assert said == facts, name
        assert image.build() == raw
        assert image.state is ImageState.NO_DATA


# System IDs


@pytest.mark.parametrize(
    ("entry", "system"),
    [
        (0x0852, SystemId(0x0152)),
        (0x08B1, SystemId(0x01B1)),
        (0x0921, SystemId(0x0121, 1)),
        (0x07FF, SystemId(0x00FF, 7)),
        (0xF8FF, SystemId(0x1FFF, 0)),
        (0xFFFF, SystemId(0x1FFF, 7)),
    ],
)
def test_an_entry_of_the_system_list_packs_id_and_revision(entry: int, system: SystemId) -> None:
    assert SystemId.unpack(entry) == system
    assert system.pack() == entry


def test_every_entry_comes_back_from_its_system() -> None:
    assert all(SystemId.unpack(entry).pack() == entry for entry in range(0x10000))


@pytest.mark.parametrize(
    "system", [SystemId(0x2000), SystemId(-1), SystemId(1, 8), SystemId(1, -1)]
)
def test_a_system_that_has_no_room_in_a_header_is_refused(system: SystemId) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        system.pack()


@settings(deadline=None)
@given(st.builds(SystemId, st.integers(0, 0x1FFF), st.integers(0, 7)))
def test_a_system_reads_back_from_its_text(system: SystemId) -> None:
    assert SystemId.parse(str(system)) == system


def test_a_system_is_shown_with_its_revision_only_where_it_has_one() -> None:
    assert str(SystemId(0x121)) == "0x0121"
    assert str(SystemId(0x121, 2)) == "0x0121:2"


@pytest.mark.parametrize(
    "text",
    ["", "121", "0x", "0x0121:", "0x0121:8", "0x0121:-1", "0x2000", "0x12345", "0xg", "x121"],
)
def test_text_that_is_no_system_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        SystemId.parse(text)


# Headers


@settings(deadline=None)
@given(any_header, st.binary(max_size=100), st.integers(0, 20))
def test_a_header_comes_back_from_its_bytes(header: Header, behind: bytes, offset: int) -> None:
    raw = header.build()
    assert len(raw) == header.size_bytes == raw[4]
    assert Header.parse(bytes(offset) + raw + behind, offset) == header


@settings(deadline=None)
@given(any_header, st.binary(max_size=200))
def test_an_image_comes_back_from_its_bytes(header: Header, body: bytes) -> None:
    raw = header.build() + body
    image = Image.parse(raw)
    assert image.header == header
    assert bytes(image.body) == body
    assert image.build() == raw
    assert image.size_bytes == len(raw)


def test_list_entries_beyond_the_number_of_systems_do_not_count() -> None:
    raw = changed(image_of(), HEADER.offset_of("system_id_list") + 2, b"\x52\x08")
    assert Header.parse(raw).systems == (SystemId(0x0121),)
    assert Header.parse(changed(raw, 7, b"\x02")).systems == (SystemId(0x0121), SystemId(0x0152))
    assert Header.parse(changed(raw, 7, b"\x00")).systems == ()


def test_an_image_is_for_the_systems_of_its_list_whatever_their_revision() -> None:
    raw = make_image(b"x", version=A06, systems=[SystemId(0x0121, 3), SystemId(0x0152)])
    header = Header.parse(raw)
    assert header.is_for(0x0121)
    assert header.is_for(0x0152)
    assert not header.is_for(0x0122)
    assert not header.is_for(0)


def test_an_image_is_for_a_revision_of_a_system_where_its_list_has_just_that() -> None:
    raw = make_image(b"x", version=A06, systems=[SystemId(0x0121, 3), SystemId(0x0152)])
    header = Header.parse(raw)
    fits = {
        (each, rev) for each in (0x0121, 0x0152) for rev in range(8) if header.is_for(each, rev)
    }
    assert fits == {(0x0121, 3), (0x0152, 0)}


def test_a_longer_header_moves_the_data() -> None:
    raw = changed(image_of(bytes(200)), 4, b"\x60")
    image = Image.parse(raw)
    assert image.header.size_bytes == 96
    assert image.size_bytes == len(raw)
    assert image.build() == raw


# Bad input


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"$", "cut short: 1 of 84 bytes"),
        (image_of()[:83], "cut short: 83 of 84 bytes"),
        (b"MZ\x90\x00", "not a BIOS image"),
        (changed(image_of(), 3, b"T"), "not a BIOS image"),
        (changed(image_of(), 4, b"\x00"), "says that it is 0 bytes long"),
        (changed(image_of(), 4, b"\x53"), "says that it is 83 bytes long"),
        (changed(image_of(bytes(999)), 4, b"\x81"), "says that it is 129 bytes long"),
        (changed(image_of(bytes(999)), 4, b"\xff"), "says that it is 255 bytes long"),
        (changed(image_of(b"1"), 4, b"\x60"), "cut short: 93 of 96 bytes"),
        (changed(image_of(), 7, b"\x0d"), "claims 13 systems"),
        (changed(image_of(), 7, b"\xff"), "claims 255 systems"),
        (changed(image_of(), 8, b"c"), "quick check"),
        (changed(image_of(), 47, b"\x00"), "quick check"),
        (changed(image_of(), 47, b"\x7f"), "quick check"),
    ],
)
def test_what_is_not_a_valid_image_is_refused_in_one_clear_line(raw: bytes, message: str) -> None:
    with pytest.raises(DamagedInputError, match=message) as caught:
        Image.parse(raw)
    assert "\n" not in str(caught.value)


def test_the_evidence_of_a_damaged_header_is_where_it_is_in_the_file() -> None:
    with pytest.raises(DamagedInputError) as caught:
        Header.parse(bytes(100) + changed(image_of(), 7, b"\x0d"), 100)
    assert (caught.value.offset, caught.value.actual) == (107, 13)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda tail: b"$RBU\x54" + tail),
        st.tuples(st.binary(max_size=90), st.integers(0, 90)).map(
            lambda change: changed(image_of(bytes(90)), change[1], change[0])
        ),
    )
)
def test_any_bytes_are_an_image_or_damaged_input(raw: bytes) -> None:
    try:
        image = Image.parse(raw)
    except DamagedInputError:
        return
    assert image.build() == raw
    assert len(image.header.systems) == image.header.num_systems <= 12
    assert image.header.version.text.isprintable()
    assert image.header.quick_check_text.startswith("Copyright")
    assert image.flash_size_bytes == max(0, len(image.body) - 8)
    assert image.is_whole == (image.damage is None)


# Data


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_an_image_made_here_has_its_data_and_is_whole(flash_data: bytes) -> None:
    image = Image.parse(image_of(flash_data))
    assert image.is_whole
    assert image.damage is None
    assert bytes(image.flash_data) == flash_data
    assert image.flash_size_bytes == len(flash_data)
    assert image.up_to_its_end == image


def test_the_views_of_an_image_are_not_copies() -> None:
    raw = bytearray(image_of(bytes(64)))
    image = Image.parse(raw)
    raw[84] = 7
    assert image.flash_data[0] == image.body[0] == 7


# Making images


@pytest.mark.parametrize(
    ("version", "major_minor"), [("A06", "1.0"), ("1.2.8", "2.1"), ("99.2.9", "2.1")]
)
def test_a_new_image_has_the_header_version_of_real_ones(version: str, major_minor: str) -> None:
    header = Header.parse(image_of(version=BiosVersion.parse(version)))
    assert header.header_version == major_minor
    assert header.version == BiosVersion.parse(version)
    assert header.quick_check_text == "Copyright 2005 Dell Inc."
    assert header.quick_check.endswith(b"Inc." + b" " * 16)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(SystemId, st.integers(0, 0x1FFF), st.integers(0, 7)), min_size=1, max_size=12
    )
)
def test_a_new_image_is_for_the_systems_it_was_made_for(systems: list[SystemId]) -> None:
    header = Header.parse(make_image(b"x", version=A06, systems=systems))
    assert header.systems == tuple(systems)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flash_data": b""}, "an image needs flash data"),
        ({"systems": []}, "1 to 12 systems, not 0"),
        ({"systems": [POWEREDGE_2650] * 13}, "1 to 12 systems, not 13"),
        ({"systems": [SystemId(0x8012)]}, "0x8012 does not fit"),
        ({"version": BiosVersion.parse("unknown")}, "not a BIOS version"),
        ({"quick_check": "Dell Inc."}, "quick check"),
        ({"quick_check": "Copyright" + "x" * 32}, "quick check"),
        ({"quick_check": "Copyright ©"}, "quick check"),
        ({"quick_check": "Copyright\n"}, "quick check"),
    ],
)
def test_an_impossible_image_is_refused(wrong: dict[str, object], message: str) -> None:
    right = {"flash_data": b"x", "version": A06, "systems": [POWEREDGE_2650]}
    with pytest.raises(UsageError, match=message):
        make_image(**{**right, **wrong})  # type: ignore[arg-type]


# The end of an image


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 300), st.binary(max_size=40))
def test_an_image_ends_at_its_check_words_whatever_is_around_it(
    flash_data: bytes, offset: int, behind: bytes
) -> None:
    image = image_of(flash_data)
    found = image_at(memoryview(bytes(offset) + image + behind), offset)
    assert found is not None
    assert found.build() == image
    assert found.is_whole


@pytest.mark.parametrize("raw", [b"", bytes(500), b"no image" + bytes(20), image_of()[:84]])
def test_where_no_image_ends_there_is_none(raw: bytes) -> None:
    assert image_at(memoryview(raw)) is None


def test_finding_an_end_does_not_copy() -> None:
    raw = bytearray(image_of(bytes(MIB)) + bytes(100))
    image = image_at(memoryview(raw))
    assert image is not None
    raw[100] = 9
    assert image.body[16] == 9


@pytest.mark.parametrize("size_bytes", [0, 1, 7])
def test_an_image_without_room_for_check_words_has_none(size_bytes: int) -> None:
    made = make_image(b"data", version=BiosVersion.parse("A06"), systems=[SystemId(0x0121)])
    image = Image.parse(made[: HEADER.size_bytes + size_bytes])
    assert (image.data_word, image.flash_size_bytes, bytes(image.flash_data)) == (0, 0, b"")
