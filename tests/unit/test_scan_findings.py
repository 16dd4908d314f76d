"""All that is to be known of what `rbu scan` finds, and the schema of its document."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from openrbu.dumps.opening import open_dump
from openrbu.formats.hdr import HEADER_SIZE_BYTES, SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.memory import off_page
from openrbu.memory.off_page import off_page_note
from openrbu.units import KIB, MIB, PAGE_SIZE
from rigs.cli import Cli, image_bytes
from rigs.schemas import check_document

FLASH = random.Random(16).randbytes(64 * KIB)
IMAGE = make_image(FLASH, version=BiosVersion.parse("A06"), systems=[SystemId(0x121, 2)])
PACKETS = bytes(split(IMAGE, set_id=b"_A06"))
COUNT = len(PACKETS) // PAGE_SIZE
START = 2 * MIB


def with_packets(packets: bytes = PACKETS) -> bytearray:
    """A memory of 4 MiB with packets from 2 MiB on."""
    memory = bytearray(4 * MIB)
    memory[START : START + len(packets)] = packets
    return memory


def scanned(rbu: Cli, memory: bytes | bytearray) -> Any:
    return rbu.json("scan", rbu.write("dump", bytes(memory)))


def packet(number: int) -> bytes:
    return PACKETS[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


def flip(memory: bytearray, address: int, mask: int) -> None:
    memory[address] ^= mask


def only_damaged(document: Any) -> Any:
    (damaged,) = document["damaged_packets"]
    return damaged


def test_each_packet_is_listed_with_its_number_and_all_places(rbu: Cli) -> None:
    memory = with_packets()
    memory[MIB : MIB + PAGE_SIZE] = packet(3)
    (found,) = scanned(rbu, memory)["packet_sets"]
    places = [(each["number"], int(each["address"], 16)) for each in found["places"]]
    expected = [(number, START + number * PAGE_SIZE) for number in range(COUNT)]
    assert places == sorted([*expected, (3, MIB)])
    assert (found["place_count"], found["copy_count"]) == (COUNT + 1, 1)
    assert {each["holder"] for each in found["places"]} == {None}


def test_lowest_highest_and_extents_are_of_the_same_packets(rbu: Cli) -> None:
    memory = with_packets()
    memory[MIB : MIB + PAGE_SIZE] = packet(COUNT - 1)  # read in place of the one at the end
    memory[3 * MIB : 3 * MIB + PAGE_SIZE] = packet(0)  # not read: it is higher
    (found,) = scanned(rbu, memory)["packet_sets"]
    extents = [(int(each["start"], 16), int(each["end"], 16)) for each in found["extents"]]
    assert extents == [
        (MIB, MIB + PAGE_SIZE),
        (START, START + len(PACKETS)),
        (3 * MIB, 3 * MIB + PAGE_SIZE),
    ]
    assert found["extent_count"] == len(extents)
    assert (found["lowest"], found["highest"]) == (hex(MIB), hex(3 * MIB))


def test_the_image_in_a_set_is_checked(rbu: Cli) -> None:
    (found,) = scanned(rbu, with_packets())["packet_sets"]
    joined = found["joined"]
    assert (joined["state"], joined["damage"]) == ("whole", None)
    assert (joined["size_bytes"], joined["flash_size_bytes"]) == (len(IMAGE), len(FLASH))
    words = [int(joined[name], 16) for name in ("data_check_word", "whole_check_word")]
    assert b"".join(word.to_bytes(4, "little") for word in words) == IMAGE[-8:]


def test_a_set_of_an_image_that_was_changed_before_it_was_cut_says_so(rbu: Cli) -> None:
    image = bytearray(IMAGE)
    image[1000] ^= 1
    (found,) = scanned(rbu, with_packets(bytes(split(image, set_id=b"_A06"))))["packet_sets"]
    assert found["is_complete"] is True
    assert found["joined"]["state"] == "data_changed"
    assert "the image's data was changed" in rbu("scan", rbu.directory / "dump").out


def test_copies_that_differ_are_named_with_their_addresses(rbu: Cli) -> None:
    memory = with_packets()
    other = bytes(split(bytes(reversed(IMAGE)), set_id=b"_A06"))[PAGE_SIZE : 2 * PAGE_SIZE]
    memory[3 * MIB : 3 * MIB + PAGE_SIZE] = other
    (found,) = scanned(rbu, memory)["packet_sets"]
    lowest = hex(START + PAGE_SIZE)
    assert found["differing"] == [{"number": 1, "address": hex(3 * MIB), "lowest": lowest}]
    assert found["differing_count"] == 1
    assert "differ" in found["joined"]["damage"]


@pytest.mark.parametrize(
    ("number", "offset"),
    [(1, 40), (1, 32 + 4), (1, 2000), (5, 32), (5, 4095), (COUNT - 1, 100), (COUNT - 1, 3000)],
)
@pytest.mark.parametrize("mask", [1, 0x80])
def test_the_check_words_decide_which_bit_of_the_only_damaged_packet_was_flipped(
    rbu: Cli, number: int, offset: int, mask: int
) -> None:
    memory = with_packets()
    place = START + number * PAGE_SIZE + offset
    flip(memory, place, mask)
    damaged = only_damaged(scanned(rbu, memory))
    assert (damaged["number"], damaged["packet_count"]) == (number, COUNT)
    found = damaged["single_bit"]
    expected = {"offset": offset, "address": hex(place), "mask": f"{mask:#04x}"}
    assert (found["flip"], found["decided_by"]) == (expected, "image")


def test_each_bit_of_the_check_words_is_found(rbu: Cli) -> None:
    end = HEADER_SIZE_BYTES + len(FLASH) + 8
    for place in range(end - 8, end):
        memory = with_packets()
        number, offset = divmod(place, PAGE_SIZE - 32)
        flip(memory, START + (number + 1) * PAGE_SIZE + 32 + offset, 4)
        found = only_damaged(scanned(rbu, memory))["single_bit"]
        assert (found["flip"]["offset"], found["decided_by"]) == (32 + offset, "image")


def test_an_intact_copy_decides_which_bit_was_flipped(rbu: Cli) -> None:
    memory = with_packets()
    memory[3 * MIB : 3 * MIB + PAGE_SIZE] = packet(4)
    flip(memory, 3 * MIB + 777, 0x20)
    memory[START + 5 * PAGE_SIZE : START + 6 * PAGE_SIZE] = bytes(PAGE_SIZE)  # not complete
    found = only_damaged(scanned(rbu, memory))["single_bit"]
    assert (found["flip"]["offset"], found["decided_by"]) == (777, "copy")
    assert "by a copy" in rbu("scan", rbu.directory / "dump").out


def test_where_nothing_decides_all_candidates_are_counted_and_the_first_are_named(
    rbu: Cli,
) -> None:
    memory = with_packets()
    for number in (3, 5):
        flip(memory, START + number * PAGE_SIZE + 1234, 0x10)
    first, second = scanned(rbu, memory)["damaged_packets"]
    for each, number in ((first, 3), (second, 5)):
        found = each["single_bit"]
        assert (found["flip"], found["decided_by"]) == (None, None)
        assert found["candidate_count"] > len(found["candidates"]) == 16
        words = memory[START + number * PAGE_SIZE :][: 4 * KIB]
        bit = words[1234] & 0x10  # what it is now: all candidates are the same
        assert all(words[flip["offset"]] & 0x10 == bit for flip in found["candidates"])


def test_a_packet_of_which_more_than_a_bit_changed_has_no_candidate(rbu: Cli) -> None:
    memory = with_packets()
    flip(memory, START + 3 * PAGE_SIZE + 100, 0x01)
    flip(memory, START + 3 * PAGE_SIZE + 200, 0x10)
    document = scanned(rbu, memory)
    assert document["damaged_packet_count"] == 1
    found = only_damaged(document)["single_bit"]
    if found["candidate_count"]:  # a power of two by chance of the two bits
        assert found["flip"] is None
    else:
        assert found["is_checked"] is True


@pytest.mark.parametrize(("offset", "mask"), [(18, 1), (14, 4), (30, 8)])
def test_a_flip_in_the_header_of_a_packet_is_a_candidate_only_where_it_makes_sense(
    rbu: Cli, offset: int, mask: int
) -> None:
    """Offsets of the total (18: of another set then), of the set's ID (14) and of the checksum."""
    memory = with_packets()
    flip(memory, START + 3 * PAGE_SIZE + offset, mask)
    found = only_damaged(scanned(rbu, memory))["single_bit"]
    if offset == 30:
        assert (found["flip"]["offset"], found["decided_by"]) == (30, "image")
    else:
        assert found["candidate_count"] > 0


