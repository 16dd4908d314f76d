"""Microsoft cabinets, and streams that are made to fill a memory."""

import bz2
import lzma
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats.packages import limits
from openrbu.formats.packages.cabinet import Cabinet, OtherCompressionError
from openrbu.formats.packages.search import search_package
from openrbu.formats.packages.streams import LZMA, Inflate, looks_like_lzma, unpack_one
from openrbu.units import MIB
from rigs.package_makers import (
    GCAB_CABINET,
    GCAB_IMAGE,
    IMAGE,
    NOISE,
    bzip2_of,
    cabinet_of,
    lzma_alone_of,
    zip_of,
)

FILES = (("readme.txt", b"hello\n"), ("folder\\bios.hdr", GCAB_IMAGE))


def contents(data: bytes, start: int = 0) -> list[tuple[str, bytes]]:
    cabinet = Cabinet(memoryview(data), start)
    return [(each.name, bytes(each.content)) for each in cabinet.members(lambda piece: None)]


def test_a_cabinet_that_gcab_made_is_read() -> None:
    assert contents(GCAB_CABINET) == [("readme.txt", b"hello\n"), ("bios.hdr", GCAB_IMAGE)]


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("reserve", [None, (0, 0, 0), (20, 3, 8)])
def test_each_file_comes_out_whatever_room_is_reserved(
    compression: int, reserve: tuple[int, int, int] | None
) -> None:
    made = cabinet_of(*FILES, compression=compression, reserve=reserve)
    assert contents(b"before" + made + b"behind", 6) == [
        ("readme.txt", b"hello\n"),
        ("folder/bios.hdr", GCAB_IMAGE),
    ]


def test_names_of_disks_in_the_header_are_passed_over() -> None:
    made = bytearray(cabinet_of(*FILES))
    names = b"one.cab\0disk 1\0three.cab\0disk 3\0"
    struct.pack_into("<H", made, 30, 3)
    struct.pack_into("<I", made, 8, len(made) + len(names))
    struct.pack_into("<I", made, 16, 44 + len(names))
    (data_at,) = struct.unpack_from("<I", made, 36)
    struct.pack_into("<I", made, 36, data_at + len(names))
    assert contents(bytes(made[:36]) + names + bytes(made[36:]))[1][1] == GCAB_IMAGE


@pytest.mark.parametrize(("number", "name"), [(2, "Quantum"), (0x1503, "LZX"), (7, "7")])
def test_a_folder_packed_in_another_way_is_named(number: int, name: str) -> None:
    with pytest.raises(OtherCompressionError, match=name):
        contents(cabinet_of(*FILES, compression_name=number))


@pytest.mark.parametrize(
    ("offset", "code", "value", "says"),
    [
        (25, "B", 2, "not a cabinet"),  # the version
        (26, "H", 0, "not a cabinet"),  # no folder
        (16, "I", 5, "not a cabinet"),  # the files are in the header
        (16, "I", 20_000_000, "not a cabinet"),
        (26, "H", 60_000, "cut short"),  # folders
        (28, "H", 60_000, "cut short|no end"),  # files
        (36, "I", 20_000_000, "cut short"),  # where the blocks are
        (40, "H", 9, "cut short"),  # how many there are
        (44, "I", 20_000_000, "cut short"),  # a file's size
        (48, "I", 20_000_000, "cut short"),  # where it is
        (52, "H", 1, "in no folder"),
        (52, "H", 0xFFFD, "split over several cabinets"),
    ],
)
def test_a_field_that_cannot_be_is_told(offset: int, code: str, value: int, says: str) -> None:
    made = bytearray(cabinet_of(*FILES, compression=0))
    struct.pack_into("<" + code, made, offset, value)
    with pytest.raises(DamagedInputError, match=says):
        contents(bytes(made))


