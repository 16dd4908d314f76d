"""The search through RAM: what is scattered there is found, what only looks like it is not."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.bios.rules import RULE_SETS, Identity, RejectedError
from openrbu.dumps.opening import open_dump
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import check_words
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.image_check import ImageState
from openrbu.formats.packet import (
    HEADER_SIZE_BYTES,
    PACKET_HEADER,
    PACKET_MAGIC,
    PacketHeader,
    PasswordItem,
    split,
)
from openrbu.formats.version import BiosVersion
from openrbu.memory import (
    any_alignment,
    image_search,
    packet_sums,
    ram_array,
    rejects,
    scan,
    windows,
)
from openrbu.memory.page_search import pages_beginning_with
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import FoundSet, SearchResult, search
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr

# Two regions above 1 MiB and a gap between them.
REGIONS = tuple(
    Region(PhysAddr(start), PhysAddr(end))
    for start, end in [(0, 640 * KIB), (MIB, 4 * MIB), (6 * MIB, 8 * MIB)]
)
PAGES = [*range(MIB, 4 * MIB, PAGE_SIZE), *range(6 * MIB, 8 * MIB, PAGE_SIZE)]
SET_ID = b"_A05"
FLASH = random.Random(5).randbytes(64 * KIB)
IMAGE = make_image(FLASH, version=BiosVersion.parse("A05"), systems=[SystemId(0x121)])
OTHER_IMAGE = make_image(FLASH[::-1], version=BiosVersion.parse("A06"), systems=[SystemId(0x121)])
PAYLOAD = random.Random(6).randbytes(30_000)  # 8 packets of 4 KiB and packet 0


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[RamFile]:
    file = RamFile.create(tmp_path / "ram", REGIONS)
    yield file
    file.close()


def packet_list(
    payload: bytes = PAYLOAD, size: int = 4096, set_id: bytes = SET_ID, crc: int | None = None
) -> list[bytes]:
    data = bytes(split(payload, packet_size_bytes=size, set_id=set_id, password_crc=crc))
    return [data[start : start + size] for start in range(0, len(data), size)]


def put(ram: RamFile, address: int, data: bytes) -> None:
    ram.write(PhysAddr(address), data)


def scatter(ram: RamFile, packets: list[bytes], seed: int = 1) -> list[int]:
    """Put the packets on pages drawn from `seed`; gives their addresses."""
    places = random.Random(seed).sample(PAGES, len(packets))
    for address, packet in zip(places, packets, strict=True):
        put(ram, address, packet)
    return places


def changed(packet: bytes, **fields: int) -> bytes:
    """The packet with other header fields and a right checksum."""
    return resummed(PACKET_HEADER.pack(PACKET_HEADER.unpack(packet) | fields) + packet[32:])


def resummed(packet: bytes) -> bytes:
    bare = packet[:30] + bytes(2) + packet[32:]
    total = sum(memoryview(bare).cast("H"))
    return bare[:30] + (-total % 0x10000).to_bytes(2, "little") + bare[32:]


def only_set(result: SearchResult) -> FoundSet:
    (found,) = result.packet_sets
    return found


def whys(result: SearchResult) -> list[tuple[int, str]]:
    return [(reject.address, reject.why) for reject in result.rejects]


# Packets


def test_an_empty_ram_holds_nothing(ram: RamFile) -> None:
    assert search(ram) == SearchResult((), (), (), (), 0)


@pytest.mark.parametrize("size_kib", [1, 4, 8, 12, 64])
def test_scattered_packets_of_any_size_are_found_and_put_together(
    ram: RamFile, size_kib: int
) -> None:
    packets = packet_list(size=size_kib * KIB, crc=0xFEED)
    step = -(-size_kib * KIB // PAGE_SIZE) * PAGE_SIZE
    places = list(range(2 * MIB, 2 * MIB + 2 * step * len(packets), 2 * step))
    random.Random(3).shuffle(places)
    for address, packet in zip(places, packets, strict=True):
        put(ram, address, packet)
    result = search(ram)
    found = only_set(result)
    assert found.set_id == int.from_bytes(SET_ID, "little")
    assert (found.total, found.packet_size_bytes) == (len(packets), size_kib * KIB)
    assert found.places == {number: (address,) for number, address in enumerate(places)}
    assert (found.is_complete, found.missing, found.conflicts) == (True, (), ())
    assert found.password == PasswordItem(True, 0xFEED)
    assert (found.lowest, found.highest) == (min(places), max(places))
    image = found.assemble(ram)
    assert image == b"".join(packet[HEADER_SIZE_BYTES:] for packet in packets[1:])
    assert image.startswith(PAYLOAD)
    assert result.rejects == ()


def test_packets_in_both_regions_and_at_their_very_ends_are_found(ram: RamFile) -> None:
    packets = packet_list(size=8 * KIB)
    ends = [4 * MIB - 8 * KIB, 8 * MIB - 8 * KIB, MIB, 6 * MIB]
    for address, packet in zip([*ends, 3 * MIB], packets, strict=True):
        put(ram, address, packet)
    assert only_set(search(ram)).assemble(ram).startswith(PAYLOAD)


def test_packets_on_adjacent_pages_are_one_extent(ram: RamFile) -> None:
    packets = packet_list()
    for number, packet in enumerate(packets):
        put(ram, 2 * MIB + (number + 10 * (number > 4)) * PAGE_SIZE, packet)
    found = only_set(search(ram))
    assert found.extents == (
        Region(PhysAddr(2 * MIB), PhysAddr(2 * MIB + 5 * PAGE_SIZE)),
        Region(PhysAddr(2 * MIB + 15 * PAGE_SIZE), PhysAddr(2 * MIB + 19 * PAGE_SIZE)),
    )
    assert found.extent_count == 2


def test_extents_know_that_packet_0_has_a_size_of_its_own(ram: RamFile) -> None:
    lead, *rest = packet_list()
    put(ram, 2 * MIB, resummed(changed(lead, pktSize=8).ljust(8 * KIB, b"\0")))
    for number, packet in enumerate(rest):
        put(ram, 2 * MIB + (2 + number) * PAGE_SIZE, packet)
    found = only_set(search(ram))
    assert found.extents == (Region(PhysAddr(2 * MIB), PhysAddr(2 * MIB + 10 * PAGE_SIZE)),)
    assert (found.packet_0_size_bytes, found.packet_size_bytes) == (8 * KIB, 4 * KIB)
    assert found.conflicts == ()
    assert found.assemble(ram).startswith(PAYLOAD)


def test_nothing_is_found_outside_the_searched_range(ram: RamFile) -> None:
    packets = packet_list()
    put(ram, 512 * KIB, packets[0])
    put(ram, MIB, packets[1])
    put(ram, 7 * MIB, packets[2])
    assert set(only_set(search(ram)).places) == {1, 2}
    assert set(only_set(search(ram, end=PhysAddr(7 * MIB))).places) == {1}
    assert set(only_set(search(ram, start=PhysAddr(0))).places) == {0, 1, 2}
    assert set(only_set(search(ram, start=PhysAddr(MIB + 1))).places) == {2}


def test_a_packet_that_is_not_on_a_page_boundary_is_never_found(ram: RamFile) -> None:
    for number, packet in enumerate(packet_list()):
        put(ram, 2 * MIB + number * 2 * PAGE_SIZE + 512, packet)
    assert search(ram) == SearchResult((), (), (), (), 0)


@pytest.mark.parametrize("end", [4 * MIB, 8 * MIB])
def test_a_packet_that_the_end_of_a_region_cuts_is_not_a_packet(ram: RamFile, end: int) -> None:
    packet = packet_list(size=8 * KIB)[1]
    put(ram, end - PAGE_SIZE, packet[:PAGE_SIZE])
    if end == 4 * MIB:
        put(ram, 6 * MIB, packet[PAGE_SIZE:])  # the next RAM, but behind a gap
    result = search(ram)
    assert result.packet_sets == ()
    assert whys(result) == [(end - PAGE_SIZE, "packet: cut by the end of RAM")]


def test_a_packet_that_the_end_of_the_searched_range_cuts_is_not_a_packet(ram: RamFile) -> None:
    put(ram, 2 * MIB, packet_list(size=8 * KIB)[1])
    assert search(ram, end=PhysAddr(2 * MIB + PAGE_SIZE)).packet_sets == ()
    assert len(search(ram, end=PhysAddr(2 * MIB + 2 * PAGE_SIZE)).packet_sets) == 1


def test_identical_copies_of_packets_are_fine(ram: RamFile) -> None:
    packets = packet_list()
    first, second = scatter(ram, packets * 2)[:9], scatter(ram, packets * 2)[9:]
    found = only_set(search(ram))
    assert found.places == {
        number: tuple(sorted(pair)) for number, pair in enumerate(zip(first, second, strict=True))
    }
    assert (found.conflicts, found.is_complete) == ((), True)
    assert found.assemble(ram).startswith(PAYLOAD)


def test_copies_that_differ_are_a_conflict_even_with_right_checksums(ram: RamFile) -> None:
    packets = packet_list()
    scatter(ram, packets)
    # Two words swapped: the sum, and so the whole header, stays the same.
    twin = packets[3][:100] + packets[3][102:104] + packets[3][100:102] + packets[3][104:]
    assert twin != packets[3]
    put(ram, PAGES[-1], twin)
    found = only_set(search(ram))
    low = found.places[3][0]
    assert found.conflicts == (f"packet 3 at {low:#x} and at {PAGES[-1]:#x} differ",)
    with pytest.raises(DamagedInputError, match="_A05: packet 3 at"):
        found.assemble(ram)


@pytest.mark.parametrize("small_is_lower", [True, False])
def test_copies_of_packet_0_of_different_sizes_are_a_conflict(
    ram: RamFile, small_is_lower: bool
) -> None:
    small = packet_list()[0]
    large = resummed(changed(small, pktSize=8).ljust(8 * KIB, b"\0"))
    low, high = 4 * MIB - PAGE_SIZE, 6 * MIB  # no room for the large one at the low address
    if not small_is_lower:
        low, high = 2 * MIB, 8 * MIB - PAGE_SIZE
    put(ram, low, small if small_is_lower else large)
    put(ram, high, large if small_is_lower else small)
    assert only_set(search(ram)).conflicts == (f"packet 0 at {low:#x} and at {high:#x} differ",)


def test_every_copy_that_differs_is_counted_and_the_first_few_are_named(ram: RamFile) -> None:
    packet = packet_list()[3]
    for place in range(16):
        body = packet[:40] + place.to_bytes(2, "little") + packet[42:]
        put(ram, PAGES[place], resummed(body))
    conflicts = only_set(search(ram)).conflicts
    assert len(conflicts) == 11
    assert conflicts[-1] == "5 more copies of packets differ"


@pytest.mark.parametrize("field", ["totPkts", "pktSize", "hdrSize"])
def test_packets_of_one_set_id_that_differ_in_a_common_field_are_a_conflict(
    ram: RamFile, field: str
) -> None:
    packets = packet_list()
    value = {"totPkts": 12, "pktSize": 2, "hdrSize": 3}[field]
    leftover = changed(packets[4], **{field: value})
    if field == "pktSize":
        leftover = resummed(leftover[: 2 * KIB])
    put(ram, PAGES[-1], leftover)
    for address, packet in zip(PAGES, packets, strict=False):
        put(ram, address, packet)
    found = only_set(search(ram))
    assert found.is_complete
    assert found.places[4] == (PAGES[4],)
    (conflict,) = found.conflicts
    assert conflict.startswith("1 packets have another total, packet size or header size")
    assert conflict.endswith(f"the first one at {PAGES[-1]:#x}")
    with pytest.raises(DamagedInputError, match="another total"):
        found.assemble(ram)


def test_packets_of_two_sets_are_two_sets(ram: RamFile) -> None:
    scatter(ram, packet_list() + packet_list(set_id=b"_A06", crc=7))
    first, second = search(ram).packet_sets
    assert {first.set_id, second.set_id} == {
        int.from_bytes(name, "little") for name in (b"_A05", b"_A06")
    }
    assert first.lowest < second.lowest
    assert first.is_complete
    assert second.is_complete


def test_a_packet_with_a_wrong_checksum_is_skipped_and_said(ram: RamFile) -> None:
    packets = packet_list()
    packets[2] = packets[2][:-1] + bytes([packets[2][-1] ^ 1])
    places = scatter(ram, packets)
    result = search(ram)
    assert whys(result) == [(places[2], "packet: wrong checksum")]
    found = only_set(result)
    assert (found.missing, found.is_complete) == ((2,), False)
    with pytest.raises(DamagedInputError, match="1 of 9 packets are missing"):
        found.assemble(ram)


def test_a_page_with_the_magic_alone_is_a_reject_with_the_rule_it_breaks(ram: RamFile) -> None:
    put(ram, MIB, b"$RPK")
    put(ram, 2 * MIB, changed(packet_list()[1], reserved2=1))
    result = search(ram)
    assert result.packet_sets == ()
    assert whys(result) == [
        (MIB, "packet: pktVer is not 1"),
        (2 * MIB, "packet: reserved2 is not 0"),
    ]


def test_the_rejects_kept_are_capped_and_all_are_counted(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "MAX_REJECTS", 5)
    for address in PAGES[:9]:
        put(ram, address, b"$RPK")
    result = search(ram)
    assert len(result.rejects) == 5
    assert result.reject_count == 9


def test_a_packet_with_holes_in_its_data_is_found(ram: RamFile) -> None:
    lead, packet = packet_list(b"data", size=64 * KIB)
    put(ram, MIB, lead[:PAGE_SIZE])
    put(ram, 2 * MIB, packet[:PAGE_SIZE])
    assert [run.size_bytes for run in ram.populated(PhysAddr(MIB), PhysAddr(8 * MIB))] == [
        PAGE_SIZE,
        PAGE_SIZE,
    ]
    assert only_set(search(ram)).is_complete


@pytest.mark.parametrize("seed", range(8))
def test_few_packets_and_many_are_looked_at_with_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Few are looked at one by one, many at once with numpy."""
    rng = random.Random(seed)
    size = 8 * MIB + rng.choice([0, 20, 2048])
    memory = bytearray(size)
    packets = packet_list() + packet_list(size=8192, set_id=b"more") + [b"$RPK" + bytes(28)]
    pages = range(MIB, size, PAGE_SIZE)
    for page in rng.sample(pages, 300):
        packet = bytearray(rng.choice(packets))
        if rng.random() < 0.4:  # damaged, or with another header
            packet[rng.choice([4, 5, 8, 12, 16, 18, 20, 30, 31, 500]) % len(packet)] ^= 1 << seed
        memory[page : page + len(packet)] = packet
    del memory[size:]
    path = tmp_path / "ram.raw"
    path.write_bytes(memory)
    found = []
    for few, budget in ((5000, 256 * MIB), (0, 256 * MIB), (5000, -27 * MIB), (0, -27 * MIB)):
        monkeypatch.setattr(packet_sums, "FEW", few)
        monkeypatch.setattr(packet_sums, "WORK_BYTES", budget)
        with open_dump(path) as dump:
            found.append((search(dump), outcomes(dump)))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0][0].packet_sets
    assert found[0][0].damaged