def test_each_rule_set_says_what_it_would_take(rbu: Cli) -> None:
    verdicts = {each["rules"]: each for each in scanned(rbu, with_packets())["rule_sets"]}
    assert set(verdicts) == {"published", "poweredge-2950", "latitude-d500"}
    published = verdicts["published"]
    assert (published["system_id"], published["revision"]) == ("0x0121", 2)
    assert published["flash_size_bytes"] == len(FLASH)
    assert published["why"] is None
    assert published["takes"]["mode"] == "packet"
    assert published["takes"]["extents"][0]["start"] == hex(START)
    assert verdicts["latitude-d500"]["takes"] is None  # it knows no packets
    assert verdicts["latitude-d500"]["why"]


def whys(document: Any) -> dict[str, str]:
    return {each["rules"]: each["why"] for each in document["rule_sets"]}


def test_a_rule_set_that_finds_nothing_says_where_it_searches(rbu: Cli) -> None:
    low = whys(scanned(rbu, IMAGE + bytes(PAGE_SIZE)))  # a whole image at 0
    assert low["latitude-d500"].endswith("(searched: pages from 1 MiB to 4 GiB)")
    assert low["poweredge-2950"].endswith("(searched: pages from 64 KiB to 4 GiB)")
    assert low["published"].endswith("(searched: pages from 1 MiB to 4 GiB)")


