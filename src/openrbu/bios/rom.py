"""What a BIOS puts between 640 KiB and 1 MiB, where programs of its time look for it.

The SMBIOS table lies where its entry point says; the entry point on a multiple of 16 in the last 64
KiB, where programs search for it (DSP0134); and the BIOS's identity where a PowerEdge's lies
(docs/reference/smbios-and-tokens.md, S11). A table above 1 MiB is not in it.
"""

from __future__ import annotations

from openrbu.formats import dell, rom_identity
from openrbu.formats.smbios import Tables
from openrbu.memory.physical import Region
from openrbu.units import KIB, MIB, PhysAddr

ROM = Region(PhysAddr(640 * KIB), PhysAddr(1 * MIB))
"""Video memory and ROMs."""

SYSTEM_ROM = Region(PhysAddr(0xF0000), PhysAddr(1 * MIB))

_ALIGNMENT = 16


def rom_below_1_mib(tables: Tables, revision: int) -> bytes:
    """The bytes of `ROM`. `revision`: the machine's hardware revision."""
    content = _Content()
    entry_point, table = tables.build()
    content.put(tables.entry_point.table_address, table)
    system_id = dell.system_id(tables)
    if system_id is not None:
        version = dell.BiosInformation.of(tables).version.encode("ascii", "replace")
        identity = rom_identity.IDENTITY.pack(
            system_id=system_id, version=version[:3], revision=revision
        )
        content.put(rom_identity.ADDRESS, identity)
    places = range(SYSTEM_ROM.start, SYSTEM_ROM.end, _ALIGNMENT)
    next(filter(lambda address: content.put(address, entry_point), places), None)
    return bytes(content.data)


class _Content:
    """The ROM while it is filled."""

    def __init__(self) -> None:
        self.data = bytearray(ROM.size_bytes)
        self._used: list[tuple[int, int]] = []

    def put(self, address: int, data: bytes) -> bool:
        """Put `data` there, unless that is another place, or something lies there."""
        end = address + len(data)
        is_free = all(end <= start or stop <= address for start, stop in self._used)
        if address < ROM.start or end > ROM.end or not is_free:
            return False
        self.data[address - ROM.start : end - ROM.start] = data
        self._used.append((address, end))
        return True
