"""RAM as a sparse file: what is seen, what it costs, and how it fails."""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import AddressError, MachineError, UsageError
from openrbu.formats.packet import HEADER_SIZE_BYTES
from openrbu.memory.physical import Region, pc_regions, unaligned_buffer
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.cli import names_in

TIB = 1024 * GIB


def region(start: int, end: int) -> Region:
    return Region(PhysAddr(start), PhysAddr(end))


def disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ram"


@pytest.fixture
def ram(path: Path) -> Iterator[RamFile]:
    ram = RamFile.create(path, pc_regions(64 * MIB))
    yield ram
    ram.close()


# -- copies that no search finds --------------------------------------------------------------


@given(
    size=st.just(HEADER_SIZE_BYTES) | st.integers(1, 64).map(lambda count: count * KIB),
    count=st.integers(1, 300),
)
def test_no_record_of_a_buffer_off_the_page_begins_on_a_page(size: int, count: int) -> None:
    buffer = unaligned_buffer(count * size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    assert len(buffer) == count * size
    assert start % 8 == 0
    assert all((start + number * size) % PAGE_SIZE for number in range(count))


# -- where RAM is -----------------------------------------------------------------------------


def test_a_small_pc_has_a_gap_below_1_mib() -> None:
    assert pc_regions(64 * MIB) == (region(0, 640 * KIB), region(MIB, 64 * MIB))


def test_a_large_pc_has_the_rest_from_4_gib_up() -> None:
    low, middle, high = pc_regions(8 * GIB)
    assert (low, middle) == (region(0, 640 * KIB), region(MIB, 3 * GIB))
    assert high == region(4 * GIB, 9 * GIB)


def test_exactly_3_gib_has_nothing_above_4_gib() -> None:
    assert pc_regions(3 * GIB)[-1] == region(MIB, 3 * GIB)


@pytest.mark.parametrize("size_bytes", [0, -4096, MIB, 2 * MIB + 1])
def test_a_ram_size_that_no_pc_has_is_refused(size_bytes: int) -> None:
    with pytest.raises(UsageError, match="whole 4 KiB pages and over 1 MiB"):
        pc_regions(size_bytes)


def test_a_region_is_clipped_to_what_lies_inside() -> None:
    whole = region(4096, 16384)
    assert whole.size_bytes == 12288
    assert whole.clip(0, 1 << 40) == whole
    assert whole.clip(8192, 12288) == region(8192, 12288)
    assert whole.clip(0, 4096) is None
    assert whole.clip(16384, 20480) is None


# -- reading, writing, viewing ----------------------------------------------------------------


def test_ram_starts_as_zeros(ram: RamFile) -> None:
    assert ram.read(PhysAddr(MIB), 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)


def test_what_was_written_is_read_back(ram: RamFile) -> None:
    ram.write(PhysAddr(MIB + 5), b"seen")
    assert ram.read(PhysAddr(MIB + 4), 6) == b"\0seen\0"


def test_the_byte_at_an_address_is_that_byte_of_the_file(ram: RamFile, path: Path) -> None:
    ram.write(PhysAddr(3 * MIB + 1), b"here")
    with path.open("rb") as file:
        file.seek(3 * MIB + 1)
        assert file.read(4) == b"here"


def test_a_view_is_the_ram_itself_and_changes_with_it(ram: RamFile) -> None:
    view = ram.view(PhysAddr(MIB), 4)
    ram.write(PhysAddr(MIB), b"new!")
    assert bytes(view) == b"new!"
    ram.clear()
    assert bytes(view) == bytes(4)


def test_a_view_of_all_ram_costs_no_memory_of_its_own(path: Path) -> None:
    ram = RamFile.create(path, pc_regions(TIB))
    view = ram.view(PhysAddr(4 * GIB), TIB - 3 * GIB)
    assert len(view) == TIB - 3 * GIB
    assert view[-1] == 0
    view.release()
    ram.close()


def test_a_view_can_not_be_written_to(ram: RamFile) -> None:
    assert ram.view(PhysAddr(MIB), 4).readonly


def test_buffers_of_every_kind_can_be_written(ram: RamFile) -> None:
    for data in (b"abc", bytearray(b"def"), memoryview(b"xghix")[1:4]):
        ram.write(PhysAddr(MIB), data)
        assert ram.read(PhysAddr(MIB), 3) == bytes(data)


@pytest.mark.parametrize(
    ("address", "size_bytes"),
    [
        (640 * KIB - 1, 2),  # into the gap
        (700 * KIB, 1),
        (MIB - 1, 2),  # out of the gap
        (64 * MIB - 1, 2),  # past the end
        (64 * MIB, 1),
        (-1, 1),
        (0, 64 * MIB),  # over the gap
    ],
)
def test_what_is_not_all_ram_is_an_address_error_and_changes_nothing(
    ram: RamFile, path: Path, address: int, size_bytes: int
) -> None:
    data = b"\xff" * size_bytes
    for call in (
        lambda: ram.write(PhysAddr(address), data),
        lambda: ram.read(PhysAddr(address), size_bytes),
        lambda: ram.view(PhysAddr(address), size_bytes),
        lambda: ram.zero(PhysAddr(address), size_bytes),
    ):
        with pytest.raises(AddressError) as caught:
            call()
        assert (caught.value.address, caught.value.size_bytes) == (address, size_bytes)
    assert disk_bytes(path) == 0


def test_the_last_byte_of_a_region_can_be_written(ram: RamFile) -> None:
    for end in (640 * KIB, 64 * MIB):
        ram.write(PhysAddr(end - 1), b"\x01")
        assert ram.read(PhysAddr(end - 1), 1) == b"\x01"


# -- what it costs ----------------------------------------------------------------------------


def test_a_tebibyte_of_ram_takes_no_disk_space(path: Path) -> None:
    ram = RamFile.create(path, pc_regions(TIB))
    assert path.stat().st_size == TIB + GIB
    assert disk_bytes(path) == 0
    ram.write(PhysAddr(TIB), b"x")
    assert list(ram.populated(PhysAddr(0), PhysAddr(2 * TIB))) == [region(TIB, TIB + PAGE_SIZE)]
    assert disk_bytes(path) <= 64 * KIB
    ram.close()


def test_populated_finds_exactly_the_pages_that_were_written(ram: RamFile) -> None:
    for address in (0, 5 * MIB + 100, 5 * MIB + PAGE_SIZE, 63 * MIB + PAGE_SIZE - 1):
        ram.write(PhysAddr(address), b"\xaa")
    assert list(ram.populated(PhysAddr(0), PhysAddr(GIB))) == [
        region(0, PAGE_SIZE),
        region(5 * MIB, 5 * MIB + 2 * PAGE_SIZE),
        region(63 * MIB, 63 * MIB + PAGE_SIZE),
    ]


def test_populated_is_clipped_to_what_was_asked(ram: RamFile) -> None:
    ram.write(PhysAddr(2 * MIB), bytes(8 * PAGE_SIZE))
    start, end = 2 * MIB + PAGE_SIZE + 100, 2 * MIB + 3 * PAGE_SIZE - 100
    assert list(ram.populated(PhysAddr(start), PhysAddr(end))) == [region(start, end)]


def test_populated_of_untouched_ram_is_nothing(ram: RamFile) -> None:
    assert list(ram.populated(PhysAddr(0), PhysAddr(GIB))) == []


@given(
    pages=st.sets(st.integers(256, 400)),
    start=st.integers(200, 420),
    end=st.integers(200, 420),
)
@settings(deadline=None, max_examples=50)
def test_populated_is_the_written_pages_in_the_range(
    tmp_path_factory: pytest.TempPathFactory, pages: set[int], start: int, end: int
) -> None:
    ram = RamFile.create(tmp_path_factory.mktemp("ram") / "ram", pc_regions(4 * MIB))
    for page in pages:
        ram.write(PhysAddr(page * PAGE_SIZE), b"\x01")
    found = list(ram.populated(PhysAddr(start * PAGE_SIZE), PhysAddr(end * PAGE_SIZE)))
    ram.close()
    numbers = [n for r in found for n in range(r.start // PAGE_SIZE, r.end // PAGE_SIZE)]
    assert numbers == sorted(page for page in pages if start <= page < end)


def test_zeroing_a_tebibyte_leaves_holes_holes(path: Path) -> None:
    ram = RamFile.create(path, pc_regions(TIB))
    ram.write(PhysAddr(5 * GIB), b"old" * PAGE_SIZE)
    before = disk_bytes(path)
    ram.zero(PhysAddr(4 * GIB), TIB - 3 * GIB)
    assert ram.read(PhysAddr(5 * GIB), 3 * PAGE_SIZE) == bytes(3 * PAGE_SIZE)
    assert disk_bytes(path) == before
    ram.close()


def test_zeroing_clears_what_was_asked_and_no_byte_more(ram: RamFile) -> None:
    ram.write(PhysAddr(8 * MIB), b"\xff" * (5 * MIB))
    ram.zero(PhysAddr(8 * MIB + 1), 5 * MIB - 2)
    assert ram.read(PhysAddr(8 * MIB), 5 * MIB) == b"\xff" + bytes(5 * MIB - 2) + b"\xff"


def test_a_power_cycle_clears_all_and_gives_the_disk_space_back(ram: RamFile, path: Path) -> None:
    ram.write(PhysAddr(8 * MIB), b"\xff" * MIB)
    with path.open("rb") as file:
        os.fsync(file)  # where space is only given when it must be
    assert disk_bytes(path) >= MIB
    ram.clear()
    assert ram.read(PhysAddr(8 * MIB), MIB) == bytes(MIB)
    assert disk_bytes(path) == 0
    assert path.stat().st_size == 64 * MIB


def test_regions_can_lie_elsewhere_in_the_file_than_at_their_addresses(path: Path) -> None:
    low, high = region(MIB, 2 * MIB), region(4 * GIB, 4 * GIB + MIB)
    path.write_bytes(bytes(3 * MIB))
    ram = RamFile(path, (low, high), offsets=(0, 2 * MIB))
    ram.write(PhysAddr(MIB + 5), b"low")
    ram.write(PhysAddr(4 * GIB + PAGE_SIZE), b"high")
    assert path.read_bytes()[5:8] == b"low"
    assert path.read_bytes()[2 * MIB + PAGE_SIZE :][:4] == b"high"
    assert ram.read(PhysAddr(4 * GIB + PAGE_SIZE - 1), 5) == b"\0high"
    assert bytes(ram.view(PhysAddr(MIB + 5), 3)) == b"low"
    for address in (0, 2 * MIB, 2 * MIB + PAGE_SIZE, 4 * GIB + MIB):
        with pytest.raises(AddressError):
            ram.read(PhysAddr(address), 1)
    ram.clear()
    ram.write(PhysAddr(4 * GIB + 3 * PAGE_SIZE), b"\x01")
    page = region(4 * GIB + 3 * PAGE_SIZE, 4 * GIB + 4 * PAGE_SIZE)
    assert list(ram.populated(PhysAddr(0), PhysAddr(5 * GIB))) == [page]
    ram.discard(page.start // PAGE_SIZE, 1)
    assert list(ram.populated(PhysAddr(0), PhysAddr(5 * GIB))) == []
    assert ram.commit(np.array([MIB // PAGE_SIZE, 4 * GIB // PAGE_SIZE])) == 2
    assert disk_bytes(path) >= 2 * PAGE_SIZE
    ram.write(PhysAddr(4 * GIB), b"old")
    ram.zero(PhysAddr(4 * GIB), MIB)
    ram.close()
    assert path.read_bytes() == bytes(3 * MIB)


# -- opening and closing ----------------------------------------------------------------------


def test_ram_survives_being_closed_and_opened(ram: RamFile, path: Path) -> None:
    ram.write(PhysAddr(MIB), b"kept")
    ram.close()
    again = RamFile(path, pc_regions(64 * MIB))
    assert again.read(PhysAddr(MIB), 4) == b"kept"
    again.close()


def test_creating_ram_over_an_old_file_leaves_nothing_of_it(ram: RamFile, path: Path) -> None:
    ram.write(PhysAddr(MIB), b"old")
    ram.close()
    again = RamFile.create(path, pc_regions(64 * MIB))
    assert list(again.populated(PhysAddr(0), PhysAddr(GIB))) == []
    again.close()


def test_ram_opened_for_reading_is_read_and_not_written(ram: RamFile, path: Path) -> None:
    ram.write(PhysAddr(MIB), b"kept")
    path.chmod(0o400)
    reader = RamFile(path, pc_regions(64 * MIB), writable=False)
    assert reader.read(PhysAddr(MIB), 4) == b"kept"
    with pytest.raises(OSError) as caught:  # noqa: PT011  (the errno is what is checked)
        reader.write(PhysAddr(MIB), b"lost")
    assert caught.value.errno == errno.EBADF
    assert reader.read(PhysAddr(MIB), 4) == b"kept"
    reader.close()


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(MachineError, match=f"{path} is missing"):
        RamFile(path, pc_regions(64 * MIB))


def test_a_file_that_is_shorter_than_the_ram_was_cut(ram: RamFile, path: Path) -> None:
    ram.close()
    os.truncate(path, 64 * MIB - 1)
    with pytest.raises(MachineError, match="has 67108863 bytes, not 67108864: it was cut"):
        RamFile(path, pc_regions(64 * MIB))


def test_a_power_cycle_that_was_killed_half_way_leaves_ram_that_opens(
    ram: RamFile, path: Path
) -> None:
    ram.write(PhysAddr(MIB), b"old")
    ram.close()
    os.truncate(path, 0)  # the first of the two steps of `clear`
    with pytest.raises(MachineError, match="has 0 bytes"):
        RamFile(path, pc_regions(64 * MIB), writable=False)
    again = RamFile(path, pc_regions(64 * MIB))
    assert again.read(PhysAddr(MIB), 4) == bytes(4)
    assert path.stat().st_size == 64 * MIB
    again.close()


def test_a_file_that_is_cut_while_in_use_is_an_error_to_read(ram: RamFile, path: Path) -> None:
    os.truncate(path, 2 * MIB)
    with pytest.raises(MachineError, match="was cut while in use"):
        ram.read(PhysAddr(2 * MIB - 1), 2)


def test_a_file_that_is_refused_leaves_no_descriptor_open(path: Path) -> None:
    path.write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(MachineError):
            RamFile(path, pc_regions(64 * MIB))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_view_outlives_the_ram_it_is_of(ram: RamFile) -> None:
    ram.write(PhysAddr(MIB), b"kept")
    view = ram.view(PhysAddr(MIB), 4)
    ram.close()
    assert bytes(view) == b"kept"


def test_closing_twice_closes_no_file_of_anybody_else(ram: RamFile, path: Path) -> None:
    ram.close()
    with path.open("rb") as other:
        ram.close()
        assert other.read(1) == b"\0"


def test_ram_that_nobody_has_any_more_has_no_file_open(ram: RamFile, path: Path) -> None:
    def opened() -> int:
        count = 0
        for name in names_in(Path("/proc/self/fd")):
            with contextlib.suppress(OSError):  # that of the list itself
                count += os.path.samestat(os.fstat(int(name)), path.stat())
        return count

    before = opened()
    another = RamFile(path, ram.regions)
    assert opened() > before
    del another
    assert opened() == before


def test_closed_ram_answers_nothing(ram: RamFile) -> None:
    ram.write(PhysAddr(MIB), b"x")
    ram.close()
    with pytest.raises(UsageError, match="is closed"):
        ram.write(PhysAddr(MIB), b"y")
    with pytest.raises(UsageError, match="is closed"):
        list(ram.populated(PhysAddr(0), PhysAddr(GIB)))


# -- a full disk ------------------------------------------------------------------------------

FILL_A_SMALL_DISK = """
import errno, sys
from pathlib import Path
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PhysAddr

ram = RamFile.create(Path(sys.argv[1]), pc_regions(64 * MIB))
try:
    ram.write(PhysAddr(2 * MIB), b"x" * MIB)
except OSError as error:
    print(errno.errorcode[error.errno])
print(ram.read(PhysAddr(32 * MIB), 4096) == bytes(4096))
ram.zero(PhysAddr(MIB), 63 * MIB)
ram.clear()
ram.write(PhysAddr(2 * MIB), b"fits")
print(ram.read(PhysAddr(2 * MIB), 4))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small tmpfs can't be mounted: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_an_error_and_not_a_signal(small_disk: Path) -> None:
    """In a process of its own, which a SIGBUS would end."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_A_SMALL_DISK, str(small_disk / "ram")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["ENOSPC", "True", "b'fits'"]


def test_reading_a_hole_takes_no_space_on_tmpfs(small_disk: Path) -> None:
    ram = RamFile.create(small_disk / "ram", pc_regions(64 * MIB))
    ram.read(PhysAddr(MIB), MIB)
    assert list(ram.populated(PhysAddr(0), PhysAddr(GIB))) == []
    ram.close()
