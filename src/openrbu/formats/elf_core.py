"""An ELF core of 64 bits, as `/proc/kcore` is one: its headers. Source: elf(5)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

FILE_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
"""Elf64_Ehdr: magic, class, data, type, machine, version, entry, phoff, shoff, flags, ehsize,
phentsize, phnum, shentsize, shnum, shstrndx."""

PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
"""Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align."""

MAGIC = b"\x7fELF"
CLASS_64, LITTLE_ENDIAN, CORE, X86_64, LOAD = 2, 1, 4, 62, 1

_READ_WRITE_EXECUTE = 7


class Segment(NamedTuple):
    """A loadable segment: offset in the file, virtual and physical address, size in bytes."""

    offset: int
    virtual_address: int
    physical_address: int
    size_bytes: int


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
