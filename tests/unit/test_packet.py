"""RBU packets and packet sets: built, taken apart, and broken in every way."""

import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.packet import (
    DEFAULT_PACKET_BYTES,
    HEADER_SIZE_BYTES,
    MAX_PACKET_BYTES,
    MAX_PACKETS,
    PACKET_HEADER,
    PacketHeader,
    PasswordItem,
    check_packet_size,
    join,
    own_set_id,
    packets_needed,
    parse_password_item,
    password_crc,
    set_id_number,
    set_id_text,
    split,
)
from openrbu.units import KIB, MIB

HEADER = PacketHeader(4096, 32, 0x3530415F, 3, 5, 0x1234)
IMAGE = bytes(range(251)) * 60  # 15060 bytes: 4 packets of 4 KiB and packet 0
SET_ID = b"_A05"


def words_sum(packet: bytes) -> int:
    return (
        sum(int.from_bytes(packet[i : i + 2], "little") for i in range(0, len(packet), 2)) % 2**16
    )


def summed(packet: bytes) -> bytes:
    """The packet with its checksum made right."""
    bare = packet[:30] + bytes(2) + packet[32:]
    return bare[:30] + (-words_sum(bare) % 2**16).to_bytes(2, "little") + bare[32:]


def packet_list(set_id: bytes = SET_ID, image: bytes = IMAGE) -> list[bytes]:
    data = bytes(split(image, set_id=set_id))
    return [data[start : start + 4096] for start in range(0, len(data), 4096)]


def with_field(packet: bytes, name: str, value: int, *, sum_it: bool = True) -> bytes:
    fields = PACKET_HEADER.unpack(packet) | {name: value}
    changed = PACKET_HEADER.pack(fields) + packet[HEADER_SIZE_BYTES:]
    return summed(changed) if sum_it else changed


# The header


def test_each_header_field_is_at_the_offset_that_the_packet_rules_give_it() -> None:
    raw = bytes.fromhex("24 52 50 4b 0400 0000 0200 0000 5f413035 0300 0500 01") + bytes(9)
    assert HEADER.build() == raw + bytes.fromhex("3412")
    assert PacketHeader.parse(b"junk" + HEADER.build(), 4) == HEADER


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("pktId", 0x4B50522E, "pktId is not \\$RPK"),
        ("pktSize", 0, "hdrSize leaves no room for data"),
        ("reserved1", 1, "reserved1 is not 0"),
        ("hdrSize", 1, "hdrSize is below 2"),
        ("hdrSize", 256, "hdrSize leaves no room for data"),
        ("hdrSize", 257, "hdrSize is over 256"),
        ("reserved2", 0x8000, "reserved2 is not 0"),
        ("pktNum", 5, "pktNum is not below totPkts"),
        ("totPkts", 1, "totPkts is below 2"),
        ("pktVer", 2, "pktVer is not 1"),
        ("reserved3", 1, "reserved3 is not 0"),
        ("reserved4", 1 << 63, "reserved4 is not 0"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused_with_the_field_and_its_offset(
    field: str, value: int, says: str
) -> None:
    raw = with_field(HEADER.build(), field, value, sum_it=False)
    with pytest.raises(DamagedInputError, match=says) as caught:
        PacketHeader.parse(b"1234" + raw, 4)
    assert caught.value.offset is not None
    assert caught.value.actual == PACKET_HEADER.unpack(raw)[field if value else "hdrSize"]


def test_a_header_of_4_kib_is_the_largest_that_passes() -> None:
    header = replace(HEADER, size_bytes=8192, header_size_bytes=4096)
    assert PacketHeader.parse(header.build()) == header


def test_a_header_that_is_cut_short_is_refused() -> None:
    with pytest.raises(DamagedInputError, match="31 of 32 bytes"):
        PacketHeader.parse(HEADER.build()[:-1])


# Sizes and set IDs


@pytest.mark.parametrize("size", [KIB, 4096, 65535 * KIB])
def test_a_whole_number_of_kib_that_16_bits_can_say_is_a_packet_size(size: int) -> None:
    check_packet_size(size)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (-4096, "is not a size"),
        (0, "is not a size"),
        (1, "below 1 KiB"),
        (33, "below 1 KiB"),
        (4097, "not a whole number of KiB"),
        (64 * MIB, "65535 KiB"),
    ],
)
def test_any_other_packet_size_is_refused_in_one_line_that_has_it(size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        check_packet_size(size)
    assert str(size) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image_size", "packet_size", "total"),
    [(1, 4096, 2), (4064, 4096, 2), (4065, 4096, 3), (16 * MIB, 4096, 4130), (992, 1024, 2)],
)
def test_packets_needed_counts_packet_0_too(image_size: int, packet_size: int, total: int) -> None:
    assert packets_needed(image_size, packet_size) == total