def test_each_changed_byte_of_a_block_is_noticed() -> None:
    made = cabinet_of(("a", b"some text" * 9))
    (block,) = struct.unpack_from("<I", made, 36)
    for place in range(block, len(made)):
        broken = made[:place] + bytes([made[place] ^ 0x41]) + made[place + 1 :]
        with pytest.raises((DamagedInputError, zlib.error, EOFError)):
            contents(broken)


def test_a_cabinet_without_checksums_is_read_as_well() -> None:
    made = bytearray(cabinet_of(("a", b"some text" * 9)))
    (block,) = struct.unpack_from("<I", made, 36)
    made[block : block + 4] = bytes(4)
    assert contents(bytes(made)) == [("a", b"some text" * 9)]


@pytest.mark.parametrize(
    "whole", [GCAB_CABINET, cabinet_of(("a", IMAGE[:2000]))], ids=["gcab", "own"]
)
def test_a_cabinet_that_ends_anywhere_is_damaged(whole: bytes) -> None:
    for size in range(4, len(whole)):
        with pytest.raises((DamagedInputError, EOFError)):
            contents(whole[:size])


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.integers(0, 400), st.integers(0, 255), min_size=1, max_size=5))
def test_any_changed_bytes_give_files_or_one_kind_of_error(places: dict[int, int]) -> None:
    data = bytes(places.get(at, byte) for at, byte in enumerate(GCAB_CABINET))
    search_package(data)  # damage is told, not raised
    try:
        contents(data)
    except (DamagedInputError, EOFError, zlib.error, OtherCompressionError):
        return


# Made to fill a memory, or to take for ever


def test_folders_that_share_one_piece_of_data_do_not_get_round_the_limit() -> None:
    """160 folders of 4 MiB, all the same 15 kB: some 640 MiB."""
    one = cabinet_of(("a", bytes(4 * MIB)))
    (data_at,) = struct.unpack_from("<I", one, 36)
    folders = 160
    files = b"".join(
        struct.pack("<IIHHHH", 4 * MIB, 0, number, 0, 0, 0) + b"a\0" for number in range(folders)
    )
    files_at = 36 + 8 * folders
    header = bytearray(one[:36])
    struct.pack_into("<HH", header, 26, folders, folders)
    struct.pack_into("<I", header, 16, files_at)
    folder = struct.pack("<IHH", files_at + len(files), 128, 1)
    bomb = bytes(header) + folder * folders + files + one[data_at:]
    bomb = bomb[:8] + struct.pack("<I", len(bomb)) + bomb[12:]
    with pytest.raises(DamagedInputError, match="unpack to more than 256 MiB"):
        search_package(bomb)


def test_blocks_of_nothing_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIECES", 1000)
    made = bytearray(cabinet_of(("a", b""), compression=0))
    blocks = struct.pack("<IHH", 0, 0, 0) * 2000
    struct.pack_into("<H", made, 40, 2000)
    struct.pack_into("<I", made, 8, len(made) + len(blocks))
    with pytest.raises(DamagedInputError, match="more than 1000 chunks"):
        search_package(bytes(made) + blocks)


def test_streams_of_nothing_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIECES", 1000)
    assert search_package(bz2.compress(b"") * 9 + IMAGE).images
    with pytest.raises(DamagedInputError, match="more than 1000 chunks"):
        search_package(bytes(9) + zlib.compress(b"", wbits=31) * 2000)


def test_starts_that_are_none_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FALSE_STARTS", 100)
    for sign in (b"$RBU....", zlib.compress(b"", wbits=31)[:10] + b"\xff", b"MSCF" + bytes(40)):
        assert search_package(sign * 50 + IMAGE).images
        with pytest.raises(DamagedInputError, match="more than 100 positions"):
            search_package(sign * 200)


