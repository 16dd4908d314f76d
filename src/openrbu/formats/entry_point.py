"""The SMBIOS entry point: the address and the size of a machine's table.

Facts: docs/reference/smbios-and-tokens.md, S1 and S2; the SMBIOS specification (DSP0134) for the
two kinds, `_SM_` and `_SM3_`, and their checksums; the entry points of real machines for the
lengths in the old kind. All bytes are kept: build(parse(x)) == x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.layout import Field, Layout

ENTRY_POINT_2 = Layout(
    "SMBIOS 2 entry point",
    Field("anchor", "4s", required=b"_SM_"),
    Field("checksum", "B"),
    Field("length", "B", unit="bytes", default=31),
    Field("major", "B"),
    Field("minor", "B"),
    Field("max_structure_size", "H", unit="bytes"),
    Field("revision", "B"),
    Field("formatted_area", "5s"),
    Field("dmi_anchor", "5s", required=b"_DMI_"),
    Field("dmi_checksum", "B"),
    Field("table_size", "H", unit="bytes"),
    Field("table_address", "I"),
    Field("structure_count", "H"),
    Field("bcd_revision", "B"),
)

ENTRY_POINT_3 = Layout(
    "SMBIOS 3 entry point",
    Field("anchor", "5s", required=b"_SM3_"),
    Field("checksum", "B"),
    Field("length", "B", unit="bytes", default=24),
    Field("major", "B"),
    Field("minor", "B"),
    Field("docrev", "B"),
    Field("revision", "B", default=1),
    Field("reserved", "B"),
    Field("table_size", "I", unit="bytes"),
    Field("table_address", "Q"),
)

_DMI_PART = slice(ENTRY_POINT_2.offset_of("dmi_anchor"), ENTRY_POINT_2.size_bytes)
"""The part of the old entry point with a separate checksum."""

_SHORT_ENTRY_POINT_BYTES = 30
"""The length of the old entry point in SMBIOS 2.1, by mistake: it does not count the last byte."""

MAX_TABLE_BYTES = 0xFFFF
"""The largest table size in an old entry point."""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """All bytes of an entry point, and the bytes after it, if any were given."""

    raw: bytes

    @classmethod
    def parse(cls, data: bytes) -> EntryPoint:
        """The entry point at the start of `data`, of either kind. Bytes after it are kept.

        :raise DamagedInputError: when it is not one, is cut short, or has a wrong checksum.
        """
        if not data.startswith((b"_SM_", b"_SM3_")):
            raise DamagedInputError(
                "not an SMBIOS entry point: it starts with neither _SM_ nor _SM3_",
                offset=0,
                actual=data[:5],
            )
        entry = cls(data)
        values = entry._values()
        wrong = entry._layout.violation(values)
        if wrong is not None:
            offset = entry._layout.offset_of(wrong[0].name)
            raise DamagedInputError(
                f"the SMBIOS entry point is damaged: no {wrong[0].required!r} at offset {offset}",
                offset=offset,
                expected=wrong[0].required,
                actual=wrong[1],
            )
        entry._check_sums()
        return entry

    @property
    def _layout(self) -> Layout:
        return ENTRY_POINT_3 if self.raw.startswith(b"_SM3_") else ENTRY_POINT_2

    @property
    def _is_short(self) -> bool:
        """Whether its length field says 30 bytes, and it has no more."""
        size = _SHORT_ENTRY_POINT_BYTES
        return self._layout is ENTRY_POINT_2 and len(self.raw) == size == self.raw[5]

    def _values(self) -> dict[str, Any]:
        return self._layout.unpack(self.raw + b"\0" if self._is_short else self.raw)

    def _summed_sizes(self) -> list[int]:
        """Over how many bytes the checksum may be: the length field's, or the real size.

        They differ if the length field of an old entry point says 30 (see above), or 32, as on two
        real machines whose tables are known.
        """
        size = self._layout.size_bytes
        claimed = int(self._values()["length"])
        least = _SHORT_ENTRY_POINT_BYTES if self._layout is ENTRY_POINT_2 else size
        return [claimed, size] if claimed >= least else [size]

    def _check_sums(self) -> None:
        totals = [sum(self.raw[:size]) & 0xFF for size in self._summed_sizes()]
        offset, total = 0, 0 if 0 in totals else totals[0]
        if not total and self._layout is ENTRY_POINT_2 and not self._is_short:
            offset, total = _DMI_PART.start, sum(self.raw[_DMI_PART]) & 0xFF
        if total:
            raise DamagedInputError(
                f"the SMBIOS entry point is damaged: its bytes sum to {total:#04x}, not 0",
                offset=offset,
                expected=0,
                actual=total,
            )

    @property
    def version(self) -> tuple[int, int]:
        """The version of SMBIOS that the entry point gives: major, minor."""
        values = self._values()
        return values["major"], values["minor"]

    @property
    def table_size_bytes(self) -> int:
        """The table's size in bytes; in a version 3 entry point the largest possible size."""
        return int(self._values()["table_size"])

    @property
    def table_address(self) -> int:
        """Where the table is in physical memory."""
        return int(self._values()["table_address"])

    @property
    def structure_count(self) -> int | None:
        """How many structures there are; None in version 3 entry points, which do not say."""
        count: int | None = self._values().get("structure_count")
        return count

    def updated(self, structure_sizes: Sequence[int], table_size_bytes: int) -> EntryPoint:
        """The entry point for another table: new size, number of structures, largest structure,
        and checksums.

        :raise UsageError: when the table is too large for an entry point of this kind.
        """
        values = self._values() | {"table_size": table_size_bytes, "checksum": 0}
        if self._layout is ENTRY_POINT_2:
            if table_size_bytes > MAX_TABLE_BYTES:
                raise UsageError(
                    f"an SMBIOS 2 table has at most {MAX_TABLE_BYTES} bytes, not {table_size_bytes}"
                )
            values |= {
                "structure_count": len(structure_sizes),
                "max_structure_size": max(structure_sizes, default=0),
                "dmi_checksum": 0,
            }
        # The checksum stays over the same number of bytes.
        sizes = self._summed_sizes()
        size = next((size for size in sizes if not sum(self.raw[:size]) & 0xFF), sizes[0])
        body = bytearray(self._layout.pack(values)[: len(self.raw)])
        body += self.raw[len(body) :]
        if self._layout is ENTRY_POINT_2:
            body[ENTRY_POINT_2.offset_of("dmi_checksum")] = -sum(body[_DMI_PART]) & 0xFF
        body[self._layout.offset_of("checksum")] = -sum(body[:size]) & 0xFF
        return EntryPoint(bytes(body))

    def build(self) -> bytes:
        """Its bytes."""
        return self.raw


def make_entry_point(version: tuple[int, int] = (2, 6), address: int = 0xE0000) -> EntryPoint:
    """A new entry point for an empty table: the old kind below version 3."""
    layout = ENTRY_POINT_3 if version[0] >= 3 else ENTRY_POINT_2
    values: dict[str, int | bytes | tuple[int, ...]] = {
        "major": version[0],
        "minor": version[1],
        "table_address": address,
    }
    if layout is ENTRY_POINT_2:
        values["bcd_revision"] = version[0] << 4 | version[1]
    return EntryPoint(layout.pack(values)).updated((), 0)
