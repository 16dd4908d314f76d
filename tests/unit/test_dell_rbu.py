"""What the driver does with memory, and the corners of its files.

What user space sees in general is in the contract tests. What is marked so was seen on Debian's
6.1.192.
"""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import pytest

from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import PROFILES, KernelOopsError, profile
from openrbu.errors import KernelError, UsageError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faulty_pages import FaultyPages
from openrbu.memory.pages import PageSource
from openrbu.typed_json import to_text
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr, order_for
from rigs.driver import DEVICE, FIRMWARE, FLOOR, InProcess, cat, pattern, stage, stage_packets


@pytest.fixture
def machine(tmp_path: Path) -> InProcess:
    """The driver loaded as it comes, in 32 MiB."""
    machine = InProcess(tmp_path)
    machine.load_module()
    return machine


def nothing_is_staged(machine: InProcess) -> bool:
    try:
        machine.read(f"{DEVICE}/data")
    except KernelError as error:
        return error.errno == errno.ENOMEM and not machine.driver.staged_blocks
    return False


# -- files --------------------------------------------------------------------------------------


def test_the_device_directory_is_a_platform_device_s(machine: InProcess) -> None:
    """Names, modes and texts seen on Linux."""
    modes = {
        name: machine.tree.lookup(f"/devices/platform/dell_rbu/{name}", follow=False).mode
        for name in machine.list(DEVICE)
        if name not in ("power", "firmware", "subsystem")
    }
    assert modes == {
        "data": 0o444,
        "driver_override": 0o644,
        "image_type": 0o644,
        "modalias": 0o444,
        "packet_size": 0o644,
        "uevent": 0o644,
    }
    assert machine.read(f"{DEVICE}/modalias") == b"platform:dell_rbu\n"
    assert machine.read(f"{DEVICE}/uevent") == b"MODALIAS=platform:dell_rbu\n"
    assert machine.tree.readlink("/devices/platform/dell_rbu/subsystem") == "../../../bus/platform"
    assert machine.exists("/sys/bus/platform/devices/dell_rbu/data")


def test_unloading_takes_all_files_away(machine: InProcess) -> None:
    machine.write(f"{FIRMWARE}/loading", b"-1")
    machine.unload_module()
    for directory in ("/sys/devices/platform", "/sys/bus/platform/devices"):
        assert machine.list(directory) == []
    assert machine.list("/sys/module") == ["firmware_class"]
    assert machine.list("/sys/class/firmware") == ["timeout"]


def test_the_driver_is_loaded_once(machine: InProcess) -> None:
    with pytest.raises(KernelError) as refused:
        machine.load_module()
    assert refused.value.errno == errno.EEXIST


@pytest.mark.parametrize("name", ["image_type", "packet_size"])
def test_only_a_read_at_offset_0_shows_anything(machine: InProcess, name: str) -> None:
    """Seen on Linux, the byte too few of a short read too."""
    machine.write(f"{DEVICE}/packet_size", b"4096")
    whole = {"image_type": b"mono\n", "packet_size": b"4096\n"}[name]
    for size_bytes in (1, 2, 5, 6, 4096):
        shown = machine.read(f"{DEVICE}/{name}", 0, size_bytes)
        assert shown == whole[: size_bytes - 1]
        assert machine.read(f"{DEVICE}/{name}", 1, size_bytes) == b""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"packet", b"packet\n"),
        (b"xmonox\n", b"mono\n"),
        (b"packets mono\n", b"packet\n"),
        (b"packet\nmono", b"packet\n"),
        (b"packetmono", b"mono\n"),
        (b"initpacket", b"packet\n"),
        (b"\tpacket", b"packet\n"),
        (b"init packet", b"mono\n"),
    ],
)
def test_the_first_word_decides_about_the_type_by_what_is_in_it(
    machine: InProcess, text: bytes, shown: bytes
) -> None:
    """Seen on Linux."""
    machine.write(f"{DEVICE}/image_type", text)
    assert machine.read(f"{DEVICE}/image_type") == shown


