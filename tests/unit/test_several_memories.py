"""Several memories as one: RAM in two files is as RAM in one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from openrbu.errors import AddressError
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.several import SeveralMemories
from openrbu.units import MIB, PhysAddr


def region(start: int, end: int) -> Region:
    return Region(PhysAddr(start * MIB), PhysAddr(end * MIB))


def test_memories_are_read_as_one(tmp_path: Path) -> None:
    rng = random.Random(3)
    spans = [[region(0, 1), region(3, 5)], [region(1, 2), region(5, 6)]]
    memories = [
        RamFile.create(tmp_path / str(number), tuple(each)) for number, each in enumerate(spans)
    ]
    meant = bytearray(6 * MIB)
    for memory in memories:
        for part in memory.regions:
            data = rng.randbytes(part.size_bytes)
            memory.write(part.start, data)
            meant[part.start : part.end] = data
    whole = SeveralMemories(memories)
    assert whole.regions == (region(0, 1), region(1, 2), region(3, 5), region(5, 6))
    for start, end in ((0, 2 * MIB), (MIB - 3, MIB + 5), (4 * MIB + 1, 6 * MIB)):
        assert whole.read(PhysAddr(start), end - start) == meant[start:end]
    assert whole.view(PhysAddr(3 * MIB + 7), MIB) == meant[3 * MIB + 7 : 4 * MIB + 7]
    assert list(whole.populated(PhysAddr(0), PhysAddr(6 * MIB))) == list(whole.regions)
    for start, size in ((2 * MIB, 1), (2 * MIB - 1, 2), (6 * MIB, 1)):
        with pytest.raises(AddressError):
            whole.read(PhysAddr(start), size)
    with pytest.raises(AddressError):
        whole.view(PhysAddr(MIB - 1), 2)  # two regions
