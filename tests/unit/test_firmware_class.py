"""The firmware class: its states, its files, and where it keeps an image."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.firmware_image import MAX_IMAGE_BYTES, FirmwareImage, LoadedImage
from openrbu.drivers.sysfs import Caller, SysfsTree
from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faulty_pages import FaultyPages
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.driver import pattern
from rigs.kept import kept

DEVICE = "/devices/platform/blade"
LOADING = "/class/firmware/blade/loading"
DATA = "/class/firmware/blade/data"


class Bench:
    """A firmware class with one request, and what has been delivered."""

    def __init__(
        self, pages: PageSource, *, data_before_loading: bool = False, delay_s: float = 0.0
    ) -> None:
        self.tree, self.log, self.delivered = SysfsTree(), list[str](), list[bytes]()
        self.now = 1000.0
        self.firmware = FirmwareClass(
            self.tree, pages, delay_s=delay_s, now=lambda: self.now, log=self.log.append
        )
        self.firmware.install(SysfsTree())
        self.data_before_loading = data_before_loading
        self.request()

    def request(self) -> None:
        self.firmware.request(
            "blade",
            DEVICE,
            lambda image: self.delivered.append(image.read()),
            data_before_loading=self.data_before_loading,
        )

    @property
    def state(self) -> str:
        if not self.firmware.is_requested("blade"):
            return "gone"
        return {b"0\n": "waiting", b"1\n": "loading"}[self.tree.read(LOADING)]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[RamFile]:
    memory = RamFile.create(tmp_path / "ram", pc_regions(32 * MIB))
    yield memory
    memory.close()


@pytest.fixture
def pages(memory: RamFile) -> BuddyAllocator:
    return BuddyAllocator(memory)


@pytest.fixture
def bench(pages: BuddyAllocator) -> Bench:
    return Bench(pages)


def test_a_request_makes_an_entry_below_the_device_and_a_link_to_it(bench: Bench) -> None:
    path = f"{DEVICE}/firmware/blade"
    names = ["data", "device", "loading", "power", "subsystem", "uevent"]
    assert bench.tree.list(path) == names
    assert bench.tree.read(f"{path}/uevent") == b"FIRMWARE=blade\nTIMEOUT=60\nASYNC=1\n"
    assert bench.tree.lookup(f"{path}/subsystem") is bench.tree.lookup("/class/firmware")
    assert bench.tree.lookup(f"{path}/device") is bench.tree.lookup(DEVICE)
    link = bench.tree.readlink("/class/firmware/blade")
    assert link == "../../devices/platform/blade/firmware/blade"


def test_one_name_is_requested_once(bench: Bench) -> None:
    with pytest.raises(KernelError) as refused:
        bench.request()
    assert refused.value.errno == errno.EEXIST


@pytest.mark.parametrize(
    ("before", "text", "after", "happens"),
    [
        ("waiting", b"1\n", "loading", ""),
        ("waiting", b"0\n", "gone", "complained"),
        ("waiting", b"-1\n", "gone", ""),
        ("waiting", b"2\n", "gone", "complained"),
        ("loading", b"1\n", "loading", ""),
        ("loading", b"0\n", "gone", "delivered"),
        ("loading", b"-1\n", "gone", ""),
        ("loading", b"-2\n", "gone", "complained"),
        ("loading", b"9" * 5000, "gone", ""),  # its lowest 32 bits are those of -1
        # how a number is read, seen on Debian's 6.1.192
        ("waiting", b"1", "loading", ""),
        ("waiting", b"1x\n", "loading", ""),
        ("waiting", b"4294967297\n", "loading", ""),
        ("loading", b"4294967296\n", "gone", "delivered"),
        ("waiting", b" 1\n", "gone", "complained"),
        ("waiting", b"+1\n", "gone", "complained"),
        ("loading", b"abc\n", "gone", "delivered"),
    ],
)
def test_each_command_does_what_the_table_says(
    bench: Bench, before: str, text: bytes, after: str, happens: str
) -> None:
    if before == "loading":
        bench.tree.write(LOADING, b"1")
        bench.tree.write(DATA, b"image")
    assert bench.state == before
    bench.tree.write(LOADING, text)
    assert bench.state == after
    assert bench.delivered == [b"image"] * (happens == "delivered")
    assert ["unexpected value" in line for line in bench.log] == [True] * (happens == "complained")
    assert bench.tree.exists(DEVICE + "/firmware") == (after != "gone")


def test_an_empty_load_is_delivered_as_one(bench: Bench) -> None:
    bench.tree.write(LOADING, b"1")
    bench.tree.write(LOADING, b"0")
    assert bench.delivered == [b""]


def test_a_driver_can_request_again_when_it_gets_its_image(pages: BuddyAllocator) -> None:
    tree = SysfsTree()
    firmware = FirmwareClass(tree, pages)
    firmware.install(SysfsTree())

    def request_again(image: LoadedImage) -> None:
        firmware.request("blade", DEVICE, request_again)

    request_again(FirmwareImage(pages))
    for _ in range(2):
        tree.write(LOADING, b"1")
        tree.write(LOADING, b"0")
    assert tree.read(LOADING) == b"0\n"


def test_a_file_that_was_open_when_the_load_ended_answers_enodev(bench: Bench) -> None:
    files = [bench.tree.open(path, writing=True) for path in (LOADING, DATA)]
    bench.tree.write(LOADING, b"-1")
    for file in files:
        with pytest.raises(KernelError) as refused:
            file.write(0, b"1")
        assert refused.value.errno == errno.ENODEV


def test_data_before_the_load_is_refused_or_thrown_away(pages: BuddyAllocator) -> None:
    strict = Bench(pages)
    with pytest.raises(KernelError) as refused:
        strict.tree.write(DATA, b"early")
    assert refused.value.errno == errno.ENODEV
    lenient = Bench(pages, data_before_loading=True)
    lenient.tree.write(DATA, b"early")
    assert lenient.tree.read(DATA) == b"early"
    lenient.tree.write(LOADING, b"1")
    assert lenient.tree.read(DATA) == b""


def test_writing_data_takes_the_right_to_raw_io(bench: Bench) -> None:
    bench.tree.write(LOADING, b"1")
    with pytest.raises(KernelError) as refused:
        bench.tree.write(DATA, b"x", caller=Caller(sys_rawio=False))
    assert refused.value.errno == errno.EPERM
    assert bench.tree.read(DATA) == b""


def test_beginning_again_drops_what_an_unfinished_load_had(
    bench: Bench, pages: BuddyAllocator
) -> None:
    before = pages.free_bytes
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, pattern(100_000))
    assert pages.free_bytes < before
    bench.tree.write(LOADING, b"1")
    assert pages.free_bytes == before
    assert bench.tree.read(DATA) == b""


def test_data_shows_what_has_been_loaded_so_far(bench: Bench) -> None:
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, b"hello")
    bench.tree.write(DATA, b"zz", 8)
    assert bench.tree.read(DATA) == b"hello\0\0\0zz"
    assert bench.tree.read(DATA, 3, 4) == b"lo\0\0"
    assert bench.tree.read(DATA, 10) == b""
    assert bench.tree.read(DATA, 11) == b""


@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=6), st.integers(1, 3000)),
        max_size=8,
    ),
    largest_order=st.integers(0, 10),
)
def test_writes_in_any_order_make_the_same_image_as_in_a_bytearray(
    pages: BuddyAllocator, writes: list[tuple[int, bytes, int]], largest_order: int
) -> None:
    image = FirmwareImage(FaultyPages(pages, fail_above_order=largest_order))
    expected = bytearray()
    for offset, unit, times in writes:
        data = unit * times
        expected.extend(bytes(max(0, offset - len(expected))))
        expected[offset : offset + len(data)] = data
        image.write(offset, data)
    assert image.read() == bytes(expected)
    assert image.read(100, 5000) == bytes(expected[100:5100])
    image.release()
    assert pages.free_bytes == BuddyAllocator(pages.memory).free_bytes


def test_what_is_skipped_is_zero_even_in_used_memory(
    bench: Bench, pages: BuddyAllocator, memory: RamFile
) -> None:
    for region in memory.regions:
        memory.write(region.start, b"\xff" * region.size_bytes)
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, b"a")
    bench.tree.write(DATA, b"z", 100_000)
    assert bench.tree.read(DATA, 0, 200_000) == b"a" + bytes(99_999) + b"z"


def test_the_image_lies_in_few_blocks_and_is_viewed_without_a_copy(
    pages: BuddyAllocator, memory: RamFile
) -> None:
    image = FirmwareImage(pages)
    image.write(0, pattern(5 * MIB))
    views = list(image.views(0, 5 * MIB))
    assert b"".join(views) == pattern(5 * MIB)
    assert len(views) <= 2
    leftover = next(memory.populated(PhysAddr(0), PhysAddr(32 * MIB)))
    memory.write(leftover.start, b"changed")
    assert bytes(views[0][:7]) == b"changed" or bytes(views[-1][:7]) == b"changed"


def test_when_the_load_ends_the_memory_is_freed_and_not_cleared(
    bench: Bench, pages: BuddyAllocator, memory: RamFile
) -> None:
    before = pages.free_bytes
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, pattern(PAGE_SIZE))
    bench.tree.write(LOADING, b"0")
    assert pages.free_bytes == before
    leftovers = [
        r
        for r in memory.populated(PhysAddr(0), PhysAddr(32 * MIB))
        if memory.read(r.start, 16) != bytes(16)
    ]
    assert [memory.read(leftover.start, PAGE_SIZE) for leftover in leftovers] == [
        pattern(PAGE_SIZE)
    ]


def test_memory_is_freed_when_the_driver_fails(pages: BuddyAllocator) -> None:
    before = pages.free_bytes
    tree = SysfsTree()
    firmware = FirmwareClass(tree, pages)
    firmware.install(SysfsTree())

    def fail(image: LoadedImage) -> None:
        raise KernelError(errno.EIO)

    firmware.request("blade", DEVICE, fail)
    tree.write(LOADING, b"1")
    tree.write(DATA, b"image")
    with pytest.raises(KernelError):
        tree.write(LOADING, b"0")
    assert pages.free_bytes == before


@pytest.mark.parametrize("fail_all_after", [0, 1, 2, 3])
def test_a_write_that_finds_no_pages_is_enomem_and_changes_nothing(
    pages: BuddyAllocator, fail_all_after: int
) -> None:
    bench = Bench(FaultyPages(pages, fail_all_after=fail_all_after))
    bench.tree.write(LOADING, b"1")
    if fail_all_after == 3:  # seven pages take blocks of 4, 2 and 1
        bench.tree.write(DATA, pattern(7 * PAGE_SIZE))
    before = bench.tree.read(DATA, 0, MIB)
    with pytest.raises(KernelError) as refused:
        bench.tree.write(DATA, pattern(7 * PAGE_SIZE), len(before))
    assert refused.value.errno == errno.ENOMEM
    assert bench.tree.read(DATA, 0, MIB) == before
    bench.tree.write(LOADING, b"-1")
    assert pages.free_bytes == BuddyAllocator(pages.memory).free_bytes


@pytest.mark.parametrize("offset", [MAX_IMAGE_BYTES, 2**31, 2**60, 2**63])
def test_a_write_far_away_is_efbig_at_once(bench: Bench, offset: int) -> None:
    bench.tree.write(LOADING, b"1")
    with pytest.raises(KernelError) as refused:
        bench.tree.write(DATA, b"x", offset)
    assert refused.value.errno == errno.EFBIG
    assert bench.tree.read(DATA) == b""


def test_more_than_there_is_memory_is_enomem(bench: Bench, pages: BuddyAllocator) -> None:
    before = pages.free_bytes
    bench.tree.write(LOADING, b"1")
    with pytest.raises(KernelError) as refused:
        bench.tree.write(DATA, b"x", MAX_IMAGE_BYTES - 1)
    assert refused.value.errno == errno.ENOMEM
    assert pages.free_bytes == before


def test_the_buffer_is_ordinary_memory_which_is_above_4_gib_first(tmp_path: Path) -> None:
    memory = RamFile.create(tmp_path / "large", pc_regions(4 * GIB))
    bench = Bench(BuddyAllocator(memory))
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, pattern(64 * KIB))
    (region,) = memory.populated(PhysAddr(0), PhysAddr(8 * GIB))
    assert region.start >= 4 * GIB
    memory.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [(b"77x\n", b"77\n"), (b"abc\n", b"0\n"), (b"-5\n", b"0\n"), (b" 5\n", b"0\n")],
)
def test_the_timeout_is_60_and_can_be_set(bench: Bench, text: bytes, shown: bytes) -> None:
    assert bench.tree.read("/class/firmware/timeout") == b"60\n"
    bench.tree.write("/class/firmware/timeout", text)
    assert bench.tree.read("/class/firmware/timeout") == shown


def test_an_unfinished_load_goes_on_after_a_restore(bench: Bench, pages: BuddyAllocator) -> None:
    first, second = pattern(100_000), pattern(50_000, seed=2)
    bench.tree.write("/class/firmware/timeout", b"5")
    bench.tree.write(LOADING, b"1")
    bench.tree.write(DATA, first)
    saved = kept(bench.firmware.snapshot())
    other = Bench(pages)
    other.firmware.restore(saved)
    assert other.state == "loading"
    assert other.tree.read("/class/firmware/timeout") == b"5\n"
    other.tree.write(DATA, second, len(first))
    other.tree.write(LOADING, b"0")
    assert other.delivered == [first + second]
    assert pages.free_bytes == BuddyAllocator(pages.memory).free_bytes


# -- an entry that takes its time -------------------------------------------------------------


def seen(bench: Bench, now: float) -> bool:
    """Whether the entry is there at that time."""
    bench.now = now
    bench.firmware.run_due()
    there = bench.tree.exists(LOADING)
    assert bench.tree.exists(f"{DEVICE}/firmware") is there
    assert bench.firmware.is_requested("blade")
    return there


def test_an_entry_comes_when_its_time_has_come_and_is_requested_all_the_while(
    pages: BuddyAllocator,
) -> None:
    bench = Bench(pages, delay_s=2.5)
    assert [seen(bench, at) for at in (1000, 1002.4, 1002.5, 1003)] == [False, False, True, True]
    with pytest.raises(KernelError) as refused:
        bench.request()
    assert refused.value.errno == errno.EEXIST


def test_an_entry_on_its_way_is_requested_once(pages: BuddyAllocator) -> None:
    bench = Bench(pages, delay_s=2.5)
    with pytest.raises(KernelError) as refused:
        bench.request()
    assert refused.value.errno == errno.EEXIST
    assert seen(bench, 1002.5)


def test_a_clock_that_is_put_back_makes_nobody_wait_for_longer_than_the_delay(
    pages: BuddyAllocator,
) -> None:
    bench = Bench(pages, delay_s=2.5)
    assert [seen(bench, at) for at in (10, 12.4, 12.5)] == [False, False, True]


def test_the_one_after_it_takes_its_time_too(pages: BuddyAllocator) -> None:
    bench = Bench(pages, delay_s=2.5)
    assert seen(bench, 1010)
    bench.tree.write(LOADING, b"1")
    bench.tree.write(LOADING, b"0")
    assert bench.delivered == [b""]
    bench.request()
    assert [seen(bench, at) for at in (1012, 1012.5)] == [False, True]


@pytest.mark.parametrize("delay_s", [0.0, 2.5])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_entry_comes_at_the_same_time_after_a_restore(
    pages: BuddyAllocator, delay_s: float, is_there: bool
) -> None:
    bench = Bench(pages, delay_s=delay_s)
    bench.now += 1
    if is_there:
        bench.now += 100
        bench.firmware.run_due()
    saved = kept(bench.firmware.snapshot())
    other = Bench(pages, delay_s=delay_s)
    other.now = bench.now
    other.firmware.restore(saved)
    assert other.firmware.snapshot() == saved
    assert seen(other, bench.now) is (is_there or not delay_s)
    assert seen(other, 1000 + max(delay_s, bench.now - 1000))