@pytest.mark.parametrize("text", [b"foo\n", b"pac", b" packet", b"\npacket", b"PACKET", b"\n"])
def test_other_text_is_einval_and_changes_nothing(machine: InProcess, text: bytes) -> None:
    """Seen on Linux."""
    stage(machine, b"image")
    with pytest.raises(KernelError) as refused:
        machine.write(f"{DEVICE}/image_type", text)
    assert refused.value.errno == errno.EINVAL
    assert machine.read(f"{DEVICE}/image_type") == b"mono\n"
    assert cat(machine, f"{DEVICE}/data") == b"image"


def test_a_nul_ends_what_is_written(machine: InProcess) -> None:
    """Seen on Linux."""
    machine.write(f"{DEVICE}/image_type", b"packet\0mono")
    assert machine.read(f"{DEVICE}/image_type") == b"packet\n"
    with pytest.raises(KernelError) as refused:
        machine.write(f"{DEVICE}/image_type", b"x\0mono")
    assert refused.value.errno == errno.EINVAL
    machine.write(FLOOR, b"4096\0x")
    assert machine.read(FLOOR) == b"4096\n"


def test_the_offset_of_a_write_does_not_matter(machine: InProcess) -> None:
    """Seen on Linux."""
    machine.write(f"{DEVICE}/image_type", b"packet", 3)
    machine.write(f"{DEVICE}/packet_size", b"4096", 2)
    assert machine.read(f"{DEVICE}/image_type") == b"packet\n"
    assert machine.read(f"{DEVICE}/packet_size") == b"4096\n"


@pytest.mark.parametrize("name", ["foo", "packets", "init", "MONO", ""])
def test_an_unknown_type_at_load_is_shown_and_stages_nothing(tmp_path: Path, name: str) -> None:
    """Seen on Linux."""
    machine = InProcess(tmp_path)
    machine.load_module(image_type=name)
    assert machine.read(f"{DEVICE}/image_type") == f"{name}\n".encode()
    stage(machine, b"image")
    assert machine.read(f"{DEVICE}/data") == b""
    assert machine.driver.staged_blocks == ()


def test_a_type_of_over_16_characters_at_load_is_enospc(tmp_path: Path) -> None:
    """Seen on Linux."""
    machine = InProcess(tmp_path)
    machine.load_module(image_type="x" * 16)
    with pytest.raises(KernelError) as refused:
        InProcess(tmp_path).load_module(image_type="x" * 17)
    assert refused.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("text", "shown"), [(b"0x200000\n", b"2097152\n"), (b"4096", b"4096\n"), (b"010\n", b"8\n")]
)
def test_the_allocation_floor_can_be_changed(machine: InProcess, text: bytes, shown: bytes) -> None:
    """Seen on Linux."""
    assert machine.read(FLOOR) == b"1048576\n"
    machine.write(FLOOR, text)
    assert machine.read(FLOOR) == shown


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"abc", errno.EINVAL),
        (b"12x", errno.EINVAL),
        (b"-1", errno.EINVAL),
        (b" 5", errno.EINVAL),
        (b"18446744073709551616", errno.ERANGE),
    ],
)
def test_a_bad_allocation_floor_is_refused(machine: InProcess, text: bytes, error: int) -> None:
    """Seen on Linux."""
    with pytest.raises(KernelError) as refused:
        machine.write(FLOOR, text)
    assert refused.value.errno == error
    assert machine.read(FLOOR) == b"1048576\n"


def test_there_is_no_profile_of_another_name() -> None:
    with pytest.raises(UsageError, match="there are: documented"):
        profile("linux-2.4")


