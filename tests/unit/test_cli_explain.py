"""`rbu packets --explain`: one packet field by field."""

from collections.abc import Callable

import pytest

from openrbu.errors import DamagedInputError
from openrbu.formats import packet
from openrbu.formats.packet_explained import explain_packet
from openrbu.formats.packet_header import HEADER_RULES, PACKET_HEADER, PASSWORD_ITEM
from openrbu.units import KIB
from rigs.cli import Cli, image_bytes

CRC = 0x1234ABCD
SIZE = 4 * KIB


def packet_file(first_size_bytes: int = SIZE) -> bytearray:
    """The packets of an image with a password; packet 0 may have a size of its own."""
    made = bytearray(
        packet.split(image_bytes("A06"), packet_size_bytes=SIZE, set_id="_A06", password_crc=CRC)
    )
    first = made[:KIB] + bytes(first_size_bytes - KIB)
    put("pktSize", first_size_bytes // KIB, 0)(first)
    return checked(first) + made[SIZE:]


def checked(one: bytearray) -> bytearray:
    """A packet with the right checksum."""
    put("pktChksum", 0, 0)(one)
    words = sum(int.from_bytes(one[at : at + 2], "little") for at in range(0, len(one), 2))
    put("pktChksum", -words & 0xFFFF, 0)(one)
    return one


def put(name: str, value: int, place: int) -> Callable[[bytearray], None]:
    """Puts a value into a field of the packet at a place."""
    field = next(field for field in PACKET_HEADER.fields if field.name == name)

    def change(data: bytearray) -> None:
        at = place * SIZE + PACKET_HEADER.offset_of(name)
        data[at : at + field.size_bytes] = value.to_bytes(field.size_bytes, "little")

    return change


def test_each_field_is_shown_with_its_offset_and_bytes(rbu: Cli) -> None:
    """What the offsets and bytes are of is asked of the packet's own bytes."""
    data = packet_file()
    shown = rbu.json("packets", rbu.write("a.packets", bytes(data)), "--explain", 1)
    one = data[SIZE : 2 * SIZE]
    assert (shown["packet"], shown["offset_bytes"], shown["size_bytes"]) == (1, SIZE, SIZE)
    assert [field["name"] for field in shown["fields"]] == [f.name for f in PACKET_HEADER.fields]
    for field in shown["fields"]:
        raw = bytes.fromhex(field["bytes"])
        assert one[field["offset_bytes"] :].startswith(raw)
        assert int.from_bytes(raw, "little") == field["value"]
        assert all(rule["holds"] for rule in field["rules"])
    assert b"".join(bytes.fromhex(field["bytes"]) for field in shown["fields"]) == one[:32]
    assert shown["is_valid"]
    assert shown["data"]["image"]["version"] == "A06"
    assert shown["data"]["image_offset_bytes"] == 0
    sums = shown["checksum"]
    parts = [int(sums[name], 16) for name in ("header_sum", "data_sum", "checksum")]
    words = [int.from_bytes(one[at : at + 2], "little") for at in range(0, SIZE, 2)]
    assert parts == [sum(words[:15]) & 0xFFFF, sum(words[16:]) & 0xFFFF, words[15]]
    assert sums["total"] == "0x0000"
    assert sum(parts) % 0x10000 == 0


def test_an_image_is_cut_as_the_command_would_cut_it(rbu: Cli) -> None:
    words = (rbu.image(), "--packet-size", "8K", "--set-id", "_A06")
    cut = rbu.json("packets", *words, "-o", "p")
    of_image = rbu.json("packets", "--explain", *words, cut["packet_count"] - 1)
    of_file = rbu.json("packets", "p", "--explain", cut["packet_count"] - 1)
    assert {**of_image, "file": "p"} == of_file
    assert of_file["data"]["zeros_at_its_end_bytes"] > 0


@pytest.mark.parametrize("first_size_bytes", [SIZE, KIB, 16 * KIB])
def test_packet_0_shows_the_crc_of_a_password(rbu: Cli, first_size_bytes: int) -> None:
    path = rbu.write("a.packets", bytes(packet_file(first_size_bytes)))
    shown = rbu.json("packets", path, "--explain")
    assert shown["is_valid"]
    assert shown["size_bytes"] == first_size_bytes
    assert shown["password_item"]["crc"] == f"{CRC:#010x}"
    fields = shown["password_item"]["fields"]
    assert [field["name"] for field in fields] == [field.name for field in PASSWORD_ITEM.fields]
    assert f"{CRC:#010x}" in rbu("packets", path, "--explain").out
    assert rbu.json("packets", path, "--explain", 1)["offset_bytes"] == first_size_bytes
    assert rbu.json("packets", rbu.image(), "--explain")["password_item"]["crc"] is None


@pytest.mark.parametrize(
    ("place", "name", "value", "says"),
    [
        (3, "pktId", 1, "is not $RPK"),
        (0, "pktId", 1, "is not $RPK"),
        (3, "pktSize", 1, "is not 4, the KiB to the next packet"),
        (1, "pktSize", 0xFFFF, "is not 4, the KiB to the next packet"),
        (0, "pktSize", 0, "is not 4, the KiB to the next packet"),
        (3, "reserved1", 1, "is not 0"),
        (3, "hdrSize", 1, "is below 2 (32 bytes)"),
        (3, "hdrSize", 257, "is over 256 (4 KiB)"),
        (3, "hdrSize", 256, "leaves no room for data"),
        (3, "reserved2", 1, "is not 0"),
        (3, "pktSetId", 1, "that of packet 0"),
        (3, "pktNum", 4, "is not 3, its place in the file"),
        (3, "pktNum", 0xFFFF, "is not below totPkts"),
        (3, "totPkts", 1, "is below 2: no image"),
        (0, "totPkts", 7, "that of packet 1"),
        (3, "pktVer", 2, "is not 1"),
        (3, "reserved3", 1, "is not 0"),
        (3, "reserved4", 1, "is not 0"),
        (3, "pktChksum", 1, None),
    ],
)
def test_a_damaged_packet_is_shown_and_then_refused(
    rbu: Cli, place: int, name: str, value: int, says: str | None
) -> None:
    data = packet_file()
    put(name, value, place)(data)
    path = rbu.write("a.packets", bytes(data))
    shown = rbu.json("packets", path, "--explain", place, code=5)
    field = next(field for field in shown["fields"] if field["name"] == name)
    assert (shown["offset_bytes"], shown["size_bytes"]) == (place * SIZE, SIZE)
    assert field["value"] == value
    broken = [rule["problem"] for rule in field["rules"] if not rule["holds"]]
    assert any(says in problem for problem in broken) if says else not broken
    assert any("wrong checksum" in problem for problem in shown["problems"])
    assert not shown["is_valid"]
    ended = rbu("packets", path, "--explain", place)
    assert ended.code == 5
    assert name in ended.out
    assert f"packet {place} at offset {place * SIZE:#x}" in ended.err
    right = int(shown["checksum"]["right_checksum"], 16)
    put("pktChksum", right, place)(data)
    assert explain_packet(data, place).checksum is not None
    assert not any("checksum" in problem for problem in explain_packet(data, place).problems)


def test_what_join_accepts_has_no_problem_and_what_it_refuses_has_one() -> None:
    """One bit changed anywhere in a packet is damage to both."""
    whole = packet_file()
    count = len(whole) // SIZE
    assert not any(explain_packet(whole, place).problems for place in range(count))
    for bit in range(SIZE, (SIZE + 40) * 8, 61):
        data = bytearray(whole)
        data[SIZE + bit // 8 % 40] ^= 1 << bit % 8
        with pytest.raises(DamagedInputError):
            packet.join(data)
        assert explain_packet(data, 1).problems


def test_all_header_rules_are_asked_of_a_field_that_there_is() -> None:
    names = {field.name for field in PACKET_HEADER.fields}
    assert {rule.field for rule in HEADER_RULES} <= names


def test_a_packet_too_many_is_no_damage(rbu: Cli) -> None:
    """Dell's old client, where the image fills its packets: its number is their total."""
    data = packet_file()
    surplus = bytearray(data[-SIZE:])
    put("pktNum", len(data) // SIZE, 0)(surplus)
    rbu.write("a.packets", bytes(data + checked(surplus)))
    assert rbu.json("packets", "a.packets", "--explain", len(data) // SIZE)["is_valid"]


def test_what_is_no_packet_has_no_place_in_the_image(rbu: Cli) -> None:
    data = packet_file() + b"x" * SIZE
    path = rbu.write("a.packets", bytes(data))
    last = len(data) // SIZE - 1
    junk = rbu.json("packets", path, "--explain", last, code=5)
    assert junk["data"]["image_offset_bytes"] is None
    assert "next packet follows" not in rbu("packets", path, "--explain", last - 1).out


def test_a_packet_that_is_cut_short_is_shown_as_far_as_it_goes(rbu: Cli) -> None:
    path = rbu.write("a.packets", bytes(packet_file()[: 2 * SIZE + 100]))
    shown = rbu.json("packets", path, "--explain", 2, code=5)
    assert shown["problems"] == [f"it is cut short: 100 of {SIZE} bytes"]
    assert (shown["size_bytes"], shown["checksum"]) == (100, None)
    rbu.write("b.packets", bytes(packet_file()[: 2 * SIZE + 20]))
    assert "20 of 32 bytes" in rbu.fails(5, "packets", "b.packets", "--explain", 2)


def test_without_a_number_the_whole_set_is_judged_too(rbu: Cli) -> None:
    data = packet_file()
    count = len(data) // SIZE
    path = rbu.write("a.packets", bytes(data))
    whole = rbu.json("packets", path, "--explain")
    assert whole["set"]["is_whole"]
    assert (whole["set"]["present_count"], whole["set"]["packet_count"]) == (count, count)
    assert "set" not in rbu.json("packets", path, "--explain", 0)
    assert rbu.json("packets", rbu.image(), "--explain")["set"]["is_whole"]
    shown = rbu("packets", path, "--explain").out
    assert f"{count} of {count}" in shown
    assert "right: all are there" in shown


def test_a_set_that_lacks_packets_is_refused_after_its_first_packet(rbu: Cli) -> None:
    data = packet_file()
    path = rbu.write("cut.packets", bytes(data[: 24 * SIZE]))
    document = rbu.json("packets", path, "--explain", code=5)
    assert document["is_valid"]  # packet 0 is
    found = document["set"]
    assert (found["present_count"], found["packet_count"]) == (24, len(data) // SIZE)
    assert found["missing"] == list(range(24, len(data) // SIZE))
    assert "packet 24 is missing" in found["problem"]
    assert found["problem_offset_bytes"] == 24 * SIZE
    ended = rbu("packets", path, "--explain")
    assert ended.code == 5
    assert f"24 of {len(data) // SIZE} packets are there: packet 24 is missing" in ended.err
    assert rbu("packets", path, "--explain", 3).code == 0
    del data[7 * SIZE : 8 * SIZE]
    rbu.write("gap.packets", bytes(data))
    assert rbu.json("packets", "gap.packets", "--explain", code=5)["set"]["missing"] == [7]


def test_the_first_wrong_packet_of_a_set_is_named(rbu: Cli) -> None:
    data = packet_file()
    data[5 * SIZE + 100] ^= 1
    data[9 * SIZE + 100] ^= 1
    path = rbu.write("bad.packets", bytes(data))
    found = rbu.json("packets", path, "--explain", code=5)["set"]
    assert found["missing_count"] == 0
    assert found["problem"].startswith("packet 5 at offset 0x5000 has a wrong checksum")
    data[50] ^= 1  # packet 0 is shown, and its own fault is the first
    rbu.write("bad.packets", bytes(data))
    ended = rbu("packets", path, "--explain")
    assert "packet 0 at offset 0x0: wrong checksum" in ended.err


def test_what_can_not_be_asked_is_refused(rbu: Cli) -> None:
    image = rbu.image()
    assert "0 to 130" in rbu.fails(2, "packets", image, "--explain", 131)
    assert "--output" in rbu.fails(2, "packets", image)
    assert "--explain" in rbu.fails(2, "packets", image, 1, "-o", "p")
    assert "--output" in rbu.fails(2, "packets", image, "--explain", "-o", "p")
    rbu.fails(2, "packets", image, "--explain", "-1")
    rbu.fails(5, "packets", rbu.write("empty", b""), "--explain")
    rbu.fails(2, "packets", "nowhere", "--explain")
