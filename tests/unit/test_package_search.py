"""Finding images inside other files."""

import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.formats.image_check import ImageState
from openrbu.formats.packages import limits
from openrbu.formats.packages.search import PackagedImage, search_package
from rigs.package_makers import (
    CUT,
    IMAGE,
    OTHER,
    SCRIPT,
    bzip2_of,
    cabinet_of,
    gzip_of,
    image_of,
    lzma_alone_of,
    tar_of,
    zip_of,
)

Wrap = Callable[[bytes], bytes]

FORMER = IMAGE[:-8] + (len(IMAGE) - 92).to_bytes(4, "little") + b"crc?"


def find_images(data: Buffer, name: str = "") -> list[PackagedImage]:
    contents = search_package(data, name)
    if not contents.images and contents.damage:
        error = contents.why_no_images()
        assert error is not None
        raise error
    return contents.images


def found(data: bytes) -> list[tuple[str, bytes]]:
    return [(item.path, item.image.build()) for item in find_images(data)]


def as_tar(content: bytes) -> bytes:
    return tar_of(("bios.hdr", content))


def as_zip(content: bytes) -> bytes:
    return zip_of(("bios.hdr", content))


def as_stored_zip(content: bytes) -> bytes:
    return zip_of(("bios.hdr", content), method=zipfile.ZIP_STORED)


def as_stored_gzip(content: bytes) -> bytes:
    return gzip_of(content, level=0)


def as_bzip2_zip(content: bytes) -> bytes:
    return zip_of(("bios.hdr", content), method=zipfile.ZIP_BZIP2)


def as_lzma_zip(content: bytes) -> bytes:
    return zip_of(("bios.hdr", content), method=zipfile.ZIP_LZMA)


def as_cabinet(content: bytes) -> bytes:
    return cabinet_of(("readme", b"hello"), ("bios.hdr", content))


def as_stored_cabinet(content: bytes) -> bytes:
    return cabinet_of(("readme", b"hello"), ("bios.hdr", content), compression=0)


WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "gzip at 0": gzip_of,
    "xz at 0": lzma.compress,
    "bzip2 at 0": bzip2_of,
    "lzma at 0": lzma_alone_of,
    "tar member bios.hdr": as_tar,
    "zip member bios.hdr": as_zip,
    "cabinet member bios.hdr": as_cabinet,
}
OTHER_WRAPS = [as_stored_zip, as_bzip2_zip, as_lzma_zip, as_stored_gzip, as_stored_cabinet]


# Bare images


def test_an_image_itself_is_found_at_offset_0() -> None:
    assert found(IMAGE) == [("offset 0", IMAGE)]


@pytest.mark.parametrize("offset", [1, 3, 4096, 4099])
def test_an_image_is_found_at_any_offset(offset: int) -> None:
    assert found(b"\xff" * offset + IMAGE) == [(f"offset {offset}", IMAGE)]


@pytest.mark.parametrize("size_bytes", [1, 2, 255, 1000, 70_000, 1_100_001])
def test_the_check_words_tell_where_an_image_ends(size_bytes: int) -> None:
    image = image_of(b"\x5a" * size_bytes)
    assert found(b"before" + image + b"behind" * 10) == [("offset 6", image)]


def test_an_image_with_changed_data_ends_where_its_check_words_are() -> None:
    wrong = IMAGE[:200] + b"!" + IMAGE[201:]
    assert found(wrong + b"more") == [("offset 0", wrong)]
    [item] = find_images(wrong)
    assert item.image.state is ImageState.DATA_CHANGED
    assert item.damage == item.image.damage


@pytest.mark.parametrize("behind", [b"", b"more", IMAGE[5000:], bytes(1 << 20)])
def test_an_image_without_an_end_has_none_of_what_is_behind_its_header(behind: bytes) -> None:
    [item] = find_images(b"before" + CUT + behind)
    assert (item.path, item.image.build(), item.end_is_known) == ("offset 6", CUT[:84], False)
    assert item.damage is not None
    assert "the end of the image is not known" in item.damage


def test_a_whole_image_over_the_data_of_one_without_an_end_is_found() -> None:
    data = b"before" + CUT[:4096] + OTHER + bytes(5000)
    assert [(item.image.build(), item.end_is_known) for item in find_images(data)] == [
        (CUT[:84], False),
        (OTHER, True),
    ]


def test_a_whole_image_over_the_data_of_a_changed_one_is_found() -> None:
    small = image_of(b"small")
    data = IMAGE[:2048] + small + IMAGE[2048 + len(small) :]
    assert [item.image.state for item in find_images(data)] == [
        ImageState.DATA_CHANGED,
        ImageState.WHOLE,
    ]


