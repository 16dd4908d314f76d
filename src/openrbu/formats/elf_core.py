"""An ELF core: the headers of `/proc/kcore`, and of dumps of memory. Source: elf(5).

A core of 64 or 32 bits, little-endian. Its program headers tell where each *segment* lies in the
file and at which physical address it was. Where there are 65,535 of them or more, their number is
in the first section header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from openrbu.errors import DamagedInputError

FILE_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
"""Elf64_Ehdr: magic, class, data, type, machine, version, entry, phoff, shoff, flags, ehsize,
phentsize, phnum, shentsize, shnum, shstrndx."""

PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
"""Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align."""

FILE_HEADER_32 = struct.Struct("<4sBB10xHHIIIIIHHHHHH")
"""Elf32_Ehdr: the fields of Elf64_Ehdr."""

PROGRAM_HEADER_32 = struct.Struct("<IIIIIIII")
"""Elf32_Phdr: type, offset, vaddr, paddr, filesz, memsz, flags, align."""

MAGIC = b"\x7fELF"
CLASS_32, CLASS_64, LITTLE_ENDIAN, BIG_ENDIAN, CORE, X86_64, LOAD = 1, 2, 1, 2, 4, 62, 1

MOST_SEGMENTS = 200_000
"""A dump has one for each range of RAM or of a kernel's mapping; this many take 50 MB here."""

_MANY = 0xFFFF
"""PN_XNUM as the number of program headers: the number is in `sh_info` of the first section."""

_SECTION_INFO = {CLASS_64: 44, CLASS_32: 28}
"""Where `sh_info`, a u32, is in a section header."""

_READ_WRITE_EXECUTE = 7

_HEADERS_AT_ONCE = 4096

Read = Callable[[int, int], bytes]
"""Reads so many bytes at an offset of a file: fewer where it ends."""


class Segment(NamedTuple):
    """A loadable segment: offset in the file, virtual and physical address, size in bytes."""

    offset: int
    virtual_address: int
    physical_address: int
    size_bytes: int


class Loadable(NamedTuple):
    """A loadable segment as a core has it. `physical_address` is None where the core gives none
    (all ones). `memory_bytes` are those from it on, the first `file_bytes` of them in the file."""

    offset: int
    virtual_address: int
    physical_address: int | None
    file_bytes: int
    memory_bytes: int


def core_headers(segments: Iterable[Segment], alignment: int) -> bytes:
    """The headers of a core with these segments, as a kernel on x86-64 has them."""
    programs = [
        PROGRAM_HEADER.pack(
            LOAD,
            _READ_WRITE_EXECUTE,
            each.offset,
            each.virtual_address,
            each.physical_address,
            each.size_bytes,
            each.size_bytes,
            alignment,
        )
        for each in segments
    ]
    sizes = (FILE_HEADER.size, PROGRAM_HEADER.size, len(programs))
    head = (MAGIC, CLASS_64, LITTLE_ENDIAN, CORE, X86_64, 1, 0, FILE_HEADER.size, 0, 0)
    header = bytearray(FILE_HEADER.pack(*head, *sizes, 0, 0, 0))
    header[6] = 1  # EI_VERSION
    return bytes(header) + b"".join(programs)


def loadable_segments(read: Read) -> Iterator[Loadable]:
    """The loadable segments of a core, as its program headers follow each other.

    :raise DamagedInputError: when the file is no such core, is of another byte order, or ends
        inside of its headers; when it has more than `MOST_SEGMENTS`.
    """
    kind, (table_offset, section_offset, entry_bytes, count) = _file_header(read)
    layout = PROGRAM_HEADER if kind == CLASS_64 else PROGRAM_HEADER_32
    if count == _MANY:
        count = _count_in_section(read, section_offset, kind)
    if count > MOST_SEGMENTS:
        raise DamagedInputError(f"an ELF core with {count} segments, more than {MOST_SEGMENTS}")
    if count and entry_bytes != layout.size:
        raise DamagedInputError(
            f"an ELF core whose program headers have {entry_bytes} bytes, not {layout.size}"
        )
    for first in range(0, count, _HEADERS_AT_ONCE):
        size = min(count - first, _HEADERS_AT_ONCE) * layout.size
        table = read(table_offset + first * layout.size, size)
        if len(table) < size:
            raise DamagedInputError(f"an ELF core that ends inside of its {count} program headers")
        for fields in layout.iter_unpack(table):
            if fields[0] == LOAD:
                yield _loadable(fields, kind)


def _file_header(read: Read) -> tuple[int, tuple[int, int, int, int]]:
    """The class, and from the header: the offsets of the program and of the section headers, the
    size of a program header, and how many there are."""
    header = read(0, FILE_HEADER.size)
    if header[:4] != MAGIC:
        raise DamagedInputError("not an ELF file")
    kind, order = (*header[4:6], 0, 0)[:2]
    if order == BIG_ENDIAN:
        raise DamagedInputError("a big-endian ELF file: only little-endian ones are read")
    layout = {CLASS_64: FILE_HEADER, CLASS_32: FILE_HEADER_32}.get(kind)
    if layout is None or order != LITTLE_ENDIAN:
        raise DamagedInputError(f"an ELF file of the unknown class {kind}, byte order {order}")
    if len(header) < layout.size:
        raise DamagedInputError("an ELF file that ends inside of its header")
    fields = layout.unpack_from(header)
    if fields[3] != CORE:
        raise DamagedInputError("an ELF file that is not a core: a program, a library or an object")
    return kind, (fields[7], fields[8], fields[11], fields[12])


def _count_in_section(read: Read, section_offset: int, kind: int) -> int:
    place = section_offset + _SECTION_INFO[kind]
    raw = read(place, 4)
    if not section_offset or len(raw) < 4:
        raise DamagedInputError("an ELF core that lacks the number of its segments (PN_XNUM)")
    return int.from_bytes(raw, "little")


def _loadable(fields: tuple[int, ...], kind: int) -> Loadable:
    if kind == CLASS_64:
        _, _, offset, virtual, physical, file_bytes, memory_bytes, _ = fields
        no_address = (1 << 64) - 1
    else:
        _, offset, virtual, physical, file_bytes, memory_bytes, _, _ = fields
        no_address = (1 << 32) - 1
    place = None if physical == no_address else physical
    return Loadable(offset, virtual, place, file_bytes, memory_bytes)
