"""What Linux shows of a machine's SMBIOS tables: the tables, and some of their strings as files.

`/sys/firmware/dmi/tables` has the entry point and the table as they are; `/sys/class/dmi/id` has
one file for each string that programs ask for most. A string that the tables have not got has no
file. Names and modes were seen on Debian's 6.1.192; the structures and their fields are those of
the SMBIOS specification (DSP0134).
"""

from __future__ import annotations

from collections.abc import Callable

from openrbu.drivers.sysfs import BinaryAttribute, Symlink, SysfsTree, TextAttribute
from openrbu.errors import DamagedInputError
from openrbu.formats.smbios import Tables

TABLES_PATH = "/firmware/dmi/tables"
ID_PATH = "/devices/virtual/dmi/id"

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


def add_dmi(tree: SysfsTree, entry_point: bytes, table: bytes) -> None:
    """Add both. Tables that can't be read are there, and their strings are not."""
    for name, data in (("smbios_entry_point", entry_point), ("DMI", table)):
        node = BinaryAttribute(_slicer(data), mode=0o400, size_bytes=len(data))
        tree.add(f"{TABLES_PATH}/{name}", node)
    try:
        tables = Tables.parse(entry_point, table)
    except DamagedInputError:
        return
    for name, kind, offset, mode in _STRINGS:
        structure = tables.first(kind)
        text = structure.string_at(offset).strip() if structure is not None else ""
        if text:
            tree.add(f"{ID_PATH}/{name}", TextAttribute(_shower(text), mode=mode))
    tree.add("/class/dmi/id", Symlink("../../devices/virtual/dmi/id"))


def _slicer(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size_bytes: data[offset : offset + size_bytes]


def _shower(text: str) -> Callable[[], str]:
    return lambda: f"{text}\n"
