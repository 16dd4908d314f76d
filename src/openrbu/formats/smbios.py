"""SMBIOS tables: an entry point, and structures one behind the other.

Facts: the SMBIOS specification (DSP0134) for the two entry points and the shape of a structure; the
tables of real machines for what they hold besides. A structure is type, length of the formatted
part, handle, fields, then its strings, each NUL terminated, and one NUL more. Type 127 ends the
table. Real tables hold junk, so reading a *table* never fails: what can be read is read, the rest
is kept as it is, and `problems` says what was wrong. Every byte is kept: build(parse(x)) == x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrbu.errors import DamagedInputError
from openrbu.formats.layout import Field, Layout

END_OF_TABLE = 127

STRUCTURE_HEADER = Layout(
    "SMBIOS structure header",
    Field("type", "B"),
    Field("length", "B", unit="bytes"),
    Field("handle", "H"),
)

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

_DMI_PART = ENTRY_POINT_2.offset_of("dmi_anchor")
"""The intermediate part of the old entry point, which has a checksum of its own, starts here."""


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure: `formatted` with its 4-byte header, and `tail`, the strings as they stand."""

    formatted: bytes
    tail: bytes

    @property
    def type(self) -> int:
        return self.formatted[0]

    @property
    def handle(self) -> int:
        return int.from_bytes(self.formatted[2:4], "little")

    @property
    def strings(self) -> tuple[bytes, ...]:
        """The strings in order; the first one is number 1."""
        text = self.tail.rstrip(b"\0")
        return tuple(text.split(b"\0")) if text else ()

    def string(self, number: int) -> str:
        """String `number` without the blanks around it; empty where there is none."""
        strings = self.strings
        if not 1 <= number <= len(strings):
            return ""
        return strings[number - 1].decode("latin-1").strip()

    def string_at(self, offset: int) -> str:
        """The string whose number is the byte at `offset`; empty where there is none."""
        return self.string(self.byte(offset) or 0)

    def byte(self, offset: int) -> int | None:
        """The u8 at `offset`; None where the structure is too short."""
        return self._number(offset, 1)

    def word(self, offset: int) -> int | None:
        """The u16 at `offset`; None where the structure is too short."""
        return self._number(offset, 2)

    def dword(self, offset: int) -> int | None:
        """The u32 at `offset`; None where the structure is too short."""
        return self._number(offset, 4)

    def _number(self, offset: int, width: int) -> int | None:
        data = self.formatted[offset : offset + width]
        return int.from_bytes(data, "little") if len(data) == width else None

    def with_field(self, offset: int, data: bytes) -> Structure:
        """The same with `data` at `offset` of the formatted part, which keeps its length.

        :raise ValueError: when it does not fit.
        """
        end = offset + len(data)
        if end > len(self.formatted):
            raise ValueError(f"{len(data)} bytes do not fit at offset {offset:#x}")
        return replace(self, formatted=self.formatted[:offset] + data + self.formatted[end:])

    def with_string_at(self, offset: int, text: str) -> Structure:
        """The same with the string of the byte at `offset` being `text`; added where there was
        none. An empty text makes the byte 0: no string."""
        number = self.byte(offset) or 0
        if not text:
            return self.with_field(offset, b"\0")
        strings = list(self.strings)
        encoded = text.encode("latin-1", "replace")
        if 1 <= number <= len(strings):
            strings[number - 1] = encoded
            return replace(self, tail=_tail(strings))
        strings.append(encoded)
        fresh = replace(self, tail=_tail(strings))
        return fresh.with_field(offset, bytes([len(strings)]))

    def build(self) -> bytes:
        return self.formatted + self.tail


def _tail(strings: Sequence[bytes]) -> bytes:
    return b"\0".join(strings) + b"\0\0" if strings else b"\0\0"


