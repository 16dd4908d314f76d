"""Made `/proc/kcore` files: a core with a little RAM in it, below a directory."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.memory.kcore import Kcore, open_kcore
from openrbu.memory.physical import Region
from openrbu.units import KIB, MIB, PhysAddr

NO_PLACE = (1 << 64) - 1
DISTANCE = 0x5000
"""Of the direct map in the cores made here: file offset less physical address."""

RAM_END = 8 * MIB
IOMEM = f"""\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-{RAM_END - 1:08x} : System RAM
  00200000-003fffff : Kernel code
fec00000-fec003ff : IOAPIC 0
"""
LOW = (0x1000, 0x9F000)
HIGH = (MIB, RAM_END)

Segment = tuple[int, int, int]
"""Offset in the file, physical address, size."""


def direct(start: int, end: int) -> Segment:
    return (start + DISTANCE, start, end - start)


SEGMENTS = [
    (RAM_END + DISTANCE, 2 * MIB, 2 * MIB),  # the kernel's own text: other bytes in this made core
    (0x100, NO_PLACE, 1 << 45),
    direct(*LOW),
    direct(*HIGH),
]


def put_core(
    root: Path, segments: list[Segment] = SEGMENTS, iomem: str = IOMEM, *, kind: int = 4
) -> Path:
    """`proc/kcore` and `proc/iomem` below `root`; the core is a note, then these segments."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/iomem").write_text(iomem)
    core = root / "proc/kcore"
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    count = len(segments) + 1
    head = ident + struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    table = struct.pack("<IIQQQQQQ", 4, 0, 0x200, 0, 0, 0x100, 0, 0)
    for offset, address, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, offset, 1 << 63 | offset, address, size, size, 1)
    with core.open("wb") as file:
        file.write(head + table)
        file.truncate(max(DISTANCE + RAM_END + 2 * MIB, len(head + table)))
    return core


def put(root: Path, address: int, data: bytes) -> None:
    with (root / "proc/kcore").open("r+b") as file:
        file.seek(address + DISTANCE)
        file.write(data)


def opened(root: Path) -> Kcore:
    memory = open_kcore(root)
    assert memory is not None
    return memory


def regions(*spans: tuple[int, int]) -> tuple[Region, ...]:
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)


def image_bytes(seed: int = 7, size_bytes: int = 64 * KIB) -> bytes:
    data = random.Random(seed).randbytes(size_bytes)
    return make_image(data, version=BiosVersion.parse("A06"), systems=[SystemId(0x0121)])
