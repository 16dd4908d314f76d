"""`rbu info`, `extract`, `build`, `packets` and `join`."""

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import UsageError
from openrbu.formats import packet
from openrbu.formats.check_words import check_words
from openrbu.formats.hdr import Image
from openrbu.formats.image_check import ImageState
from openrbu.system.files import read_input
from openrbu.units import MIB
from rigs.boards import changed
from rigs.cli import Cli, image_bytes, names_in
from rigs.images import IMAGE_STATES, headers, image_named


def tar_of(*contents: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"../../../../escape/{number}.hdr")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def package_of(*contents: bytes) -> bytes:
    """As a vendor's Linux package: a shell script with an archive behind it."""
    return b"#!/bin/sh\nexec tail -n +4 $0 | tar xz\n" + gzip.compress(tar_of(*contents))


# -- info -----------------------------------------------------------------------------------


def test_info_shows_version_systems_sizes_and_digests(rbu: Cli) -> None:
    data = image_bytes("A06")
    path = rbu.write("a.hdr", data)
    ended = rbu("info", path)
    assert ended.code == 0
    assert ended.err == ""
    for word in ("A06", "0x0121", "512 KiB", "524380 bytes", hashlib.sha256(data).hexdigest()):
        assert word in ended.out


def test_info_as_json_says_all_of_an_image(rbu: Cli) -> None:
    data = image_bytes("1.2.8", system=0x0495)
    document = rbu.json("info", rbu.write("a.hdr", data))
    assert document["file_size_bytes"] == len(data)
    assert document["images"] == [
        {
            "found_at": None,
            "version": "1.2.8",
            "version_style": "new",
            "is_special_build": False,
            "header_version": "2.1",
            "header_length_bytes": 84,
            "quick_check": "Copyright 2005 Dell Inc.",
            "systems": [
                {
                    "id": "0x0495",
                    "revision": 0,
                    "name": "Precision T7600",
                    "known_against_rbu": None,
                    "rbu_known_broken": False,
                }
            ],
            "state": "whole",
            "damage": None,
            "size_bytes": len(data),
            "ends_at_bytes": len(data),
            "flash_size_bytes": 524288,
            "data_check_word": f"{zlib.crc32(data[84:-8]) ^ 0xFFFFFFFF:#010x}",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    ]


def ids(image: dict[str, Any]) -> list[dict[str, Any]]:
    """The systems of an image's document, without what is known of them."""
    return [{key: system[key] for key in ("id", "revision")} for system in image["systems"]]


GOOD = image_bytes()
FORMER = GOOD[:-8] + struct.pack("<II", 524288, zlib.crc32(GOOD[:-8]))
DAMAGED = {
    "data_changed": (GOOD[:5000] + b"?" + GOOD[5001:], 524380, "data was changed"),
    "header_changed": (GOOD[:50] + b"9" + GOOD[51:], 524380, "header was changed"),
    "bytes_behind": (GOOD + b"more", 524380, "4 bytes follow the image"),
    "cut": (GOOD[:262144], None, "cut short"),
    "no_data": (GOOD[:84], None, "no data"),
    "made_before_0.2": (FORMER, None, "wrap it again"),
}


@pytest.mark.parametrize("state", DAMAGED)
def test_info_ends_with_5_for_each_kind_of_damage_and_says_where_the_image_ends(
    rbu: Cli, state: str
) -> None:
    data, ends_at, says = DAMAGED[state]
    path = rbu.write("damaged.hdr", data)
    [image] = rbu.json("info", path, code=5)["images"]
    assert (image["state"], image["ends_at_bytes"]) == (state, ends_at)
    assert says in image["damage"]
    ended = rbu("info", path)
    assert ended.code == 5
    assert says in ended.out
    assert says in ended.err


def test_info_lists_every_image_in_a_package_and_where_it_is(rbu: Cli) -> None:
    path = rbu.write("package.bin", package_of(image_bytes("A06"), image_bytes("A07")))
    images = rbu.json("info", path)["images"]
    assert [image["version"] for image in images] == ["A06", "A07"]
    assert all(
        "gzip" in image["found_at"] and "tar member" in image["found_at"] for image in images
    )
    assert "0.hdr" in rbu("info", path).out


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"$RB", "cut short"),
        (image_bytes()[:50], "cut short"),
        (image_bytes()[:83], "cut short"),
        (b"$RBT" + bytes(600), "neither a BIOS image"),
        (b"MZ" + bytes(9000), "neither a BIOS image"),
        (image_bytes()[:7] + b"\x0d" + image_bytes()[8:], "claims 13 systems"),
        (image_bytes()[:7] + b"\xff" + image_bytes()[8:], "claims 255 systems"),
        (image_bytes()[:4] + b"\x10" + image_bytes()[5:], "says that it is 16 bytes long"),
        (image_bytes()[:4] + b"\xff" + image_bytes()[5:], "says that it is 255 bytes long"),
        (gzip.compress(image_bytes(), mtime=0)[:-50], "damaged"),
    ],
)
def test_a_damaged_image_ends_with_5_and_a_line_that_names_the_file(
    rbu: Cli, data: bytes, says: str
) -> None:
    line = rbu.fails(5, "info", rbu.write("broken.hdr", data))
    assert says in line
    assert "broken.hdr" in line


