"""Huge pages as the driver's memory: which pages are kept, and what is put back."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from openrbu.errors import KernelError
from openrbu.formats.buddyinfo import ZoneFree
from openrbu.memory.physical import Region
from openrbu.own_driver.cache import cannot_flush
from openrbu.own_driver.giving_back import give_back_forgotten, give_back_of
from openrbu.own_driver.huge_pages import HugePageBackend, HugePages
from openrbu.own_driver.own_memory import HugePagesRecord, OwnMemoryRecord
from openrbu.own_driver.pools import MappedPage, Pool
from openrbu.typed_json import read, to_document
from openrbu.units import GIB, KIB, MIB, PhysAddr, order_for
from rigs.huge_pages import (
    FOUR_GIB,
    HUGE,
    LARGE,
    PATH,
    SCATTERED,
    SMALL,
    MadeKernel,
    make_root,
    pages_from,
)

SIXTEEN_MIB = order_for(16 * MIB)


class Noted:
    """What was noted, as it is on disk."""

    def __init__(self) -> None:
        self.records: list[HugePagesRecord] = []

    def __call__(self, record: OwnMemoryRecord) -> None:
        self.records.append(read(HugePagesRecord, to_document(record)))


def begin(root: Path, kernel: MadeKernel, noted: Noted | None = None) -> HugePages:
    kernel.directory = make_root(root)
    return HugePageBackend(root, kernel).new(noted or Noted())


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "dev/hugepages").iterdir())


@pytest.mark.parametrize("is_descending", [False, True])
def test_adjacent_pages_are_one_block_whatever_their_sequence(
    tmp_path: Path, is_descending: bool
) -> None:
    free = pages_from(0x1B200000, 8)
    kernel = MadeKernel(free[::-1] if is_descending else free)
    memory = begin(tmp_path, kernel)
    address = memory.allocate(SIXTEEN_MIB, below=FOUR_GIB)
    assert address == 0x1B200000
    data = bytes(range(256)) * (16 * MIB // 256)
    memory.memory.write(address, data)
    assert memory.memory.view(address, 16 * MIB) == data
    in_file = (tmp_path / "dev/hugepages" / files(tmp_path)[0]).read_bytes()
    parts = [in_file[start : start + HUGE] for start in range(0, 16 * MIB, HUGE)]
    assert b"".join(parts if is_descending else parts[::-1]) == data


def test_pages_are_taken_until_enough_are_adjacent_and_the_others_given_back(
    tmp_path: Path,
) -> None:
    run = pages_from(0x40000000, 8)
    kernel = MadeKernel([*SCATTERED, *run[4:], *run[:4]])
    memory = begin(tmp_path, kernel)
    assert memory.allocate(SIXTEEN_MIB, below=FOUR_GIB) == run[0]
    (path,) = (tmp_path / "dev/hugepages").iterdir()
    assert path.stat().st_size == 16 * HUGE
    assert path.stat().st_blocks * 512 // HUGE == 8  # and what a file system needs besides
    kernel.take_back(memory.record())
    assert sorted(kernel.free) == sorted(SCATTERED)
    assert kernel.pools()[0].asked == 0
    (record,) = memory.record().files
    assert sorted(address for _, address in record.pages) == run


@pytest.mark.parametrize("first_comes_first", [False, True])
def test_pages_above_4_gib_come_first_and_are_not_looked_at(
    tmp_path: Path, first_comes_first: bool
) -> None:
    """Where the pool has a sequence of its own they are, and given back."""
    high, low = pages_from(5 * GIB, 8), pages_from(256 * MIB, 12)
    kernel = MadeKernel([*high, *low], buddyinfo=LARGE, first_comes_first=first_comes_first)
    memory = begin(tmp_path, kernel)
    assert memory.allocate(SIXTEEN_MIB, below=FOUR_GIB) == low[0]
    assert all(place < FOUR_GIB for place in kernel.places.values()) == (not first_comes_first)
    assert memory.memory.regions == (Region(PhysAddr(low[0]), PhysAddr(low[0] + 16 * MIB)),)


def test_without_a_limit_pages_from_above_are_as_good(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(5 * GIB, 4))
    memory = begin(tmp_path, kernel)
    assert memory.allocate(0) == 5 * GIB
    assert kernel.most_pooled == 1


def test_a_shortage_says_how_much_was_got_where(tmp_path: Path) -> None:
    kernel = MadeKernel([*pages_from(5 * GIB, 3), *SCATTERED], asked=5)
    memory = begin(tmp_path, kernel)
    with pytest.raises(KernelError) as short:
        memory.allocate(SIXTEEN_MIB, below=FOUR_GIB)
    assert short.value.strerror == (
        "Cannot allocate memory: too few huge pages for a block of 16 MiB below 4 GiB: 11 got, 8 "
        "of them below 4 GiB, 6 MiB at most in one piece; the kernel has no more"
    )
    assert kernel.pools()[0].asked == 5
    assert files(tmp_path) == []
    assert memory.memory.regions == ()


@pytest.mark.parametrize(
    ("size_bytes", "why"),
    [(8 * GIB, "no computer has so much there"), (2 * GIB, "are left to the machine")],
)
def test_what_can_not_be_had_is_refused_before_a_page_is_taken(
    tmp_path: Path, size_bytes: int, why: str
) -> None:
    kernel = MadeKernel([HUGE * 9] * 4)
    memory = begin(tmp_path, kernel)
    with pytest.raises(KernelError, match=why):
        memory.reserve(size_bytes, block_bytes=HUGE, below=FOUR_GIB)
    assert kernel.most_pooled == 0


def test_the_machine_keeps_a_margin(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 500, step=2 * HUGE), available_bytes=256 * MIB)
    memory = begin(tmp_path, kernel)
    with pytest.raises(KernelError, match="128 MiB of them are left to the machine"):
        memory.allocate(SIXTEEN_MIB, below=FOUR_GIB)
    assert kernel.most_pooled == 64


@pytest.mark.parametrize("buddyinfo", [SMALL, LARGE])
def test_no_more_pages_are_taken_than_allowed(tmp_path: Path, buddyinfo: str) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 500, step=2 * HUGE), buddyinfo=buddyinfo)
    kernel.directory = make_root(tmp_path)
    memory = HugePageBackend(tmp_path, kernel, most_pages=21).new(Noted())
    with pytest.raises(KernelError, match=r"21 got, .* no more are (looked at|asked for)"):
        memory.allocate(SIXTEEN_MIB, below=FOUR_GIB)
    assert kernel.most_pooled == 21


def test_memory_is_compacted_where_the_kernel_gives_nothing(tmp_path: Path) -> None:
    kernel = MadeKernel([], compacted=pages_from(64 * MIB, 8))
    memory = begin(tmp_path, kernel)
    assert memory.allocate(SIXTEEN_MIB) == 64 * MIB


def test_a_page_of_1_gib_is_split_where_no_neighbours_come(tmp_path: Path) -> None:
    kernel = MadeKernel(
        pages_from(64 * MIB, 500, step=2 * HUGE), giant=GIB, available_bytes=2 * GIB, asked=2
    )
    memory = begin(tmp_path, kernel)
    assert memory.allocate(SIXTEEN_MIB, below=FOUR_GIB) == 2 * GIB - 16 * MIB
    kernel.take_back(memory.record())
    assert (kernel.pools()[0].asked, kernel.pools()[0].count, kernel.giants) == (2, 10, 0)
    assert kernel.most_pooled == 8 + 16 + 8  # in two steps, and of the page of 1 GiB


def test_no_page_of_1_gib_is_split_where_the_machine_could_not_live(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 9, step=2 * HUGE), giant=GIB)
    with pytest.raises(KernelError, match="9 got"):
        begin(tmp_path, kernel).allocate(SIXTEEN_MIB)


def test_what_was_written_is_flushed_also_where_it_has_been_given_back(tmp_path: Path) -> None:
    memory = begin(tmp_path, MadeKernel(pages_from(64 * MIB, 4)))
    address = memory.allocate(order_for(8 * MIB))
    part = Region(address, PhysAddr(address + 3 * MIB))
    assert memory.flush([part]) == (not cannot_flush())
    memory.give_back()
    memory.flush([part])


def test_the_number_that_others_asked_for_stays_when_more_is_taken_and_given_back(
    tmp_path: Path,
) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 12), asked=5)
    memory = begin(tmp_path, kernel)
    memory.allocate(9)
    memory.allocate(order_for(8 * MIB))
    assert (kernel.asked, kernel.pools()[0].count) == (5, 5 + 1 + 4)
    memory.give_back()
    assert (kernel.asked, kernel.pools()[0].count, len(kernel.free)) == (5, 5, 12)


def test_small_blocks_share_huge_pages(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 64, step=2 * HUGE))
    memory = begin(tmp_path, kernel)
    memory.reserve(8 * MIB, block_bytes=4 * KIB)
    assert len(memory.record().files) == 1
    places = [memory.allocate(0) for _ in range(2048)]
    assert len(set(places)) == 2048
    assert len(memory.memory.regions) == 4
    memory.allocate(0)
    assert len(memory.memory.regions) == 8  # as many again, for those that follow


def test_another_process_continues_with_the_record(tmp_path: Path) -> None:
    kernel, noted = MadeKernel(pages_from(64 * MIB, 9)[::-1]), Noted()
    memory = begin(tmp_path, kernel, noted)
    block = memory.allocate(SIXTEEN_MIB)
    small = memory.allocate(3)
    text = PhysAddr(block + 4095)
    memory.memory.write(text, b"staged")
    record = read(HugePagesRecord, to_document(memory.record()))
    again = HugePageBackend(tmp_path, kernel).open(record, noted)
    assert again.memory.read(text, 6) == b"staged"
    assert again.moved() == ()
    again.free(block, SIXTEEN_MIB)
    again.free(small, 3)
    assert again.record().allocated == ()


def test_a_page_that_is_somewhere_else_is_told(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 8))
    memory = begin(tmp_path, kernel)
    memory.allocate(SIXTEEN_MIB)
    name = files(tmp_path)[0]
    kernel.places[name, 2] = 5 * GIB
    del kernel.places[name, 3]
    changed = Region(PhysAddr(64 * MIB + 4 * HUGE), PhysAddr(64 * MIB + 6 * HUGE))
    assert memory.moved() == (changed,)
    (tmp_path / "dev/hugepages" / name).unlink()
    again = HugePageBackend(tmp_path, kernel).open(memory.record(), Noted())
    assert again.moved() == memory.memory.regions
    assert again.memory.read(PhysAddr(64 * MIB), 16) == bytes(16)


def test_a_look_leaves_neither_open_files_nor_mapped_pages(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 8))
    memory = begin(tmp_path, kernel)
    address = memory.allocate(SIXTEEN_MIB)
    memory.memory.write(address, b"staged")
    (path,) = (tmp_path / "dev/hugepages").iterdir()

    def uses() -> tuple[int, int]:
        gc.collect()
        names = [str(each.resolve()) for each in Path("/proc/self/fd").iterdir()]
        return names.count(str(path)), Path("/proc/self/maps").read_text().count(str(path))

    before = uses()
    looked = HugePageBackend(tmp_path, kernel).open(memory.record(), Noted())
    view = looked.memory.view(address, 6)
    assert uses() > before
    del looked
    assert (bytes(view), uses()[0]) == (b"staged", before[0])
    del view
    assert uses() == before


def test_what_is_given_back_is_clear(tmp_path: Path) -> None:
    kernel, noted = MadeKernel(pages_from(64 * MIB, 8)), Noted()
    memory = begin(tmp_path, kernel, noted)
    address = memory.allocate(SIXTEEN_MIB)
    memory.memory.write(PhysAddr(address + 5 * MIB), b"secret")
    (path,) = (tmp_path / "dev/hugepages").iterdir()
    with path.open("rb") as kept:
        memory.give_back()
        assert kept.read() == bytes(16 * MIB)
    assert files(tmp_path) == []
    assert memory.memory.regions == ()
    assert (noted.records[-1].files, noted.records[-1].allocated) == ((), ())


def test_each_change_is_noted_before_it_is_made(tmp_path: Path) -> None:
    kernel = MadeKernel(pages_from(64 * MIB, 8), asked=3)
    seen = []

    def note(record: OwnMemoryRecord) -> None:
        assert isinstance(record, HugePagesRecord)
        seen.append((record, kernel.most_pooled, files(tmp_path)))

    make_root(tmp_path)
    HugePageBackend(tmp_path, kernel).new(note).allocate(9)
    (before, taken, there), (after, _, _) = seen
    assert (taken, there) == (0, [])
    assert [pool.count for pool in before.pools] == [3]
    assert [(file.name, file.pages) for file in before.files] == [("openrbu-driver-0", ())]
    assert (after.pools, len(after.files[0].pages)) == ((), 1)


def test_files_whose_record_is_gone_are_given_back_before_more_is_taken(tmp_path: Path) -> None:
    memory = begin(tmp_path, MadeKernel(pages_from(64 * MIB, 4)))
    left = tmp_path / "dev/hugepages/openrbu-driver-9"
    left.write_bytes(b"staged".ljust(HUGE, b"\0"))
    (tmp_path / "dev/hugepages/of-others").write_bytes(b"not ours")
    with left.open("rb") as kept:
        memory.allocate(9)
        assert kept.read() == bytes(HUGE)
    assert files(tmp_path) == ["of-others", "openrbu-driver-0"]


def reopened_without_files(root: Path, kernel: MadeKernel, noted: Noted) -> HugePages:
    """As when somebody unmounts them: the kernel gives the same pages once more."""
    for name in files(root):
        (root / "dev/hugepages" / name).unlink()
    return HugePageBackend(root, kernel).open(noted.records[-1], noted)


def test_nothing_is_added_to_what_is_staged_where_pages_are_gone(tmp_path: Path) -> None:
    noted = Noted()
    kernel = MadeKernel(pages_from(64 * MIB, 4))
    memory = begin(tmp_path, kernel, noted)
    memory.reserve(2 * HUGE, block_bytes=HUGE)
    memory.allocate(0)
    noted(memory.record())
    again = reopened_without_files(tmp_path, kernel, noted)
    assert again.moved()
    for ask in (lambda: again.allocate(0), lambda: again.reserve(HUGE, block_bytes=HUGE)):
        with pytest.raises(KernelError, match="huge pages of it are gone: rbu driver stop"):
            ask()
    again.give_back()
    assert files(tmp_path) == []


def test_where_nothing_is_staged_others_are_taken_for_pages_that_are_gone(tmp_path: Path) -> None:
    noted = Noted()
    kernel = MadeKernel(pages_from(64 * MIB, 4))
    begin(tmp_path, kernel, noted).reserve(2 * HUGE, block_bytes=HUGE)
    again = reopened_without_files(tmp_path, kernel, noted)
    address = again.allocate(9)
    assert again.moved() == ()
    assert again.memory.regions == (Region(address, PhysAddr(address + HUGE)),)
    again.give_back()
    assert files(tmp_path) == []


def test_where_nothing_is_staged_a_page_that_is_somewhere_else_is_given_back(
    tmp_path: Path,
) -> None:
    """Where it is now, it is cleared; the pages beside it stay."""
    noted = Noted()
    kernel = MadeKernel(pages_from(64 * MIB, 8))
    memory = begin(tmp_path, kernel, noted)
    memory.reserve(4 * HUGE, block_bytes=HUGE)
    first = memory.allocate(9)
    memory.memory.write(first, b"staged")
    memory.free(first, 9)
    number = {address: number for number, address in noted.records[-1].files[0].pages}[first]
    (name,) = files(tmp_path)
    kernel.places[name, number] = 5 * GIB
    assert memory.allocate(9) not in (first, 5 * GIB)
    assert memory.moved() == ()
    assert first not in [region.start for region in memory.memory.regions]
    assert sum(region.size_bytes for region in memory.memory.regions) == 3 * HUGE
    assert [len(file.pages) for file in noted.records[-1].files] == [3]
    assert b"staged" not in (tmp_path / "dev/hugepages" / name).read_bytes()


def test_pages_without_a_record_are_given_back_when_asked(tmp_path: Path) -> None:
    assert give_back_forgotten(tmp_path) is False
    begin(tmp_path, MadeKernel([HUGE * 9] * 4)).allocate(0)
    assert files(tmp_path)
    assert give_back_forgotten(tmp_path) is True
    assert files(tmp_path) == []


def test_what_a_killed_process_was_taking_is_given_back(tmp_path: Path) -> None:
    kernel, noted = MadeKernel(pages_from(64 * MIB, 20), asked=3), Noted()
    memory = begin(tmp_path, kernel, noted)
    directory = tmp_path / "dev/hugepages"
    memory.allocate(9)
    record = noted.records[-2]  # that before pages were taken; the file is there
    (directory / "openrbu-driver-7").write_bytes(b"of a record that was lost")
    kernel.set_count(kernel.pools()[0].path, 9)
    give_back_of(record, tmp_path, kernel)
    assert files(tmp_path) == []
    assert kernel.pools()[0].count == 3
    assert len(kernel.free) == 20


class LowMemoryKernel(MadeKernel):
    """All of whose pages lie below 4 GiB, where 128 MiB are free at first."""

    def zones(self) -> tuple[ZoneFree, ...]:
        taken = len(self.pooled) + len(self.places)
        return (ZoneFree(0, "DMA32", (*[0] * 9, 64 - taken)),)


def test_part_of_what_is_free_below_4_gib_stays_free(tmp_path: Path) -> None:
    kernel = LowMemoryKernel(pages_from(64 * MIB, 500, step=2 * HUGE), available_bytes=4 * GIB)
    with pytest.raises(KernelError, match="free below 4 GiB, which the machine needs"):
        begin(tmp_path, kernel).allocate(SIXTEEN_MIB, below=FOUR_GIB)
    assert kernel.most_pooled == 8 + 16 + 32


class TwoNodes(MadeKernel):
    """A kernel with a second node, all of which lies above 4 GiB."""

    OTHER = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"

    def __init__(self, free: Sequence[int], others: Sequence[int]) -> None:
        super().__init__(free, buddyinfo=f"{LARGE}Node 1, zone   Normal   {'0 ' * 10}900\n")
        self.other = MadeKernel(others)

    def pools(self, page_bytes: int = HUGE) -> tuple[Pool, ...]:
        if page_bytes != HUGE:
            return ()
        (one,), (two,) = super().pools(), self.other.pools()
        return (replace(one, node=0), replace(two, path=self.OTHER, node=1))

    def set_count(self, path: str, count: int) -> int:
        if path != self.OTHER:
            return super().set_count(path, count)
        return self.other.set_count(PATH, count)

    def addresses(self, pages: Iterable[MappedPage]) -> list[PhysAddr | None]:
        both = list(pages)
        found = zip(super().addresses(both), self.other.addresses(both), strict=True)
        return [two if one is None else one for one, two in found]


@pytest.mark.parametrize("below", [None, FOUR_GIB])
def test_the_node_is_asked_that_has_such_memory(tmp_path: Path, below: PhysAddr | None) -> None:
    free = [*pages_from(5 * GIB, 8), *pages_from(64 * MIB, 8)]
    kernel = TwoNodes(free, pages_from(64 * GIB, 8))
    noted = Noted()
    address = begin(tmp_path, kernel, noted).allocate(9, below=below)
    assert address == (64 * GIB if below is None else 64 * MIB)
    assert (kernel.other.most_pooled > 0, kernel.most_pooled > 0) == (not below, bool(below))
    assert [pool.path for pool in noted.records[0].pools] == [PATH, TwoNodes.OTHER]
