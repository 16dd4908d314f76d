"""The files in which Linux shows a machine's SMBIOS tables and some of their values.

`/sys/firmware/dmi/tables` has the entry point and the table unchanged. `/sys/class/dmi/id` has one
file for each of the values that programs read most. If the structure is missing or too short for a
field, there is no file. A string that is missing or all blanks is an empty line; other strings are
shown byte for byte, with the blanks around them.

Source: docs/reference/linux-files.md, L3; measured on Debian's 6.1.192 with structures made for it.
(It has more files, which are not made here: `modalias`, `uevent`, `product_uuid` and `power`.) The
structures and their fields are those of the SMBIOS specification (DSP0134).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from openrbu.drivers.sysfs import BinaryAttribute, Symlink, SysfsTree, TextAttribute
from openrbu.errors import DamagedInputError
from openrbu.formats.smbios import Structure, Tables

TABLES_PATH = "/firmware/dmi/tables"
ID_PATH = "/devices/virtual/dmi/id"

_CHASSIS_TYPE = 0x7F
"""The bits of the byte that are the type; the other bit says whether there is a lock."""

_STRINGS = (
    ("bios_vendor", 0, 0x04, 0o444),
    ("bios_version", 0, 0x05, 0o444),
    ("bios_date", 0, 0x08, 0o444),
    ("sys_vendor", 1, 0x04, 0o444),
    ("product_name", 1, 0x05, 0o444),
    ("product_version", 1, 0x06, 0o444),
    ("product_serial", 1, 0x07, 0o400),
    ("product_sku", 1, 0x19, 0o444),
    ("product_family", 1, 0x1A, 0o444),
    ("board_vendor", 2, 0x04, 0o444),
    ("board_name", 2, 0x05, 0o444),
    ("board_version", 2, 0x06, 0o444),
    ("board_serial", 2, 0x07, 0o400),
    ("board_asset_tag", 2, 0x08, 0o444),
    ("chassis_vendor", 3, 0x04, 0o444),
    ("chassis_version", 3, 0x06, 0o444),
    ("chassis_serial", 3, 0x07, 0o400),
    ("chassis_asset_tag", 3, 0x08, 0o444),
)
"""File, type of structure, offset of the string's number in it, mode."""

_RELEASES = (("bios_release", 0x14), ("ec_firmware_release", 0x16))
"""File, offset in type 0 of the major number; the minor one follows. 0xFF: there is none."""


def add_dmi(tree: SysfsTree, entry_point: bytes, table: bytes) -> None:
    """Add both directories. For tables that can't be parsed, only the tables are added."""
    for name, data in (("smbios_entry_point", entry_point), ("DMI", table)):
        node = BinaryAttribute(_slicer(data), mode=0o400, size_bytes=len(data))
        tree.add(f"{TABLES_PATH}/{name}", node)
    try:
        values = _values(entry_point, table)
    except DamagedInputError:
        return
    for name, text, mode in values:
        tree.add(f"{ID_PATH}/{name}", TextAttribute(_shower(text), mode=mode))
    tree.add(f"{ID_PATH}/subsystem", Symlink("../../../../class/dmi"))
    tree.add("/class/dmi/id", Symlink("../../devices/virtual/dmi/id"))


@lru_cache(maxsize=4)
def _values(entry_point: bytes, table: bytes) -> tuple[tuple[str, str, int], ...]:
    """For each file of `ID_PATH`: its name, its text, its mode. They are kept, because most kernels
    that a process makes have the tables of the last one.

    :raise DamagedInputError: for tables that can't be parsed.
    """
    return tuple(_values_in(Tables.parse(entry_point, table)))


def _values_in(tables: Tables) -> Iterator[tuple[str, str, int]]:
    for name, kind, offset, mode in _STRINGS:
        structure = tables.first(kind)
        number = structure.byte(offset) if structure is not None else None
        if structure is not None and number is not None:
            yield name, _string(structure, number), mode
    bios, chassis = tables.first(0), tables.first(3)
    for name, offset in _RELEASES:
        word = bios.word(offset) if bios is not None else None
        if word is not None and word != 0xFFFF:
            yield name, f"{word & 0xFF}.{word >> 8}", 0o444
    kind_of_chassis = chassis.byte(0x05) if chassis is not None else None
    if kind_of_chassis is not None:
        yield "chassis_type", str(kind_of_chassis & _CHASSIS_TYPE), 0o444


def _string(structure: Structure, number: int) -> str:
    strings = structure.strings
    text = strings[number - 1].decode("latin-1") if 1 <= number <= len(strings) else ""
    return text if text.strip(" ") else ""


def _slicer(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size_bytes: data[offset : offset + size_bytes]


def _shower(text: str) -> Callable[[], str]:
    return lambda: f"{text}\n"