def test_the_place_of_the_damage_is_in_the_json(rbu: Cli) -> None:
    data = image_bytes()
    path = rbu.write("a.hdr", data[:7] + b"\x0d" + data[8:])
    error = rbu.json("info", path, code=5)["error"]
    assert (error["kind"], error["exit_code"], error["offset_bytes"]) == ("damaged_input", 5, 7)


def test_a_file_that_cannot_be_read_is_a_usage_error(rbu: Cli) -> None:
    assert "No such file" in rbu.fails(2, "info", "nowhere.hdr")
    assert "Is a directory" in rbu.fails(2, "info", rbu.directory)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_input(Path("/dev/zero"), max_size_bytes=MIB)


def test_headers_read_as_known(rbu: Cli) -> None:
    for name, (raw, known) in headers().items():
        ended = rbu("info", rbu.write(name, raw), "--json")
        if "error" in known:
            assert (ended.code, ended.document["error"]["kind"]) == (5, "damaged_input")
            continue
        image = ended.document["images"][0]
        assert image["version"] == known["bios_version"]
        assert ids(image) == known["systems"]
        assert image["header_version"] == known["header_version"]


# -- extract --------------------------------------------------------------------------------


def test_extract_writes_each_image_into_the_directory_and_nowhere_else(rbu: Cli) -> None:
    first, second = image_bytes("A06"), image_bytes("A07")
    path = rbu.write("PE2650.BIN", package_of(first, second))
    document = rbu.json("extract", path, "-o", "out/here")
    assert document["changed"] is True
    written = {each.relative_to(rbu.directory).as_posix() for each in rbu.directory.rglob("*.hdr")}
    assert written == {"out/here/PE2650-A06.hdr", "out/here/PE2650-A07.hdr"}
    assert Path("out/here/PE2650-A06.hdr").read_bytes() == first
    assert Path("out/here/PE2650-A07.hdr").read_bytes() == second


def test_extract_gives_images_of_one_version_different_names(rbu: Cli) -> None:
    path = rbu.write("two.bin", tar_of(image_bytes("A06"), image_bytes("A06", filling=1)))
    rbu.json("extract", path, "-o", "out")
    assert names_in(Path("out")) == ["two-A06-2.hdr", "two-A06.hdr"]


def test_extract_again_changes_nothing(rbu: Cli) -> None:
    path = rbu.write("a.bin", package_of(image_bytes()))
    assert rbu.json("extract", path)["changed"] is True
    assert rbu.json("extract", path)["changed"] is False


