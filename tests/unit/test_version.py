"""BIOS versions: what is read, and which of two is newer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import UsageError
from openrbu.formats.version import BiosVersion, VersionStyle

parse = BiosVersion.parse

# Newer first: the pairs of docs/reference/image.md, I8, and one or more for each rule beside them.
PAIRS = [
    ("A10", "A09"),
    ("A09", "X09"),
    ("X09", "P09"),
    ("A09", "X99"),
    ("P00", "Q01"),
    ("U00", "T01"),
    ("Z00", "Y01"),
    ("0.2.9", "0.2.8"),
    ("0.2.8", "99.2.9"),
    ("2.2.4", "1.2.8"),
    ("1.4.8", "1.3.4"),
    ("0.2.8", "A01"),
    ("a10", "A09"),
    ("A0B", "a0a"),
    ("P00", "z99"),
    ("1.10.0", "1.9.99"),
    ("99.2.9", "90.99.99"),
    ("0.0.0", "90.0.0"),
    ("90.0.0", "A99"),
    ("A00", "unknown"),
    ("Q00", "49.0.48"),
    ("0.0.1", "49.0.48"),
    ("90.0.0", "unknown"),
]

versions = st.one_of(
    st.from_regex(r"[A-Za-z][A-Za-z0-9]{2}", fullmatch=True),
    st.from_regex(r"[AXPQaxpq]0[0-3]", fullmatch=True),
    st.from_regex(r"(0|1|89|9[0-9])(\.[0-9]{1,2}){0,2}", fullmatch=True),
    st.sampled_from(["unknown", "49.0.48", "", "100.0.0", "UNKNOWN"]),
    st.text(max_size=12),
).map(parse)


@pytest.mark.parametrize(("newer", "older"), PAIRS)
def test_the_newer_version_beats_the_older_and_not_the_reverse(newer: str, older: str) -> None:
    assert parse(newer).is_newer_than(parse(older))
    assert not parse(older).is_newer_than(parse(newer))
    assert not parse(newer).same_as(parse(older))


@settings(deadline=None)
@given(versions, versions)
def test_of_two_versions_at_most_one_beats_the_other(one: BiosVersion, two: BiosVersion) -> None:
    assert not one.is_newer_than(one)
    assert not (one.is_newer_than(two) and two.is_newer_than(one))


@settings(deadline=None)
@given(versions, versions, versions)
def test_beating_and_not_being_beaten_are_transitive(
    one: BiosVersion, two: BiosVersion, three: BiosVersion
) -> None:
    if one.is_newer_than(two) and two.is_newer_than(three):
        assert one.is_newer_than(three)
    if not one.is_newer_than(two) and not two.is_newer_than(three):
        assert not one.is_newer_than(three)


@settings(deadline=None)
@given(versions, versions)
def test_readable_versions_are_the_same_exactly_when_neither_beats_the_other(
    one: BiosVersion, two: BiosVersion
) -> None:
    neither = not one.is_newer_than(two) and not two.is_newer_than(one)
    if one.style is not VersionStyle.UNREADABLE:
        assert one.same_as(two) == neither
    elif one.same_as(two):
        assert neither
    assert one.same_as(one)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A05", "a05"),
        ("1.2", "1.2.0"),
        ("1", "1.0.0"),
        ("1.", "1.0.0"),
        ("1.2.8b7", "1.2.8"),
        ("1.2beta.8", "1.2.8"),
        ("1.2.8.9", "1.2.8"),
        ("5A0", "5.0.0"),
        ("01.002.08", "1.2.8"),
        ("0.0.00", "0.0.0"),
        (" A05 \n", "A05"),
        ("unknown", "UNKNOWN"),
    ],
)
def test_two_ways_to_write_a_version_are_the_same(text: str, same: str) -> None:
    assert parse(text).same_as(parse(same))
    assert parse(text).style is parse(same).style


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "49.0.48",
        "49.00.48x",
        "100.0.0",
        "1.100.0",
        "9" * 5000,
        "1..8",
        "1.b.8",
        ".1.2",
        "-1.2.3",
        "A5",
        "A055",
        "A.5",
        "N/A",
        "Á05",
        "١.٢.٣",
        "TR440BXA.86B.0026.P08.0008311605",
    ],
)
def test_what_is_not_a_version_is_unreadable_and_fits_no_header(text: str) -> None:
    version = parse(text)
    assert version.style is VersionStyle.UNREADABLE
    assert not version.is_special
    with pytest.raises(UsageError, match="not a BIOS version"):
        version.header_fields()


def test_an_unreadable_version_is_not_the_same_as_another_one() -> None:
    assert not parse("unknown").same_as(parse("49.0.48"))
    assert not parse("unknown").is_newer_than(parse("49.0.48"))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_shown_as_it_was_given(text: str) -> None:
    assert parse(text).text == text.strip()


@pytest.mark.parametrize(
    ("text", "special"),
    [("89.99.99", False), ("90.0.0", True), ("99.2.9", True), ("1.99.99", False), ("A99", False)],
)
def test_only_new_style_from_90_is_special(text: str, special: bool) -> None:
    assert parse(text).is_special is special


@pytest.mark.parametrize(
    ("text", "major", "three_bytes"),
    [("A09", 1, b"A09"), ("a0z", 1, b"a0z"), ("0.2.8", 2, b"\x00\x02\x08"), ("1.2", 2, b"\1\2\0")],
)
def test_a_header_stores_a_version_by_its_style(text: str, major: int, three_bytes: bytes) -> None:
    assert parse(text).header_fields() == (major, three_bytes)


@settings(deadline=None)
@given(versions.filter(lambda version: version.style is not VersionStyle.UNREADABLE))
def test_a_version_comes_back_from_its_header(version: BiosVersion) -> None:
    again = BiosVersion.from_header(*version.header_fields())
    assert again.same_as(version)
    assert again.style is version.style


@pytest.mark.parametrize(
    ("major", "three_bytes", "text", "style"),
    [
        (1, b"A09", "A09", VersionStyle.OLD),
        (2, b"\x00\x02\x08", "0.2.8", VersionStyle.NEW),
        (3, b"\x63\x02\x09", "99.2.9", VersionStyle.NEW),
        (2, b"10\x00", "49.48.0", VersionStyle.NEW),
        (2, b"1\x000", "49.0.48", VersionStyle.UNREADABLE),
        (2, b"\x00\x64\x00", "0.100.0", VersionStyle.UNREADABLE),
        (1, b"1.2", "1.2", VersionStyle.UNREADABLE),
        (1, b"A0\x00", "A0\\x00", VersionStyle.UNREADABLE),
        (1, b"\x1b[2", "\\x1b[2", VersionStyle.UNREADABLE),
        (0, b"A09", "A09", VersionStyle.UNREADABLE),
    ],
)
def test_a_header_is_read_by_its_major_version(
    major: int, three_bytes: bytes, text: str, style: VersionStyle
) -> None:
    assert BiosVersion.from_header(major, three_bytes) == BiosVersion(text, style)
