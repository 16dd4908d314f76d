"""The same RAM as dumps of all formats, made from their public descriptions."""

from __future__ import annotations

import bz2
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from openrbu.dumps.opening import open_dump
from openrbu.memory.scan import SearchResult, search
from openrbu.units import PAGE_SIZE, PhysAddr
from rigs.package_makers import gzip_of

Ram = dict[int, bytes]
"""Ranges of memory: their addresses, and what is in them."""

NO_ADDRESS = (1 << 64) - 1


def raw(ram: Ram) -> bytes:
    data = bytearray(max(start + len(part) for start, part in ram.items()))
    for start, part in ram.items():
        data[start : start + len(part)] = part
    return bytes(data)


def lime_header(start: int, last: int, version: int = 1, magic: bytes = b"EMiL") -> bytes:
    return struct.pack("<4sIQQ8x", magic, version, start, last)


def lime(ram: Ram) -> bytes:
    return b"".join(lime_header(start, start + len(part) - 1) + part for start, part in ram.items())


def program_64(*fields: int) -> bytes:
    """Type, offset, virtual and physical address, size in the file, size in memory."""
    kind, *rest = fields
    return struct.pack("<IIQQQQQQ", kind, 7, *rest, 0)


def program_32(*fields: int) -> bytes:
    """The same, for 32 bits."""
    return struct.pack("<IIIIIIII", *fields, 7, 0)