def test_extract_overwrites_nothing_else_without_force(rbu: Cli) -> None:
    path = rbu.write("a.bin", package_of(image_bytes("A05"), image_bytes("A06")))
    mine = rbu.write("a-A06.hdr", b"mine")
    assert "--force" in rbu.fails(4, "extract", path)
    assert mine.read_bytes() == b"mine"
    assert not Path("a-A05.hdr").exists()
    assert rbu.json("extract", path, "--force")["changed"] is True
    assert len(mine.read_bytes()) > 4


def test_a_version_full_of_slashes_makes_no_path(rbu: Cli) -> None:
    data = image_bytes("A06")
    header = data[:48] + b"../" + data[51:84]
    path = rbu.write("a.bin", tar_of(header + data[84:-8] + check_words(header, data[84:-8])))
    rbu.json("extract", path, "-o", "out")
    assert names_in(Path("out")) == ["a-.._.hdr"]


def test_a_package_with_nothing_inside_is_damaged_input(rbu: Cli) -> None:
    path = rbu.write("a.bin", package_of(b"nothing"))
    assert "neither a BIOS image" in rbu.fails(5, "extract", path)


# -- build ----------------------------------------------------------------------------------

BUILD = ("--bios-version", "A06", "--system", "0x0121")


def test_build_puts_the_data_at_the_end_of_the_flash(rbu: Cli) -> None:
    data = rbu.write("bios.bin", b"reset vector")
    words = ("build", data, "-o", "a.hdr", *BUILD, "--system", "0x0122:2", "--flash-size", "64K")
    document = rbu.json(*words)
    assert ids(document) == [{"id": "0x0121", "revision": 0}, {"id": "0x0122", "revision": 2}]
    assert (document["flash_size_bytes"], document["state"]) == (65536, "whole")
    flash = Path("a.hdr").read_bytes()[84:-8]
    assert flash == b"\xff" * (65536 - 12) + b"reset vector"


def test_building_the_same_again_changes_nothing_and_another_needs_force(rbu: Cli) -> None:
    data, other = rbu.write("a.bin", bytes(65536)), rbu.write("b.bin", b"\1" * 65536)
    assert rbu.json("build", data, "-o", "a.hdr", *BUILD)["changed"] is True
    before = Path("a.hdr").read_bytes()
    assert rbu.json("build", data, "-o", "a.hdr", *BUILD)["changed"] is False
    assert "--force" in rbu.fails(4, "build", other, "-o", "a.hdr", *BUILD)
    assert Path("a.hdr").read_bytes() == before
    assert rbu.json("build", other, "-o", "a.hdr", *BUILD, "--force")["changed"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("--bios-version", "seven", "--system", "0x0121"),
        ("--bios-version", "A06", "--system", "121"),
        ("--bios-version", "A06", "--system", "0x2000"),
        ("--bios-version", "A06", "--system", "0x0121:8"),
        ("--bios-version", "A06", *(f"--system=0x{n:04x}" for n in range(1, 14))),
        ("--bios-version", "A06", "--system", "0x0121", "--flash-size", "8"),
        ("--bios-version", "A06", "--system", "0x0121", "--flash-size", "big"),
        ("--bios-version", "A06"),
        ("--system", "0x0121"),
    ],
)
def test_what_no_image_can_hold_is_a_usage_error(rbu: Cli, words: tuple[str, ...]) -> None:
    rbu.fails(2, "build", rbu.write("a.bin", bytes(65536)), "-o", "a.hdr", *words)
    assert not Path("a.hdr").exists()


@pytest.mark.parametrize(
    ("output", "code"), [("/dev/null", 2), (".", 2), ("nowhere/a.hdr", 1), ("a.bin/a.hdr", 1)]
)
def test_an_output_that_cannot_be_written_is_one_line(rbu: Cli, output: str, code: int) -> None:
    rbu.fails(code, "build", rbu.write("a.bin", bytes(65536)), "-o", output, *BUILD)
    assert rbu.files == ["a.bin"]


