"""Declared structures: each byte's value is its own offset, so that a wrong place shows."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats.layout import Field, Layout, Value

SAMPLE = Layout(
    "sample structure",
    Field("magic", "4s", required=b"MAGI"),
    Field("flags", "B", default=7),
    Field("size", "I", unit="bytes"),
    Field("systems", "H", count=3),
    Field("serial", "Q"),
)
OFFSETS = bytes(range(SAMPLE.size_bytes))


def test_sizes_and_offsets_follow_from_the_declaration() -> None:
    assert SAMPLE.size_bytes == 4 + 1 + 4 + 6 + 8
    assert [SAMPLE.offset_of(field.name) for field in SAMPLE.fields] == [0, 4, 5, 9, 15]
    assert [field.size_bytes for field in SAMPLE.fields] == [4, 1, 4, 6, 8]


def test_fields_are_read_at_their_offset_lowest_byte_first() -> None:
    assert SAMPLE.unpack(OFFSETS) == {
        "magic": b"\x00\x01\x02\x03",
        "flags": 0x04,
        "size": 0x08070605,
        "systems": (0x0A09, 0x0C0B, 0x0E0D),
        "serial": 0x161514131211100F,
    }


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read_at_an_offset(kind: type) -> None:
    data = kind(b"\xff" * 3 + OFFSETS + b"\xff")
    assert SAMPLE.unpack(data, 3) == SAMPLE.unpack(OFFSETS)


def test_writing_what_was_read_gives_the_same_bytes() -> None:
    assert SAMPLE.pack(SAMPLE.unpack(OFFSETS)) == OFFSETS


def test_fields_that_are_not_given_get_constant_default_or_zero() -> None:
    assert SAMPLE.pack() == b"MAGI\x07" + bytes(18)
    assert SAMPLE.pack({"flags": 1}, size=2) == b"MAGI\x01\x02" + bytes(17)


def test_a_name_overrides_the_mapping_and_both_override_a_constant() -> None:
    assert SAMPLE.pack({"magic": b"XXXX"}, magic=b"YYYY")[:4] == b"YYYY"


def test_short_bytes_are_filled_up_with_zeros() -> None:
    assert SAMPLE.pack(magic=b"AB")[:4] == b"AB\0\0"


def test_bytes_longer_than_their_field_are_refused_and_not_cut() -> None:
    with pytest.raises(ValueError, match="magic has room for 4 bytes"):
        SAMPLE.pack(magic=b"MAGIC")


@pytest.mark.parametrize("systems", [(), (1, 2), (1, 2, 3, 4)])
def test_a_tuple_of_another_length_is_refused(systems: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="systems is 3 numbers"):
        SAMPLE.pack(systems=systems)


@pytest.mark.parametrize("size", [-1, 1 << 32])
def test_a_number_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(struct.error):
        SAMPLE.pack(size=size)


def test_a_field_that_is_not_declared_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="sample structure has no field colour, weight"):
        SAMPLE.pack(weight=1, colour=2)


@pytest.mark.parametrize("length", range(SAMPLE.size_bytes))
def test_a_structure_cut_anywhere_says_how_much_is_there(length: int) -> None:
    with pytest.raises(DamagedInputError) as caught:
        SAMPLE.unpack(b"\xff" * 2 + OFFSETS[:length], 2)
    error = caught.value
    assert str(error) == f"sample structure is cut short: {length} of 23 bytes"
    assert (error.offset, error.expected, error.actual) == (2, 23, length)


def test_an_offset_past_the_end_is_no_bytes_there() -> None:
    with pytest.raises(DamagedInputError, match="0 of 23 bytes"):
        SAMPLE.unpack(b"", 100)


def test_a_wrong_constant_is_found_with_what_is_there_instead() -> None:
    violation = SAMPLE.violation(SAMPLE.unpack(OFFSETS))
    assert violation == (SAMPLE.fields[0], b"\x00\x01\x02\x03")
    assert SAMPLE.violation(SAMPLE.unpack(OFFSETS), "magic") is None
    assert SAMPLE.violation(SAMPLE.unpack(SAMPLE.pack())) is None


def test_the_numpy_type_has_the_same_size_and_the_same_places() -> None:
    dtype = SAMPLE.dtype
    assert dtype.itemsize == SAMPLE.size_bytes
    assert dtype.names is not None
    assert dtype.fields is not None
    assert {name: dtype.fields[name][1] for name in dtype.names} == {
        field.name: SAMPLE.offset_of(field.name) for field in SAMPLE.fields
    }


def test_numpy_reads_the_same_values_from_an_array_of_structures() -> None:
    second = SAMPLE.pack(magic=b"MAGI", size=99, systems=(1, 2, 3), serial=2**63)
    array = np.frombuffer(OFFSETS + second, SAMPLE.dtype)
    for row, expected in zip(array, (OFFSETS, second), strict=True):
        values = SAMPLE.unpack(expected)
        assert row["magic"].tobytes() == values["magic"]
        assert tuple(int(number) for number in row["systems"]) == values["systems"]
        assert [int(row[name]) for name in ("flags", "size", "serial")] == [
            values[name] for name in ("flags", "size", "serial")
        ]


@given(
    st.fixed_dictionaries(
        {
            "magic": st.binary(min_size=4, max_size=4),
            "flags": st.integers(0, 255),
            "size": st.integers(0, 2**32 - 1),
            "systems": st.tuples(*[st.integers(0, 65535)] * 3),
            "serial": st.integers(0, 2**64 - 1),
        }
    )
)
def test_reading_what_was_written_gives_the_same_values(values: dict[str, Value]) -> None:
    assert SAMPLE.unpack(SAMPLE.pack(values)) == values


@given(st.binary(min_size=SAMPLE.size_bytes, max_size=SAMPLE.size_bytes))
def test_writing_what_was_read_gives_the_same_bytes_whatever_they_are(data: bytes) -> None:
    assert SAMPLE.pack(SAMPLE.unpack(data)) == data
