"""`rbu scan --extract`: whole images, joined sets, and what there is of incomplete ones."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.units import KIB, MIB, PAGE_SIZE
from rigs.cli import RBU, Cli, names_in
from rigs.schemas import check_document
from rigs.small_disks import small_tmpfs

FLASH = random.Random(17).randbytes(64 * KIB)
IMAGE = make_image(FLASH, version=BiosVersion.parse("A06"), systems=[SystemId(0x121)])
PACKETS = bytes(split(IMAGE, set_id=b"_A06"))
COUNT = len(PACKETS) // PAGE_SIZE
DATA_BYTES = PAGE_SIZE - 32


def memory_with(*things: tuple[int, bytes]) -> bytearray:
    memory = bytearray(random.Random(1).randbytes(4 * MIB))
    for address, data in things:
        memory[address : address + len(data)] = data
    return memory


def extracted(rbu: Cli, memory: bytes | bytearray) -> Any:
    dump = rbu.write("dump.raw", bytes(memory))
    return rbu.json("scan", dump, "--extract", rbu.directory / "out")["extracted"]


def out(rbu: Cli) -> Path:
    return rbu.directory / "out"


def test_copies_of_an_image_are_one_file_with_the_lowest_address_in_its_name(rbu: Cli) -> None:
    done = extracted(rbu, memory_with((MIB, IMAGE), (3 * MIB, IMAGE)))
    assert names_in(out(rbu)) == ["dump-0x100000-A06.hdr"]
    assert (out(rbu) / "dump-0x100000-A06.hdr").read_bytes() == IMAGE
    (file,) = done["files"]
    assert (file["kind"], file["addresses"]) == ("image", [hex(MIB), hex(3 * MIB)])
    assert done["changed"] is True


def test_an_empty_name_is_no_directory(rbu: Cli) -> None:
    """For a path it is the current directory."""
    dump = rbu.write("dump.raw", bytes(memory_with((MIB, IMAGE))))
    image = rbu.write("image.bin", IMAGE)
    before = names_in(rbu.directory)
    empty = ": the path is empty"
    assert f"'--extract'{empty}" in rbu.fails(2, "scan", dump, "--extract", "")
    assert f"'--output' / '-o'{empty}" in rbu.fails(2, "extract", image, "--output", "")
    assert f"'--keep'{empty}" in rbu.fails(2, "try", "--keep", "", image, "--", "true")
    assert names_in(rbu.directory) == before


def test_files_out_of_standard_input_do_not_begin_like_an_option(rbu: Cli) -> None:
    dump = rbu.write("dump.raw", bytes(memory_with((MIB, IMAGE))))
    words = ("scan", "-", "--extract", str(out(rbu)), "--map")
    with Path(dump).open("rb") as file:
        done = subprocess.run([*RBU, *words], stdin=file, capture_output=True, check=True)
    assert names_in(out(rbu)) == ["stdin-0x100000-A06.hdr"]
    assert b"The memory of -" not in done.stdout


def test_different_images_of_one_version_are_two_files(rbu: Cli) -> None:
    other = make_image(FLASH[::-1], version=BiosVersion.parse("A06"), systems=[SystemId(0x121)])
    extracted(rbu, memory_with((MIB, IMAGE), (2 * MIB, other)))
    assert names_in(out(rbu)) == ["dump-0x100000-A06.hdr", "dump-0x200000-A06.hdr"]


def test_the_image_of_a_set_is_written_without_the_zeros_after_it(rbu: Cli) -> None:
    done = extracted(rbu, memory_with((2 * MIB, PACKETS)))
    assert names_in(out(rbu)) == ["dump-0x200000-set-_A06-A06.hdr"]
    assert (out(rbu) / "dump-0x200000-set-_A06-A06.hdr").read_bytes() == IMAGE
    assert done["files"][0]["set_id"] == "0x3630415f"


def test_of_an_incomplete_set_there_is_a_part_and_a_map_of_its_holes(rbu: Cli) -> None:
    memory = memory_with((2 * MIB, PACKETS))
    for number in (0, 3, 4, 9):
        at = 2 * MIB + number * PAGE_SIZE
        memory[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
    extracted(rbu, memory)
    part, hole_map = names_in(out(rbu))
    assert (part, hole_map) == (
        "dump-0x201000-set-_A06-A06.part",
        "dump-0x201000-set-_A06-A06.part.json",
    )
    data = (out(rbu) / part).read_bytes()
    told = json.loads((out(rbu) / hole_map).read_text())
    check_document("scan-part", told)
    assert (told["missing_count"], told["has_packet_0"], told["packet_count"]) == (4, False, COUNT)
    holes = [(each["start"], each["end"]) for each in told["holes"]]
    assert holes == [(2 * DATA_BYTES, 4 * DATA_BYTES), (8 * DATA_BYTES, 9 * DATA_BYTES)]
    filled = bytearray(data)
    for start, end in holes:
        assert not any(data[start:end])
        filled[start:end] = IMAGE[start:end]
    assert bytes(filled[: len(IMAGE)]) == IMAGE
    assert "zeros where packets are missing" not in rbu("scan", rbu.directory / "dump.raw").out


def test_a_header_with_something_else_behind_it_is_not_written(rbu: Cli) -> None:
    changed = bytearray(IMAGE)
    changed[5000] ^= 1
    done = extracted(rbu, memory_with((MIB, IMAGE[:PAGE_SIZE]), (2 * MIB, bytes(changed))))
    assert (done["files"], done["changed"]) == ([], False)
    assert [each["address"] for each in done["left_out"]] == [hex(MIB), hex(2 * MIB)]
    assert not out(rbu).exists()
    said = rbu("scan", rbu.directory / "dump.raw", "--extract", out(rbu)).out
    assert "not written: 2, such as 0x100000" in said


def test_a_second_time_nothing_changes(rbu: Cli) -> None:
    memory = memory_with((MIB, IMAGE), (2 * MIB, PACKETS[:-PAGE_SIZE]))
    extracted(rbu, memory)
    files = {each: (out(rbu) / each).stat().st_mtime_ns for each in names_in(out(rbu))}
    assert extracted(rbu, memory)["changed"] is False
    assert {each: (out(rbu) / each).stat().st_mtime_ns for each in names_in(out(rbu))} == files


def test_a_file_with_other_content_is_never_overwritten(rbu: Cli) -> None:
    out(rbu).mkdir()
    taken = out(rbu) / "dump-0x200000-A06.hdr"
    taken.write_bytes(b"mine")
    dump = rbu.write("dump.raw", bytes(memory_with((MIB, IMAGE), (2 * MIB, IMAGE[:-1] + b"x"))))
    other = make_image(FLASH[::-1], version=BiosVersion.parse("A06"), systems=[SystemId(0x121)])
    dump.write_bytes(memory_with((MIB, IMAGE), (2 * MIB, other)))
    ended = rbu("scan", dump, "--extract", out(rbu))
    assert ended.code == 4
    assert "name another directory" in ended.err
    document = rbu.json("scan", dump, "--extract", out(rbu), code=4)
    check_document("scan", document)
    assert (len(document["images"]), document["extracted"]) == (2, None)
    assert names_in(out(rbu)) == [taken.name]
    assert taken.read_bytes() == b"mine"


def test_what_can_not_be_a_directory_is_one_line(rbu: Cli) -> None:
    dump = rbu.write("dump.raw", bytes(memory_with((MIB, IMAGE))))
    assert "can't be" in rbu.fails(1, "scan", dump, "--extract", dump)
    assert "is a file" in rbu.fails(1, "scan", dump, "--extract", dump / "below")
    no = rbu.directory / "no" / "map.svg"
    assert "there is no directory" in rbu.fails(1, "scan", dump, "--map", no)


def test_a_full_disk_leaves_only_whole_files(rbu: Cli) -> None:
    others = [
        make_image(bytes([n]) * 64 * KIB, version=BiosVersion.parse("A06"), systems=[SystemId(1)])
        for n in range(8)
    ]
    things = [(MIB + number * 128 * KIB, image) for number, image in enumerate(others)]
    dump = rbu.write("dump.raw", bytes(memory_with(*things)))
    (rbu.directory / "disk").mkdir()
    with small_tmpfs(rbu.directory / "disk", 256 * KIB) as disk:
        ended = rbu("scan", dump, "--extract", disk / "out")
        assert ended.code == 1
        assert "No space left" in ended.err
        assert "WHOLE IMAGE AT" in ended.out  # what was found is not lost
        written = sorted((disk / "out").iterdir())
        assert f"written before that: {written[0]}" in ended.err
        assert 0 < len(written) < 8
        assert all(Image.parse(each.read_bytes()).is_whole for each in written)


@pytest.mark.parametrize("size_kib", [1, 8, 64])
def test_sets_of_any_packet_size_are_written(rbu: Cli, size_kib: int) -> None:
    packets = bytes(split(IMAGE, set_id=b"SOME", packet_size_bytes=size_kib * KIB))
    step = max(size_kib * KIB, PAGE_SIZE)
    size = size_kib * KIB
    places = [
        (number * step, packets[number * size : (number + 1) * size])
        for number in range(len(packets) // size)
    ]
    extracted(rbu, memory_with(*places))
    assert (out(rbu) / "dump-0x0-set-SOME-A06.hdr").read_bytes() == IMAGE