def make_structure(kind: int, handle: int, body: bytes, strings: Sequence[str] = ()) -> Structure:
    """A new structure; `body` is what follows its header, from offset 4."""
    header = STRUCTURE_HEADER.pack(
        type=kind, length=STRUCTURE_HEADER.size_bytes + len(body), handle=handle
    )
    return Structure(header + body, _tail([text.encode("latin-1", "replace") for text in strings]))


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """An entry point, every byte of it."""

    raw: bytes

    @classmethod
    def parse(cls, data: bytes) -> EntryPoint:
        """The entry point at the start of `data`, of either kind; what follows it is kept.

        :raise DamagedInputError: when it is none, is cut short, or has a wrong checksum.
        """
        if not data.startswith((b"_SM_", b"_SM3_")):
            raise DamagedInputError(
                "not an SMBIOS entry point: it starts with neither _SM_ nor _SM3_",
                offset=0,
                actual=data[:5],
            )
        entry = cls(data)
        length = entry._layout.unpack(data)["length"]
        for start, size in entry._summed(length):
            total = sum(data[start : start + size]) & 0xFF
            if total:
                raise DamagedInputError(
                    f"the SMBIOS entry point is damaged: its bytes sum to {total:#04x}, not 0",
                    offset=start,
                    expected=0,
                    actual=total,
                )
        return entry

    @property
    def _layout(self) -> Layout:
        return ENTRY_POINT_3 if self.raw.startswith(b"_SM3_") else ENTRY_POINT_2

    def _summed(self, length: int) -> list[tuple[int, int]]:
        """The parts that have a checksum, as (start, size).

        Some real machines claim 30 bytes (an error of an early specification), some more than 31:
        all sum to 0 over what is there.
        """
        if self._layout is ENTRY_POINT_3:
            return [(0, max(length, ENTRY_POINT_3.size_bytes))]
        return [
            (0, max(length, ENTRY_POINT_2.size_bytes)),
            (_DMI_PART, ENTRY_POINT_2.size_bytes - _DMI_PART),
        ]

    @property
    def version(self) -> tuple[int, int]:
        values = self._layout.unpack(self.raw)
        return values["major"], values["minor"]

    @property
    def table_size_bytes(self) -> int:
        """The table's size; for a version 3 entry point the most that it can be."""
        return int(self._layout.unpack(self.raw)["table_size"])

    @property
    def table_address(self) -> int:
        return int(self._layout.unpack(self.raw)["table_address"])

    @property
    def structure_count(self) -> int | None:
        """How many structures there are; version 3 entry points do not say."""
        count: int | None = self._layout.unpack(self.raw).get("structure_count")
        return count

    def updated(self, structures: Sequence[Structure], junk: bytes = b"") -> EntryPoint:
        """The same for a table of these structures: size, count, largest structure, checksums."""
        sizes = [len(structure.build()) for structure in structures]
        values = self._layout.unpack(self.raw)
        values |= {"table_size": sum(sizes) + len(junk), "checksum": 0}
        if self._layout is ENTRY_POINT_2:
            values |= {
                "structure_count": len(sizes),
                "max_structure_size": max(sizes, default=0),
                "dmi_checksum": 0,
            }
        body = bytearray(self._layout.pack(values) + self.raw[self._layout.size_bytes :])
        if self._layout is ENTRY_POINT_2:
            part = body[_DMI_PART : ENTRY_POINT_2.size_bytes]
            body[ENTRY_POINT_2.offset_of("dmi_checksum")] = -sum(part) & 0xFF
        _, size = self._summed(values["length"])[0]
        body[self._layout.offset_of("checksum")] = -sum(body[:size]) & 0xFF
        return EntryPoint(bytes(body))

    def build(self) -> bytes:
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
    return EntryPoint(layout.pack(values)).updated(())


@dataclass(frozen=True, slots=True)
class Tables:
    """An entry point and its structures; `junk` is everything from where reading had to stop."""

    entry_point: EntryPoint
    structures: tuple[Structure, ...]
    junk: bytes = b""
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entry_point: bytes, table: bytes) -> Tables:
        """Read a table. A broken one gives what can be read of it.

        :raise DamagedInputError: when the *entry point* is broken.
        """
        entry = EntryPoint.parse(entry_point)
        structures, stop, problem = _read_structures(table)
        problems = [problem] if problem else []
        if entry.structure_count not in (None, len(structures)):
            problems.append(
                f"the entry point counts {entry.structure_count} structures, the table has "
                f"{len(structures)}"
            )
        return cls(entry, tuple(structures), table[stop:], tuple(problems))

    def build(self) -> tuple[bytes, bytes]:
        """The entry point and the table."""
        table = b"".join(structure.build() for structure in self.structures) + self.junk
        return self.entry_point.build(), table

    def first(self, kind: int) -> Structure | None:
        """The first structure of a type."""
        return next((found for found in self.structures if found.type == kind), None)

    def all(self, kind: int) -> list[Structure]:
        """All structures of a type."""
        return [found for found in self.structures if found.type == kind]

    def replaced(self, old: Structure, new: Structure) -> Tables:
        """The same with one structure changed, and the entry point made to fit."""
        structures = tuple(new if found is old else found for found in self.structures)
        entry_point = self.entry_point.updated(structures, self.junk)
        return replace(self, entry_point=entry_point, structures=structures)


def make_tables(entry_point: EntryPoint, structures: Sequence[Structure]) -> Tables:
    """Tables of these structures, with the entry point made to fit."""
    return Tables(entry_point.updated(structures), tuple(structures))


def _read_structures(table: bytes) -> tuple[list[Structure], int, str]:
    """The structures, where reading stopped, and what was wrong there (empty: nothing)."""
    structures: list[Structure] = []
    position = 0
    while position < len(table):
        end_of_header = position + STRUCTURE_HEADER.size_bytes
        if end_of_header > len(table):
            return structures, position, "the table ends inside a structure's header"
        length = table[position + 1]
        if length < STRUCTURE_HEADER.size_bytes:
            return structures, position, f"a structure at {position:#x} claims {length} bytes"
        strings = position + length
        if strings > len(table):
            return structures, position, f"the structure at {position:#x} is cut short"
        end = table.find(b"\0\0", strings)
        if end < 0:
            structures.append(Structure(table[position:strings], table[strings:]))
            return structures, len(table), "the last structure's strings do not end"
        end += 2
        structures.append(Structure(table[position:strings], table[strings:end]))
        position = end
        if structures[-1].type == END_OF_TABLE:
            return structures, position, ""
    return structures, position, "the table has no end marker (type 127)"


def parse_memory_dump(data: bytes) -> Tables:
    """Tables out of a dump that starts at an old entry point, the table on the next paragraph.

    :raise DamagedInputError: when there is no sound entry point at the start.
    """
    size = ENTRY_POINT_2.size_bytes
    start = -(-size // 16) * 16
    return Tables.parse(data[:size], data[start:])
