"""A guest's memory, through its frame table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import AddressError, MachineError
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import PAGE_SIZE, PhysAddr
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import Domain, Hypervisor
from rigs.driver import pattern
from rigs.xen_hosts import frames, ram, up

SPANS = ((4, 40), (60, 100))


def region(start: int, end: int) -> Region:
    return Region(PhysAddr(start), PhysAddr(end))


def pages(first: int, end: int) -> Region:
    return region(first * PAGE_SIZE, end * PAGE_SIZE)


def make_guest(machine: RamFile, *, count: int = 32, most: int = 40) -> Domain:
    host = Hypervisor.in_memory(machine.regions, reserved=(), backing=machine)
    return host.create_domain("one", pages=count, max_pages=most)


def scatter(domain: Domain, seed: int = 1) -> None:
    """Have its pages in any order in machine memory, some in runs."""
    rng = np.random.default_rng(seed)
    present = up(0, domain.current_pages)
    for _ in range(6):
        some = rng.permutation(present)[: rng.integers(1, len(present))]
        domain.decrease(some)
        domain.populate(np.sort(some) if rng.random() < 0.5 else some)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[RamFile]:
    file = RamFile.create(tmp_path / "ram", ram(*SPANS))
    yield file
    file.close()


@pytest.fixture
def guest(machine: RamFile) -> Domain:
    return make_guest(machine)


@pytest.fixture
def memory(guest: Domain, machine: RamFile) -> PhysicalMemory:
    return GuestMemory(guest, machine)


def test_a_guests_memory_is_flat_from_0_up(memory: PhysicalMemory) -> None:
    assert memory.regions == (pages(0, 40),)
    assert not memory.is_mapped


def test_a_page_of_the_guest_is_where_its_table_says(
    guest: Domain, machine: RamFile, memory: PhysicalMemory
) -> None:
    guest.decrease(frames(7, 20))
    guest.populate(frames(20, 7))
    memory.write(PhysAddr(7 * PAGE_SIZE + 5), b"hello")
    assert guest.table[7] == 24
    assert machine.read(PhysAddr(24 * PAGE_SIZE + 5), 5) == b"hello"


def test_what_spans_scattered_pages_is_written_and_read_in_order(
    guest: Domain, machine: RamFile, memory: PhysicalMemory
) -> None:
    scatter(guest)
    data = pattern(20 * PAGE_SIZE)
    start = PhysAddr(3 * PAGE_SIZE + 100)
    memory.write(start, data)
    assert memory.read(start, len(data)) == data
    assert bytes(memory.view(start, len(data))) == data
    buffer = bytearray(len(data))
    memory.read_into(start, buffer)
    assert buffer == data
    whole = b"".join(
        machine.read(PhysAddr(int(f) * PAGE_SIZE), PAGE_SIZE) for f in guest.table[:32]
    )
    assert whole[start : start + len(data)] == data


def test_only_what_is_to_be_cleared_is_cleared(guest: Domain, memory: PhysicalMemory) -> None:
    scatter(guest)
    data = pattern(32 * PAGE_SIZE)
    memory.write(PhysAddr(0), data)
    memory.zero(PhysAddr(5000), 90_000)
    assert memory.read(PhysAddr(0), len(data)) == data[:5000] + bytes(90_000) + data[95_000:]


def test_where_bytes_lie_in_machine_memory_is_told_in_order(
    guest: Domain, machine: RamFile
) -> None:
    memory = GuestMemory(guest, machine)
    assert memory.machine_runs(PhysAddr(100), 3 * PAGE_SIZE) == [
        region(4 * PAGE_SIZE + 100, 7 * PAGE_SIZE + 100)
    ]
    guest.decrease(frames(1, 2))
    guest.populate(frames(2, 1))
    assert memory.machine_runs(PhysAddr(100), 3 * PAGE_SIZE) == [
        region(4 * PAGE_SIZE + 100, 5 * PAGE_SIZE),
        pages(6, 7),
        pages(5, 6),
        region(7 * PAGE_SIZE, 7 * PAGE_SIZE + 100),
    ]
    assert memory.machine_runs(PhysAddr(0), 0) == []


OUTSIDE = [
    (-1, 1),
    (40 * PAGE_SIZE, 1),
    (40 * PAGE_SIZE - 1, 2),
    (0, 41 * PAGE_SIZE),
    (PAGE_SIZE, -1),
]
BALLOONED_OUT = [
    (5 * PAGE_SIZE, 1),
    (6 * PAGE_SIZE - 1, 1),
    (5 * PAGE_SIZE - 1, 2),
    (4 * PAGE_SIZE, 3 * PAGE_SIZE),
    (32 * PAGE_SIZE, 8),
]


@pytest.mark.parametrize(("address", "size_bytes"), OUTSIDE + BALLOONED_OUT)
def test_what_is_outside_or_ballooned_out_is_no_ram(
    guest: Domain, memory: PhysicalMemory, address: int, size_bytes: int
) -> None:
    guest.decrease(frames(5))
    memory.write(PhysAddr(4 * PAGE_SIZE), b"\xaa" * PAGE_SIZE)
    place = PhysAddr(address)
    for call in (memory.read, memory.view, memory.zero):
        with pytest.raises(AddressError):
            call(place, size_bytes)
    if size_bytes > 0:
        with pytest.raises(AddressError):
            memory.write(place, bytes(size_bytes))
        with pytest.raises(AddressError):
            memory.read_into(place, bytearray(size_bytes))
    assert memory.read(PhysAddr(4 * PAGE_SIZE), PAGE_SIZE) == b"\xaa" * PAGE_SIZE


def test_a_page_that_came_back_is_ram_again(guest: Domain, memory: PhysicalMemory) -> None:
    memory.write(PhysAddr(5 * PAGE_SIZE), b"\xaa" * PAGE_SIZE)
    guest.decrease(frames(5))
    guest.populate(frames(5))
    assert memory.read(PhysAddr(5 * PAGE_SIZE), PAGE_SIZE) == bytes(PAGE_SIZE)


def test_a_view_does_not_show_what_becomes_of_the_page(
    guest: Domain, memory: PhysicalMemory
) -> None:
    memory.write(PhysAddr(0), b"mine")
    view = memory.view(PhysAddr(0), 4)
    guest.decrease(frames(0))
    assert bytes(view) == b"mine"


def test_a_guest_that_was_destroyed_has_no_memory_left(tmp_path: Path) -> None:
    """A process that still has it can't reach what is another guest's by now."""
    file = RamFile.create(tmp_path / "ram", ram((0, 40)))
    host = Hypervisor.in_memory(file.regions, reserved=(), backing=file)
    memory = GuestMemory(host.create_domain("one", pages=40, max_pages=40), file)
    memory.write(PhysAddr(0), b"mine")
    host.destroy("one")
    other = GuestMemory(host.create_domain("two", pages=40, max_pages=40), file)
    for call in (memory.zero, memory.read):
        for size_bytes in (4, 2 * PAGE_SIZE):
            with pytest.raises(MachineError, match="guest 'one' was destroyed"):
                call(PhysAddr(0), size_bytes)
    assert other.read(PhysAddr(0), 4) == bytes(4)
    file.close()


def test_populated_are_the_pages_that_were_written(guest: Domain, memory: PhysicalMemory) -> None:
    assert list(memory.populated(PhysAddr(0), PhysAddr(40 * PAGE_SIZE))) == []
    guest.decrease(frames(10, 11, 12))
    guest.populate(frames(12, 11, 10))
    for frame in (3, 4, 10, 11, 31):
        memory.write(PhysAddr(frame * PAGE_SIZE), b"x")
    assert list(memory.populated(PhysAddr(0), PhysAddr(40 * PAGE_SIZE))) == [
        pages(3, 5),
        pages(10, 12),
        pages(31, 32),
    ]
    assert list(memory.populated(PhysAddr(4 * PAGE_SIZE + 9), PhysAddr(10 * PAGE_SIZE + 1))) == [
        region(4 * PAGE_SIZE + 9, 5 * PAGE_SIZE),
        region(10 * PAGE_SIZE, 10 * PAGE_SIZE + 1),
    ]
    guest.decrease(frames(11, 31))
    assert list(memory.populated(PhysAddr(0), PhysAddr(2**50))) == [pages(3, 5), pages(10, 11)]


def test_a_guest_without_any_page_has_nothing_populated(machine: RamFile) -> None:
    guest = make_guest(machine, count=0)
    assert list(GuestMemory(guest, machine).populated(PhysAddr(0), PhysAddr(2**40))) == []


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_guests_memory_is_as_good_as_any(data: st.DataObject) -> None:
    """KnownProblem plain bytes: any write, read, balloon and look, in any order."""
    fd = os.memfd_create("ram")
    file = RamFile.create(Path(f"/proc/self/fd/{fd}"), ram((4, 12), (20, 30)))
    guest = make_guest(file, count=10, most=14)
    memory = GuestMemory(guest, file)
    size = 14 * PAGE_SIZE
    expected = bytearray(size)
    present = set(range(10))
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["write", "zero", "read", "down", "up"]))
        if kind in ("down", "up"):
            chosen = present if kind == "down" else set(range(14)) - present
            some = data.draw(st.permutations(sorted(chosen)))[: data.draw(st.integers(0, 6))]
            if kind == "down":
                guest.decrease(frames(*some))
                present -= set(some)
                for frame in some:
                    expected[frame * PAGE_SIZE : (frame + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)
            else:
                assert guest.populate(frames(*some)) == len(some)
                present |= set(some)
            continue
        start = data.draw(st.integers(0, size - 1))
        length = data.draw(st.integers(1, min(3 * PAGE_SIZE, size - start)))
        touched = set(range(start // PAGE_SIZE, -(-(start + length) // PAGE_SIZE)))
        content = bytes(length) if kind == "zero" else pattern(length, seed=start)
        try:
            if kind == "read":
                assert memory.read(PhysAddr(start), length) == expected[start : start + length]
            elif kind == "zero":
                memory.zero(PhysAddr(start), length)
            else:
                memory.write(PhysAddr(start), content)
        except AddressError:
            assert not touched <= present
            continue
        assert touched <= present
        if kind != "read":
            expected[start : start + length] = content
    held = list(memory.populated(PhysAddr(0), PhysAddr(size)))
    inside = {f for part in held for f in range(part.start // PAGE_SIZE, part.end // PAGE_SIZE)}
    assert inside <= present
    for frame in set(range(14)) - inside:
        assert not any(expected[frame * PAGE_SIZE : (frame + 1) * PAGE_SIZE])
    file.close()
    os.close(fd)