# -- monolithic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("size_bytes", [1, PAGE_SIZE, 524_380, 4 * MIB])
def test_a_monolithic_image_gets_one_block_below_4_gib(
    tmp_path: Path, name: str, size_bytes: int
) -> None:
    machine = InProcess(tmp_path, name, ram_bytes=6 * GIB)
    machine.load_module()
    image = pattern(size_bytes)
    stage(machine, image)
    (block,) = machine.driver.staged_blocks
    assert (block.order, block.size_bytes) == (order_for(size_bytes), size_bytes)
    assert block.address % block.capacity_bytes == 0
    assert block.address + block.capacity_bytes <= 4 * GIB
    assert machine.memory.read(block.address, size_bytes) == image
    assert cat(machine, f"{DEVICE}/data") == image
    assert machine.driver.staged_size_bytes == size_bytes


def test_a_monolithic_image_is_read_by_offset(machine: InProcess) -> None:
    stage(machine, b"hello")
    data = f"{DEVICE}/data"
    reads = [machine.read(data, 2), machine.read(data, 0, 2), machine.read(data, 5)]
    assert [*reads, machine.read(data, 6)] == [b"llo", b"he", b"", b""]


def test_a_smaller_image_takes_the_same_block_and_leaves_nothing_of_the_larger(
    machine: InProcess,
) -> None:
    stage(machine, pattern(200_000))
    (first,) = machine.driver.staged_blocks
    small = pattern(10_000, seed=2)
    stage(machine, small)
    (second,) = machine.driver.staged_blocks
    assert second.address == first.address
    assert cat(machine, f"{DEVICE}/data") == small
    rest = machine.memory.read(first.address, first.capacity_bytes)[len(small) :]
    assert rest == bytes(len(rest))


def test_a_larger_image_takes_another_block_and_the_old_one_is_freed(machine: InProcess) -> None:
    before = machine.free_bytes()
    stage(machine, pattern(10_000))
    large = pattern(200_000, seed=2)
    stage(machine, large)
    assert cat(machine, f"{DEVICE}/data") == large
    assert machine.free_bytes() == before - 256 * KIB


def test_the_rest_of_a_block_after_the_image_is_cleared(machine: InProcess) -> None:
    fill_memory(machine, 0xFF)
    stage(machine, pattern(5000))
    (block,) = machine.driver.staged_blocks
    assert machine.memory.read(block.address, 8192) == pattern(5000) + bytes(8192 - 5000)


def test_an_image_of_over_4_mib_is_not_staged_and_loading_tells_no_error(
    machine: InProcess,
) -> None:
    before = machine.free_bytes()
    stage(machine, pattern(10_000))
    stage(machine, pattern(4 * MIB + 1))
    assert nothing_is_staged(machine)
    assert machine.free_bytes() == before
    assert any("no memory" in line for line in machine.log)
    assert not any("Errno" in line for line in machine.log)  # which is Python's word


def test_without_a_block_that_is_large_enough_nothing_is_staged(tmp_path: Path) -> None:
    machine = InProcess(tmp_path, wrap=lambda pages: FaultyPages(pages, fail_above_order=4))
    machine.load_module()
    stage(machine, pattern(64 * KIB))
    assert cat(machine, f"{DEVICE}/data") == pattern(64 * KIB)
    stage(machine, pattern(64 * KIB + 1))
    assert nothing_is_staged(machine)


# -- packets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet_size", [1000, 4096, 5000, 64 * KIB])
def test_each_packet_gets_a_block_of_its_own(machine: InProcess, packet_size: int) -> None:
    image = pattern(200_000)
    stage_packets(machine, image, packet_size)
    blocks = machine.driver.staged_blocks
    pieces = [image[at : at + packet_size] for at in range(0, len(image), packet_size)]
    assert [block.size_bytes for block in blocks] == [len(piece) for piece in pieces]
    for block, piece in zip(blocks, pieces, strict=True):
        assert block.order == order_for(len(piece))
        assert block.address % block.capacity_bytes == 0
        whole = machine.memory.read(block.address, block.capacity_bytes)
        assert whole == piece.ljust(block.capacity_bytes, b"\0")
    assert cat(machine, f"{DEVICE}/data") == image