def test_a_joined_image_that_is_refused_has_no_address(rbu: Cli) -> None:
    """Nothing is in memory where that BIOS joins it."""
    memory = bytearray(8 * MIB)
    memory[5 * MIB : 5 * MIB + len(PACKETS)] = PACKETS
    why = whys(scanned(rbu, memory))["poweredge-2950"]
    assert "the image in the packets failed the check of: major version" in why
    assert "0x101000" not in why


@pytest.mark.parametrize("count", [2, 3])
def test_sets_that_exclude_each_other_are_counted(rbu: Cli, count: int) -> None:
    memory = bytearray(4 * MIB)
    for number in range(count):
        packets = bytes(split(IMAGE, set_id=b"_A0%d" % number))
        memory[MIB * (number + 1) : MIB * (number + 1) + len(packets)] = packets
    shown = "two" if count == 2 else str(count)
    assert f"packets of {shown} different sets" in whys(scanned(rbu, memory))["published"]


@pytest.mark.parametrize("packet_size", [4 * KIB, 16 * KIB])
@pytest.mark.parametrize("flash_size", [64 * KIB, 96 * KIB, 512 * KIB])
def test_a_set_that_lacks_packets_is_for_the_flash_that_there_is(
    rbu: Cli, packet_size: int, flash_size: int
) -> None:
    flash = random.Random(1).randbytes(flash_size)
    image = make_image(flash, version=BiosVersion.parse("A06"), systems=[SystemId(0x121)])
    memory = with_packets(bytes(split(image, set_id=b"_A06", packet_size_bytes=packet_size)))
    memory[START + 2 * packet_size] ^= 0xFF
    verdicts = scanned(rbu, memory)["rule_sets"]
    assert {each["flash_size_bytes"] for each in verdicts} == {flash_size}


def test_what_has_a_row_of_its_own_is_no_page_that_only_looks_like_something(rbu: Cli) -> None:
    memory = with_packets()
    flip(memory, START + 5 * PAGE_SIZE + 100, 1)
    memory[MIB : MIB + len(IMAGE)] = IMAGE
    flip(memory, MIB + 60, 1)  # of the BIOS version
    assert scanned(rbu, memory)["reject_count"] == 2
    shown = rbu("scan", rbu.directory / "dump", "--map").out
    assert "only look like" not in shown
    assert "only looks like one: 1" in shown  # the damaged packet, on the map
    memory[3 * MIB : 3 * MIB + 4] = b"$RPK"
    scanned(rbu, memory)
    assert "an image: 1\n" in rbu("scan", rbu.directory / "dump").out


