"""Dell's data in SMBIOS: the machine's identity, its BIOS, and the result of the last update.

Facts: docs/reference/smbios-and-tokens.md, S4 to S9. SMBIOS types 0, 1 and 0x0B are those of the
SMBIOS specification (DSP0134); Dell's types 0xD0 (revisions and IDs) and 0xDE (RBU) are as in the
tables of real machines.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from openrbu.errors import UsageError
from openrbu.formats.layout import Field, Layout
from openrbu.formats.smbios import Structure, Tables, make_structure
from openrbu.units import FLASH_UNIT_BYTES, GIB, MIB, exact_size

BIOS_INFORMATION = 0x00
SYSTEM_INFORMATION = 0x01
OEM_STRINGS = 0x0B
REVISIONS_AND_IDS = 0xD0
RBU = 0xDE

_ROM_SIZE_BYTE = 0x09
_ROM_SIZE_WORD = 0x18

_LARGE_ROM = 0xFF
"""A ROM size byte that means 16 MiB or more: the extended word has the size (SMBIOS 3.1)."""

_LARGE_ROM_BYTES = 16 * MIB
_MAX_ROM_MIB = 0x3FFF

_EXTENDED_ID = 0xFE
"""A system ID byte that means: the ID is in the word after it."""

_BIOS_BODY = Layout(
    "BIOS information",
    Field("vendor", "B", unit="string", default=1),
    Field("version", "B", unit="string", default=2),
    Field("segment", "H", default=0xF000),
    Field("release_date", "B", unit="string", default=3),
    Field("rom_size", "B", unit="64 KiB, less one"),
    Field("characteristics", "Q", default=0x08),
    Field("characteristics_1", "B"),
    Field("characteristics_2", "B"),
    Field("major", "B", default=0xFF),
    Field("minor", "B", default=0xFF),
    Field("ec_major", "B", default=0xFF),
    Field("ec_minor", "B", default=0xFF),
    Field("rom_size_extended", "H", unit="MiB (bits 15:14: 0) or GiB (1)"),
)

_SYSTEM_BODY = Layout(
    "system information",
    Field("vendor", "B", unit="string", default=1),
    Field("product", "B", unit="string", default=2),
    Field("version", "B", unit="string"),
    Field("service_tag", "B", unit="string", default=3),
    Field("uuid", "16s"),
    Field("wake_up_type", "B", default=6),
)

_IDS_BODY = Layout(
    "Dell revisions and IDs",
    Field("major", "B", default=2),
    Field("minor", "B", default=5),
    Field("short_id", "B", default=_EXTENDED_ID),
    Field("reserved", "B"),
    Field("system_id", "H"),
)

_RBU_BODY = Layout(
    "Dell RBU information",
    Field("minimum_size", "H", unit="KiB"),
    Field("completion_code", "H", default=0xFFFF),
    Field("year", "B", unit="BCD"),
    Field("month", "B", unit="BCD"),
    Field("day", "B", unit="BCD"),
    Field("hour", "B", unit="BCD"),
    Field("minute", "B", unit="BCD"),
)

_RBU_PACKET_PART = Layout(
    "Dell RBU information, packet part",
    Field("boot_flags", "H"),
    Field("characteristics", "B"),
)

_BODY = 4
"""Where a structure's own fields start."""


class CompletionCode(IntEnum):
    """The result of the last update, as the BIOS records it."""

    COMPLETED = 0x0000
    INCONSISTENT_IMAGE = 0x0001
    FLASH_NOT_ACCESSIBLE = 0x0002
    FLASH_NOT_READY = 0x0003
    PROGRAMMING_DISABLED = 0x0004
    NO_BATTERY = 0x0005
    BATTERY_NOT_CHARGED = 0x0006
    NO_EXTERNAL_POWER = 0x0007
    TWELVE_VOLTS_NOT_SET = 0x0008
    TWELVE_VOLTS_NOT_REMOVED = 0x0009
    ERASE_FAILED = 0x000A
    FLASH_FAILURE = 0x000B
    MISCOMPARE = 0x000C
    IMAGE_NOT_FOUND = 0x000D
    NEVER_TRIED = 0xFFFF

    @property
    def text(self) -> str:
        """The code in words."""
        return _COMPLETION_TEXTS[self]


