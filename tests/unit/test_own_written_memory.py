"""Memory that is written by calls: all at once, whole pages, read back."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from openrbu.errors import AddressError, DamagedInputError, KernelError
from openrbu.memory.physical import Region
from openrbu.own_driver.fixed_region import FixedRegion, region_of
from openrbu.own_driver.own_memory import AllocatedRows, PmemRecord
from openrbu.own_driver.written_memory import Part, WrittenMemory
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr

REGION = Region(PhysAddr(16 * MIB), PhysAddr(20 * MIB))


class BytesDoor:
    """A way to memory that is a bytearray. `writes`: how many pages each write had in each run."""

    def __init__(self) -> None:
        self.ram = bytearray(random.Random(1).randbytes(REGION.size_bytes))
        self.writes: list[list[int]] = []
        self.is_ours = True
        self.drops: int | None = None
        """A byte that never takes what is written."""

    def read_into(self, address: PhysAddr, buffer: memoryview) -> None:
        assert not address % PAGE_SIZE
        assert not len(buffer) % PAGE_SIZE
        at = address - REGION.start
        buffer[:] = self.ram[at : at + len(buffer)]

    def write(self, parts: Sequence[Part]) -> None:
        self.writes.append([data.nbytes // PAGE_SIZE for _, data in parts])
        for address, data in parts:
            at = address - REGION.start
            kept = None if self.drops is None else self.ram[self.drops]
            self.ram[at : at + data.nbytes] = data
            if kept is not None and self.drops is not None:
                self.ram[self.drops] = kept

    def clear(self, region: Region) -> None:
        self.ram[:] = bytes(region.size_bytes)

    def is_in_place(self) -> bool:
        return self.is_ours


def test_it_is_memory_whatever_is_done_in_whatever_sequence() -> None:
    door, rng = BytesDoor(), random.Random(2)
    memory, model = WrittenMemory(REGION, door), bytearray(door.ram)
    for _ in range(400):
        at = rng.randrange(REGION.size_bytes)
        size = min(rng.choice([0, 1, 100, PAGE_SIZE, 3 * PAGE_SIZE, 40_000]), len(model) - at)
        address = PhysAddr(REGION.start + at)
        match rng.randrange(4):
            case 0:
                data = rng.randbytes(size)
                memory.write(address, data)
                model[at : at + size] = data
            case 1:
                memory.zero(address, size)
                model[at : at + size] = bytes(size)
            case 2:
                memory.commit()
                assert door.ram == model
            case _:
                assert memory.read(address, size) == model[at : at + size]
                assert memory.view(address, size) == model[at : at + size]
    memory.commit()
    assert door.ram == model
    assert WrittenMemory(REGION, door).read(REGION.start, len(model)) == model


def test_what_is_adjacent_is_written_at_once() -> None:
    door = BytesDoor()
    memory = WrittenMemory(REGION, door)
    for number in (5, 3, 4, 9):
        memory.write(PhysAddr(REGION.start + number * PAGE_SIZE), bytes(PAGE_SIZE))
    memory.commit()
    memory.commit()
    assert door.writes == [[3, 1]]


def test_what_others_have_written_is_read_after_a_commit() -> None:
    door = BytesDoor()
    memory = WrittenMemory(REGION, door)
    memory.write(REGION.start, b"ours")
    memory.commit()
    door.ram[:4] = b"them"
    assert memory.read(REGION.start, 4) == b"them"


def test_memory_that_does_not_take_what_is_written_is_told() -> None:
    door = BytesDoor()
    door.drops = 70 * KIB
    memory = WrittenMemory(REGION, door)
    memory.write(REGION.start, bytes(64 * KIB))
    memory.commit()
    memory.write(REGION.start, bytes(128 * KIB))
    with pytest.raises(OSError, match="is not what is read back, 0x1000000 to 0x1020000"):
        memory.commit()


@pytest.mark.parametrize("at", [REGION.start - 1, REGION.end - 3, REGION.end])
def test_there_is_no_memory_outside(at: int) -> None:
    memory = WrittenMemory(REGION, BytesDoor())
    for use in (memory.read, memory.zero, memory.view):
        with pytest.raises(AddressError):
            use(PhysAddr(at), 4)
    with pytest.raises(AddressError):
        memory.write(PhysAddr(at), b"four")


def fixed(door: BytesDoor, note: Callable[[Any], None] = lambda record: None) -> FixedRegion:
    def record(is_used: bool, allocated: AllocatedRows) -> PmemRecord:
        return PmemRecord("pmem", "pmem0", REGION.start, REGION.end, is_used, allocated)

    return FixedRegion("pmem", REGION, door, record, note)


def test_a_region_hands_out_what_it_has_and_no_more() -> None:
    memory = fixed(BytesDoor())
    assert memory.largest_order == 10
    memory.reserve(4 * MIB, block_bytes=2 * MIB)
    memory.allocate(9)
    with pytest.raises(KernelError, match="1 of 2 blocks of 2 MiB are free") as refused:
        memory.reserve(4 * MIB, block_bytes=2 * MIB)
    assert refused.value.errno == errno.ENOMEM
    with pytest.raises(KernelError):
        memory.allocate(0, below=REGION.start)


def test_what_is_given_back_is_cleared_whoever_has_written_it() -> None:
    door = BytesDoor()
    memory = fixed(door)
    memory.memory.write(memory.allocate(0), b"x" * PAGE_SIZE)
    memory.give_back()
    assert not any(door.ram)
    assert memory.record() == PmemRecord("pmem", "pmem0", REGION.start, REGION.end, False, ())
    assert memory.allocate(10) == REGION.start


def test_what_was_never_used_is_not_written() -> None:
    door = BytesDoor()
    noted: list[PmemRecord] = []
    before = bytes(door.ram)
    memory = fixed(door, noted.append)
    memory.reserve(MIB, block_bytes=MIB)
    memory.give_back()
    assert door.ram == before
    memory.allocate(0)
    assert [record.is_used for record in noted] == [False, True]


def test_a_region_that_somebody_else_has_now_has_moved() -> None:
    door = BytesDoor()
    memory = fixed(door)
    assert memory.moved() == ()
    door.is_ours = False
    assert memory.moved() == (REGION,)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (PAGE_SIZE, 0), (1, PAGE_SIZE), (0, 4097)])
def test_a_record_of_no_region_is_damaged(start: int, end: int) -> None:
    with pytest.raises(DamagedInputError):
        region_of(start, end)