# -- packets and join -----------------------------------------------------------------------


def test_packets_and_join_give_the_image_back(rbu: Cli) -> None:
    path = rbu.image()
    words = ("packets", path, "-o", "p", "--packet-size", "8K", "--set-id", "_A06")
    cut = rbu.json(*words, "--password-crc", "0x1234abcd")
    joined = packet.join(Path("p").read_bytes())
    assert (cut["packet_count"], cut["set_id"]) == (joined.total, f"{joined.set_id:#010x}")
    assert (joined.packet_size_bytes, joined.password.crc) == (8192, 0x1234ABCD)
    assert joined.set_id.to_bytes(4, "little") == b"_A06"
    again = rbu.json("join", "p", "-o", "again.hdr")
    assert (again["state"], again["has_password"]) == ("whole", True)
    assert Path("again.hdr").read_bytes() == path.read_bytes()


def test_packets_and_join_give_a_whole_file_back_and_two_have_two_ids(rbu: Cli) -> None:
    ids = set()
    for name in IMAGE_STATES:
        raw = image_named(name)
        image = rbu.write(name, raw)
        if not Image.parse(raw).is_whole:
            assert "header was changed" in rbu.fails(5, "packets", image, "-o", "p", "--force")
            continue
        ids.add(rbu.json("packets", image, "-o", "p", "--force")["set_id"])
        rbu.json("join", "p", "-o", "back.hdr", "--force")
        assert Path("back.hdr").read_bytes() == raw
    assert len(ids) == list(IMAGE_STATES.values()).count(ImageState.WHOLE)


def test_no_two_sets_have_one_id_where_none_is_given(rbu: Cli) -> None:
    """Be it another image, other data or another header alone, or packets of another kind."""
    ids = set()
    for version, size in (("A06", 65536), ("A07", 65536), ("A06", 131072)):
        path = rbu.write(f"{version}-{size}.hdr", image_bytes(version, size_bytes=size))
        for more in ((), ("--packet-size", "8K"), ("--password-crc", "0x1234abcd")):
            document = rbu.json("packets", path, "-o", "p", *more, "--force")
            assert document["set_id"] == rbu.json("packets", path, "-o", "p", *more)["set_id"]
            ids.add(document["set_id"])
    assert len(ids) == 9
    assert "0xffffffff" not in ids


@pytest.mark.parametrize("state", sorted(DAMAGED.keys() - {"no_data"}))
def test_packets_that_hold_a_damaged_image_are_not_joined(rbu: Cli, state: str) -> None:
    data, _, says = DAMAGED[state]
    path = rbu.write("p", bytes(packet.split(data, set_id=1)))
    says = "bytes follow the image" if state == "bytes_behind" else says.split()[-1]
    assert says in rbu.fails(5, "join", path, "-o", "a.hdr")
    assert not Path("a.hdr").exists()


def test_a_packet_of_nothing_but_zeros_behind_an_image_is_not_joined(rbu: Cli) -> None:
    path = rbu.write("p", bytes(packet.split(GOOD + bytes(2 * 4064), set_id=1)))
    assert "bytes follow the image" in rbu.fails(5, "join", path, "-o", "a.hdr")


def test_join_takes_one_packet_too_many_as_an_old_client_writes_it(rbu: Cli) -> None:
    """Dell's old client, where the image fills its packets: its number is their total."""
    image = image_bytes(size_bytes=10 * 4064 - 92)
    parts = bytes(packet.split(image, set_id=b"_A06"))
    surplus = changed(bytes(parts[-4096:])[:32] + bytes(4064), pktNum=11, totPkts=11)
    path = rbu.write("p", parts + surplus)
    document = rbu.json("join", path, "-o", "a.hdr")
    assert (document["packet_count"], document["state"]) == (11, "whole")
    assert Path("a.hdr").read_bytes() == image
    for wrong in (surplus * 2, changed(surplus, pktSetId=7), surplus[:-1] + b"!"):
        rbu.fails(5, "join", rbu.write("q", parts + wrong), "-o", "b.hdr")