_COMPLETION_TEXTS = {
    CompletionCode.COMPLETED: "the update is complete",
    CompletionCode.INCONSISTENT_IMAGE: "the image failed a consistency check",
    CompletionCode.FLASH_NOT_ACCESSIBLE: "the flash could not be accessed",
    CompletionCode.FLASH_NOT_READY: "the flash was not ready for an erase",
    CompletionCode.PROGRAMMING_DISABLED: "flash programming is disabled, or the voltage is low",
    CompletionCode.NO_BATTERY: "there is no battery",
    CompletionCode.BATTERY_NOT_CHARGED: "the battery is not charged",
    CompletionCode.NO_EXTERNAL_POWER: "there is no external power",
    CompletionCode.TWELVE_VOLTS_NOT_SET: "12 V could not be set",
    CompletionCode.TWELVE_VOLTS_NOT_REMOVED: "12 V could not be removed",
    CompletionCode.ERASE_FAILED: "a block of the flash could not be erased",
    CompletionCode.FLASH_FAILURE: "the flash failed",
    CompletionCode.MISCOMPARE: "the flash did not keep what was programmed",
    CompletionCode.IMAGE_NOT_FOUND: "no image was found in memory",
    CompletionCode.NEVER_TRIED: "no update has been tried",
}


def describe_completion(code: int) -> str:
    """Any completion code in words, also an unknown one."""
    try:
        return CompletionCode(code).text
    except ValueError:
        return f"unknown completion code {code:#06x}"


def system_id(tables: Tables) -> int | None:
    """The Dell system ID: OEM string tag 1, else structure 0xD0. None: not a Dell machine."""
    return next(iter(system_ids(tables).values()), None)


def system_ids(tables: Tables) -> dict[str, int]:
    """The Dell system ID by each structure that has one, the one that counts first."""
    found = {}
    tagged = _oem_value(tables, "1")
    if tagged is not None and re.fullmatch(r"[0-9A-Fa-f]{1,4}", tagged):
        found["the OEM string"] = int(tagged, 16)
    numbers = map(_own_system_id, tables.all(REVISIONS_AND_IDS))
    if own := [number for number in numbers if number is not None]:
        found["structure 0xD0"] = own[0]
    return found


def _own_system_id(structure: Structure) -> int | None:
    """The ID in a structure 0xD0."""
    short, long = structure.byte(6), structure.word(8)
    return long if short is None or short == _EXTENDED_ID else short


def _oem_value(tables: Tables, tag: str) -> str | None:
    """The value of `tag[value]` among the OEM strings that follow Dell's mark."""
    for structure in tables.all(OEM_STRINGS):
        if structure.string(1) != "Dell System":
            continue
        for number in range(2, len(structure.strings) + 1):
            match = re.fullmatch(r"([0-9]+)\[(.*)\]", structure.string(number))
            if match and match[1] == tag:
                return match[2]
    return None


@dataclass(frozen=True, slots=True)
class BiosInformation:
    """Type 0. `rom_size_bytes` is None if the structure does not say it."""

    vendor: str
    version: str
    release_date: str
    rom_size_bytes: int | None

    @classmethod
    def of(cls, tables: Tables) -> BiosInformation:
        """The values of the first structure of type 0; empty if there is none."""
        structure = tables.first(BIOS_INFORMATION)
        if structure is None:
            return cls("", "", "", None)
        return cls(
            structure.string_at(4),
            structure.string_at(5),
            structure.string_at(8),
            _rom_size_bytes(structure),
        )


def _rom_size_bytes(structure: Structure) -> int | None:
    units = structure.byte(_ROM_SIZE_BYTE)
    if units is None:
        return None
    extended = structure.word(_ROM_SIZE_WORD) if units == _LARGE_ROM else None
    if extended:
        unit = {0: MIB, 1: GIB}.get(extended >> 14)
        return unit and (extended & 0x3FFF) * unit
    return (units + 1) * FLASH_UNIT_BYTES


