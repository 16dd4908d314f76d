"""How numbers are read. Cases seen on Debian's 6.1.192, but for `scan_unsigned`, which is of
kernels that were not tried here."""

from __future__ import annotations

import pytest

from openrbu.drivers.numbers import (
    scan_unsigned,
    simple_int,
    simple_strtoul,
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
