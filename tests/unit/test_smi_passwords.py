"""The admin password at the SMI calling interface: what a BIOS answers, and how it is encoded."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.smi import SmiHandler
from openrbu.errors import UsageError
from openrbu.formats.smi_passwords import (
    MAX_PASSWORD_CHARS,
    PasswordProperties,
    password_in,
    scan_codes,
    words_of,
)
from openrbu.formats.tokens import ACTIVATE, CANCEL, SmiCall, SmiToken
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PhysAddr

PORT, CODE = 0xB2, 0x37
ADMIN, USER = 10, 9
STATUS, IN_ARGUMENTS, PROPERTIES, IN_BUFFER = 0, 1, 3, 4
WRITE = (1, 0)
PASSWORD = "Abc1+z"
AT = PhysAddr(0x20_0034)

RECORDED = {
    "Abc1+z": "1e302e020d2c",
    "abcdefghijklmnopqrstuvwxyz": "1e302e2012212223172425263231181910131f14162f112d152c",
    "`1234567890-=[]\\;,./ ": "2902030405060708090a0b0c0d1a1b2b2733343539",
    "'": "28",
    '~!@#$%^&*()_+{}|:"<>?': "2902030405060708090a0b0c0d1a1b2b2728333435",
    "AB": "1e30",
    "\t": "0f",
}
"""Passwords, and what smbios-token-ctl 2.4.3 put into the buffer for a BIOS without text."""


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[RamFile]:
    with contextlib.closing(RamFile.create(tmp_path / "ram", pc_regions(4 * MIB))) as memory:
        yield memory


def bios(tmp_path: Path, memory: RamFile | None, password: str | None = PASSWORD) -> SmiHandler:
    path = tmp_path / "nvram.json"
    contents = Nvram({ACTIVATE: 0, CANCEL: 0})
    if password is not None:
        contents.admin_password_crc = zlib.crc32(password.encode())
        contents.admin_password_keys_crc = zlib.crc32(scan_codes(password))
    NvramFile.create(path, contents)
    return SmiHandler(
        NvramFile(path),
        SmiToken(ACTIVATE, ACTIVATE, 1, PORT, CODE),
        SmiToken(CANCEL, CANCEL, 0, PORT, CODE),
        None if memory is None else lambda: memory,
    )


def call(handler: SmiHandler, operation: tuple[int, int], *arguments: int) -> tuple[int, ...]:
    """res1 to res4 of a call."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return SmiCall.unpack(handler(SmiCall(PORT, CODE, *operation, padded).pack())).results


def verified(handler: SmiHandler, memory: RamFile, password: bytes) -> tuple[int, ...]:
    memory.write(AT, password.ljust(MAX_PASSWORD_CHARS, b"\0"))
    return call(handler, (ADMIN, IN_BUFFER), AT)


# -- encodings ------------------------------------------------------------------------------


@pytest.mark.parametrize("password", RECORDED)
def test_a_password_has_the_scan_codes_that_libsmbios_gives_it(password: str) -> None:
    assert scan_codes(password).hex() == RECORDED[password]


@pytest.mark.parametrize("password", ["é", "a\0b", "\n", "p€"])
def test_a_character_without_a_key_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(UsageError, match="no key") as caught:
        scan_codes(password)
    assert password not in str(caught.value)


@given(st.builds(PasswordProperties, st.booleans(), st.integers(0, 255), st.booleans()))
def test_properties_are_read_as_they_were_written(properties: PasswordProperties) -> None:
    assert PasswordProperties.of(properties.results) == properties


@given(st.binary(max_size=8).filter(lambda data: not data.endswith(b"\0")))
def test_a_password_in_the_arguments_is_read_as_it_was_written(data: bytes) -> None:
    assert password_in(words_of(data)) == data


def test_the_arguments_are_those_that_libsmbios_has() -> None:
    assert words_of(scan_codes(PASSWORD)) == (0x022E301E, 0x2C0D, 0, 0)


def test_a_password_that_a_bios_has_no_room_for_is_refused_and_not_shown() -> None:
    for properties, password in (
        (PasswordProperties(is_set=True), "ninechars"),
        (PasswordProperties(is_set=True, max_bytes=32, is_text=True), "x" * 33),
    ):
        with pytest.raises(UsageError, match="longer than") as caught:
            properties.encoded(password)
        assert password not in str(caught.value)
    with pytest.raises(UsageError, match="ASCII"):
        PasswordProperties(is_set=True, max_bytes=32, is_text=True).encoded("ü")


