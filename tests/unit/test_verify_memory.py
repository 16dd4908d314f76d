"""What verifying asks of the kernel and of the possible BIOSes, at the borders."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openrbu.bios.rules import RULE_SETS
from openrbu.bios.rules.ruleset import FoundUpdate, Identity, RejectedError
from openrbu.errors import UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.packet import PACKET_HEADER, PacketHeader, split
from openrbu.formats.version import BiosVersion
from openrbu.hosts.linux import LinuxHost
from openrbu.linux.memory import KPAGEFLAGS
from openrbu.memory.page_flags import BUDDY_BIT, ENTRY_BYTES, FreePages
from openrbu.memory.physical import ReadableMemory, Region, pc_regions
from openrbu.memory.ram_array import Addresses
from openrbu.memory.ram_file import RamFile
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.driver import CHUNK_BYTES
from openrbu.update.possible_bioses import PossibleBios, PossibleBioses
from openrbu.update.verify import (
    LeftoverCopyError,
    TooHighError,
    find_staged,
    read_free_pages,
)
from rigs.boards import changed
from rigs.machines import Watched, published

PLACE = PhysAddr(20 * MIB)


def an_image(size_bytes: int = 64 * KIB, version: str = "A06", system: int = 0x0121) -> Image:
    data = random.Random(7).randbytes(size_bytes)
    made = make_image(data, version=BiosVersion.parse(version), systems=[SystemId(system)])
    return Image.parse(made)


@pytest.fixture
def ram(tmp_path: Path) -> RamFile:
    return RamFile.create(tmp_path / "ram", pc_regions(64 * MIB))


# -- /proc/kpageflags -----------------------------------------------------------------------


def host_with_flags(root: Path, free_frame: int, size_bytes: int) -> LinuxHost:
    """A directory of files whose kernel has one free page."""
    path = root / KPAGEFLAGS.lstrip("/")
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        file.seek(free_frame * ENTRY_BYTES)
        file.write((1 << BUDDY_BIT).to_bytes(ENTRY_BYTES, "little"))
    return LinuxHost(root)


def test_the_flags_of_what_reaches_into_the_next_part_are_read_as_well(tmp_path: Path) -> None:
    border = CHUNK_BYTES // ENTRY_BYTES
    host = host_with_flags(tmp_path, free_frame=border, size_bytes=4 * CHUNK_BYTES)
    last = (border - 1) * PAGE_SIZE
    free = read_free_pages(host, np.array([last], np.uint64))
    assert free is not None
    assert free.any_in(last, 2 * PAGE_SIZE)
    assert not free.any_in(last, PAGE_SIZE)


def test_no_more_of_the_flags_is_read_than_is_asked_for(tmp_path: Path) -> None:
    """The file of a machine with 64 GiB has 128 MiB."""
    chunks: list[str] = []

    def count(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "chunk":
            chunks.append(arguments[0])

    host = host_with_flags(tmp_path, free_frame=0, size_bytes=16 * CHUNK_BYTES)
    read_free_pages(Watched(host, count), np.array([0], np.uint64))
    assert len(chunks) <= 2  # the part of the page, and the next one


# -- packets that are not what they say -----------------------------------------------------

STRAY = PhysAddr(40 * MIB)


def some_packets(ours: Image) -> bytes:
    return bytes(split(ours.build(), packet_size_bytes=PAGE_SIZE, set_id=b"_OUR"))


@pytest.mark.parametrize("over", [0, 1, 100])
def test_a_packet_whose_number_the_staged_set_does_not_have_is_other_data(
    ram: RamFile, over: int
) -> None:
    """It has the ID of the staged set, but is of a set with more packets."""
    ours = an_image()
    packets = some_packets(ours)
    total = PacketHeader.parse(packets).total
    stray = changed(packets[-PAGE_SIZE:], pktNum=total + over, totPkts=200)
    ram.write(PLACE, packets)
    ram.write(STRAY, stray)
    with pytest.raises(UpdateFailedError, match="because of other data in memory"):
        find_staged(ram, ours, published(ours), packets=packets)


def test_a_free_page_that_begins_like_a_packet_without_a_size_is_a_leftover(ram: RamFile) -> None:
    """The BIOS of a PowerEdge 2950 reads on without an end there, until the page is cleared."""
    ours = an_image(version="0.2.9", system=0x01B2)
    packets = some_packets(ours)
    identity = Identity(0x01B2, flash_size_bytes=ours.flash_size_bytes, knows_packets=True)

    def find(memory: ReadableMemory) -> FoundUpdate:
        return RULE_SETS["poweredge-2950"].find_update(memory, identity)

    def free_pages(pages: Addresses) -> FreePages:
        flags = bytearray(64 * MIB // PAGE_SIZE * ENTRY_BYTES)
        flags[STRAY // PAGE_SIZE * ENTRY_BYTES + BUDDY_BIT // 8] = 1 << BUDDY_BIT % 8
        return FreePages([(0, bytes(flags))])

    bioses = PossibleBioses((PossibleBios("poweredge-2950", find, True),))
    ram.write(PhysAddr(STRAY + MIB), packets)
    assert find_staged(ram, ours, bioses, packets=packets, free_pages=free_pages)
    ram.write(STRAY, PACKET_HEADER.pack(PACKET_HEADER.unpack(packets) | {"pktSize": 0}))
    with pytest.raises(LeftoverCopyError, match="because of other data in memory"):
        find_staged(ram, ours, bioses, packets=packets, free_pages=free_pages)


# -- possible BIOSes ------------------------------------------------------------------------


def judge_that_takes(what: Image | None, anywhere: Image | None = None) -> PossibleBioses:
    """A BIOS that takes an image from memory, or refuses it and would take one from above 4 GiB."""

    def taken(image: Image | None) -> FoundUpdate:
        if image is None:
            raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, "nothing is there")
        return FoundUpdate("mono", image, (Region(PLACE, PhysAddr(PLACE + MIB)),))

    def find(memory: ReadableMemory) -> FoundUpdate:
        return taken(what)

    def find_anywhere(memory: ReadableMemory) -> FoundUpdate:
        return taken(anywhere)

    return PossibleBioses((PossibleBios("odd", find, False, find_anywhere),))


def test_the_same_data_behind_another_header_is_another_image(ram: RamFile) -> None:
    ours = an_image()
    other = Image(an_image(version="A07").header, ours.body)
    ram.write(PLACE, ours.build())
    (finding,) = find_staged(ram, ours, judge_that_takes(ours))
    assert finding.extents[0].start == PLACE
    with pytest.raises(
        UpdateFailedError, match="it takes another image, in one piece at 0x1400000"
    ):
        find_staged(ram, ours, judge_that_takes(other))


def test_packets_that_are_only_found_above_4_gib_are_too_high(ram: RamFile) -> None:
    ours = an_image(64 * KIB)
    with pytest.raises(TooHighError, match="packets are above 4 GiB"):
        find_staged(ram, ours, judge_that_takes(None, anywhere=ours))