def outcomes(memory: ReadableMemory) -> list[str]:
    """What each rule set does, as a text."""
    said = []
    for rules in RULE_SETS.values():
        try:
            said.append(repr(rules.find_update(memory, Identity(0x0121, 0x10000)).extents))
        except RejectedError as error:
            said.append(str(error))
    return said


def test_made_up_packets_that_overlap_do_not_make_the_search_quadratic(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = PacketHeader(1024 * KIB, 32, 9, 1, 2, 0).build()
    for address in range(MIB, 3 * MIB, PAGE_SIZE):
        put(ram, address, fake)
    scatter(ram, packet_list(), seed=4)
    monkeypatch.setattr(packet_sums, "WORK_BYTES", 0)
    result = search(ram)
    assert only_set(result).assemble(ram).startswith(PAYLOAD)
    unchecked = [why for _, why in whys(result) if "not checked" in why]
    assert len(unchecked) > 400


def test_sets_beyond_the_cap_are_rejected(ram: RamFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_PACKET_SETS", 2)
    for number in range(4):
        put(ram, PAGES[number], packet_list(set_id=b"set%d" % number)[0])
    result = search(ram)
    assert [found.lowest for found in result.packet_sets] == PAGES[:2]
    assert [address for address, _ in whys(result)] == PAGES[2:4]


# Properties of packets


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """A set's packets, and where in RAM they lie together with all sorts of leftovers."""
    payload = draw(st.binary(min_size=1, max_size=9000))
    size = draw(st.sampled_from([1, 4, 8])) * KIB
    packets = packet_list(payload, size=size)
    slots = draw(st.permutations(range(40)))
    leftovers = draw(
        st.lists(
            st.one_of(
                st.sampled_from(packets),  # a copy
                st.sampled_from(packets).map(lambda p: p[:-1] + bytes([p[-1] ^ 0x40])),
                st.sampled_from(packets).map(lambda p: p[:50]),
                st.sampled_from([b"$RPK", b"$RBU", IMAGE[:500], b"\xff" * 64]),
            ),
            max_size=10,
        )
    )
    places = [MIB + slot * 2 * PAGE_SIZE for slot in slots]
    return packets, list(zip(places, packets + leftovers, strict=False))


quick = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(crowd=crowds())
def test_any_scattering_among_any_ghosts_is_found_whole(
    ram: RamFile, crowd: tuple[list[bytes], list[tuple[int, bytes]]]
) -> None:
    packets, lying = crowd
    ram.clear()
    for address, data in lying:
        put(ram, address, data)
    found = only_set(search(ram))
    assert found.is_complete
    assert found.conflicts == ()
    assert found.assemble(ram) == b"".join(packet[32:] for packet in packets[1:])


@quick
@given(data=st.data())
def test_without_any_one_packet_a_set_is_incomplete(ram: RamFile, data: st.DataObject) -> None:
    packets = packet_list()
    lost = data.draw(st.integers(0, len(packets) - 1))
    ram.clear()
    places = scatter(ram, packets, seed=data.draw(st.integers(0, 99)))
    ram.zero(PhysAddr(places[lost]), 4096)
    found = only_set(search(ram))
    assert found.missing == (lost,)
    assert not found.is_complete


@quick
@given(data=st.data())
def test_any_changed_byte_of_a_packet_makes_it_missing(ram: RamFile, data: st.DataObject) -> None:
    packets = packet_list()
    hit = data.draw(st.integers(0, len(packets) - 1))
    position = data.draw(st.integers(0, 4095) | st.integers(0, 31))
    flip = data.draw(st.integers(1, 255))
    ram.clear()
    places = scatter(ram, packets)
    put(ram, places[hit] + position, bytes([packets[hit][position] ^ flip]))
    assert only_set(search(ram)).missing == (hit,)


# Images


@pytest.mark.parametrize("flash_size", [len(FLASH), None])
def test_a_whole_image_is_found_wherever_it_lies(ram: RamFile, flash_size: int | None) -> None:
    places = [MIB, 3 * MIB + 5 * PAGE_SIZE, 8 * MIB - 17 * PAGE_SIZE]
    for address in places:
        put(ram, address, IMAGE)
    result = search(ram, flash_size_bytes=flash_size)
    assert [image.address for image in result.images] == places
    image = result.images[0]
    assert image.size_bytes == len(IMAGE)
    assert image.data_word == int.from_bytes(IMAGE[-8:-4], "little")
    assert image.header.version == BiosVersion.parse("A05")
    assert [seen.address for seen in result.headers] == places
    assert result.rejects == ()


@pytest.mark.parametrize("flash_size", [64 * KIB - 92, None])
def test_an_image_that_ends_where_ram_ends_is_found(ram: RamFile, flash_size: int | None) -> None:
    flash = FLASH[:-92]
    image = make_image(flash, version=BiosVersion.parse("A05"), systems=[SystemId(0x121)])
    put(ram, 4 * MIB - len(image), image)
    result = search(ram, flash_size_bytes=flash_size)
    assert [found.address for found in result.images] == [4 * MIB - 64 * KIB]


NO_IMAGE = "image: cut, or not in one piece: its check words do not follow the header"
OVERWRITTEN = (
    f"image: overwritten: its {len(IMAGE)} bytes are there, but the data does not have its check "
    "word"
)


@pytest.mark.parametrize("flash_size", [len(FLASH), None])
def test_an_image_with_one_strange_page_in_it_is_a_reject_and_a_header(
    ram: RamFile, flash_size: int | None
) -> None:
    put(ram, 2 * MIB, IMAGE)
    put(ram, 2 * MIB + 5 * PAGE_SIZE, bytes(PAGE_SIZE))
    result = search(ram, flash_size_bytes=flash_size)
    assert result.images == ()
    assert [seen.address for seen in result.headers] == [2 * MIB]
    assert whys(result) == [(2 * MIB, OVERWRITTEN)]


@pytest.mark.parametrize("flash_size", [len(FLASH), None])
@pytest.mark.parametrize("end", [4 * MIB, 8 * MIB])
def test_an_image_that_runs_into_the_end_of_a_region_is_a_reject(
    ram: RamFile, flash_size: int | None, end: int
) -> None:
    address = end - 16 * PAGE_SIZE  # 92 bytes short
    put(ram, address, IMAGE[: end - address])
    if end == 4 * MIB:
        put(ram, 6 * MIB, IMAGE[end - address :])
    result = search(ram, flash_size_bytes=flash_size)
    assert result.images == ()
    assert whys(result) == [(address, NO_IMAGE)]


def test_an_image_of_another_size_than_the_flash_does_not_count(ram: RamFile) -> None:
    put(ram, 2 * MIB, IMAGE)
    for size in (len(FLASH) - 4, len(FLASH) + 4, 128 * KIB, 64 * MIB):
        assert search(ram, flash_size_bytes=size).images == ()


def test_a_whole_image_a_cut_one_and_an_overwritten_one_are_told_apart(ram: RamFile) -> None:
    cut, overwritten = IMAGE[:-8] + bytes(8), IMAGE[:5000] + b"?" + IMAGE[5001:]
    put(ram, 2 * MIB, cut)
    put(ram, 3 * MIB, overwritten)
    put(ram, 7 * MIB, IMAGE)
    for flash_size in (len(FLASH), None):
        result = search(ram, flash_size_bytes=flash_size)
        assert [seen.address for seen in result.images] == [7 * MIB]
        assert [(seen.address, seen.state, seen.size_bytes) for seen in result.headers] == [
            (2 * MIB, ImageState.CUT, 0),
            (3 * MIB, ImageState.DATA_CHANGED, len(IMAGE)),
            (7 * MIB, ImageState.WHOLE, len(IMAGE)),
        ]
        assert [why for _, why in whys(result)] == [NO_IMAGE, OVERWRITTEN]


def test_an_image_on_the_last_page_of_a_dump_that_is_cut_counts(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    for behind in (b"", b"$", b"$RPK", b"$RBU"):
        dump.write_bytes(bytes(MIB) + IMAGE + bytes(-len(IMAGE) % PAGE_SIZE) + behind)
        size = dump.stat().st_size if behind else MIB + len(IMAGE)
        os.truncate(dump, size)
        memory = RamFile(dump, (Region(PhysAddr(0), PhysAddr(size)),), writable=False)
        with contextlib.closing(memory):
            result = search(memory, PhysAddr(0), PhysAddr(size))
        assert [seen.address for seen in result.images] == [MIB]
        assert result.reject_count == (len(behind) == 4)


def test_different_whole_images_have_different_checksums(ram: RamFile) -> None:
    put(ram, 2 * MIB, OTHER_IMAGE)
    put(ram, 3 * MIB, IMAGE)
    first, second = search(ram).images
    assert first.data_word != second.data_word


def test_an_image_that_is_not_on_a_page_boundary_is_never_found(ram: RamFile) -> None:
    put(ram, 2 * MIB + 16, IMAGE)
    assert search(ram) == SearchResult((), (), (), (), 0)


def test_a_header_that_can_not_be_read_is_a_reject(ram: RamFile) -> None:
    put(ram, 2 * MIB, b"$RBU" + bytes(200))
    ((address, why),) = whys(search(ram))
    assert address == 2 * MIB
    assert why.startswith("image: the image header")


def test_an_image_whose_data_is_mostly_holes_is_found(ram: RamFile) -> None:
    version, systems = BiosVersion.parse("A05"), [SystemId(0x121)]
    image = make_image(b"x" + bytes(MIB - 1), version=version, systems=systems)
    put(ram, 2 * MIB, image[:PAGE_SIZE])
    put(ram, 3 * MIB, image[MIB:])
    for size in (MIB, None):
        assert [found.address for found in search(ram, flash_size_bytes=size).images] == [2 * MIB]


def test_data_that_claims_check_words_everywhere_costs_only_a_few_checks(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_search, "WORK_BYTES", 32 * MIB)
    header, claims = IMAGE[:84], bytearray(MIB)
    for size in range(KIB, MIB - 8, KIB):
        claims[size + 4 : size + 8] = check_words(header, bytes(size))[4:]
    put(ram, 2 * MIB, header + bytes(claims))
    result = search(ram)
    assert result.images == ()
    assert [why.split(":")[1] for _, why in whys(result)] == [" overwritten"]
    assert [seen.size_bytes for seen in result.headers] == [len(header) + KIB + 8]  # the first


@pytest.mark.parametrize("flash_size", [len(FLASH), None])
def test_a_header_that_changes_while_it_is_read_is_neither_whole_nor_cut(
    ram: RamFile, flash_size: int | None
) -> None:
    """Memory has another version's header by now, before the check words of the one that was."""
    was = Image.parse(IMAGE).header
    put(ram, 2 * MIB, OTHER_IMAGE[: was.size_bytes] + IMAGE[was.size_bytes :])
    memory = ram_array.RamArray(ram, PhysAddr(0), REGIONS[-1].end)
    (checked,) = image_search.ImageSearch(memory, flash_size).check_bodies(
        [(PhysAddr(2 * MIB), was)]
    )
    assert (checked.state, checked.size_bytes) == (ImageState.DATA_CHANGED, 0)
    assert checked.why == "image: its header changed while it was read"


@pytest.mark.parametrize("bytes_before_the_border", [1, 2, 3])
def test_a_check_word_across_the_border_of_two_chunks_is_found(
    ram: RamFile, bytes_before_the_border: int
) -> None:
    """The memory behind a header is searched in chunks of 1 MiB."""
    data = random.Random(9).randbytes(MIB - 4 - bytes_before_the_border)
    image = make_image(data, version=BiosVersion.parse("A05"), systems=[SystemId(0x121)])
    put(ram, 2 * MIB, image)
    assert [found.size_bytes for found in search(ram).images] == [len(image)]


@pytest.mark.parametrize(("times", "is_found"), [(17, False), (20, True)])
def test_the_search_at_each_byte_counts_as_sixteen_times_the_work(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch, times: int, is_found: bool
) -> None:
    """A search at each KiB comes first: that is one time the work; and a checksum at the end."""
    image = make_image(FLASH[:-92], version=BiosVersion.parse("A05"), systems=[SystemId(0x121)])
    put(ram, 2 * MIB, image)
    monkeypatch.setattr(image_search, "WORK_BYTES", times * len(image))
    result = search(ram)
    assert [found.address for found in result.images] == [2 * MIB] * is_found
    assert [why for _, why in whys(result)] == [
        "image: not checked, too many headers claim to be one"
    ] * (not is_found)


def test_headers_that_claim_more_work_than_allowed_are_not_checked(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (MIB, 2 * MIB, 3 * MIB):
        put(ram, address, IMAGE)
    monkeypatch.setattr(image_search, "WORK_BYTES", 2 * len(IMAGE))
    result = search(ram, flash_size_bytes=len(FLASH))
    assert [image.address for image in result.images] == [MIB, 2 * MIB]
    assert whys(result) == [
        (3 * MIB, "image: not checked, too many headers claim to be one"),
    ]
    assert len(result.headers) == 3


def test_headers_beyond_the_cap_are_rejected(ram: RamFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_IMAGE_HEADERS", 1)
    put(ram, MIB, IMAGE)
    put(ram, 2 * MIB, IMAGE)
    result = search(ram)
    assert [image.address for image in result.images] == [MIB]
    assert whys(result) == [(2 * MIB, "image: not checked, memory has more than 1 headers")]


def test_images_and_packets_are_found_beside_each_other(ram: RamFile) -> None:
    for address, packet in zip(PAGES, packet_list(IMAGE), strict=False):
        put(ram, address, packet)
    put(ram, 7 * MIB, IMAGE)
    result = search(ram, flash_size_bytes=len(FLASH))
    assert [image.address for image in result.images] == [7 * MIB]
    assert only_set(result).assemble(ram).startswith(IMAGE)


def test_a_search_changes_nothing_and_takes_no_memory_for_holes(tmp_path: Path) -> None:
    shm = Path("/dev/shm")  # tmpfs, where a mere look at a hole through a mapping takes a page
    directory = shm if os.access(shm, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=directory) as name:
        ram = RamFile.create(Path(name) / "ram", REGIONS)
        for address, packet in zip(PAGES, packet_list(), strict=False):
            put(ram, address, packet)
        put(ram, 2 * MIB, PacketHeader(MIB, 32, 9, 1, 2, 0).build())
        put(ram, 7 * MIB, IMAGE)
        put(ram, 7 * MIB + 32 * PAGE_SIZE, IMAGE[:84])
        before = (Path(name) / "ram").stat().st_blocks, ram.read(PhysAddr(MIB), 3 * MIB)
        for flash_size in (None, 64 * KIB):
            assert len(search(ram, flash_size_bytes=flash_size).images) == 1
        blocks = (Path(name) / "ram").stat().st_blocks
        assert (blocks, ram.read(PhysAddr(MIB), 3 * MIB)) == before
        ram.close()


def test_a_found_set_without_packet_0_has_no_password(ram: RamFile) -> None:
    scatter(ram, packet_list(crc=5)[1:])
    found = only_set(search(ram))
    assert found.password == PasswordItem(present=False)
    assert found.missing == (0,)
    assert replace(found, places={}).missing == tuple(range(found.total))


# The pages that begin with a word


@pytest.mark.parametrize("cut_bytes", [0, 1, 3, 4, 8])
@pytest.mark.parametrize("is_mapped", [True, False])
def test_pages_are_found_in_windows_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_mapped: bool, cut_bytes: int
) -> None:
    places = [0, 3 * PAGE_SIZE, MIB, 4 * MIB - PAGE_SIZE, 6 * MIB]
    with contextlib.closing(RamFile.create(tmp_path / "ram", REGIONS)) as ram:
        for address in [*places, 8 * MIB - PAGE_SIZE]:
            put(ram, address, b"$RPK")
        for address in (2 * MIB + 1, 3 * MIB + 8):  # not at the start of a page
            put(ram, address, b"$RPK")
    regions = REGIONS
    if cut_bytes:  # within the last page
        end = PhysAddr(8 * MIB - PAGE_SIZE + cut_bytes)
        os.truncate(tmp_path / "ram", end)
        regions = (*REGIONS[:-1], Region(REGIONS[-1].start, end))
    if cut_bytes in (0, 4, 8):
        places.append(8 * MIB - PAGE_SIZE)
    memory = RamFile(tmp_path / "ram", regions, writable=False, is_mapped=is_mapped)
    bounds = PhysAddr(0), PhysAddr(8 * MIB)
    with contextlib.closing(memory):
        for window_bytes in (32 * MIB, MIB, PAGE_SIZE):
            monkeypatch.setattr(windows, "VIEWED_BYTES", window_bytes)
            monkeypatch.setattr(windows, "COPIED_BYTES", window_bytes)
            found = list(pages_beginning_with(memory, *bounds, 0x11111111, PACKET_MAGIC))
            assert found == [(place, 1) for place in places]
            inner = PhysAddr(PAGE_SIZE), PhysAddr(4 * MIB - PAGE_SIZE)
            found = list(pages_beginning_with(memory, *inner, PACKET_MAGIC))
            assert found == [(3 * PAGE_SIZE, 0), (MIB, 0)]


# At any byte


@pytest.mark.parametrize("is_mapped", [True, False])
@pytest.mark.parametrize("lead", [0, 1, 2, 3, 7, 1000, 4095])
def test_what_begins_at_any_byte_is_found_when_that_is_asked_for(
    tmp_path: Path, *, is_mapped: bool, lead: int
) -> None:
    with contextlib.closing(RamFile.create(tmp_path / "ram", REGIONS)) as ram:
        packets = packet_list()
        put(ram, 2 * MIB + lead, b"".join(packets))
        put(ram, 6 * MIB + lead, IMAGE)
    memory = RamFile(tmp_path / "ram", REGIONS, writable=False, is_mapped=is_mapped)
    with contextlib.closing(memory):
        plain = search(memory)
        result = search(memory, any_alignment=True)
        if lead:
            assert (plain.packet_sets, plain.images) == ((), ())
        found = only_set(result)
        assert found.places == {
            number: (2 * MIB + lead + number * PAGE_SIZE,) for number in range(len(packets))
        }
        assert found.extent_count == 1
        assert found.assemble(memory).startswith(PAYLOAD)
        assert [image.address for image in result.images] == [6 * MIB + lead]
        assert result.off_page_count == (len(packets) + 1 if lead else 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_place_is_found_whatever_windows_memory_comes_in(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.binary(min_size=1, max_size=200)) + bytes(600))
    for place in data.draw(st.lists(st.integers(0, 700), max_size=12)):
        text = data.draw(st.sampled_from([b"$RPK", b"$RBU", b"$R", b"$$R", b"RPK$"]))
        content[place : place + len(text)] = text
    regions = (Region(PhysAddr(5), PhysAddr(5 + len(content))),)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ram"
        path.write_bytes(content)
        memory = RamFile(path, regions, writable=False, is_mapped=False, offsets=[0])
        with contextlib.closing(memory):
            monkeypatch.setattr(windows, "COPIED_BYTES", data.draw(st.integers(1, 64)))
            monkeypatch.setattr(any_alignment, "SLICE_BYTES", 2 * data.draw(st.integers(2, 40)))
            monkeypatch.setattr(any_alignment, "_FEW", data.draw(st.integers(0, 3)))
            found = any_alignment.places_anywhere(memory, regions[0].start, regions[0].end)
    for addresses, text in ((found.packets, b"$RPK"), (found.images, b"$RBU")):
        expected = [5 + at for at in range(len(content)) if content[at : at + 4] == text]
        assert addresses == expected


def test_a_memory_full_of_beginnings_ends_the_search_at_any_byte(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(ram, 2 * MIB, b"$RPK" * 4096)
    monkeypatch.setattr(any_alignment, "MAX_PLACES", 1000)
    result = search(ram, any_alignment=True)
    assert "not searched from here on" in result.rejects[-1].why
    assert result.packet_sets == ()