def test_a_member_that_is_a_cut_image_is_told_as_one() -> None:
    [item] = find_images(gzip_of(CUT))
    assert (item.path, item.image.state, item.end_is_known) == ("gzip at 0", ImageState.CUT, True)


@pytest.mark.parametrize("data", [FORMER, bytes(40) + FORMER, gzip_of(FORMER)])
def test_an_image_of_an_openrbu_before_the_check_words_is_named_as_one(data: bytes) -> None:
    [item] = find_images(data)
    assert item.image.state is ImageState.FORMER
    assert item.damage is not None
    assert "openrbu before 0.2" in item.damage


def test_images_behind_each_other_are_all_found_in_order() -> None:
    data = OTHER + b"between" + IMAGE + bytes(9)
    assert found(data) == [("offset 0", OTHER), (f"offset {len(OTHER) + 7}", IMAGE)]


def test_the_same_image_is_reported_once() -> None:
    assert found(IMAGE + IMAGE + OTHER) == [
        ("offset 0", IMAGE),
        (f"offset {2 * len(IMAGE)}", OTHER),
    ]
    assert len(found(zip_of(("a", IMAGE), ("b", IMAGE)))) == 1


def test_an_image_inside_an_images_own_data_is_not_reported() -> None:
    outer = image_of(b"a recovery image: " + OTHER)
    assert found(outer) == [("offset 0", outer)]


@pytest.mark.parametrize("words", [8, 0])
def test_archives_inside_flash_data_are_not_packages(words: int) -> None:
    image = image_of(gzip_of(IMAGE) + as_tar(lzma.compress(IMAGE)))
    data = image if words else image[:-8]
    assert [item.path for item in find_images(data)] == ["offset 0"]


def test_data_that_counts_up_by_itself_does_not_hide_the_image() -> None:
    counting = b"".join(number.to_bytes(4, "little") for number in range(0, 3000, 4))
    image = image_of(counting)
    assert found(image + b"behind") == [("offset 0", image)]


@pytest.mark.parametrize(
    ("offset", "new"),
    [(3, b"T"), (4, b"\x00"), (4, b"\xff"), (7, b"\x0d"), (7, b"\xff"), (8, b"Kopyright")],
)
def test_what_only_looks_like_a_header_is_passed_over(offset: int, new: bytes) -> None:
    damaged = IMAGE[:offset] + new + IMAGE[offset + len(new) :]
    assert found(damaged) == []
    assert found(damaged + OTHER) == [(f"offset {len(damaged)}", OTHER)]


@pytest.mark.parametrize("data", [b"", b"$RBU", bytes(5000), SCRIPT, as_tar(b"no"), as_zip(b"no")])
def test_where_there_is_no_image_none_is_found(data: bytes) -> None:
    assert found(data) == []
    assert search_package(data).why_no_images() is None


# Archives


@pytest.mark.parametrize("path", WRAPS)
def test_an_image_in_an_archive_is_found_with_its_exact_end(path: str) -> None:
    assert found(WRAPS[path](IMAGE)) == [(path, IMAGE)]


@pytest.mark.parametrize("wrap", OTHER_WRAPS)
def test_each_way_of_packing_a_member_is_read(wrap: Wrap) -> None:
    assert [data for _, data in found(wrap(IMAGE))] == [IMAGE]


@pytest.mark.parametrize("outer", WRAPS)
@pytest.mark.parametrize("inner", WRAPS)
def test_archives_nest(outer: str, inner: str) -> None:
    assert found(WRAPS[outer](WRAPS[inner](IMAGE))) == [(f"{outer} > {inner}", IMAGE)]


@pytest.mark.parametrize(
    ("archive", "path"),
    [
        (gzip_of(as_tar(IMAGE)), "gzip at 512 > tar member bios.hdr"),
        (lzma.compress(as_tar(IMAGE)), "xz at 512 > tar member bios.hdr"),
        (bzip2_of(as_tar(IMAGE)), "bzip2 at 512 > tar member bios.hdr"),
        (lzma_alone_of(as_tar(IMAGE)), "lzma at 512 > tar member bios.hdr"),
        (as_cabinet(IMAGE), "cabinet at 512 member bios.hdr"),
        (as_tar(IMAGE), "tar at 512 member bios.hdr"),
        (as_zip(IMAGE), "zip member bios.hdr"),
        (as_stored_zip(IMAGE), "zip member bios.hdr"),
    ],
    ids=["gzip", "xz", "bzip2", "lzma", "cabinet", "tar", "zip", "stored zip"],
)
def test_an_archive_behind_a_shell_script_is_found(archive: bytes, path: str) -> None:
    assert found(SCRIPT + archive) == [(path, IMAGE)]