@pytest.mark.parametrize("is_zip64", [False, True])
def test_a_zip_directory_that_would_fill_the_memory_is_not_read(*, is_zip64: bool) -> None:
    """`zipfile` makes half a kilobyte of each 46 bytes in it."""
    entry = b"PK\x01\x02" + bytes(42)
    entries = 10 if is_zip64 else 5 * MIB // len(entry)
    locator = (b"PK\x06\x07" + bytes(16)) * is_zip64
    end = struct.pack("<4s8xIIH", b"PK\x05\x06", entries * len(entry), 0, 0)
    contents = search_package(entry * entries + locator + end)
    assert contents.damage is not None
    assert "directory is larger than any package's" in contents.damage


def test_many_files_in_many_folders_do_not_take_for_ever() -> None:
    """60,000 of each; the first folder's data is nowhere."""
    count = 60_000
    files = (struct.pack("<IIHHHH", 1, 0, 0, 0, 0, 0) + b"a\0") * count
    files_at = 36 + 8 * count
    header = cabinet_of(("a", b"a"))[:36]
    folders = struct.pack("<IHH", 0xFFFFFFFF, 1, 1) * count
    data = bytearray(header + folders + files)
    struct.pack_into("<I", data, 8, len(data))
    struct.pack_into("<I", data, 16, files_at)
    struct.pack_into("<HH", data, 26, count, count)
    contents = search_package(bytes(data))
    assert contents.damage is not None
    assert "cut short" in contents.damage


@pytest.mark.parametrize("is_in_zip", [False, True])
def test_a_bzip2_bomb_is_stopped_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch, *, is_in_zip: bool
) -> None:
    """64 MiB in some hundred bytes."""
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 3 * MIB)
    bomb = bzip2_of(bytes(64 * MIB))
    if is_in_zip:
        bomb = zip_of(("a", bytes(64 * MIB)), method=zipfile.ZIP_BZIP2)
    assert len(bomb) < 4096
    with pytest.raises(DamagedInputError, match="unpack to more than 3 MiB"):
        search_package(bomb)


def test_a_stream_unpacks_in_pieces_of_a_mebibyte() -> None:
    packed = zlib.compress(bytes(5 * MIB + 7))
    pieces: list[int] = []
    end = unpack_one(
        Inflate(15), memoryview(packed + b"behind"), 0, lambda piece: pieces.append(len(piece))
    )
    assert (end, sum(pieces), max(pieces)) == (len(packed), 5 * MIB + 7, MIB)


# LZMA, whose sign is weak


def test_lzma_with_and_without_a_size_is_known() -> None:
    unsized = lzma_alone_of(NOISE)
    sized = unsized[:5] + struct.pack("<Q", len(NOISE)) + unsized[13:]
    for data in (unsized, sized):
        assert looks_like_lzma(memoryview(b"xyz" + data), 3)


@pytest.mark.parametrize(
    "head",
    [
        bytes.fromhex("5d00000000") + b"\xff" * 8,  # no dictionary
        bytes.fromhex("5d00000500") + b"\xff" * 8,  # an odd one
        bytes.fromhex("5d00008000") + b"\xff" * 8,
    ],
)
def test_what_only_starts_like_lzma_is_none(head: bytes) -> None:
    data = head + b"\0" + NOISE
    assert LZMA.name == "lzma"
    assert not looks_like_lzma(memoryview(data), 0)
    contents = search_package(data + IMAGE)
    assert [each.image.build() for each in contents.images] == [IMAGE]
    assert search_package(data).damage is None


def test_lzma_that_is_cut_short_does_not_hide_what_is_behind() -> None:
    whole = lzma.compress(bytes(range(256)) * 200, lzma.FORMAT_ALONE)
    found = search_package(bytes(9) + whole[: len(whole) // 2] + IMAGE).images
    assert [each.image.build() for each in found] == [IMAGE]


def test_files_that_lie_over_each_other_are_damage() -> None:
    """Each would be searched whole: of 10,000 files over the same 250 MiB, for hours."""
    packed = bytearray(cabinet_of(("a", IMAGE), ("b", b"behind")))
    second = packed.index(b"b\0") - 12
    packed[second : second + 4] = bytes(4)
    with pytest.raises(DamagedInputError, match="overlaps another"):
        contents(bytes(packed))
