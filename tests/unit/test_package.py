"""Finding images inside other files."""

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats import package
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.judgement import ImageState
from openrbu.formats.package import find_images
from openrbu.formats.version import BiosVersion

SCRIPT = b"#!/bin/sh\nexec tail -n +4 $0 | tar xz\n".ljust(512, b"#")

Wrap = Callable[[bytes], bytes]


def image_of(flash_data: bytes, version: str = "A06") -> bytes:
    return make_image(flash_data, version=BiosVersion.parse(version), systems=[SystemId(0x0121)])


IMAGE = image_of(bytes(range(256)) * 40)
OTHER = image_of(bytes(range(255, 0, -1)) * 40, "A07")
VENDOR = IMAGE[:-8] + b"8 bytes."
"""As a vendor's file: nothing in it tells where it ends."""


def tar_of(*members: tuple[str, bytes], **how: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **how) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def gzip_of(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


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


WRAPS = {
    "gzip at 0": gzip_of,
    "xz at 0": lzma.compress,
    "tar member bios.hdr": as_tar,
    "zip member bios.hdr": as_zip,
}


# Bare images


@pytest.mark.parametrize("image", [IMAGE, VENDOR], ids=["ours", "vendor"])
def test_an_image_itself_is_found_at_offset_0(image: bytes) -> None:
    assert found(image) == [("offset 0", image)]


@pytest.mark.parametrize("offset", [1, 3, 4096, 4099])
def test_an_image_is_found_at_any_offset(offset: int) -> None:
    assert found(b"\xff" * offset + VENDOR) == [(f"offset {offset}", VENDOR)]


@pytest.mark.parametrize("size_bytes", [1, 2, 255, 1000, 70_000, 1_100_001])
def test_the_check_words_tell_where_an_image_ends(size_bytes: int) -> None:
    image = image_of(b"\x5a" * size_bytes)
    assert found(b"before" + image + b"behind" * 10) == [("offset 6", image)]


def test_an_image_with_changed_data_ends_where_its_check_words_are() -> None:
    wrong = IMAGE[:200] + b"!" + IMAGE[201:]
    assert found(wrong + b"more") == [("offset 0", wrong)]
    [item] = find_images(wrong)
    assert item.image.state is ImageState.DATA_CHANGED


def test_without_check_words_an_image_runs_to_the_end_of_the_file() -> None:
    cut = IMAGE[:200]
    assert found(cut + b"more") == [("offset 0", cut + b"more")]


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


def test_archives_inside_flash_data_are_not_packages() -> None:
    vendor = VENDOR[:84] + gzip_of(IMAGE) + as_tar(lzma.compress(IMAGE))
    assert found(vendor) == [("offset 0", vendor)]


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


# Archives


@pytest.mark.parametrize("image", [IMAGE, VENDOR], ids=["ours", "vendor"])
@pytest.mark.parametrize("path", WRAPS)
def test_an_image_in_an_archive_is_found_with_its_exact_end(path: str, image: bytes) -> None:
    assert found(WRAPS[path](image)) == [(path, image)]


@pytest.mark.parametrize("outer", WRAPS)
@pytest.mark.parametrize("inner", WRAPS)
def test_archives_nest(outer: str, inner: str) -> None:
    assert found(WRAPS[outer](WRAPS[inner](VENDOR))) == [(f"{outer} > {inner}", VENDOR)]


@pytest.mark.parametrize(
    ("archive", "path"),
    [
        (gzip_of(as_tar(VENDOR)), "gzip at 512 > tar member bios.hdr"),
        (lzma.compress(as_tar(VENDOR)), "xz at 512 > tar member bios.hdr"),
        (as_tar(VENDOR), "tar at 512 member bios.hdr"),
        (as_zip(VENDOR), "zip member bios.hdr"),
        (as_stored_zip(VENDOR), "zip member bios.hdr"),
    ],
    ids=["gzip", "xz", "tar", "zip", "stored zip"],
)
def test_an_archive_behind_a_shell_script_is_found(archive: bytes, path: str) -> None:
    assert found(SCRIPT + archive) == [(path, VENDOR)]


@pytest.mark.parametrize("archive", [gzip_of(VENDOR), lzma.compress(VENDOR), as_tar(VENDOR)])
def test_the_search_goes_on_behind_an_archive(archive: bytes) -> None:
    images = [image for _, image in found(SCRIPT + archive + b"then" + OTHER)]
    assert images == [VENDOR, OTHER]


def test_a_zip_with_bytes_before_and_behind_is_found() -> None:
    data = b"MZ" + bytes(998) + as_zip(VENDOR) + b"a signature" * 500
    assert found(data) == [("zip member bios.hdr", VENDOR)]


def test_a_self_extracting_zip_whose_offsets_count_from_the_file_is_found() -> None:
    file = io.BytesIO(b"MZ" + bytes(998))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("bios.hdr", VENDOR)
    assert found(file.getvalue()) == [("zip member bios.hdr", VENDOR)]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_kind_of_tar_is_read(format_: int) -> None:
    name = "folder/" + "x" * 90
    archive = tar_of(("readme", b"hello"), (name, VENDOR), format=format_)
    assert found(archive) == [(f"tar member {name}", VENDOR)]


def test_gzip_streams_right_behind_each_other_are_one_content() -> None:
    assert found(gzip_of(VENDOR[:1000]) + gzip_of(VENDOR[1000:])) == [("gzip at 0", VENDOR)]


def test_stored_bytes_in_an_archive_are_not_found_a_second_time() -> None:
    assert found(as_stored_gzip(VENDOR)) == [("gzip at 0", VENDOR)]
    assert found(as_stored_zip(VENDOR)) == [("zip member bios.hdr", VENDOR)]


def test_an_image_at_an_offset_of_a_member_has_both_in_its_path() -> None:
    assert found(as_zip(bytes(40) + VENDOR)) == [("zip member bios.hdr > offset 40", VENDOR)]


def test_the_name_of_the_file_leads_the_path() -> None:
    assert [item.path for item in find_images(gzip_of(IMAGE), "R1.BIN")] == ["R1.BIN > gzip at 0"]


def test_a_members_name_is_shown_on_one_safe_line() -> None:
    [(path, _)] = found(tar_of(("evil\x1b[2J\nname", VENDOR)))
    assert path == r"tar member 'evil\x1b[2J\nname'"


# Damage


@pytest.mark.parametrize("wrap", [*WRAPS.values(), as_stored_zip, as_stored_gzip])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_an_archive_that_is_cut_short_gives_no_image_but_says_so(wrap: Wrap, keep: float) -> None:
    whole = wrap(VENDOR)
    if wrap is as_tar:  # its end is empty blocks that nobody would miss
        whole = whole[: 1024 + len(VENDOR)]
    with pytest.raises(DamagedInputError, match=r"no BIOS image found; .* is damaged") as caught:
        find_images(whole[: int(len(whole) * keep)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [gzip_of, lzma.compress, as_zip])
def test_an_archive_with_a_changed_byte_gives_no_image_but_says_so(wrap: Wrap) -> None:
    whole = bytearray(wrap(VENDOR))
    whole[len(whole) // 3] ^= 0x10
    with pytest.raises(DamagedInputError, match="is damaged"):
        find_images(whole)


def test_the_first_damage_is_the_one_that_is_told() -> None:
    broken = [gzip_of(VENDOR)[:100] + b"\xff" * 50, lzma.compress(VENDOR)[:100]]
    with pytest.raises(DamagedInputError, match=r"found; BIOS\.EXE > zip member a > gzip at 0 is"):
        find_images(zip_of(("a", broken[0]), ("b", broken[1])), "BIOS.EXE")


def test_a_tar_sign_too_near_the_start_is_passed_over() -> None:
    assert found(b"ustar\x0000" + IMAGE) == [("offset 8", IMAGE)]


def test_damage_beside_a_sound_image_is_passed_over() -> None:
    assert found(gzip_of(VENDOR)[:100] + IMAGE) == [("offset 100", IMAGE)]


def test_a_damaged_member_does_not_hide_its_neighbours() -> None:
    archive = bytearray(zip_of(("one", VENDOR), ("two", OTHER)))
    archive[60] ^= 0xFF
    assert found(bytes(archive)) == [("zip member two", OTHER)]


def test_a_zip_member_with_a_password_is_passed_over() -> None:
    archive = bytearray(zip_of(("one", VENDOR)))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DamagedInputError, match="encrypted"):
        find_images(archive)


def test_a_zip_member_packed_in_an_unusual_way_is_named() -> None:
    with pytest.raises(DamagedInputError, match="compression method 14"):
        find_images(zip_of(("one", VENDOR), method=zipfile.ZIP_LZMA))


damaged_packages = st.builds(
    lambda whole, cut, places: bytes(
        places.get(offset, byte) for offset, byte in enumerate(whole[: len(whole) - cut])
    ),
    st.sampled_from(
        [
            wrap(inner(image_of(b"some flash data")))
            for wrap in (*WRAPS.values(), as_stored_zip)
            for inner in (gzip_of, as_tar, as_zip)
        ]
    ),
    st.one_of(st.just(0), st.integers(0, 300)),
    st.dictionaries(st.integers(0, 1500), st.integers(0, 255), max_size=4),
)


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
    for _ in range(package.MAX_DEPTH):
        data = gzip_of(data, level=1)
    assert [image for _, image in found(data)] == [IMAGE]
    with pytest.raises(DamagedInputError, match="more than 8 archives inside each other"):
        find_images(gzip_of(data))


@pytest.mark.parametrize("wrap", [gzip_of, lambda data: lzma.compress(data, preset=0), as_zip])
def test_what_unpacks_beyond_the_limit_is_refused(
    wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "MAX_UNPACKED_BYTES", 100_000)
    assert found(wrap(bytes(100_000))) == []
    with pytest.raises(DamagedInputError, match=r"unpack to more than 97.7 KiB \(at "):
        find_images(wrap(bytes(100_001)))


def test_the_limit_holds_for_all_archives_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_UNPACKED_BYTES", 100_000)
    with pytest.raises(DamagedInputError, match="unpack to more than"):
        find_images(zip_of(("a", bytes(60_000)), ("b", bytes(60_000))))


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_more_members_than_the_limit_are_refused(
    make: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "MAX_MEMBERS", 5)
    with pytest.raises(DamagedInputError, match="more than 5 members"):
        find_images(make(*((f"m{number}", b"") for number in range(6))))


def test_more_images_than_the_limit_are_refused() -> None:
    images = [image_of(number.to_bytes(2, "big")) for number in range(package.MAX_IMAGES)]
    assert len(find_images(b"".join(images))) == package.MAX_IMAGES
    with pytest.raises(DamagedInputError, match="more than 256 images"):
        find_images(b"".join(images) + OTHER)


def test_a_bare_image_is_found_without_a_copy() -> None:
    data = bytearray(b"before" + IMAGE)
    [item] = find_images(data)
    data[6 + 84] = 77
    assert item.image.flash_data[0] == 77
