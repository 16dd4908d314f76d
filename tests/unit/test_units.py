"""Sizes and orders."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.units import (
    GIB,
    KIB,
    MAX_ORDER,
    MIB,
    PAGE_SHIFT,
    PAGE_SIZE,
    exact_size,
    human_size,
    human_sizes,
    order_for,
    pages_for,
    parse_size,
)


def test_the_largest_order_is_4_mib() -> None:
    assert PAGE_SIZE == 1 << PAGE_SHIFT
    assert PAGE_SIZE << MAX_ORDER == 4 * MIB


@pytest.mark.parametrize(
    ("size_bytes", "pages", "order"),
    [
        (0, 0, 0),
        (1, 1, 0),
        (4096, 1, 0),
        (4097, 2, 1),
        (8193, 3, 2),
        (4 * MIB, 1024, 10),
        (4 * MIB + 1, 1025, 11),
    ],
)
def test_pages_and_orders_of_sizes(size_bytes: int, pages: int, order: int) -> None:
    assert pages_for(size_bytes) == pages
    assert order_for(size_bytes) == order


@given(st.integers(1, 1 << 50))
def test_an_order_holds_its_size_and_the_one_below_does_not(size_bytes: int) -> None:
    order = order_for(size_bytes)
    assert PAGE_SIZE << order >= size_bytes
    assert order == 0 or PAGE_SIZE << (order - 1) < size_bytes


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (17, "17 bytes"),
        (1023, "1023 bytes"),
        (KIB, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 * KIB, "512 KiB"),
        (524380, "512.1 KiB"),
        (MIB - 1, "1.0 MiB"),
        (MIB + 1, "1.0 MiB"),
        (MIB + 92, "1024.1 KiB"),
        (16 * MIB + 92, "16.0 MiB"),
        (2 * GIB - 384 * KIB, "2047.6 MiB"),
        (67107840, "64.0 MiB"),
        (1030128 * KIB, "1006.0 MiB"),
        (KIB + 1, "1025 bytes"),
        (2 * 1023 * KIB, "2046 KiB"),
        (1025 * MIB, "1025 MiB"),
        (GIB + 1, "1.0 GiB"),
        (8388607 * MIB, "8.0 TiB"),
        (16 * GIB + 20 * MIB + 512 * KIB, "16.0 GiB"),
        (5 * MIB // 4, "1.3 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (1024 * GIB, "1 TiB"),
        (2048 * 1024 * GIB, "2048 TiB"),
    ],
)
def test_sizes_as_people_read_them(size_bytes: int, text: str) -> None:
    assert human_size(size_bytes) == text


def read_size(text: str) -> tuple[Fraction, int]:
    """The number of a text that `human_size` made, and the bytes of its unit."""
    number, unit = text.split()
    places = ["byte", "KiB", "MiB", "GiB", "TiB"]
    return Fraction(number), 1024 ** places.index(unit.removesuffix("s"))


SIZES = st.integers(0, 1 << 64) | st.builds(
    lambda count, power, more: max(0, (count << 10 * power) + more),
    st.integers(0, 1025),
    st.integers(0, 5),
    st.integers(-2, 2),
)
"""Also those beside whole numbers of a unit."""


@given(SIZES)
def test_a_whole_number_is_the_size_itself(size_bytes: int) -> None:
    text = human_size(size_bytes)
    number, unit_bytes = read_size(text)
    if "." in text:
        assert size_bytes % unit_bytes != 0
        assert abs(number * unit_bytes - size_bytes) <= Fraction(unit_bytes, 20)
    else:
        assert number * unit_bytes == size_bytes


@given(SIZES)
def test_a_size_is_short(size_bytes: int) -> None:
    """At most one digit more than four; sizes from 10,000 TiB on have no larger unit."""
    number = human_size(size_bytes).split()[0]
    assert len(number.replace(".", "")) <= 5 or size_bytes >= 1000 << 40


@given(SIZES, st.integers(0, 1 << 40))
def test_of_two_sizes_in_one_sentence_the_larger_one_looks_larger(size: int, more: int) -> None:
    (small, small_unit), (large, large_unit) = map(read_size, human_sizes(size, size + 1 + more))
    assert small * small_unit < large * large_unit


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("512K", 512 * KIB),
        ("512k", 512 * KIB),
        ("512KB", 512 * KIB),
        ("512KiB", 512 * KIB),
        (" 16 MiB ", 16 * MIB),
        ("1G", GIB),
        ("1TiB", 1024 * GIB),
    ],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "K",
        "-1",
        "+1",
        "1.5G",
        "1e3",
        "0x10",
        "5I",
        "5IB",
        "1GG",
        "1PiB",
        "1_000",
        "٣",
        "²",
    ],
)
def test_what_is_not_a_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size .examples: 512K, 1G, 4096."):
        parse_size(text)


@given(st.integers(0, 1023), st.sampled_from(["bytes", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_sizes_are_read_back(count: int, unit: str) -> None:
    factor = 1024 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit)
    text = human_size(count * factor).removesuffix("bytes").removesuffix("byte")
    assert parse_size(text) == count * factor


@given(st.integers(0, 1 << 50), st.integers(-3, 3))
def test_sizes_that_differ_are_told_apart_in_one_sentence(size_bytes: int, more: int) -> None:
    other = max(0, size_bytes + more)
    for one, two in (human_sizes(size_bytes, other), (exact_size(size_bytes), exact_size(other))):
        assert (one == two) == (size_bytes == other)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (1, "1 byte"),
        (0, "0 bytes"),
        (1536, "1.5 KiB"),
        (8 << 40, "8 TiB"),
        ((8 << 40) + 1, "8796093022209 bytes"),
        (MIB + 1, "1048577 bytes"),
    ],
)
def test_an_exact_size_is_rounded_only_where_nothing_is_lost(size_bytes: int, text: str) -> None:
    assert exact_size(size_bytes) == text


def test_sizes_stay_rounded_where_that_is_enough() -> None:
    assert human_sizes(524380, 2 * MIB) == ("512.1 KiB", "2 MiB")
    assert human_sizes(MIB, MIB) == ("1 MiB", "1 MiB")
    assert human_sizes(8 << 40, 8388607 * MIB) == ("8 TiB", "8388607 MiB")