def test_more_packets_than_a_set_counts_are_refused_with_the_least_size_that_does() -> None:
    most = (MAX_PACKETS - 1) * (KIB - HEADER_SIZE_BYTES)
    assert packets_needed(most, KIB) == MAX_PACKETS
    with pytest.raises(UsageError, match="use packets of 2048 bytes"):
        packets_needed(most + 1, KIB)
    assert packets_needed(most + 1, 2 * KIB) < MAX_PACKETS


def test_an_image_that_no_packets_can_carry_is_refused() -> None:
    with pytest.raises(UsageError, match="0 bytes"):
        packets_needed(0, 4096)
    with pytest.raises(UsageError, match="too large for any packet set"):
        packets_needed(1 << 43, 4096)


def test_a_set_id_is_four_bytes_or_a_u32_and_reads_back_as_text() -> None:
    assert set_id_number(b"_A05") == set_id_number(0x3530415F) == 0x3530415F
    assert set_id_text(0x3530415F) == "_A05"
    assert set_id_text(0xBEEF) == "0x0000beef"


@pytest.mark.parametrize("set_id", [b"", b"_A0", b"_A05 ", -1, 1 << 32])
def test_any_other_set_id_is_refused(set_id: bytes | int) -> None:
    with pytest.raises(UsageError, match="packet set ID"):
        set_id_number(set_id)


# The password item


@pytest.mark.parametrize("info", [0x01, 0x80, 0x81, 0xFF])
def test_either_bit_of_the_info_byte_says_that_a_password_is_there(info: int) -> None:
    assert parse_password_item(bytes([info, 4, 3, 2, 1, 9])) == PasswordItem(True, 0x01020304)


@pytest.mark.parametrize("info", [0x00, 0x7E])
def test_without_both_bits_there_is_no_password(info: int) -> None:
    assert parse_password_item(bytes([info, 4, 3, 2, 1])) == PasswordItem(False, 0)


def test_a_written_password_item_has_both_bits_and_reads_back() -> None:
    item = PasswordItem(True, 0xCAFEF00D)
    assert item.build() == b"\x81\x0d\xf0\xfe\xca"
    assert parse_password_item(item.build()) == item
    assert parse_password_item(PasswordItem(False).build()) == PasswordItem(False)


def test_a_password_item_that_is_cut_short_is_refused() -> None:
    with pytest.raises(DamagedInputError, match="4 of 5 bytes"):
        parse_password_item(b"\x81\0\0\0")


def test_a_password_goes_in_as_the_crc_32_of_its_bytes() -> None:
    assert password_crc("123456789") == 0xCBF43926
    with pytest.raises(UsageError, match="ASCII") as caught:
        password_crc("geheim-ß")
    assert "geheim" not in str(caught.value)


# Whole sets


def test_packet_0_has_the_password_item_and_no_image_data() -> None:
    packet = bytes(split(IMAGE, set_id=SET_ID, password_crc=0))[:4096]
    assert packet[32:] == b"\x81\0\0\0\0" + bytes(4096 - 37)
    assert bytes(split(IMAGE, set_id=SET_ID))[32:4096] == bytes(4096 - 32)


@pytest.mark.parametrize("size", [KIB, 4 * KIB, 13 * KIB, 1024 * KIB])
def test_packets_carry_the_image_in_order_and_each_sums_to_0(size: int) -> None:
    data = bytes(split(IMAGE, packet_size_bytes=size, set_id=SET_ID))
    total = packets_needed(len(IMAGE), size)
    packets = [data[start : start + size] for start in range(0, len(data), size)]
    assert len(packets) == total
    assert [words_sum(packet) for packet in packets] == [0] * total
    headers = [PacketHeader.parse(packet) for packet in packets]
    expected = [
        PacketHeader(size, 32, 0x3530415F, number, total, header.checksum)
        for number, header in enumerate(headers)
    ]
    assert headers == expected
    image = b"".join(packet[32:] for packet in packets[1:])
    assert image == IMAGE.ljust(len(image), b"\0")


