"""The vendor's check words: arithmetic, and what they tell of an image."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.formats import check_words as words
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.image_check import End, ImageState, find_end
from openrbu.formats.version import BiosVersion
from openrbu.units import KIB, MIB
from rigs.images import each_image, image_named

FLASH = random.Random(11).randbytes(64 * KIB)


def image_of(flash_data: bytes = FLASH) -> bytes:
    return make_image(flash_data, version=BiosVersion.parse("A06"), systems=[SystemId(0x0121)])


def flipped(raw: bytes, offset: int, bits: int = 1) -> bytes:
    return raw[:offset] + bytes([raw[offset] ^ bits]) + raw[offset + 1 :]


def state_of(raw: bytes) -> ImageState:
    return Image.parse(raw).state


def slow_words(header: bytes, data: bytes) -> bytes:
    """The words as the facts page writes them: two passes, nothing clever."""
    first = (zlib.crc32(data) ^ 0xFFFFFFFF).to_bytes(4, "little")
    second = (zlib.crc32(header + data + first) ^ 0xFFFFFFFF).to_bytes(4, "little")
    return first + second


# Arithmetic


@settings(deadline=None)
@given(st.binary(max_size=130), st.binary(max_size=3000))
def test_the_words_are_those_of_the_published_layout(header: bytes, data: bytes) -> None:
    made = words.check_words(header, data)
    assert made == slow_words(header, data)
    assert zlib.crc32(header + data + made) == 0xFFFFFFFF


@settings(deadline=None)
@given(
    st.binary(min_size=84, max_size=90),
    st.binary(min_size=1, max_size=2500),
    st.binary(max_size=50),
    st.integers(0, 2000),
    st.booleans(),
)
def test_claimed_sizes_are_where_the_second_word_stands(
    header: bytes, data: bytes, behind: bytes, skipped: int, whole_kib: bool
) -> None:
    raw = data + slow_words(header, data) + behind
    offset = min(skipped, len(data))
    found = list(words.claimed_sizes(header, raw[offset:], offset, whole_kib=whole_kib))
    assert (len(data) in found) == (not whole_kib or len(data) % KIB == 0)


def test_claimed_sizes_are_found_far_behind_and_across_blocks() -> None:
    header = image_of()[:84]
    for size in (MIB - 1, MIB, MIB + 1, 3 * MIB + 5):
        data = bytes(size)
        raw = data + words.check_words(header, data)
        assert list(words.claimed_sizes(header, raw, whole_kib=False)) == [size]
    wide = bytes(1030 * MIB // 1024 * 64)
    whole = wide + words.check_words(header, wide)
    assert list(words.claimed_sizes(header, whole, whole_kib=True)) == [len(wide)]


# What is told of a file


@each_image
def test_the_check_of_a_whole_file_tells_its_state(name: str, state: ImageState) -> None:
    raw = image_named(name)
    image = Image.parse(raw)
    assert (image.state, image.flash_size_bytes) == (state, MIB)
    assert image.build() == raw
    assert state_of(raw[: len(raw) // 2]) is ImageState.CUT
    assert state_of(raw + b"x") is ImageState.BYTES_BEHIND
    if state is ImageState.WHOLE:
        assert words.check_words(raw[:84], raw[84:-8]) == raw[-8:]
        assert state_of(flipped(raw, 5000)) is ImageState.DATA_CHANGED
        assert state_of(flipped(raw, 51)) is ImageState.HEADER_CHANGED


@settings(deadline=None, max_examples=300)
@given(st.integers(48, 84 + len(FLASH) + 7), st.integers(1, 255))
def test_a_changed_byte_is_noticed_and_told_where(offset: int, bits: int) -> None:
    raw = image_of()
    state = state_of(flipped(raw, offset, bits))
    in_data = 84 <= offset < 84 + len(FLASH) + 4  # the first word belongs to the data
    assert state is (ImageState.DATA_CHANGED if in_data else ImageState.HEADER_CHANGED)


@settings(deadline=None)
@given(st.integers(84, 84 + len(FLASH) + 7))
def test_an_image_cut_anywhere_is_cut(size: int) -> None:
    expected = ImageState.NO_DATA if size == 84 else ImageState.CUT
    assert state_of(image_of()[:size]) is expected


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=2000))
def test_bytes_behind_an_image_are_told_with_its_end(behind: bytes) -> None:
    raw = image_of()
    image = Image.parse(raw + behind)
    assert image.state is ImageState.BYTES_BEHIND
    assert image.up_to_its_end == Image.parse(raw)
    assert f"{len(behind)} bytes follow the image" in (image.damage or "")


def test_a_changed_image_with_bytes_behind_is_both() -> None:
    image = Image.parse(flipped(image_of(), 500) + b"junk")
    assert image.state is ImageState.BYTES_BEHIND
    assert image.check.end == End(len(FLASH), ImageState.DATA_CHANGED)
    assert "data was changed" in (image.damage or "")
    image = Image.parse(flipped(image_of(), 50) + b"junk")
    assert image.check.end == End(len(FLASH), ImageState.HEADER_CHANGED)


def test_header_and_data_changed_is_like_cut() -> None:
    image = Image.parse(flipped(flipped(image_of(), 50), 500))
    assert image.state is ImageState.CUT
    assert image.up_to_its_end is None


@pytest.mark.parametrize("size", [1, 100, 1023, 3_017_904 % MIB, 64 * KIB + 256])
def test_data_of_any_size_is_checked_by_the_words_alone(size: int) -> None:
    raw = image_of(random.Random(size).randbytes(size))
    assert state_of(raw) is ImageState.WHOLE
    assert state_of(raw + bytes(8)) is ImageState.BYTES_BEHIND


def test_an_image_of_an_older_openrbu_is_named_for_what_it_is() -> None:
    bare = image_of()[:-8]
    former = bare + len(FLASH).to_bytes(4, "little") + zlib.crc32(bare).to_bytes(4, "little")
    image = Image.parse(former)
    assert image.state is ImageState.FORMER
    assert "before 0.2" in (image.damage or "")
    assert "wrap it again" in (image.damage or "")


def test_an_end_is_not_looked_for_beyond_its_limit() -> None:
    header, data = image_of()[:84], bytes(64 * MIB + KIB)
    assert find_end(header, memoryview(data + words.check_words(header, data))) is None


def test_a_body_full_of_claims_is_given_up_on() -> None:
    """A second word at every KiB: each claim takes a checksum over all before it."""
    header, body = image_of()[:84], bytearray(4 * MIB)
    for size in range(KIB, len(body) - 8, KIB):
        body[size + 4 : size + 8] = words.check_words(header, bytes(size))[4:]
    end = find_end(header, memoryview(body))
    assert end is not None
    assert end.state is ImageState.DATA_CHANGED


@settings(deadline=None)
@given(
    st.binary(min_size=84, max_size=84),
    st.binary(max_size=5000).map(lambda part: part * 11),
    st.sampled_from([0, 1, 1020, 1023, 1024, 1025, 5000]),
    st.sampled_from([1, 2, 5, 30]),
    st.booleans(),
)
def test_few_positions_and_many_are_looked_at_with_one_result(
    header: bytes, body: bytes, offset: int, size_kib: int, whole_kib: bool
) -> None:
    size = size_kib * 1024
    body = body[:size] + words.check_words(header, body[:size]) + body[size:]
    sizes = [each for each in (size,) if len(body) >= each + 8]
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for few in (1 << 20, -1):
            patch.setattr(words, "_FEW_POSITIONS", few)
            patch.setattr(words, "_FEW_BYTES", few)
            sizes_found = words.claimed_sizes(header, body[offset:], offset, whole_kib=whole_kib)
            found.append(list(sizes_found))
    assert found[0] == found[1]
    if offset <= size + 4 and sizes and len(body[:size]) == size:
        assert size in found[0]