@pytest.mark.parametrize("path", [path for path in WRAPS if not path.startswith("zip")])
def test_the_search_goes_on_behind_an_archive(path: str) -> None:
    images = [image for _, image in found(SCRIPT + WRAPS[path](IMAGE) + b"then" + OTHER)]
    assert images == [IMAGE, OTHER]


def test_a_zip_with_bytes_before_and_behind_is_found() -> None:
    data = b"MZ" + bytes(998) + as_zip(IMAGE) + b"a signature" * 500
    assert found(data) == [("zip member bios.hdr", IMAGE)]


def test_a_self_extracting_zip_whose_offsets_count_from_the_file_is_found() -> None:
    file = io.BytesIO(b"MZ" + bytes(998))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("bios.hdr", IMAGE)
    assert found(file.getvalue()) == [("zip member bios.hdr", IMAGE)]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_kind_of_tar_is_read(format_: int) -> None:
    name = "folder/" + "x" * 90
    archive = tar_of(("readme", b"hello"), (name, IMAGE), format=format_)
    assert found(archive) == [(f"tar member {name}", IMAGE)]


def test_gzip_streams_right_behind_each_other_are_one_content() -> None:
    assert found(gzip_of(IMAGE[:1000]) + gzip_of(IMAGE[1000:])) == [("gzip at 0", IMAGE)]


def test_stored_bytes_in_an_archive_are_not_found_a_second_time() -> None:
    assert found(as_stored_gzip(IMAGE)) == [("gzip at 0", IMAGE)]
    assert found(as_stored_zip(IMAGE)) == [("zip member bios.hdr", IMAGE)]


def test_an_image_at_an_offset_of_a_member_has_both_in_its_path() -> None:
    assert found(as_zip(bytes(40) + IMAGE)) == [("zip member bios.hdr > offset 40", IMAGE)]


def test_the_name_of_the_file_leads_the_path() -> None:
    assert [item.path for item in find_images(gzip_of(IMAGE), "R1.BIN")] == ["R1.BIN > gzip at 0"]


def test_a_members_name_is_shown_on_one_safe_line() -> None:
    [(path, _)] = found(tar_of(("evil\x1b[2J\nname", IMAGE)))
    assert path == r"tar member 'evil\x1b[2J\nname'"


# Damage


@pytest.mark.parametrize("wrap", [*WRAPS.values(), *OTHER_WRAPS])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_an_archive_that_is_cut_short_gives_no_image_but_says_so(wrap: Wrap, keep: float) -> None:
    whole = wrap(IMAGE)
    if wrap is as_tar:  # its end is empty blocks that nobody would miss
        whole = whole[: 1024 + len(IMAGE)]
    with pytest.raises(DamagedInputError, match=r"no BIOS image found; .* is damaged") as caught:
        find_images(whole[: int(len(whole) * keep)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrap", [gzip_of, lzma.compress, bzip2_of, as_zip, as_bzip2_zip, as_lzma_zip, as_cabinet]
)
def test_an_archive_with_a_changed_byte_gives_no_image_but_says_so(wrap: Wrap) -> None:
    whole = bytearray(wrap(IMAGE))
    whole[len(whole) // 3] ^= 0x10
    with pytest.raises(DamagedInputError, match="is damaged"):
        find_images(whole)


def test_the_first_damage_is_the_one_that_is_told() -> None:
    broken = [gzip_of(IMAGE)[:100] + b"\xff" * 50, lzma.compress(IMAGE)[:100]]
    with pytest.raises(DamagedInputError, match=r"found; BIOS\.EXE > zip member a > gzip at 0 is"):
        find_images(zip_of(("a", broken[0]), ("b", broken[1])), "BIOS.EXE")


def test_a_tar_sign_too_near_the_start_is_passed_over() -> None:
    assert found(b"ustar\x0000" + IMAGE) == [("offset 8", IMAGE)]


def test_damage_beside_a_sound_image_is_passed_over() -> None:
    assert found(gzip_of(IMAGE)[:100] + IMAGE) == [("offset 100", IMAGE)]


def test_a_damaged_member_does_not_hide_its_neighbours() -> None:
    archive = bytearray(zip_of(("one", IMAGE), ("two", OTHER)))
    archive[60] ^= 0xFF
    assert found(bytes(archive)) == [("zip member two", OTHER)]


def test_a_zip_member_with_a_password_is_passed_over() -> None:
    archive = bytearray(zip_of(("one", IMAGE)))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DamagedInputError, match="encrypted"):
        find_images(archive)


@pytest.mark.parametrize("wrap", [as_bzip2_zip, as_lzma_zip])
def test_a_password_is_told_whatever_the_packing(wrap: Wrap) -> None:
    archive = bytearray(wrap(IMAGE))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DamagedInputError, match="encrypted"):
        find_images(archive)