def _rom_size_fields(size_bytes: int) -> tuple[int, int]:
    """The ROM size byte, and the extended word (0 if the byte is enough).

    :raise UsageError: when SMBIOS can't express this size.
    """
    units, rest = divmod(size_bytes, FLASH_UNIT_BYTES)
    if 1 <= units <= _LARGE_ROM and not rest:
        return units - 1, 0
    mebibytes, rest = divmod(size_bytes, MIB)
    if units > _LARGE_ROM and mebibytes <= _MAX_ROM_MIB and not rest:
        return _LARGE_ROM, mebibytes
    raise UsageError(
        f"SMBIOS can't express a ROM size of {exact_size(size_bytes)}: it counts in 64 KiB, and "
        "from 16 MiB up in whole MiB"
    )


@dataclass(frozen=True, slots=True)
class SystemInformation:
    """Type 1; Dell's serial number is the service tag.

    If it is blank, the tag is in the UUID: see `_tag_in_uuid`.
    """

    vendor: str
    product: str
    service_tag: str

    @classmethod
    def of(cls, tables: Tables) -> SystemInformation:
        """The values of the first structure of type 1; empty if there is none."""
        structure = tables.first(SYSTEM_INFORMATION)
        if structure is None:
            return cls("", "", "")
        tag = structure.string_at(7) or _tag_in_uuid(structure.formatted[8:24])
        return cls(structure.string_at(4), structure.string_at(5), tag)


_TAG_FIRST, _TAG_REST = 10, (4, 7, 9, 13, 14, 15)
"""Where the letters of a service tag are in a UUID; the first one has its high bit set."""

_MIRRORED_OUI = b"\x4f\xc0"


def _tag_in_uuid(uuid: bytes) -> str:
    """The service tag in a UUID of Dell's, which starts with `DELL`; empty if there is none.

    Measured on 22 real machines: 21 have such a UUID, and in 19 of these it has the service tag
    that is known from elsewhere. A tag of five letters has NULs before it. The oldest machine, a
    PowerEdge 1300 of 1999, has Dell's Ethernet prefix (00:C0:4F) in reverse in its UUID, and the
    tag in reverse, too. A Precision T7600 without a service tag has only NULs there.
    """
    if len(uuid) != 16 or not uuid.startswith(b"DELL"):
        return ""
    letters = bytes([uuid[_TAG_FIRST] & 0x7F, *(uuid[at] for at in _TAG_REST)]).strip(b"\0")
    if uuid[11:13] == _MIRRORED_OUI:
        letters = letters[::-1]
    return letters.decode("ascii") if re.fullmatch(rb"[0-9A-Z]{5,7}", letters) else ""


@dataclass(frozen=True, slots=True)
class RbuInformation:
    """Type 0xDE. `when` is None if there is no date or an impossible one.

    That the minimum size is in KiB follows from real machines: it is 513 and 449 on machines whose
    images have 524,380 and 458,844 bytes.
    """

    minimum_size_kib: int
    completion_code: int
    when: dt.datetime | None
    boot_flags: int
    packet_supported: bool

    @classmethod
    def of(cls, tables: Tables) -> RbuInformation | None:
        """What the machine's BIOS says about updates; None if it says nothing."""
        structure = tables.first(RBU)
        if structure is None or len(structure.formatted) < _BODY + _RBU_BODY.size_bytes:
            return None
        values = _RBU_BODY.unpack(structure.formatted, _BODY)
        packet_part = {"boot_flags": 0, "characteristics": 0}
        start = _BODY + _RBU_BODY.size_bytes
        if len(structure.formatted) >= start + _RBU_PACKET_PART.size_bytes:
            packet_part = _RBU_PACKET_PART.unpack(structure.formatted, start)
        return cls(
            values["minimum_size"],
            values["completion_code"],
            _from_bcd([values[name] for name in ("year", "month", "day", "hour", "minute")]),
            packet_part["boot_flags"],
            bool(packet_part["characteristics"] & 1),
        )