@settings(deadline=None, max_examples=60)
@given(
    image=st.binary(min_size=1, max_size=9000),
    size_kib=st.integers(1, 9),
    set_id=st.integers(0, 0xFFFFFFFF),
    crc=st.none() | st.integers(0, 0xFFFFFFFF),
)
def test_joining_what_was_split_gives_everything_back(
    image: bytes, size_kib: int, set_id: int, crc: int | None
) -> None:
    data = split(image, packet_size_bytes=size_kib * KIB, set_id=set_id, password_crc=crc)
    found = join(data)
    assert bytes(found.image).rstrip(b"\0") == image.rstrip(b"\0")
    assert len(found.image) == (found.total - 1) * (size_kib * KIB - 32)
    assert (found.set_id, found.packet_size_bytes) == (set_id, size_kib * KIB)
    assert found.password == PasswordItem(crc is not None, crc or 0)
    again = split(found.image, packet_size_bytes=size_kib * KIB, set_id=set_id, password_crc=crc)
    assert bytes(again) == bytes(data)


def test_many_blocks_of_packets_split_and_join_as_one_does() -> None:
    image = bytes(i * i % 253 for i in range(1_500_001))
    found = join(split(image, set_id=7))
    assert zlib.crc32(found.image[: len(image)]) == zlib.crc32(image)
    assert not any(found.image[len(image) :])


def test_a_set_is_read_at_any_alignment_and_with_any_header_size() -> None:
    wide = []
    for packet in packet_list():
        moved = with_field(packet, "hdrSize", 3, sum_it=False)
        wide.append(summed(moved[:32] + bytes(16) + packet[32 : 4096 - 16]))
    found = join(memoryview(b"x" + b"".join(wide))[1:])
    assert bytes(found.image[:4048]) == IMAGE[:4048]


@pytest.mark.parametrize("size_kib", [1, 16])
def test_packet_0_may_have_a_size_of_its_own(size_kib: int) -> None:
    lead, *rest = packet_list()
    own = with_field(lead, "pktSize", size_kib, sum_it=False)
    own = summed(own.ljust(16 * KIB, b"\0")[: size_kib * KIB])
    found = join(own + b"".join(rest))
    assert found.packet_size_bytes == 4096
    assert bytes(found.image[: len(IMAGE)]) == IMAGE


def swapped(packets: list[bytes], a: int, b: int) -> list[bytes]:
    packets[a], packets[b] = packets[b], packets[a]
    return packets


P = packet_list()
OTHER = packet_list(b"_A06")
LONGER = packet_list(image=IMAGE * 2)
BROKEN_SETS = {
    "nothing": ([], "packet 0 at offset 0x0 is cut short: 0 of 32 bytes"),
    "a cut header": ([P[0][:20]], "packet 0 at offset 0x0 is cut short: 20 of 32 bytes"),
    "a cut packet 0": ([P[0][:4000]], "packet 0 at offset 0x0 is cut short: 4000 of 4096 bytes"),
    "packet 0 alone": ([P[0]], "packet 1 is missing: the file ends at offset 0x1000, with 1 of 5"),
    "a cut packet 1": ([P[0], P[1][:9]], "packet 1 at offset 0x1000 is cut short: 9 of 32 bytes"),
    "a cut last packet": ([*P[:4], P[4][:-1]], "packet 4 at offset 0x4000 is cut short: 4095 of"),
    "no packet 0": (P[1:], "packet 0 is missing: packet 1 is at offset 0x0"),
    "no packet 1": ([P[0], *P[2:]], "packet 1 is missing: packet 2 is at offset 0x1000"),
    "no packet 3": ([*P[:3], P[4]], "packet 3 is missing: packet 4 is at offset 0x3000"),
    "no last packet": (P[:4], "packet 4 is missing: the file ends at offset 0x4000, with 4 of 5"),
    "packet 0 twice": ([P[0], *P], "packet 0 is there twice, the second time at offset 0x1000"),
    "packet 2 twice": (
        [*P[:3], *P[2:]],
        "packet 2 is there twice, the second time at offset 0x3000",
    ),
    "packet 4 twice": ([*P, P[4]], "packet 4 is there twice, the second time at offset 0x5000"),
    "0 after 1": (
        swapped(P[:], 0, 1),
        "packet 1 at offset 0x0 is out of order: packet 0 should be there",
    ),
    "2 after 3": (
        swapped(P[:], 2, 3),
        "packet 3 at offset 0x2000 is out of order: packet 2 should be there",
    ),
    "another set": (
        [*P[:2], OTHER[2], *P[3:]],
        "packet 2 at offset 0x2000 is of another set (_A06,",
    ),
    "another total": ([*P[:2], LONGER[2], *P[3:]], "offset 0x2000 says that its set has 9 packets"),
    "a wrong checksum": (
        [*P[:2], P[2][:-1] + b"!", *P[3:]],
        "2 at offset 0x2000 has a wrong check",
    ),
    "a wrong checksum in packet 0": (
        [P[0][:-1] + b"!", *P[1:]],
        "0 at offset 0x0 has a wrong check",
    ),
    "another header size": (
        [*P[:2], with_field(P[2], "hdrSize", 3), *P[3:]],
        "packet 2 at offset 0x2000 has a header of 48 bytes, packet 0 one of 32",
    ),
    "another packet size": (
        [*P[:2], with_field(P[2], "pktSize", 2), *P[3:]],
        "packet 2 at offset 0x2000 has 2048 bytes, those before it 4096",
    ),
    "a smaller last packet": (
        [*P[:4], summed(with_field(P[4], "pktSize", 2, sum_it=False)[:2048])],
        "packet 4 at offset 0x4000 has 2048 bytes, those before it 4096",
    ),
    "a reserved byte": (
        [*P[:2], with_field(P[2], "reserved4", 1), *P[3:]],
        "packet 2 at offset 0x2000: reserved4 is not 0",
    ),
    "a lost magic": (
        [P[0], b"\0" + P[1][1:], *P[2:]],
        "packet 1 at offset 0x1000: pktId is not $RPK",
    ),
    "junk behind": ([*P, b"junk"], "4 bytes follow the last packet, at offset 0x5000"),
}