def elf_header(
    count: int, *, bits: int = 64, kind: int = 4, order: int = 1, shoff: int = 0
) -> bytes:
    ident = b"\x7fELF" + bytes([bits // 32, order, 1]) + bytes(9)
    head, entry, layout = (64, 56, "QQQ") if bits == 64 else (52, 32, "III")
    numbers = (kind, 62, 1, 0, head, shoff, 0, head, entry, count, 0, 0, 0)
    return ident + struct.pack(f"<HHI{layout}IHHHHHH", *numbers)


def elf(ram: Ram, *, bits: int = 64, virtual: int = 0, more: Iterable[bytes] = ()) -> bytes:
    """A core with a note, the segments of the RAM, and further program headers."""
    program = program_64 if bits == 64 else program_32
    extra = list(more)
    count = 1 + len(ram) + len(extra)
    table = program(4, 0, 0, 0, 0, 0)
    head = elf_header(count, bits=bits)
    offset = len(head) + count * len(table) + 0x234  # off a page
    body = bytes(0x234)
    for start, part in ram.items():
        table += program(1, offset, virtual, start, len(part), len(part))
        body += part
        offset += len(part)
    return head + table + b"".join(extra) + body


def many_segments(ram: Ram, size_bytes: int) -> bytes:
    """A core with a segment for each `size_bytes`, more than a header can count, the last first."""
    parts = [
        (start + low, part[low : low + size_bytes])
        for start, part in reversed(ram.items())
        for low in reversed(range(0, len(part), size_bytes))
    ]
    assert len(parts) >= 0xFFFF
    offset = 64 + len(parts) * 56
    table, section = bytearray(), struct.pack("<IIQQQQIIQQ", *[0] * 7, len(parts), 0, 0)
    for start, part in parts:
        table += program_64(1, offset, 0, start, len(part), len(part))
        offset += len(part)
    head = elf_header(0xFFFF, shoff=offset)
    return head + bytes(table) + b"".join(part for _, part in parts) + section


def kdump(ram: Ram) -> bytes:
    """As the kernel makes /proc/vmcore: its own text is a segment of its own, beside its RAM, and
    what has no physical address is one, too."""
    whole = elf(ram, virtual=0xFFFF888000000000)
    start, part = max(ram.items(), key=lambda item: len(item[1]))
    first, size = len(part) // 4 // PAGE_SIZE * PAGE_SIZE, len(part) // 8
    at = len(whole) + 2 * 56
    text = program_64(1, at, 0xFFFFFFFF81000000, start + first, size, size)
    nowhere = program_64(1, 0x100, 0xFFFFC90000000000, NO_ADDRESS, 1 << 45, 1 << 45)
    data = elf(ram, virtual=0xFFFF888000000000, more=[text, nowhere])
    assert len(data) == at
    return data + part[first : first + size]


def with_zlib(data: bytes) -> bytes:
    return zlib.compress(data, 1)


def twice(data: bytes) -> bytes:
    """Two streams behind each other, and zeros, as on a tape."""
    return gzip_of(data[:70_000], 1) + gzip_of(data[70_000:], 1) + bytes(1000)


def windows_crash_dump(ram: Ram) -> bytes:
    """A complete memory dump of 64-bit Windows: two pages of header, then the runs of pages."""
    pages = [(start // PAGE_SIZE, len(part) // PAGE_SIZE) for start, part in ram.items()]
    header = bytearray(b"PAGEDU64" + b"PAGE" * (2 * PAGE_SIZE // 4 - 2))
    runs = b"".join(struct.pack("<QQ", first, count) for first, count in pages)
    total = sum(count for _, count in pages)
    struct.pack_into("<IIQQ", header, 8, 15, 19041, 0x1AD000, 0)  # version, page tables
    struct.pack_into("<I4xQ", header, 0x88, len(pages), total)
    header[0x98 : 0x98 + len(runs)] = runs
    struct.pack_into("<I", header, 0xF98, 1)  # all of memory
    return bytes(header) + b"".join(ram.values())


def vmware(ram: Ram) -> tuple[bytes, bytes]:
    """A suspended VMware machine: its `.vmem`, the parts of memory without their addresses, and its
    `.vmss` with the table of these parts, in pages."""

    def tag(name: bytes, value: int, *index: int) -> bytes:
        head = bytes([len(index) << 6 | 4, len(name)]) + name
        return head + b"".join(struct.pack("<I", each) for each in (*index, value))

    tags, done = tag(b"regionsCount", len(ram)), 0
    for number, (start, part) in enumerate(ram.items()):
        tags += tag(b"regionPageNum", done, number)
        tags += tag(b"regionPPN", start // PAGE_SIZE, number)
        tags += tag(b"regionSize", len(part) // PAGE_SIZE, number)
        done += len(part) // PAGE_SIZE
    head = struct.pack("<4sII", b"\xd2\xbe\xd2\xbe", 8, 1)
    group = struct.pack("<64sQQ", b"memory", len(head) + 80, len(tags) + 2)
    return b"".join(ram.values()), head + group + tags + bytes(2)


FORMATS: dict[str, Callable[[Ram], bytes]] = {
    "raw": raw,
    "LiME": lime,
    "ELF core": elf,
    "ELF core of 32 bit": lambda ram: elf(ram, bits=32),
    "ELF core of kdump": kdump,
    "raw in gzip": lambda ram: gzip_of(raw(ram), 1),
    "raw in two streams of gzip": lambda ram: twice(raw(ram)),
    "LiME in zlib": lambda ram: with_zlib(lime(ram)),
    "LiME in xz": lambda ram: lzma.compress(lime(ram), preset=0),
    "ELF core in bzip2": lambda ram: bz2.compress(elf(ram), 1),
    "LiME in gzip in xz": lambda ram: lzma.compress(gzip_of(lime(ram), 1), preset=0),
}


def scattered(packets: list[bytes], pages: list[int], seed: int = 1) -> dict[int, bytes]:
    """Each packet at a page of its own."""
    places = random.Random(seed).sample(pages, len(packets))
    return dict(zip(places, packets, strict=True))


def ram_with(ranges: Iterable[tuple[int, int]], content: dict[int, bytes]) -> Ram:
    """Memory of these ranges, zeros but for what is said."""
    ram: Ram = {}
    for start, end in ranges:
        part = bytearray(end - start)
        for address, data in content.items():
            if start <= address < end:
                part[address - start : address - start + len(data)] = data
        ram[start] = bytes(part)
    return ram


def found_in(path: Path, *, offset: int | None = None) -> SearchResult:
    with open_dump(path, offset=offset) as memory:
        return search(memory, PhysAddr(0), memory.regions[-1].end)