# -- a BIOS that says what its password is like -----------------------------------------------


def test_a_bios_says_whether_a_password_is_set_and_what_it_is_like(
    tmp_path: Path, memory: RamFile
) -> None:
    for password, status in ((PASSWORD, 0), (None, 1)):
        handler = bios(tmp_path, memory, password)
        assert call(handler, (ADMIN, STATUS), 1) == (status, 0, 0, 0)
        assert call(handler, (ADMIN, PROPERTIES)) == (0, status | 32 << 8 | 1 << 24, 0, 0)


def test_the_right_password_in_memory_gives_a_key_without_which_nothing_is_written(
    tmp_path: Path, memory: RamFile
) -> None:
    handler = bios(tmp_path, memory)
    result, key, *rest = verified(handler, memory, PASSWORD.encode())
    assert (result, rest) == (0, [0, 0])
    assert 0 < key <= 0xFFFF
    for wrong in (0, key ^ 1, key | 1 << 16):
        assert call(handler, WRITE, ACTIVATE, 1, wrong) == (-1, 0, 0, 0)
        assert not handler.is_armed
    assert call(handler, WRITE, ACTIVATE, 1, key)[0] == 0
    assert handler.is_armed
    assert call(handler, WRITE, CANCEL, 0, 0)[0] == -1
    assert handler.is_armed
    assert call(handler, WRITE, CANCEL, 0, key)[0] == 0
    assert not handler.is_armed


@pytest.mark.parametrize("wrong", [b"", b"abc1+z", b"Abc1+", b"Abc1+zz", b"\xff" * 32])
def test_a_wrong_password_gives_no_key(tmp_path: Path, memory: RamFile, wrong: bytes) -> None:
    assert verified(bios(tmp_path, memory), memory, wrong) == (-1, 0, 0, 0)


def test_an_address_without_memory_is_a_failure(tmp_path: Path, memory: RamFile) -> None:
    handler = bios(tmp_path, memory)
    for address in (0xFFFFFFFF, 4 * MIB, 4 * MIB - 1):
        assert call(handler, (ADMIN, IN_BUFFER), address) == (-1, 0, 0, 0)


def test_without_a_password_no_key_is_needed_and_none_is_given(
    tmp_path: Path, memory: RamFile
) -> None:
    handler = bios(tmp_path, memory, None)
    assert verified(handler, memory, b"")[0] == -1
    for key in (0, 0x1234):
        assert call(handler, WRITE, ACTIVATE, 1, key)[0] == 0


@given(st.integers(0, (1 << 32) - 1))
def test_every_password_has_a_key_that_is_not_0(
    tmp_path_factory: pytest.TempPathFactory, crc: int
) -> None:
    handler = bios(tmp_path_factory.getbasetemp(), None)
    handler._nvram.contents.admin_password_crc = crc
    assert 0 < call(handler, (ADMIN, IN_ARGUMENTS), *words_of(scan_codes(PASSWORD)))[1] <= 0xFFFF


# -- an older BIOS --------------------------------------------------------------------------


def test_an_older_bios_gets_the_keys_of_the_password_in_the_arguments(tmp_path: Path) -> None:
    handler = bios(tmp_path, None)
    assert call(handler, (ADMIN, STATUS), 1)[0] == 0
    for select in (PROPERTIES, IN_BUFFER):
        assert call(handler, (ADMIN, select), AT) == (-2, 0, 0, 0)
    assert call(handler, (ADMIN, IN_ARGUMENTS), *words_of(scan_codes("abc1+")))[0] == -1
    result, key, *_ = call(handler, (ADMIN, IN_ARGUMENTS), *words_of(scan_codes("aBC!+Z")))
    assert result == 0, "keys have no capital letters"
    assert call(handler, WRITE, ACTIVATE, 1, key)[0] == 0
    assert handler.is_armed


@pytest.mark.parametrize("select", [STATUS, IN_ARGUMENTS, PROPERTIES, IN_BUFFER])
def test_a_bios_knows_no_user_password(tmp_path: Path, memory: RamFile, select: int) -> None:
    assert call(bios(tmp_path, memory), (USER, select), 1) == (-2, 0, 0, 0)
