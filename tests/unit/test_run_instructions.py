"""Port instructions, decoded from their bytes."""

from __future__ import annotations

import pytest

from openrbu.run.instructions import PortInstruction, decode

# What it is, its size in bytes, and the port (None: in DX), whatever the mode.
PLAIN = {
    "ec": ("in", 1, None),
    "ed": ("in", 4, None),
    "66 ed": ("in", 2, None),
    "e4 70": ("in", 1, 0x70),
    "e5 70": ("in", 4, 0x70),
    "66 e5 fe": ("in", 2, 0xFE),
    "ee": ("out", 1, None),
    "ef": ("out", 4, None),
    "66 ef": ("out", 2, None),
    "e6 71": ("out", 1, 0x71),
    "e7 00": ("out", 4, 0),
    "66 e7 ff": ("out", 2, 0xFF),
    "66 ec": ("in", 1, None),
    "f3 ec": ("in", 1, None),
    "f2 66 ef": ("out", 2, None),
    "2e 36 3e 26 64 65 67 ed": ("in", 4, None),
    "66 66 66 66 66 66 66 66 66 66 66 66 66 66 ed": ("in", 2, None),
}

ONLY_IN_64_BIT_MODE = {
    "40 ec": ("in", 1, None),
    "4f ee": ("out", 1, None),
    "48 ed": ("in", 4, None),
    "66 48 ed": ("in", 4, None),
    "66 40 ed": ("in", 2, None),
    "48 66 ed": ("in", 2, None),  # a REX that another prefix follows does not count
    "4c e5 70": ("in", 4, 0x70),
}

STRINGS = {"6c": False, "6d": False, "66 6d": False, "f3 6c": False, "6e": True, "f3 67 6f": True}

OTHERS = (
    "",
    "66",
    "e4",
    "66 e7",
    "90",
    "f4",
    "fa",
    "e8 00 00 00 00",
    "cd 80",
    "0f 01 f8",
    "f0 ec",  # with LOCK it is refused
    "c5 f8 77",
    "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 ed",  # 16 bytes
)


def expected(code: str, row: tuple[str, int, int | None]) -> PortInstruction:
    what, size_bytes, port = row
    return PortInstruction(what == "out", size_bytes, port, len(bytes.fromhex(code)))


@pytest.mark.parametrize("is_64_bit", [True, False])
def test_each_form_is_decoded(*, is_64_bit: bool) -> None:
    for code, row in PLAIN.items():
        for more in (b"", b"\xec\xff\x90"):
            found = decode(bytes.fromhex(code) + more, is_64_bit=is_64_bit)
            assert found == expected(code, row), code


def test_rex_prefixes_are_prefixes_in_64_bit_mode_only() -> None:
    for code, row in ONLY_IN_64_BIT_MODE.items():
        assert decode(bytes.fromhex(code), is_64_bit=True) == expected(code, row), code
        assert decode(bytes.fromhex(code), is_64_bit=False) is None, code


@pytest.mark.parametrize("is_64_bit", [True, False])
def test_string_forms_are_told_apart(*, is_64_bit: bool) -> None:
    for code, is_out in STRINGS.items():
        found = decode(bytes.fromhex(code), is_64_bit=is_64_bit)
        assert found is not None
        assert (found.is_string, found.is_out) == (True, is_out), code


@pytest.mark.parametrize("is_64_bit", [True, False])
def test_other_instructions_and_parts_of_one_are_none(*, is_64_bit: bool) -> None:
    for code in OTHERS:
        assert decode(bytes.fromhex(code), is_64_bit=is_64_bit) is None, code


def test_whatever_the_bytes_are_nothing_raises_and_a_length_fits() -> None:
    for first in range(256):
        for second in range(256):
            code = bytes((first, second))
            for is_64_bit in (True, False):
                found = decode(code, is_64_bit=is_64_bit)
                assert found is None or 1 <= found.length_bytes <= len(code)
