"""What kind of machine SMBIOS describes: a server or a client, with UEFI or before it.

Facts: docs/reference/platform.md, V1.
"""

from __future__ import annotations

import re
from enum import Enum

from openrbu.formats.dell import (
    BIOS_INFORMATION,
    SYSTEM_INFORMATION,
    BiosInformation,
    SystemInformation,
)
from openrbu.formats.smbios import Tables

CHASSIS = 0x03

_TYPE = 5
_TYPE_MASK = 0x7F
"""Bit 7 says that the chassis has a lock."""

_CHARACTERISTICS_2, _HAS_UEFI = 0x13, 1 << 3

_SERVERS = {
    0x11: "server",
    0x17: "rack server",
    0x19: "multi-system chassis",
    0x1C: "blade server",
    0x1D: "blade enclosure",
}
_CLIENTS = {
    0x03: "desktop",
    0x04: "low profile desktop",
    0x05: "pizza box",
    0x06: "mini tower",
    0x07: "tower",
    0x08: "portable",
    0x09: "laptop",
    0x0A: "notebook",
    0x0B: "hand held",
    0x0D: "all in one",
    0x0E: "sub notebook",
    0x0F: "space-saving desktop",
    0x10: "lunch box",
    0x18: "sealed-case PC",
    0x1E: "tablet",
    0x1F: "convertible",
    0x20: "detachable",
    0x23: "mini PC",
    0x24: "stick PC",
}

_SERVER_PRODUCTS = ("poweredge", "powervault", "powerapp")
_CLIENT_PRODUCTS = (
    "optiplex",
    "latitude",
    "precision",
    "vostro",
    "inspiron",
    "xps",
    "dimension",
    "dim",
    "studio",
    "alienware",
    "venue",
)
"""How the products' names begin, after `Dell` or `System`."""


class MachineKind(Enum):
    """What a machine is sold as. A workstation is a client."""

    SERVER = "server"
    CLIENT = "client"
    UNKNOWN = "unknown"


def machine_kind(tables: Tables) -> MachineKind:
    """A server or a client. The product's name comes first: a tower may be either."""
    product = SystemInformation.of(tables).product.lower()
    family = product.removeprefix("dell ").removeprefix("system ")
    if family.startswith(_SERVER_PRODUCTS):
        return MachineKind.SERVER
    if family.startswith(_CLIENT_PRODUCTS):
        return MachineKind.CLIENT
    chassis = _chassis_type(tables)
    if chassis in _SERVERS:
        return MachineKind.SERVER
    return MachineKind.CLIENT if chassis in _CLIENTS else MachineKind.UNKNOWN


def chassis_text(tables: Tables) -> str:
    """The chassis in words; empty where SMBIOS does not say it."""
    return (_SERVERS | _CLIENTS).get(_chassis_type(tables) or 0, "")


def _chassis_type(tables: Tables) -> int | None:
    structure = tables.first(CHASSIS)
    value = None if structure is None else structure.byte(_TYPE)
    return None if value is None else value & _TYPE_MASK


def has_uefi(tables: Tables) -> bool:
    """Whether the BIOS says that it has UEFI."""
    structure = tables.first(BIOS_INFORMATION)
    flags = None if structure is None else structure.byte(_CHARACTERISTICS_2)
    return bool(flags and flags & _HAS_UEFI)


def release_year(bios: BiosInformation) -> int | None:
    """The year of the BIOS's release date, `mm/dd/yyyy` or `mm/dd/yy`; None where it has none."""
    *_, year = bios.release_date.strip().split("/")
    if not year.isdecimal() or len(year) not in (2, 4) or bios.release_date.count("/") != 2:
        return None
    return int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 80 else 1900)


_SKU_NUMBER_AT = 25


def system_id_by_sku(tables: Tables) -> int | None:
    """The system ID by the SKU number in type 1: newer machines have four hexadecimal digits there
    that are it, others a text. None: no such number. Source: smbios-and-tokens.md, S5."""
    system = tables.first(SYSTEM_INFORMATION)
    sku = "" if system is None else system.string_at(_SKU_NUMBER_AT)
    return int(sku, 16) if re.fullmatch(r"[0-9A-Fa-f]{4}", sku) else None