def test_an_image_whose_header_was_changed_is_told_from_one_that_was_cut(rbu: Cli) -> None:
    memory = bytearray(4 * MIB)
    memory[MIB : MIB + len(IMAGE)] = IMAGE
    flip(memory, MIB + 60, 1)  # of the BIOS version
    (bare,) = scanned(rbu, memory)["bare_headers"]
    assert (bare["state"], bare["size_bytes"]) == ("header_changed", len(IMAGE))
    assert "only its header was changed" in rbu("scan", rbu.directory / "dump").out


def test_whole_images_have_both_check_words(rbu: Cli) -> None:
    memory = bytearray(4 * MIB)
    memory[MIB : MIB + len(IMAGE)] = IMAGE
    (found,) = scanned(rbu, memory)["images"]
    assert found["end"] == hex(MIB + len(IMAGE))
    words = [int(found[name], 16) for name in ("data_check_word", "whole_check_word")]
    assert b"".join(word.to_bytes(4, "little") for word in words) == IMAGE[-8:]


def test_what_a_driver_holds_is_told_from_what_is_left_over(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--model", "precision-390")
    new = rbu.write("new", image_bytes("2.6.0", system=0x01DE, size_bytes=MIB))
    rbu.json("update", new, "--machine", "demo", "--mode", "packet")
    document = rbu.json("scan", "demo")
    assert document["knows_holders"] is True
    (found,) = document["packet_sets"]
    assert found["held_count"] >= found["packet_count"]
    assert found["held_count"] + found["leftover_count"] == found["place_count"]
    assert rbu("scan", "demo").out.count(f"{found['packet_count']}/{found['packet_count']}") == 2
    rbu.json("machine", "show", "demo")
    dump_has = rbu.json("scan", rbu.write("dump", bytes(with_packets())))
    assert dump_has["knows_holders"] is False
    assert dump_has["packet_sets"][0]["held_count"] is None


def test_at_most_ten_rows_of_each_kind_are_shown(rbu: Cli) -> None:
    memory = bytearray(8 * MIB)
    for number in range(12):
        packets = split(IMAGE, set_id=number)
        at = number * 256 * KIB
        memory[at : at + len(packets)] = packets
        flip(memory, at + 3 * PAGE_SIZE + 50, 1)
        at = 4 * MIB + number * 64 * KIB
        memory[at : at + HEADER_SIZE_BYTES] = IMAGE[:HEADER_SIZE_BYTES]
    dump = rbu.write("dump", bytes(memory[: 8 * MIB]))
    shown = rbu("scan", dump).out
    assert shown.count("… and 2 more") == 3  # sets, damaged packets, bare headers
    assert len(rbu.json("scan", dump)["packet_sets"]) == 12


def test_the_schema_finds_what_is_not_as_it_says(rbu: Cli) -> None:
    document = scanned(rbu, with_packets())
    check_document("scan", document)
    for key, value in (("reject_count", -1), ("memory", None), ("new", 1)):
        with pytest.raises(AssertionError, match=key):
            check_document("scan", {**document, key: value})


@pytest.mark.parametrize("lead", [1, 100])
def test_a_dump_that_lost_bytes_is_searched_at_any_alignment(rbu: Cli, lead: int) -> None:
    dump = rbu.write("dump", bytes(with_packets())[lead:])
    assert rbu.json("scan", dump)["packet_sets"] == []
    document = rbu.json("scan", dump, "--any-alignment")
    (found,) = document["packet_sets"]
    assert (found["lowest"], found["is_complete"]) == (hex(START - lead), True)
    assert document["off_page_count"] == COUNT
    assert document["bare_headers"] == []  # that of packet 1 is told with the set
    assert all(each["takes"] is None for each in document["rule_sets"])
    shown = rbu("scan", dump, "--any-alignment").out
    assert f"{COUNT} packets and headers begin off a page, where no BIOS finds them" in shown
    written = rbu.json("scan", dump, "--any-alignment", "--extract", rbu.directory / "out")
    (file,) = written["extracted"]["files"]
    assert (rbu.directory / file["file"]).read_bytes() == IMAGE


@pytest.mark.parametrize("lead", [1, 100, PAGE_SIZE - 100])
@pytest.mark.parametrize("fill", [0, 5])
def test_where_nothing_begins_at_a_page_it_is_told_what_begins_off_one(
    rbu: Cli, lead: int, fill: int
) -> None:
    """A dump that begins inside of a page; of whole pages, too (`fill` is 0)."""
    data = bytes(with_packets())[lead:] + bytes((lead + fill) % PAGE_SIZE)
    dump = rbu.write("dump", data)
    document = rbu.json("scan", dump)
    assert document["packet_sets"] == []
    note = document["notes"][-1]
    assert f"{COUNT + 1} places begin like a packet or an image" in note  # packet 1 has a header
    assert "--any-alignment" in note
    assert note in rbu("scan", dump).out.replace("\n", " ")
    assert rbu.json("scan", dump, f"--offset={MIB + lead}")["notes"] == document["notes"][:-1]


def test_an_offset_off_a_page_of_a_dump_that_begins_at_one_is_told(rbu: Cli) -> None:
    document = rbu.json("scan", rbu.write("dump", bytes(with_packets())), "--offset=0x100010")
    (note,) = document["notes"]
    assert f"{COUNT + 1} places" in note


def test_four_bytes_alone_and_what_begins_at_a_page_are_no_reason_for_a_note(rbu: Cli) -> None:
    memory = bytearray(4 * MIB)
    memory[1000:1004], memory[5000:5004] = b"$RPK", b"$RBU"
    memory[PAGE_SIZE : PAGE_SIZE + 4] = b"$RPK"
    memory[-4:] = b"$RPK"
    assert scanned(rbu, memory)["notes"] == []


@pytest.mark.parametrize("few_bytes", [0, MIB, off_page.FEW_BYTES])
def test_a_quick_look_ends_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_bytes: int
) -> None:
    """Also where much is looked through with numpy."""
    monkeypatch.setattr(off_page, "FEW_BYTES", few_bytes)
    path = tmp_path / "dump"
    path.write_bytes(bytes(with_packets())[1:])
    with open_dump(path) as memory:
        (part,) = memory.regions
        assert f"{COUNT + 1} places begin like" in off_page_note(memory, part)
        assert "only in the first 1 MiB" in off_page_note(memory, part, MIB)
        assert "at least" in off_page_note(memory, part, START + 3 * PAGE_SIZE)


