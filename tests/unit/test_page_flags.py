"""Which pages are free, as `/proc/kpageflags` says it; and what verifying makes of that."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import numpy as np
import pytest

from openrbu.errors import KernelError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.kernel.page_flags import PageFlags
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.page_flags import ANON_BIT, BUDDY_BIT, ENTRY_BYTES, LRU_BIT, MMAP_BIT, FreePages
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.verify import find_staged
from rigs.machines import published

RAM_BYTES = 64 * MIB
PLACE, ELSEWHERE = PhysAddr(20 * MIB), PhysAddr(40 * MIB)


@pytest.fixture
def ram(tmp_path: Path) -> RamFile:
    return RamFile.create(tmp_path / "ram", pc_regions(RAM_BYTES))


def whole_file(allocator: BuddyAllocator, end: int = RAM_BYTES) -> bytes:
    return PageFlags(allocator).read(0, ENTRY_BYTES * (end // PAGE_SIZE))


def image() -> Image:
    data = random.Random(7).randbytes(64 * 1024)
    made = make_image(data, version=BiosVersion.parse("A06"), systems=[SystemId(0x0121)])
    return Image.parse(made)


def free_pages(*starts: int, size_bytes: int) -> FreePages:
    """All pages held but `size_bytes` at each of these addresses."""
    flags = bytearray(ENTRY_BYTES * (RAM_BYTES // PAGE_SIZE))
    for start in starts:
        for page in range(start, start + size_bytes, PAGE_SIZE):
            flags[page // PAGE_SIZE * ENTRY_BYTES + 1] = 0x04  # bit 10
    return FreePages([(0, bytes(flags))])


def test_every_page_shows_whether_the_allocator_has_it(ram: RamFile) -> None:
    allocator = BuddyAllocator(ram)
    rng = random.Random(1)
    taken = [(allocator.allocate(order), order) for order in rng.choices(range(6), k=300)]
    for address, order in taken[::2]:
        allocator.free(address, order)
    pages = FreePages([(0, whole_file(allocator))])
    held = {
        address + page * PAGE_SIZE for address, order in taken[1::2] for page in range(1 << order)
    }
    no_ram = range(640 * 1024, MIB)
    for place in range(0, RAM_BYTES, PAGE_SIZE):
        is_held = place in held or place in no_ram
        assert pages.any_in(place, PAGE_SIZE) is not is_held, hex(place)


def test_a_place_is_free_when_any_page_of_it_is() -> None:
    pages = free_pages(PLACE, size_bytes=PAGE_SIZE)
    assert pages.any_in(PLACE - PAGE_SIZE, PAGE_SIZE + 1)
    assert not pages.any_in(PLACE - PAGE_SIZE, PAGE_SIZE)
    assert pages.any_in(PLACE + PAGE_SIZE - 1, 1)
    assert not pages.any_in(PLACE + PAGE_SIZE, 8 * PAGE_SIZE)


@pytest.mark.parametrize("first", [0, 1, 255, 256, 1023, 1024, 5000])
def test_a_part_of_the_file_is_that_part(ram: RamFile, first: int) -> None:
    allocator = BuddyAllocator(ram)
    allocator.allocate(3)
    part = PageFlags(allocator).read(first * ENTRY_BYTES, 2000 * ENTRY_BYTES)
    assert part == whole_file(allocator)[first * ENTRY_BYTES :][: 2000 * ENTRY_BYTES]


def test_the_file_ends_with_the_memory(tmp_path: Path) -> None:
    large = RamFile.create(tmp_path / "large", pc_regions(5 * GIB))
    frames = large.regions[-1].end // PAGE_SIZE
    flags = PageFlags(BuddyAllocator(large))
    assert len(flags.read((frames - 3) * ENTRY_BYTES, 100 * ENTRY_BYTES)) == 3 * ENTRY_BYTES
    assert flags.read(frames * ENTRY_BYTES, 8) == b""
    assert flags.read(2 * frames * ENTRY_BYTES, 8) == b""


@pytest.mark.parametrize(("offset", "size_bytes"), [(4, 8), (0, 12), (1, 1)])
def test_only_whole_entries_can_be_read(ram: RamFile, offset: int, size_bytes: int) -> None:
    with pytest.raises(KernelError) as caught:
        PageFlags(BuddyAllocator(ram)).read(offset, size_bytes)
    assert caught.value.errno == errno.EINVAL


def test_a_copy_in_free_memory_is_skipped_for_the_one_of_the_driver(ram: RamFile) -> None:
    for place in (PLACE, ELSEWHERE):
        ram.write(place, image().build())
    free = free_pages(PLACE, size_bytes=MIB)
    (finding,) = find_staged(ram, image(), published(image()), free_pages=lambda _: free)
    assert finding.extents[0].start == ELSEWHERE


def test_an_image_in_free_memory_only_does_not_count_as_staged(ram: RamFile) -> None:
    ram.write(PLACE, image().build())
    last_page = PLACE + 16 * PAGE_SIZE
    free = free_pages(last_page, size_bytes=PAGE_SIZE)
    with pytest.raises(UpdateFailedError, match="only in memory that is free"):
        find_staged(ram, image(), published(image()), free_pages=lambda _: free)


@pytest.mark.parametrize("bit", [LRU_BIT, MMAP_BIT, ANON_BIT, BUDDY_BIT])
def test_a_copy_that_is_free_after_the_restart_does_not_count_as_staged(bit: int) -> None:
    """A file's pages and a program's: on Debian's 6.1.192 this program's own copy of the packets
    was taken for the driver's, which lay above 4 GiB."""
    flags = b"".join(flags.to_bytes(8, "little") for flags in (0, 1 << bit, 1 << 39))
    pages = FreePages([(0, flags)])
    assert [pages.any_in(page * PAGE_SIZE, PAGE_SIZE) for page in range(3)] == [False, True, False]


def test_on_a_hypervisor_what_is_in_no_frame_of_the_table_counts_as_free() -> None:
    """It is another guest's: a copy of the image there is not what the driver holds."""
    held, free = bytes(ENTRY_BYTES), (1 << BUDDY_BIT).to_bytes(ENTRY_BYTES, "little")
    table = np.array([5, 3, 1], np.uint32)
    pages = FreePages.by_machine_frame(held + free + held, table, 7 * PAGE_SIZE)
    seen = [pages.any_in(page * PAGE_SIZE, PAGE_SIZE) for page in range(9)]
    of_others, end = True, False
    assert seen == [of_others, False, of_others, True, of_others, False, of_others, end, end]


def test_packets_count_only_in_memory_of_the_driver(ram: RamFile) -> None:
    packets = packet.split(image().build(), set_id=1)
    for place in (PLACE, ELSEWHERE):
        ram.write(place, packets)
    third = 3 * PAGE_SIZE
    one_free = free_pages(PLACE + third, size_bytes=PAGE_SIZE)
    bioses = published(image())
    (found,) = find_staged(ram, image(), bioses, packets=packets, free_pages=lambda _: one_free)
    assert [extent.start for extent in found.extents] == [
        PLACE,
        PLACE + 4 * PAGE_SIZE,
        ELSEWHERE + third,
    ]
    both_free = free_pages(PLACE + third, ELSEWHERE + third, size_bytes=PAGE_SIZE)
    with pytest.raises(UpdateFailedError, match=r"only in memory that is free.*1 of the set's 18"):
        find_staged(ram, image(), bioses, packets=packets, free_pages=lambda _: both_free)