@pytest.mark.parametrize("size", ["0", "1", "33", "4097", "64M", "-1", "many", "4096.5"])
def test_a_packet_size_that_cannot_be_is_a_usage_error(rbu: Cli, size: str) -> None:
    rbu.fails(2, "packets", rbu.image(), "-o", "p", "--packet-size", size)
    assert not Path("p").exists()


def test_more_packets_than_a_set_can_count_is_a_usage_error(rbu: Cli) -> None:
    path = rbu.image(size_bytes=64 << 20)
    assert "65535" in rbu.fails(2, "packets", path, "-o", "p", "--packet-size", "1K")


@pytest.mark.parametrize(
    "words",
    [
        ("--set-id", "long_"),
        ("--set-id", "0x"),
        ("--set-id", "0x123456789"),
        ("--set-id", "äöü!"),
        ("--password-crc", "1234"),
        ("--password-crc", "0xgg"),
        ("--password-crc", "0x123456789"),
    ],
)
def test_an_id_that_cannot_be_is_a_usage_error(rbu: Cli, words: tuple[str, str]) -> None:
    rbu.fails(2, "packets", rbu.image(), "-o", "p", *words)


def packets() -> list[bytes]:
    data = bytes(packet.split(image_bytes(size_bytes=65536), set_id=b"_A06"))
    return [data[start : start + 4096] for start in range(0, len(data), 4096)]


def other_set() -> bytes:
    return bytes(packet.split(image_bytes(size_bytes=65536), set_id=b"_A07"))[4096:8192]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda p: [*p[:3], *p[4:]], "packet 3 is missing"),
        (lambda p: [*p[:4], *p[3:]], "packet 3 is there twice"),
        (lambda p: [*p[:3], p[4], p[3], *p[5:]], "out of order"),
        (lambda p: [p[0], other_set(), *p[2:]], "of another set"),
        (lambda p: [*p[:3], p[3][:-1] + b"?", *p[4:]], "wrong checksum"),
        (lambda p: p[:-1], "is missing"),
        (lambda p: [*p[:-1], p[-1][:100]], "cut short"),
        (lambda p: [*p, b"junk"], "follow the last packet"),
        (lambda p: [], "cut short"),
        (lambda p: [b"no packets at all" * 9], "packet 0"),
    ],
)
def test_a_broken_packet_file_is_damaged_input(rbu: Cli, broken: object, says: str) -> None:
    assert callable(broken)
    path = rbu.write("p", b"".join(broken(packets())))
    assert says in rbu.fails(5, "join", path, "-o", "a.hdr")
    assert not Path("a.hdr").exists()


def test_packets_that_hold_no_image_are_damaged_input(rbu: Cli) -> None:
    path = rbu.write("p", bytes(packet.split(b"no image" * 999, set_id=1)))
    assert "not a BIOS image" in rbu.fails(5, "join", path, "-o", "a.hdr")


def test_a_file_of_packets_is_no_image_and_the_way_out_is_told(rbu: Cli) -> None:
    image = rbu.write("a.hdr", image_bytes())
    rbu("packets", image, "-o", "a.packets")
    for command in (("info",), ("plan",), ("packets", "-o", "again"), ("extract",)):
        assert "rbu join" in rbu.fails(5, *command, "a.packets")


def test_a_damaged_image_is_not_cut_into_packets(rbu: Cli) -> None:
    image = rbu.write("a.hdr", image_bytes()[:-1] + b"?")
    assert "header was changed" in rbu.fails(5, "packets", image, "-o", "a.packets")
    assert not Path("a.packets").exists()