def test_headers_without_an_image_hide_no_image_and_a_limit_is_told(rbu: Cli) -> None:
    """For each of the headers everything is tried in 64 MiB, which ends after a few of them."""
    memory = bytearray(random.Random(1).randbytes(MIB) * 80)
    for at in range(MIB, MIB + 8 * PAGE_SIZE, PAGE_SIZE):
        memory[at : at + HEADER_SIZE_BYTES] = IMAGE[:HEADER_SIZE_BYTES]
    memory[16 * MIB : 16 * MIB + len(IMAGE)] = IMAGE
    document = scanned(rbu, memory)
    assert [each["address"] for each in document["images"]] == [hex(16 * MIB)]
    bare = document["bare_headers"]
    assert len(bare) == 8
    limited = [each["address"] for each in bare if not each["is_checked"]]
    assert limited
    told = {each["address"]: each["why"] for each in document["rejects"]}
    assert [at for at, why in told.items() if "not checked" in why] == limited
    assert "not known: there are too many headers" in rbu("scan", rbu.directory / "dump").out


def test_images_of_any_size_are_whole_and_so_are_more_than_a_few(rbu: Cli) -> None:
    odd = make_image(FLASH[:-3], version=BiosVersion.parse("A07"), systems=[SystemId(0x121)])
    memory = bytearray(4 * MIB)
    for number in range(30):
        memory[number * 128 * KIB : number * 128 * KIB + len(odd)] = odd
    document = scanned(rbu, memory)
    assert len(document["images"]) == 30
    assert document["bare_headers"] == []
