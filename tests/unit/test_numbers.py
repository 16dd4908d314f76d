"""How numbers are read. Cases seen on Debian's 6.1.192, but for `scan_unsigned`, which is of
kernels that were not tried here; those of the balloon's files on the same under Xen 4.17."""

from __future__ import annotations

import pytest

from openrbu.drivers.numbers import (
    memparse,
    scan_unsigned,
    simple_int,
    simple_strtoul,
    simple_strtoull_any_base,
    strict_bool,
    strict_unsigned,
    strict_unsigned_any_base,
)


@pytest.mark.parametrize(
    ("text", "signed", "unsigned"),
    [
        (b"1\n", 1, 1),
        (b"77x", 77, 77),
        (b"-1\n", -1, 0),
        (b"+1", 0, 0),
        (b" 1", 0, 0),
        (b"abc", 0, 0),
        (b"", 0, 0),
        (b"1\0", 1, 1),
        (b"0x40", 0, 0),
        (b"2147483648", -(2**31), 2**31),
        (b"4294967297", 1, 2**32 + 1),
        (b"-4294967297", -1, 0),
        (b"18446744073709551617", 1, 1),
        (b"9" * 30, 2**30 - 1, (10**30 - 1) % 2**64),
    ],
)
def test_simple_numbers_start_at_once_and_end_anywhere(
    text: bytes, signed: int, unsigned: int
) -> None:
    assert simple_int(text) == signed
    assert simple_strtoul(text) == unsigned


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"500000\n", 500_000),
        (b"0x7a120", 500_000),
        (b"0X7A120", 500_000),
        (b"01720440", 500_000),
        (b"08", 0),
        (b"0900000", 0),
        (b"0779", 63),
        (b"0", 0),
        (b"0x", 0),
        (b"0xz", 0),
        (b"500000K", 500_000),
        (b"489M", 489),
        (b"5e5", 5),
        (b"500000\0junk", 500_000),
        *((junk + b"500000", 0) for junk in (b" ", b"\t", b"\n", b"+", b"-", b"x", b"\0")),
        (b"", 0),
        (b"18446744074209551616", 500_000_000),
        (b"18446744073709551615", 2**64 - 1),
    ],
)
def test_leading_digits_count_in_the_base_that_their_prefix_says(text: bytes, value: int) -> None:
    assert simple_strtoull_any_base(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"512000000", 512_000_000),
        (b"500000K\n", 500_000 << 10),
        (b"500000KB", 500_000 << 10),
        (b"500000K \n", 500_000 << 10),
        (b"0x7a120K", 500_000 << 10),
        (b"0x1E", 30),
        (b"1k", 1 << 10),
        (b"3m", 3 << 20),
        (b"2G", 2 << 30),
        (b"1t", 1 << 40),
        (b"1P", 1 << 50),
        (b"17e", 1 << 60),
        (b"16E", 0),
        (b"18014398509481984K", 0),
        (b"500000 K", 500_000),
        (b"500000b", 500_000),
        (b"1.5G", 1),
        (b"G", 0),
        (b"", 0),
    ],
)
def test_a_size_has_one_letter_right_behind_its_digits(text: bytes, value: int) -> None:
    assert memparse(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in (b"1", b"y\n", b"Y", b"t", b"T", b"yes", b"1x", b"on", b"ON")),
        *(
            (text, False)
            for text in (b"0", b"n\n", b"N", b"f", b"00", b"01", b"nope", b"of", b"OFF")
        ),
        *((text, None) for text in (b"2", b"-1", b" 1", b"\n", b"\0", b"o", b"enable", b"")),
    ],
)
def test_a_switch_is_known_by_how_its_text_starts(text: bytes, value: bool | None) -> None:
    assert strict_bool(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [(b" \t12", 12), (b"+12x", 12), (b"-1", 2**64 - 1), (b"-0", 0), (b"x", None), (b"-", None)],
)
def test_scanned_numbers_may_have_blanks_and_a_sign(text: bytes, value: int | None) -> None:
    assert scan_unsigned(text) == value


@pytest.mark.parametrize(
    ("text", "decimal", "any_base"),
    [
        (b"12", 12, 12),
        (b"+12\n", 12, 12),
        (b"010", 10, 8),
        (b"0", 0, 0),
        (b"0x1F\n", None, 31),
        (b"12\n\n", None, None),
        (b" 12", None, None),
        (b"12 ", None, None),
        (b"12\0 ", 12, 12),
        (b"-1", None, None),
        (b"0x", None, None),
        (b"09", 9, None),
        (b"", None, None),
    ],
)
def test_strict_numbers_have_nothing_around_them(
    text: bytes, decimal: int | None, any_base: int | None
) -> None:
    assert strict_unsigned(text) == decimal
    assert strict_unsigned_any_base(text) == any_base


def test_a_number_of_thousands_of_digits_is_just_too_large() -> None:
    for read in (scan_unsigned, strict_unsigned, strict_unsigned_any_base):
        value = read(b"9" * 5000)
        assert value is not None
        assert value > 2**64
