"""SeaBIOS under another version: in its bytes, and on QEMU's serial console."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from openrbu.errors import DamagedInputError, UsageError
from openrbu.lab.packages import INSTALLED_SEABIOS
from openrbu.lab.programs import QEMU, find_program
from openrbu.lab.seabios import bios_version, fill_flash, rename_bios
from openrbu.units import KIB, MIB
from rigs.needs import leave_out

ROM = b"code\0gcc: (D 12) 12.2 binutils: 2.40\x001.16.2-debian-1.16.2-1\0\x90more code"


@pytest.fixture(scope="module")
def rom() -> bytes:
    """The real one."""
    if not INSTALLED_SEABIOS.exists():
        leave_out("the package seabios is not installed here")
    return INSTALLED_SEABIOS.read_bytes()


def first_line(directory: Path, bios: bytes) -> str:
    """What a machine with this BIOS says first on its serial console."""
    qemu = find_program(QEMU)
    if qemu is None:
        leave_out("there is no QEMU here")
    (directory / "bios").write_bytes(bios)
    words = "-accel tcg -machine pc,graphics=off -m 32M -nodefaults -display none -serial stdio"
    command = [str(qemu), *words.split(), "-bios", str(directory / "bios")]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            return process.stdout.readline().decode()
        finally:
            process.kill()


def test_the_version_is_replaced_in_place() -> None:
    assert bios_version(ROM) == "1.16.2-debian-1.16.2-1"
    renamed = rename_bios(ROM, "A06")
    assert bios_version(renamed) == "A06"
    assert renamed == ROM.replace(b"1.16.2-debian-1.16.2-1", b"A06".ljust(22, b"\0"))


def test_a_byte_of_padding_before_the_version_is_none_of_it() -> None:
    """As in Debian 13's: between two strings that begin at even addresses."""
    rom = b"gcc: (D 13) 13.2 binutils: (G) 2.41\0\x901.16.3-debian-1.16.3-2\0\x90\0\0"
    assert bios_version(rom) == "1.16.3-debian-1.16.3-2"
    renamed = rename_bios(rom, "A06")
    assert renamed == rom.replace(b"1.16.3-debian-1.16.3-2", b"A06".ljust(22, b"\0"))
    assert bios_version(renamed) == "A06"


def test_a_version_as_long_as_the_old_one_fits() -> None:
    assert bios_version(rename_bios(ROM, "v" * 22)) == "v" * 22


@pytest.mark.parametrize("version", ["v" * 23, "", "A\n", "Ä1", "A\0"])
def test_a_version_that_does_not_fit_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="BIOS version"):
        rename_bios(ROM, version)


@pytest.mark.parametrize("data", [b"", b"\xff" * 4096, ROM + ROM])
def test_what_is_no_seabios_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedInputError, match="not a SeaBIOS"):
        bios_version(data)
    with pytest.raises(DamagedInputError, match="not a SeaBIOS"):
        rename_bios(data, "A06")


def test_a_rom_is_at_the_end_of_its_flash() -> None:
    rom = bytes(range(256)) * 256
    assert fill_flash(rom, 64 * KIB) == rom
    assert fill_flash(rom, 128 * KIB) == b"\xff" * 64 * KIB + rom


def test_a_flash_that_is_too_small_or_that_qemu_does_not_take_is_refused() -> None:
    rom = b"\0" * 128 * KIB
    with pytest.raises(UsageError, match="has no room for SeaBIOS, which has 128 KiB"):
        fill_flash(rom, 64 * KIB)
    with pytest.raises(UsageError, match="up to 64 MiB, and not 131073 bytes"):
        fill_flash(rom, 128 * KIB + 1)


@pytest.mark.parametrize("size_bytes", [256 * KIB, 512 * KIB, MIB])
def test_the_real_one_starts_in_qemu_and_says_its_new_version(
    rom: bytes, tmp_path: Path, size_bytes: int
) -> None:
    bios = fill_flash(rename_bios(rom, "2.3.0"), size_bytes)
    assert "SeaBIOS (version 2.3.0)" in first_line(tmp_path, bios)


def test_the_real_one_has_one_version_and_says_it(rom: bytes, tmp_path: Path) -> None:
    assert f"SeaBIOS (version {bios_version(rom)})" in first_line(tmp_path, rom)