def test_packets_lie_at_or_above_the_floor_and_what_was_held_is_freed(tmp_path: Path) -> None:
    """In 16 MiB the lowest address comes first, so the blocks below the floor all come up."""
    machine = InProcess(tmp_path, ram_bytes=16 * MIB)
    machine.load_module(allocation_floor=hex(5 * MIB))
    before = machine.free_bytes()
    stage_packets(machine, pattern(100_000), 5000)
    blocks = machine.driver.staged_blocks
    assert min(block.address for block in blocks) >= 5 * MIB
    assert machine.free_bytes() == before - sum(block.capacity_bytes for block in blocks)


def test_with_a_floor_above_all_memory_nothing_is_staged(machine: InProcess) -> None:
    before = machine.free_bytes()
    machine.write(FLOOR, b"0xffffffffffff")
    stage_packets(machine, pattern(5000), 4096)
    assert nothing_is_staged(machine)
    assert machine.free_bytes() == before


@pytest.mark.parametrize("name", PROFILES)
def test_only_documented_keeps_packets_where_a_bios_looks(tmp_path: Path, name: str) -> None:
    machine = InProcess(tmp_path, name, ram_bytes=6 * GIB)
    machine.load_module()
    stage_packets(machine, pattern(50_000), 4096)
    are_below = [block.address < 4 * GIB for block in machine.driver.staged_blocks]
    assert are_below == [name == "documented"] * 13


@pytest.mark.parametrize(
    ("floor", "packet_size", "is_staged"),
    [
        (524_288, 1, True),
        (524_289, 1, False),
        (1_048_576, 1, False),
        (1_048_577, 2, True),
        (1_048_578, 2, False),
    ],
)
def test_in_linux_no_more_packets_than_it_can_list_fit_below_the_floor(
    tmp_path: Path, floor: int, packet_size: int, is_staged: bool
) -> None:
    """The limits were seen on Debian's 6.1.192."""
    machine = InProcess(tmp_path, "linux")
    machine.load_module(allocation_floor=str(floor))
    stage_packets(machine, b"image", packet_size)
    assert nothing_is_staged(machine) == (not is_staged)


def test_in_documented_packets_of_one_byte_can_be_staged(machine: InProcess) -> None:
    stage_packets(machine, b"image", 1)
    assert cat(machine, f"{DEVICE}/data") == b"image"


def test_a_packet_of_over_4_mib_is_not_staged(machine: InProcess) -> None:
    stage_packets(machine, pattern(4 * MIB + 1), 5 * MIB)
    assert nothing_is_staged(machine)


@pytest.mark.parametrize("fail_nth", range(1, 15))
def test_memory_that_runs_out_at_any_packet_stages_nothing_and_loses_nothing(
    tmp_path: Path, fail_nth: int
) -> None:
    """The first allocations are the firmware buffer's, which makes do with smaller blocks."""
    faults: list[FaultyPages] = []

    def wrap(pages: PageSource) -> PageSource:
        faults.append(FaultyPages(pages, fail_nth=fail_nth))
        return faults[0]

    machine = InProcess(tmp_path, wrap=wrap)
    machine.load_module()
    before = machine.free_bytes()
    image = pattern(10 * PAGE_SIZE)
    stage_packets(machine, image, PAGE_SIZE)
    buffer_calls = 3 if fail_nth <= 2 else 2
    is_packet = buffer_calls < fail_nth <= buffer_calls + 10
    assert nothing_is_staged(machine) == is_packet
    assert faults[0].calls >= min(fail_nth, 12)
    machine.write(f"{DEVICE}/image_type", b"init")
    assert machine.free_bytes() == before
    stage_packets(machine, image, PAGE_SIZE)
    assert cat(machine, f"{DEVICE}/data") == image