@pytest.mark.parametrize("case", BROKEN_SETS)
def test_a_broken_set_is_refused_with_what_is_wrong_and_where(case: str) -> None:
    packets, says = BROKEN_SETS[case]
    with pytest.raises(DamagedInputError) as caught:
        join(b"".join(packets))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.offset is not None


def test_packet_1_of_another_set_is_told_from_the_rest() -> None:
    with pytest.raises(DamagedInputError, match="packet 1 at offset 0x1000 is of another set"):
        join(b"".join([P[0], *OTHER[1:]]))


@settings(deadline=None, max_examples=150)
@given(position=st.integers(0, 5 * 4096 - 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_a_set_is_noticed(position: int, flip: int) -> None:
    data = bytearray(b"".join(P))
    data[position] ^= flip
    with pytest.raises(DamagedInputError):
        join(data)


@settings(deadline=None, max_examples=100)
@given(length=st.integers(0, 5 * 4096 - 1))
def test_a_set_cut_anywhere_is_noticed(length: int) -> None:
    with pytest.raises(DamagedInputError):
        join(b"".join(P)[:length])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(P + OTHER[1:3]), max_size=7))
def test_only_the_packets_in_order_are_a_set(packets: list[bytes]) -> None:
    if packets == P:
        assert join(b"".join(packets)).total == 5
    else:
        with pytest.raises(DamagedInputError):
            join(b"".join(packets))


def test_importing_the_module_does_not_import_numpy() -> None:
    code = "import sys, openrbu.formats.packet; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_largest_image_that_a_set_carries_is_at_the_largest_packet_size() -> None:
    most = (MAX_PACKETS - 1) * (MAX_PACKET_BYTES - HEADER_SIZE_BYTES)
    assert packets_needed(most, MAX_PACKET_BYTES) == MAX_PACKETS
    with pytest.raises(UsageError, match=f"use packets of {MAX_PACKET_BYTES} bytes or more"):
        packets_needed(most, DEFAULT_PACKET_BYTES)
    with pytest.raises(UsageError, match="too large for any packet set"):
        packets_needed(most + 1, MAX_PACKET_BYTES)


def test_the_packet_that_dells_old_client_writes_behind_a_set_is_taken_if_it_is_sound() -> None:
    """One, whose number is the total, with a right checksum; nothing else is."""
    packets = packet_list()
    surplus = with_field(packets[-1], "pktNum", len(packets))
    whole = b"".join(packets)
    assert bytes(join(whole + surplus).image) == bytes(join(whole).image)
    wrong = bytearray(surplus)
    wrong[-1] ^= 1
    for behind in (bytes(wrong), surplus + surplus, surplus + bytes(len(surplus))):
        with pytest.raises(DamagedInputError):
            join(whole + behind)


def test_a_sets_own_id_stands_for_its_data_its_packet_size_and_its_password() -> None:
    changed = IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])
    made_of = [(IMAGE, 4096, None), (IMAGE, 8192, None), (IMAGE, 4096, 5), (changed, 4096, None)]
    assert len({own_set_id(*each) for each in made_of}) == len(made_of)
    assert own_set_id(IMAGE, 4096, None) == own_set_id(bytearray(IMAGE), 4096, None)
