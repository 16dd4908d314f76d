"""SMBIOS tables: an entry point, and structures that follow each other.

Facts: docs/reference/smbios-and-tokens.md, S3; the SMBIOS specification (DSP0134) for the form of a
structure; the tables of real machines for their deviations. A structure is type, length of the
formatted part, handle, fields, then its strings, each with a NUL at its end, and one more NUL. Type
127 ends the table. Real tables may be damaged, so reading a *table* never fails: the structures
that can be read are read, the rest is kept as bytes, and `problems` says what was wrong. All bytes
are kept: build(parse(x)) == x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrbu.formats.entry_point import (
    ENTRY_POINT_2,
    ENTRY_POINT_3,
    MAX_TABLE_BYTES,
    EntryPoint,
    make_entry_point,
)
from openrbu.formats.layout import Field, Layout

__all__ = [
    "END_OF_TABLE",
    "STRUCTURE_HEADER",
    "EntryPoint",
    "Structure",
    "Tables",
    "make_entry_point",
    "make_structure",
    "make_tables",
    "parse_memory_dump",
    "parse_structures",
]

END_OF_TABLE = 127

_TABLE_IN_DUMP = 32
"""Where the table starts in a memory dump: at the next paragraph after the entry point."""

_OLD_KIND, _NEW_KIND = (2, 6), (3, 0)
"""The version of SMBIOS in an entry point that is made for a table without one."""

STRUCTURE_HEADER = Layout(
    "SMBIOS structure header",
    Field("type", "B"),
    Field("length", "B", unit="bytes"),
    Field("handle", "H"),
)

_MAX_STRINGS = 0xFF
_MAX_FORMATTED_BYTES = 0xFF


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure: `formatted`, with its 4-byte header, and `tail`, the bytes of its strings."""

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
        """The strings in sequence; the first one is number 1."""
        text = self.tail.rstrip(b"\0")
        return tuple(text.split(b"\0")) if text else ()

    def string(self, number: int) -> str:
        """String `number` without the blanks around it; empty if there is none."""
        strings = self.strings
        if not 1 <= number <= len(strings):
            return ""
        return strings[number - 1].decode("latin-1").strip()

    def string_at(self, offset: int) -> str:
        """The string whose number is the byte at `offset`; empty if there is none."""
        return self.string(self.byte(offset) or 0)

    def byte(self, offset: int) -> int | None:
        """The u8 at `offset`; None if the structure is too short."""
        return self._number(offset, 1)

    def word(self, offset: int) -> int | None:
        """The u16 at `offset`; None if the structure is too short."""
        return self._number(offset, 2)

    def _number(self, offset: int, width: int) -> int | None:
        data = self.formatted[offset : offset + width]
        return int.from_bytes(data, "little") if len(data) == width else None

    def with_field(self, offset: int, data: bytes) -> Structure:
        """A copy with `data` at `offset` of the formatted part, which keeps its length.

        :raise ValueError: when it does not fit.
        """
        end = offset + len(data)
        if end > len(self.formatted):
            raise ValueError(f"{len(data)} bytes do not fit at offset {offset:#x}")
        return replace(self, formatted=self.formatted[:offset] + data + self.formatted[end:])

    def with_string_at(self, offset: int, text: str) -> Structure:
        """A copy in which the string of the byte at `offset` is `text`; it is added if there was
        none. An empty text sets the byte to 0: no string. Another byte with the same string
        number gets the same text.

        :raise ValueError: when there is no such byte, the text has a NUL, or there are 255 strings.
        """
        if self.string_at(offset) == text:
            return self
        if not text:
            return self.with_field(offset, b"\0")
        strings, number = list(self.strings), self.byte(offset) or 0
        if 1 <= number <= len(strings):
            strings[number - 1] = _encoded(text)
            return replace(self, tail=_tail(strings))
        if len(strings) == _MAX_STRINGS:
            raise ValueError(f"a structure has at most {_MAX_STRINGS} strings")
        strings.append(_encoded(text))
        fresh = replace(self, tail=_tail(strings))
        return fresh.with_field(offset, bytes([len(strings)]))

    @property
    def size_bytes(self) -> int:
        """The size in bytes, strings included."""
        return len(self.formatted) + len(self.tail)

    def build(self) -> bytes:
        """Its bytes."""
        return self.formatted + self.tail


def _tail(strings: Sequence[bytes]) -> bytes:
    return b"\0".join(strings) + b"\0\0"


