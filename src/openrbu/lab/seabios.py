"""SeaBIOS, the BIOS of QEMU's machines, with another version text in it.

The version is text behind the names of the tools that built the ROM (measured: the three ROMs of
Debian 12's package seabios, 1.16.2; in those of Debian 13's, 1.16.3, a byte 0x90 is between). The
ROM writes it to the serial console, and the guest's
SMBIOS tables have it. SeaBIOS does not check a checksum over itself.
"""

from __future__ import annotations

import re

from openrbu.errors import DamagedInputError, UsageError
from openrbu.machine.factory import MAX_FLASH_BYTES
from openrbu.units import KIB, exact_size

_VERSION = re.compile(rb"gcc: [ -~]* binutils: [ -~]*\0\x90?(?P<version>[ -~]+)\0")

_SIZE_STEP_BYTES = 64 * KIB
"""The size of a BIOS for QEMU is a multiple of this."""


def bios_version(rom: bytes) -> str:
    """The version text in a SeaBIOS.

    :raise DamagedInputError: when `rom` is not a SeaBIOS.
    """
    return _find_version(rom)["version"].decode("ascii")


def is_seabios(rom: bytes) -> bool:
    """Whether `rom` is a SeaBIOS, so that QEMU can start it."""
    return len(_VERSION.findall(rom)) == 1


def rename_bios(rom: bytes, version: str) -> bytes:
    """The same SeaBIOS with another version, which may not be longer than the one in `rom`.

    :raise UsageError: when `version` is too long, or is not printable ASCII.
    :raise DamagedInputError: when `rom` is not a SeaBIOS.
    """
    found = _find_version(rom)
    start, end = found.span("version")
    if not (version and version.isascii() and version.isprintable()):
        raise UsageError(f"{version!r} can't be a BIOS version: it must be printable ASCII")
    if len(version) > end - start:
        raise UsageError(
            f"the BIOS version {version!r} has {len(version)} characters, and this SeaBIOS has "
            f"room for {end - start}"
        )
    return rom[:start] + version.encode("ascii").ljust(end - start, b"\0") + rom[end:]


def fill_flash(rom: bytes, size_bytes: int) -> bytes:
    """The content of a flash of `size_bytes` with a ROM at its end, where a PC's processor starts.

    :raise UsageError: when the ROM is larger than that, or QEMU can't have a flash of that size.
    """
    if size_bytes < len(rom):
        raise UsageError(
            f"a flash of {exact_size(size_bytes)} has no room for SeaBIOS, which has "
            f"{exact_size(len(rom))}"
        )
    if size_bytes % _SIZE_STEP_BYTES or size_bytes > MAX_FLASH_BYTES:
        step, most = exact_size(_SIZE_STEP_BYTES), exact_size(MAX_FLASH_BYTES)
        raise UsageError(
            f"a flash in the lab is a multiple of {step}, up to {most}, and not {size_bytes} bytes"
        )
    return rom.rjust(size_bytes, b"\xff")


def _find_version(rom: bytes) -> re.Match[bytes]:
    found = list(_VERSION.finditer(rom))
    if len(found) != 1:
        raise DamagedInputError(f"not a SeaBIOS: it has {len(found)} version strings, not one")
    return found[0]
