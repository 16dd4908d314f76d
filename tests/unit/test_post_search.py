"""POST: what the BIOS finds in memory, what it takes, and what it refuses."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER, HEADER_SIZE_BYTES
from openrbu.formats.packet import PACKET_HEADER
from openrbu.memory.physical import Region
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.boards import (
    COMPLETED,
    FLASH_BYTES,
    IMAGE,
    NEW,
    NOT_FOUND,
    OTHER,
    OTHER_IMAGE,
    PACKETS,
    REFUSED,
    STRAY,
    Computer,
    changed,
    check_refused,
    check_took,
    image_of,
    image_with_long_header,
    packets_of,
    pages_of,
    resummed,
    scatter,
    with_checksum_of,
)

PASSWORD, WRONG_PASSWORD = 0xDEADBEEF, 0xDEADBEEE


# -- monolithic images ----------------------------------------------------------------------


@pytest.mark.parametrize("address", [MIB, 2 * MIB + PAGE_SIZE, 7 * MIB - 33 * PAGE_SIZE], ids=hex)
def test_an_image_is_taken_from_any_page_that_a_bios_searches(
    computer: Computer, address: int
) -> None:
    computer.put(address, IMAGE)
    report = computer.start_armed()
    check_took(computer, report, "mono")
    assert report.extents == (Region(PhysAddr(address), PhysAddr(address + len(IMAGE))),)


@pytest.mark.parametrize(
    "address",
    [64 * KIB, 4 * GIB, 2 * MIB + 512, 2 * MIB + 4, 7 * MIB - 32 * PAGE_SIZE],
    ids=["below 1 MiB", "above 4 GiB", "between pages", "4 bytes off", "cut by the end of RAM"],
)
def test_an_image_elsewhere_is_not_found(computer: Computer, address: int) -> None:
    computer.put(address, IMAGE[: 7 * MIB - address] if address < 7 * MIB else IMAGE)
    check_refused(computer, computer.start_armed(), NOT_FOUND)


def test_after_ram_was_cleared_no_image_is_found(computer: Computer) -> None:
    computer.put(2 * MIB, IMAGE)
    computer.arm()
    computer.lose_ram()
    check_refused(computer, computer.start(), NOT_FOUND, "nothing in memory looks like one")


@pytest.mark.parametrize("offset", [50, HEADER_SIZE_BYTES, 70_000, len(IMAGE) - 1])
def test_an_image_with_a_byte_changed_is_not_whole_and_not_taken(
    computer: Computer, offset: int
) -> None:
    wrong = bytearray(IMAGE)
    wrong[offset] ^= 1
    computer.put(2 * MIB, bytes(wrong))
    check_refused(computer, computer.start_armed(), NOT_FOUND)


@pytest.mark.parametrize("size_bytes", [FLASH_BYTES // 2, FLASH_BYTES - 1, FLASH_BYTES + 1])
def test_an_image_of_another_flash_size_is_not_this_machines(
    computer: Computer, size_bytes: int
) -> None:
    computer.put(2 * MIB, image_of(bytes(size_bytes)))
    check_refused(computer, computer.start_armed(), NOT_FOUND)


def test_ghosts_of_an_image_do_not_keep_it_from_being_found(computer: Computer) -> None:
    broken = IMAGE[: 20 * PAGE_SIZE] + bytes(PAGE_SIZE) + IMAGE[21 * PAGE_SIZE :]
    leftovers = [
        broken,  # a freed buffer
        IMAGE[: 9 * PAGE_SIZE],  # the start of a file in the page cache
        IMAGE[:PAGE_SIZE],  # a bare header, stale
        OTHER_IMAGE[:PAGE_SIZE],
        *pages_of(IMAGE),  # a file in the page cache, one page here, one there
    ]
    places = scatter(computer, *leftovers, IMAGE)
    report = computer.start_armed()
    check_took(computer, report, "mono")
    assert report.extents[0].start == places[-1]


def test_whole_copies_of_an_image_are_one_update(computer: Computer) -> None:
    scatter(computer, IMAGE, IMAGE, IMAGE)
    check_took(computer, computer.start_armed(), "mono")


def test_pages_that_only_look_like_updates_are_not_one(computer: Computer) -> None:
    scatter(computer, IMAGE[:-PAGE_SIZE], IMAGE[:PAGE_SIZE], *pages_of(IMAGE), STRAY)
    check_refused(computer, computer.start_armed(), NOT_FOUND)


def test_two_different_whole_images_are_refused(computer: Computer) -> None:
    scatter(computer, IMAGE, OTHER_IMAGE)
    check_refused(computer, computer.start_armed(), REFUSED, "two different images")


@pytest.mark.parametrize(
    ("other", "patched_at"),
    [(image_of(OTHER), 70_000), (image_of(version="2.3.1"), HEADER.offset_of("reserved"))],
    ids=["data", "header"],
)
@pytest.mark.parametrize("pieces", [[IMAGE], PACKETS], ids=["mono", "packet"])
def test_two_images_with_the_same_checksum_are_different_all_the_same(
    computer: Computer, pieces: list[bytes], other: bytes, patched_at: int
) -> None:
    lookalike = with_checksum_of(IMAGE, other, patched_at)
    assert lookalike[-8:] == IMAGE[-8:]
    scatter(computer, *pieces, lookalike)
    check_refused(computer, computer.start_armed(), REFUSED, "two different images")


def test_an_image_with_a_longer_header_is_taken(computer: Computer) -> None:
    computer.put(2 * MIB, image_with_long_header(NEW, b"more of the header"))
    check_took(computer, computer.start_armed(), "mono")


@pytest.mark.parametrize("pieces", [1, 2], ids=["mono", "packet"])
def test_an_image_for_other_systems_is_refused(computer: Computer, pieces: int) -> None:
    image = image_of(system_id=0x0121)
    scatter(computer, *([image] if pieces == 1 else packets_of(image)))
    check_refused(computer, computer.start_armed(), REFUSED, "is for 0x0121")


def test_a_machine_that_does_not_know_what_it_is_takes_nothing(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "computer", system_id=None)
    computer.put(2 * MIB, IMAGE)
    check_refused(computer, computer.start_armed(), REFUSED, "not for this machine")


# -- packets --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size_kib", [4, 8, 64, 1, 5])
def test_packets_are_taken_in_any_order_at_any_pages(
    computer: Computer, seed: int, size_kib: int
) -> None:
    packets = packets_of(IMAGE, size=size_kib * KIB)
    places = scatter(computer, *packets, seed=seed)
    report = computer.start_armed()
    check_took(computer, report, "packet")
    assert all(
        any(extent.start <= place < extent.end for extent in report.extents) for place in places
    )


@pytest.mark.parametrize("size_kib", [1, 4, 16])
def test_packet_0_may_have_a_size_of_its_own(computer: Computer, size_kib: int) -> None:
    packet_0, *others = packets_of(IMAGE, size=8 * KIB)
    resized = packet_0.ljust(size_kib * KIB, b"\0")[: size_kib * KIB]
    scatter(computer, changed(resized, pktSize=size_kib), *others)
    check_took(computer, computer.start_armed(), "packet")


def test_identical_copies_of_packets_and_of_the_whole_set_are_fine(computer: Computer) -> None:
    scatter(computer, *PACKETS, *PACKETS, *PACKETS[:9], PACKETS[-1])
    check_took(computer, computer.start_armed(), "packet")


def test_copies_of_the_image_in_one_piece_beside_its_packets_are_fine(computer: Computer) -> None:
    first, *_ = scatter(computer, *PACKETS, IMAGE, IMAGE, *pages_of(IMAGE))
    report = computer.start_armed()
    check_took(computer, report, "packet")
    assert any(extent.start <= first < extent.end for extent in report.extents)


def test_pages_that_only_look_like_packets_are_passed_over(computer: Computer) -> None:
    lookalikes = [
        STRAY,
        b"$RPK" + bytes(PAGE_SIZE - 4),
        PACKETS[3][:-1] + b"\x01",  # a wrong checksum
        PACKETS[3][: PAGE_SIZE // 2],
        changed(PACKETS[4], reserved1=1, pktSetId=7),
        changed(PACKETS[4], pktVer=2, pktSetId=7),
        changed(PACKETS[4], pktNum=500, pktSetId=7),
        packets_of(OTHER_IMAGE, set_id=b"_240")[5][:-1] + b"\x01",
    ]
    scatter(computer, *PACKETS, *lookalikes)
    check_took(computer, computer.start_armed(), "packet")


def test_packets_that_are_not_where_a_bios_searches_are_not_found(computer: Computer) -> None:
    for start in (0, 4 * GIB, MIB + 512, 2 * MIB + 32):
        computer.put_all(PACKETS, [start + PAGE_SIZE * n for n in range(len(PACKETS))])
    check_refused(computer, computer.start_armed(), NOT_FOUND)


@pytest.mark.parametrize("missing", [0, 1, 17, len(PACKETS) - 1])
def test_a_set_with_a_packet_missing_is_refused(computer: Computer, missing: int) -> None:
    scatter(computer, *PACKETS[:missing], *PACKETS[missing + 1 :])
    check_refused(computer, computer.start_armed(), REFUSED, "1 of the set's 34 packets")


def test_a_set_with_a_packet_above_4_gib_is_incomplete(computer: Computer) -> None:
    scatter(computer, *PACKETS[1:])
    computer.put(4 * GIB, PACKETS[0])
    check_refused(computer, computer.start_armed(), REFUSED, "missing")


def test_packets_of_two_sets_are_refused_even_when_one_is_whole(computer: Computer) -> None:
    scatter(computer, *PACKETS, packets_of(IMAGE, set_id=b"_231")[3])
    check_refused(computer, computer.start_armed(), REFUSED, "two different sets")


@pytest.mark.parametrize(
    "fields",
    [{"totPkts": 35}, {"totPkts": 33}, {"hdrSize": 3}, {}],
    ids=["total", "smaller total", "header size", "data"],
)
def test_packets_of_one_set_that_contradict_each_other_are_refused(
    computer: Computer, fields: dict[str, int]
) -> None:
    odd = changed(PACKETS[7][:-1] + b"\x77", **fields)
    scatter(computer, *PACKETS, odd)
    check_refused(computer, computer.start_armed(), REFUSED, "contradict")


def test_packets_beside_another_whole_image_are_refused(computer: Computer) -> None:
    scatter(computer, *PACKETS, OTHER_IMAGE)
    check_refused(computer, computer.start_armed(), REFUSED, "two different images")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (image_of(NEW[: FLASH_BYTES // 2]), "flash size"),
        (image_of(NEW + NEW), "flash size"),
        (image_of(NEW + b"\0"), "flash size"),
        (image_of(NEW[:-1]), "flash size"),  # the padding makes up for it
        (image_with_long_header(NEW[:-16], bytes(16)), "flash size"),
    ],
    ids=["half", "double", "a byte more", "a byte less", "less data behind more header"],
)
def test_an_image_of_another_flash_size_in_packets_is_refused(
    computer: Computer, image: bytes, why: str
) -> None:
    scatter(computer, *packets_of(image))
    check_refused(computer, computer.start_armed(), REFUSED, why)


def test_an_image_with_a_longer_header_is_taken_from_packets_too(computer: Computer) -> None:
    scatter(computer, *packets_of(image_with_long_header(NEW, b"more of the header")))
    check_took(computer, computer.start_armed(), "packet")


def test_a_set_with_one_packet_more_than_its_image_takes_is_refused(computer: Computer) -> None:
    room = PAGE_SIZE - 32
    padded = IMAGE + bytes(-len(IMAGE) % room)
    scatter(computer, *packets_of(padded))
    assert len(packets_of(padded)) == len(PACKETS)
    check_took(computer, computer.start_armed(), "packet")
    again = Computer(computer.directory)
    scatter(again, *packets_of(padded + b"\0"))
    check_refused(again, again.start_armed(), REFUSED, "flash size")


def test_a_set_that_claims_far_more_than_there_is_ram_is_refused_before_it_is_put_together(
    computer: Computer,
) -> None:
    """60 sound packets of 2 MiB in less than 3 MiB, each over most of the next ones."""
    size, total = 2 * MIB, 60
    ram = bytearray(b"\x22" * (size + total * PAGE_SIZE))
    for number in reversed(range(total)):
        start = number * PAGE_SIZE
        fields = {"pktSize": size // KIB, "pktNum": number, "totPkts": total}
        bare = PACKET_HEADER.pack(fields) + ram[start + PACKET_HEADER.size_bytes : start + size]
        ram[start : start + size] = resummed(bare)
    computer.put(MIB, ram)
    computer.arm()
    tracemalloc.start()
    try:
        report = computer.start()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    check_refused(computer, report, REFUSED, "flash size")
    assert peak_bytes < 32 * MIB


def test_padding_that_is_not_zero_is_refused(computer: Computer) -> None:
    scatter(computer, *packets_of(IMAGE + b"\0\0\1"))
    check_refused(computer, computer.start_armed(), REFUSED, "flash size")


@pytest.mark.parametrize(
    ("offset", "why"),
    [
        (0, "not a BIOS image"),
        (8, "quick check"),
        (50, "header was changed"),
        (70_000, "data was changed"),
        (len(IMAGE) - 8, "data was changed"),
        (len(IMAGE) - 1, "header was changed"),
    ],
)
def test_an_image_with_a_byte_changed_in_sound_packets_is_refused(
    computer: Computer, offset: int, why: str
) -> None:
    wrong = bytearray(IMAGE)
    wrong[offset] ^= 1
    scatter(computer, *packets_of(bytes(wrong)))
    check_refused(computer, computer.start_armed(), REFUSED, why)


def test_a_bios_that_does_not_know_packets_ignores_them(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "computer", knows_packets=False)
    scatter(computer, *packets_of(OTHER_IMAGE)[:-1], packets_of(IMAGE, set_id=b"_111")[2])
    check_refused(computer, computer.start_armed(), NOT_FOUND)
    computer.put(7 * MIB - 33 * PAGE_SIZE, IMAGE)
    assert computer.start_armed().completion_code == COMPLETED
    assert computer.bios == NEW


@pytest.mark.parametrize(
    ("own", "given", "code"),
    [
        (None, None, COMPLETED),
        (PASSWORD, PASSWORD, COMPLETED),
        (0, 0, COMPLETED),
        (PASSWORD, None, REFUSED),
        (PASSWORD, WRONG_PASSWORD, REFUSED),
        (0, None, REFUSED),
        (None, PASSWORD, REFUSED),
        (None, 0, REFUSED),
    ],
)
def test_packet_0_has_to_carry_the_machines_password_and_none_where_there_is_none(
    tmp_path: Path, own: int | None, given: int | None, code: CompletionCode
) -> None:
    computer = Computer(tmp_path / "computer", password_crc=own)
    scatter(computer, *packets_of(IMAGE, password_crc=given))
    report = computer.start_armed()
    if code == COMPLETED:
        check_took(computer, report, "packet")
    else:
        check_refused(computer, report, code, "password")
    assert computer.nvram.admin_password_crc == own


def test_a_copy_of_packet_0_with_another_password_contradicts_it(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "computer", password_crc=PASSWORD)
    packets = packets_of(IMAGE, password_crc=PASSWORD)
    scatter(computer, *packets, packets_of(IMAGE, password_crc=WRONG_PASSWORD)[0])
    check_refused(computer, computer.start_armed(), REFUSED, "contradict")