def test_a_set_that_was_dropped_for_lack_of_memory_leaves_nothing_of_an_earlier_one(
    machine: InProcess,
) -> None:
    stage_packets(machine, pattern(50_000), 4096)
    (first, *_) = machine.driver.staged_blocks
    machine.write(FLOOR, b"0xffffffffffff")
    stage(machine, pattern(50_000, seed=2))
    assert nothing_is_staged(machine)
    assert machine.memory.read(first.address, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_reads_of_packets_share_a_cursor(machine: InProcess) -> None:
    """The whole sequence was seen on Linux."""
    machine.write(f"{DEVICE}/image_type", b"packet")
    machine.write(f"{DEVICE}/packet_size", b"10")
    image = b"0123456789abcdefghijABC"
    stage(machine, image)
    for offset, size_bytes, expected in (
        (0, 131072, image),
        (0, 5, b"01234"),
        (0, 5, b"56789"),
        (0, 5, b"abcde"),
        (0, 5, b"fghij"),
        (0, 5, b"ABC\0\0"),
        (0, 5, bytes(5)),
        (0, 131072, bytes(23)),
        (23, 131072, b""),
        (24, 131072, b""),
        (0, 23, image),
        (0, 23, bytes(23)),
        (23, 5, b""),
        (0, 7, b"0123456"),
        (20, 7, b"789"),
        (0, 7, b"0123456"),
        (10, 13, b"789abcdefghij"),
        (0, 5, b"ABC\0\0"),
        (10, 14, bytes(13)),
        (0, 5, b"01234"),
        (30, 5, b""),
        (0, 5, b"56789"),
    ):
        assert machine.read(f"{DEVICE}/data", offset, size_bytes) == expected


@pytest.mark.parametrize("packet_size", [0, 4096, 5000])
def test_memory_is_cleared_before_it_is_freed(machine: InProcess, packet_size: int) -> None:
    """With 0 the image is monolithic."""
    if packet_size:
        stage_packets(machine, pattern(100_000), packet_size)
    else:
        stage(machine, pattern(100_000))
    blocks = machine.driver.staged_blocks
    machine.write(f"{DEVICE}/image_type", b"init")
    for block in blocks:
        whole = machine.memory.read(block.address, block.capacity_bytes)
        assert whole == bytes(block.capacity_bytes)


def test_in_linux_5_7_clearing_a_short_packet_clears_packet_size_bytes(tmp_path: Path) -> None:
    """The last packet has a page of its own, and the rest of 16 KiB is its neighbours'."""
    machine = InProcess(tmp_path, "linux-5.7")
    machine.load_module()
    image = pattern(2 * 16 * KIB + 10)
    stage_packets(machine, image, 16 * KIB)
    first, _, last = machine.driver.staged_blocks
    free_page = PhysAddr(last.address + PAGE_SIZE)
    machine.memory.write(free_page, b"\xaa" * PAGE_SIZE)
    with pytest.raises(KernelOopsError):
        machine.write(f"{DEVICE}/image_type", b"mono")
    assert machine.memory.read(free_page, PAGE_SIZE) == bytes(PAGE_SIZE)
    lost = last.address + 16 * KIB - first.address  # of the packet that is not itself cleared
    assert 0 < lost < 16 * KIB
    left = machine.memory.read(first.address, 16 * KIB)
    assert left == bytes(lost) + image[lost : 16 * KIB]


def test_elsewhere_clearing_a_short_packet_stays_in_its_block(tmp_path: Path) -> None:
    machine = InProcess(tmp_path, "linux-6.16")
    machine.load_module()
    stage_packets(machine, pattern(2 * 16 * KIB + 10), 16 * KIB)
    *_, last = machine.driver.staged_blocks
    free_page = PhysAddr(last.address + PAGE_SIZE)
    machine.memory.write(free_page, b"\xaa" * PAGE_SIZE)
    machine.write(f"{DEVICE}/image_type", b"mono")
    assert machine.memory.read(free_page, PAGE_SIZE) == b"\xaa" * PAGE_SIZE


def test_when_linux_5_7_dies_the_first_packet_is_left_in_memory(tmp_path: Path) -> None:
    machine = InProcess(tmp_path, "linux-5.7")
    machine.load_module()
    stage_packets(machine, pattern(3 * PAGE_SIZE), PAGE_SIZE)
    blocks = machine.driver.staged_blocks
    with pytest.raises(KernelOopsError):
        machine.write(f"{DEVICE}/packet_size", b"4096")
    left = [machine.memory.read(block.address, PAGE_SIZE) for block in blocks]
    assert left == [pattern(PAGE_SIZE), bytes(PAGE_SIZE), bytes(PAGE_SIZE)]


# -- loads that bring nothing, and what is put away ---------------------------------------------


@pytest.mark.parametrize("command", [b"0", b"-1", b"7"])
def test_a_load_that_brings_nothing_leaves_what_is_staged(
    machine: InProcess, command: bytes
) -> None:
    stage(machine, b"image")
    machine.write(f"{FIRMWARE}/loading", b"1")
    if command != b"0":
        machine.write(f"{FIRMWARE}/data", b"other")
    machine.write(f"{FIRMWARE}/loading", command)
    assert cat(machine, f"{DEVICE}/data") == b"image"


def test_a_large_set_makes_a_small_snapshot(tmp_path: Path) -> None:
    machine = InProcess(tmp_path, ram_bytes=64 * MIB)
    machine.load_module()
    stage_packets(machine, pattern(4130 * PAGE_SIZE), PAGE_SIZE)
    assert len(machine.driver.staged_blocks) == 4130
    assert len(to_text(machine.driver.snapshot())) < 1000


@pytest.mark.parametrize("packet_size", [0, 4096, 5000])
def test_a_restored_driver_goes_on_where_it_was(machine: InProcess, packet_size: int) -> None:
    """With 0 the image is monolithic."""
    before = machine.free_bytes()
    image = pattern(100_001)
    machine.write(FLOOR, b"0x200000")
    if packet_size:
        stage_packets(machine, image, packet_size)
    else:
        stage(machine, image)
    blocks = machine.driver.staged_blocks
    assert machine.read(f"{DEVICE}/data", 0, 100) == image[:100]
    machine.put_away_and_take_out()
    assert machine.driver.staged_blocks == blocks
    assert machine.driver.packet_size_bytes == packet_size
    assert machine.read(FLOOR) == b"2097152\n"
    assert machine.read(f"{DEVICE}/data", 100) == image[100:]
    machine.write(f"{FIRMWARE}/loading", b"-1")
    machine.unload_module()
    assert machine.free_bytes() == before


def test_restoring_brings_no_entry_back_that_was_gone(machine: InProcess) -> None:
    machine.write(f"{FIRMWARE}/loading", b"-1")
    machine.put_away_and_take_out()
    assert not machine.exists(f"{FIRMWARE}/loading")


def test_scattered_blocks_survive_a_snapshot(tmp_path: Path) -> None:
    def wrap(pages: PageSource) -> PageSource:
        assert isinstance(pages, BuddyAllocator)
        pages.fragment(keep_free_order=0)
        return pages

    machine = InProcess(tmp_path, wrap=wrap)
    machine.load_module()
    image = pattern(50_000)
    stage_packets(machine, image, 4096)
    addresses = [block.address for block in machine.driver.staged_blocks]
    assert all(b - a == 2 * PAGE_SIZE for a, b in pairwise(addresses))
    machine.put_away_and_take_out()
    assert cat(machine, f"{DEVICE}/data") == image


def test_a_loaded_driver_asks_for_no_memory(tmp_path: Path) -> None:
    machine = InProcess(tmp_path)
    before = machine.free_bytes()
    machine.load_module()
    assert machine.free_bytes() == before
    assert isinstance(machine.driver, DellRbu)
    assert (machine.driver.image_type, machine.driver.packet_size_bytes) == ("mono", 0)
    assert machine.driver.staged_size_bytes == 0


def fill_memory(machine: InProcess, value: int) -> None:
    for region in machine.memory.regions:
        machine.memory.write(region.start, bytes([value]) * region.size_bytes)