def _from_bcd(fields: Sequence[int]) -> dt.datetime | None:
    """The time in fields of two BCD digits; a year below 80 is 20xx. None if it is not possible."""
    if any(value & 0x0F > 9 or value >> 4 > 9 for value in fields):
        return None
    year, *rest = (10 * (value >> 4) + (value & 0x0F) for value in fields)
    month, day, hour, minute = rest
    try:
        return dt.datetime(year + (2000 if year < 80 else 1900), month, day, hour, minute)  # noqa: DTZ001  (a PC's clock has no zone)
    except ValueError:
        return None


def with_result(tables: Tables, code: int, when: dt.datetime) -> Tables:
    """The tables with the result of an update; unchanged if they have no field for it."""
    structure = tables.first(RBU)
    if structure is None or len(structure.formatted) < _BODY + _RBU_BODY.size_bytes:
        return tables
    digits = f"{when:%y%m%d%H%M}"
    fields = code.to_bytes(2, "little") + bytes.fromhex(digits)
    offset = _BODY + _RBU_BODY.offset_of("completion_code")
    return tables.replaced(structure, structure.with_field(offset, fields))


def with_bios(tables: Tables, version: str, release_date: str) -> Tables:
    """The tables with another BIOS in type 0; unchanged if they have no field for it."""
    structure = tables.first(BIOS_INFORMATION)
    if structure is None or structure.byte(8) is None:
        return tables
    fresh = structure.with_string_at(5, version).with_string_at(8, release_date)
    return tables.replaced(structure, fresh)


def with_rom_size(tables: Tables, size_bytes: int) -> Tables:
    """The tables with a flash of `size_bytes` in type 0; unchanged if they have no size.

    :raise UsageError: when these tables, or SMBIOS in general, can't express this size.
    """
    structure = tables.first(BIOS_INFORMATION)
    if structure is None or _rom_size_bytes(structure) in (None, size_bytes):
        return tables
    units, extended = _rom_size_fields(size_bytes)
    fresh = structure.with_field(_ROM_SIZE_BYTE, bytes([units]))
    if structure.word(_ROM_SIZE_WORD) is not None:
        fresh = fresh.with_field(_ROM_SIZE_WORD, extended.to_bytes(2, "little"))
    elif size_bytes > _LARGE_ROM_BYTES:
        raise UsageError(
            f"these SMBIOS tables are too old to express a ROM size of {exact_size(size_bytes)}"
        )
    return tables.replaced(structure, fresh)


def make_bios_information(
    *, vendor: str, version: str, release_date: str, rom_size_bytes: int
) -> Structure:
    """Type 0."""
    units, extended = _rom_size_fields(rom_size_bytes)
    body = _BIOS_BODY.pack(rom_size=units, rom_size_extended=extended)
    return make_structure(BIOS_INFORMATION, 0x0000, body, [vendor, version, release_date])


def make_system_information(*, vendor: str, product: str, service_tag: str) -> Structure:
    """Type 1."""
    body = _SYSTEM_BODY.pack()
    return make_structure(SYSTEM_INFORMATION, 0x0100, body, [vendor, product, service_tag])


def make_oem_strings(strings: Sequence[str]) -> Structure:
    """Type 0x0B."""
    return make_structure(OEM_STRINGS, 0x0B00, bytes([len(strings)]), strings)


def make_revisions_and_ids(system_id: int) -> Structure:
    """Type 0xD0."""
    return make_structure(REVISIONS_AND_IDS, 0xD000, _IDS_BODY.pack(system_id=system_id))


def make_rbu(*, packet: bool | None, minimum_size_kib: int = 0) -> Structure:
    """Type 0xDE. `packet` None: the 13 bytes without the packet part, which means no packets."""
    body = _RBU_BODY.pack(minimum_size=minimum_size_kib)
    if packet is not None:
        body += _RBU_PACKET_PART.pack(characteristics=int(packet))
    return make_structure(RBU, 0xDE00, body)
