"""Memory that runs out on demand."""

from pathlib import Path

from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faulty_pages import FaultyPages
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PhysAddr
from rigs.no_bytes import gib_machine


def outcomes(pages: FaultyPages, orders: list[int]) -> list[str]:
    results = []
    for order in orders:
        try:
            pages.allocate(order)
        except KernelError as error:
            results.append(error.name)
        else:
            results.append("ok")
    return results


def test_the_nth_allocation_fails_and_the_next_works() -> None:
    pages = FaultyPages(gib_machine(), fail_nth=2)
    assert outcomes(pages, [0, 0, 0]) == ["ok", "ENOMEM", "ok"]
    assert pages.calls == 3


def test_memory_that_has_run_out_stays_out() -> None:
    pages = FaultyPages(gib_machine(), fail_all_after=1)
    assert outcomes(pages, [0, 0, 0]) == ["ok", "ENOMEM", "ENOMEM"]


def test_every_allocation_above_an_order_fails() -> None:
    pages = FaultyPages(gib_machine(), fail_above_order=3)
    assert outcomes(pages, [3, 4, 10, 0]) == ["ok", "ENOMEM", "ENOMEM", "ok"]


def test_a_failed_allocation_takes_nothing() -> None:
    source = gib_machine()
    before = source.free_bytes
    assert outcomes(FaultyPages(source, fail_nth=1), [5]) == ["ENOMEM"]
    assert source.free_bytes == before


def test_without_a_fault_set_all_goes_to_the_source(tmp_path: Path) -> None:
    memory = RamFile.create(tmp_path / "ram", pc_regions(64 * MIB))
    source = BuddyAllocator(memory)
    pages = FaultyPages(source)
    fresh = source.free_counts()
    block = pages.allocate(2, below=PhysAddr(16 * MIB))
    assert block < 16 * MIB
    pages.free(block, 2)
    assert source.free_counts() == fresh
    assert pages.memory is memory
    memory.close()