def test_a_zip_member_packed_in_an_unusual_way_is_named() -> None:
    archive = bytearray(zip_of(("one", IMAGE)))
    archive[8] = archive[archive.index(b"PK\x01\x02") + 10] = 93
    with pytest.raises(DamagedInputError, match="compression method 93"):
        find_images(archive)


damaged_packages = st.builds(
    lambda whole, cut, places: bytes(
        places.get(offset, byte) for offset, byte in enumerate(whole[: len(whole) - cut])
    ),
    st.sampled_from(
        [
            wrap(inner(image_of(b"some flash data")))
            for wrap in (*WRAPS.values(), *OTHER_WRAPS)
            for inner in (gzip_of, as_tar, as_zip, as_cabinet)
        ]
    ),
    st.one_of(st.just(0), st.integers(0, 300)),
    st.dictionaries(st.integers(0, 1500), st.integers(0, 255), max_size=4),
)


SMALL = image_of(b"some flash data")


@pytest.mark.parametrize("wrap", [*WRAPS.values(), *OTHER_WRAPS])
def test_of_an_archive_that_ends_anywhere_or_is_changed_anywhere_no_other_image_comes(
    wrap: Wrap,
) -> None:
    """What passes for whole is the image that went in; all else is told, and nothing is raised."""
    whole = wrap(SMALL)
    size = min(len(whole), 1200)  # of a tar: the rest is empty blocks
    damaged = [whole[:end] for end in range(size)]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        for place in range(size)
    ]
    for data in damaged:
        for item in search_package(data).images:
            assert item.damage is not None or item.image.build() == SMALL


@settings(deadline=None, max_examples=300)
@given(st.one_of(damaged_packages, st.binary(max_size=300)))
def test_any_bytes_give_images_or_damaged_input(data: bytes) -> None:
    try:
        items = find_images(data)
    except DamagedInputError:
        return
    for item in items:
        assert item.image.build().startswith(b"$RBU")
        assert item.path


# Limits


def test_archives_inside_each_other_beyond_the_limit_are_refused() -> None:
    data = IMAGE
    for _ in range(limits.MAX_DEPTH):
        data = gzip_of(data, level=1)
    assert [image for _, image in found(data)] == [IMAGE]
    with pytest.raises(DamagedInputError, match="more than 8 archives inside each other"):
        find_images(gzip_of(data))


@pytest.mark.parametrize(
    "wrap",
    [
        gzip_of,
        lambda data: lzma.compress(data, preset=0),
        bzip2_of,
        lzma_alone_of,
        as_zip,
        as_bzip2_zip,
        as_lzma_zip,
        lambda data: cabinet_of(("a", data)),
    ],
)
def test_what_unpacks_beyond_the_limit_is_refused(
    wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 100_000)
    assert found(wrap(bytes(100_000))) == []
    with pytest.raises(DamagedInputError, match=r"unpack to more than 97.7 KiB \(at "):
        find_images(wrap(bytes(100_001)))


def test_the_limit_holds_for_all_archives_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 100_000)
    with pytest.raises(DamagedInputError, match="unpack to more than"):
        find_images(zip_of(("a", bytes(60_000)), ("b", bytes(60_000))))


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_more_members_than_the_limit_are_refused(
    make: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 5)
    with pytest.raises(DamagedInputError, match="more than 5 members"):
        find_images(make(*((f"m{number}", b"") for number in range(6))))


def test_copies_of_one_image_count_too_each_takes_a_search() -> None:
    with pytest.raises(DamagedInputError, match="images"):
        find_images(image_of(b"\1") * (limits.MAX_IMAGES + 1))


def test_more_images_than_the_limit_are_refused() -> None:
    images = [image_of(number.to_bytes(2, "big")) for number in range(limits.MAX_IMAGES)]
    assert len(find_images(b"".join(images))) == limits.MAX_IMAGES
    with pytest.raises(DamagedInputError, match="more than 256 images"):
        find_images(b"".join(images) + OTHER)


def test_more_headers_without_an_image_than_the_limit_are_refused() -> None:
    data = bytes(8) + CUT[:500] * limits.MAX_ENDLESS
    assert [item.end_is_known for item in search_package(data).images] == [False]
    with pytest.raises(DamagedInputError, match="more than 64 image headers without an image"):
        search_package(data + CUT[:500])


def test_a_bare_image_is_found_without_a_copy() -> None:
    data = bytearray(b"before" + IMAGE)
    [item] = find_images(memoryview(data))
    data[6 + 84] = 77
    assert item.image.flash_data[0] == 77