def _encoded(text: str) -> bytes:
    """A text as bytes of a structure, in which a NUL ends a string and an empty string ends all.

    :raise ValueError: when it is empty or has a NUL.
    """
    if not text or "\0" in text:
        raise ValueError(f"{text!r} can't be a string of an SMBIOS structure")
    return text.encode("latin-1", "replace")


def make_structure(kind: int, handle: int, body: bytes, strings: Sequence[str] = ()) -> Structure:
    """A new structure; `body` is what follows its header, from offset 4.

    :raise ValueError: when the body is too long, or a string is empty or has a NUL.
    """
    length = STRUCTURE_HEADER.size_bytes + len(body)
    if length > _MAX_FORMATTED_BYTES:
        raise ValueError(f"a structure's fields have at most {_MAX_FORMATTED_BYTES} bytes")
    header = STRUCTURE_HEADER.pack(type=kind, length=length, handle=handle)
    return Structure(header + body, _tail([_encoded(text) for text in strings]))


@dataclass(frozen=True, slots=True)
class Tables:
    """An entry point and its structures.

    `junk` are the bytes after the last structure that could be read; `problems` says what is wrong
    with the tables.
    """

    entry_point: EntryPoint
    structures: tuple[Structure, ...]
    junk: bytes = b""
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entry_point: bytes, table: bytes) -> Tables:
        """Read a table; of a damaged one, what can be read.

        Bytes after the size in the entry point do not belong to the table and are not read.

        :raise DamagedInputError: when the *entry point* is damaged.
        """
        entry = EntryPoint.parse(entry_point)
        size = entry.table_size_bytes
        structures, stop, problem = _read_structures(table[:size])
        problems = [problem] if problem else []
        # A version 3 entry point gives the largest possible size: a smaller table is right.
        if len(table) > size or (len(table) < size and entry.structure_count is not None):
            problems.append(f"the entry point gives the table {size} bytes, it has {len(table)}")
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
        """The tables with `new` instead of `old`, and a matching entry point.

        :raise ValueError: when `old` is not one of the structures.
        :raise UsageError: when the table becomes too large for its entry point.
        """
        if old not in self.structures:
            raise ValueError("the structure to be replaced is not in these tables")
        at = self.structures.index(old)
        structures = (*self.structures[:at], new, *self.structures[at + 1 :])
        return self._with(structures, new.size_bytes - old.size_bytes)

    def added(self, new: Structure) -> Tables:
        """The tables with one more structure, the last one before the end, and a matching entry
        point.

        :raise UsageError: when the table becomes too large for its entry point.
        """
        is_ended = bool(self.structures) and self.structures[-1].type == END_OF_TABLE
        at = len(self.structures) - is_ended
        return self._with((*self.structures[:at], new, *self.structures[at:]), new.size_bytes)

    def _with(self, structures: tuple[Structure, ...], grown_bytes: int) -> Tables:
        size = self.entry_point.table_size_bytes + grown_bytes
        entry_point = self.entry_point.updated([found.size_bytes for found in structures], size)
        return replace(self, entry_point=entry_point, structures=structures)


def make_tables(entry_point: EntryPoint, structures: Sequence[Structure]) -> Tables:
    """Tables of these structures, with a matching entry point.

    :raise UsageError: when the table becomes too large for it.
    """
    sizes = [structure.size_bytes for structure in structures]
    return Tables(entry_point.updated(sizes, sum(sizes)), tuple(structures))


def _read_structures(table: bytes) -> tuple[list[Structure], int, str]:
    """The structures, the offset where reading stopped, and the problem there (empty: none)."""
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
    """Tables from a dump that starts with an entry point of either kind, with the table at the next
    paragraph after it: a dump of memory, or a file that `dmidecode --dump-bin` wrote.

    :raise DamagedInputError: when there is no valid entry point at the start.
    """
    if data.startswith(b"_SM3_"):
        size = ENTRY_POINT_3.size_bytes
    else:
        length = ENTRY_POINT_2.offset_of("length")
        claims_paragraph = data[length : length + 1] == bytes([_TABLE_IN_DUMP])
        size = _TABLE_IN_DUMP if claims_paragraph else ENTRY_POINT_2.size_bytes
    return Tables.parse(data[:size], data[_TABLE_IN_DUMP:])


def parse_structures(table: bytes) -> Tables:
    """Tables from structures without an entry point, such as the file `DMI`; one is made for them.

    Reading never fails: see above. The missing entry point is not one of the `problems`.
    """
    structures, _, _ = _read_structures(table)
    version = _OLD_KIND if len(table) <= MAX_TABLE_BYTES else _NEW_KIND
    sizes = [structure.size_bytes for structure in structures]
    return Tables.parse(make_entry_point(version).updated(sizes, len(table)).build(), table)
