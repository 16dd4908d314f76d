"""Faults of memory: what is held back, what fails, and that a saved machine goes on with it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from openrbu.errors import KernelError
from openrbu.formats.buddyinfo import parse_buddyinfo
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.memory import BUDDYINFO, MEMINFO
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faults import (
    FRAGMENTED,
    LITTLE_MEMORY,
    MEMORY_CHANGES,
    faulty_pages,
    hold_back,
)
from openrbu.units import GIB, MAX_ORDER, MIB
from rigs.cli import Cli
from rigs.machines import DEVICE, ENTRY, image, make, running, update
from rigs.no_bytes import gib_machine


def largest_block(machine: VirtualMachine) -> int | None:
    """The largest order of which `/proc/buddyinfo` shows a free block."""
    zones = parse_buddyinfo(read_text(VirtualHost(machine), BUDDYINFO))
    return max((n for zone in zones for n, count in enumerate(zone.counts) if count), default=None)


# -- memory in pieces, and little of it ------------------------------------------------------


@pytest.mark.parametrize("order", range(MAX_ORDER))
def test_no_block_above_the_order_is_left(order: int) -> None:
    allocator, model = gib_machine(), gib_machine()
    hold_back(allocator, {FRAGMENTED: order})
    assert allocator.largest_free_order() == order
    model.fragment(keep_free_order=order)  # which takes as few pages as possible
    assert allocator.free_counts() == model.free_counts()


def test_of_little_memory_the_rest_is_below_4_gib(tmp_path: Path) -> None:
    with running(make(tmp_path, ram_bytes=6 * GIB, faults=("little-memory=3",))) as machine:
        allocator = machine.running_kernel().allocator
        assert allocator.free_bytes == 3 * MIB
        assert allocator.free_counts()["Normal"] == (0,) * 11
        with pytest.raises(KernelError):
            allocator.allocate(MAX_ORDER)


def test_what_programs_hold_is_memory_of_the_machine_and_not_free(tmp_path: Path) -> None:
    shown = []
    for faults in ((), ("little-memory=2",)):
        directory = make(tmp_path, name=f"with-{len(faults)}", faults=faults)
        with running(directory) as machine:
            shown.append(read_text(VirtualHost(machine), MEMINFO).splitlines())
    whole, little = shown
    assert whole[0] == little[0]
    assert little[2].split() == ["MemAvailable:", "2048", "kB"]


def test_more_than_there_is_can_not_be_left() -> None:
    allocator = gib_machine()
    before = allocator.free_bytes
    hold_back(allocator, {LITTLE_MEMORY: 1024, FRAGMENTED: 9})
    assert allocator.largest_free_order() == 9
    assert allocator.free_bytes < before


def test_a_saved_machine_goes_on_with_the_same_pages(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("fragmented=4", "little-memory=20"), profile="linux")
    with running(directory) as machine:
        update(VirtualHost(machine), image(), mode="packet")
        counts = machine.running_kernel().allocator.free_counts()
        assert largest_block(machine) == 4
    with running(directory) as machine:
        assert machine.running_kernel().allocator.free_counts() == counts
        assert machine.restart().version_after == "2.3.0"
        assert largest_block(machine) == 4
    assert len((directory / "state.json").read_text().rstrip()) < 5000


def test_an_option_makes_memory_in_pieces(rbu: Cli) -> None:
    made = rbu.json(
        "machine", "new", "box", "--ram", "64M", "--fragment", 3, "--fault", "miscompare"
    )
    assert made["faults"] == ["miscompare", "fragmented=3"]
    assert "fragmented=3" in rbu("machine", "show", "box").out
    assert "given twice" in rbu.fails(
        2, "machine", "new", "b", "--fragment", 3, "--fault", "fragmented=4"
    )
    assert "from 0 to 9, not '10'" in rbu.fails(2, "machine", "new", "b", "--fragment", 10)


# -- allocations that fail -------------------------------------------------------------------


def test_what_a_look_sees_does_not_last() -> None:
    allocator: BuddyAllocator = gib_machine()
    whole = allocator.buddyinfo()
    pages, buddyinfo = faulty_pages(allocator, {MEMORY_CHANGES: 1})
    with pytest.raises(KernelError):
        pages.allocate(3)
    pages.free(pages.allocate(2), 2)
    assert buddyinfo() != whole
    pages.free(pages.allocate(10), 10)
    assert buddyinfo() == whole
    with pytest.raises(KernelError):
        pages.allocate(3)
    buddyinfo()
    assert allocator.buddyinfo() == whole


def test_a_program_gets_the_error_that_a_real_kernel_gives(tmp_path: Path) -> None:
    """A write of the image works; that nothing was staged is told when it is read back."""
    directory = make(tmp_path, profile="linux", faults=("allocations-fail-above=3",))
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        host.write(f"{DEVICE}/image_type", b"init")
        host.write(f"{ENTRY}/loading", b"1")
        host.write(f"{ENTRY}/data", bytes(100 * 1024))
        host.write(f"{ENTRY}/loading", b"0")
        with pytest.raises(OSError, match="Cannot allocate memory") as raised:
            next(host.chunks(f"{DEVICE}/data", 4096))
        assert raised.value.errno == errno.ENOMEM


def test_a_program_that_writes_more_than_there_is_gets_the_same_error(tmp_path: Path) -> None:
    directory = make(tmp_path, profile="linux", faults=("little-memory=2",))
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        host.write(f"{DEVICE}/image_type", b"init")
        host.write(f"{ENTRY}/loading", b"1")
        with pytest.raises(OSError, match="Cannot allocate memory") as raised:
            host.write(f"{ENTRY}/data", bytes(3 * MIB))
        assert raised.value.errno == errno.ENOMEM
