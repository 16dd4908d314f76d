"""Whether an image is whole, by its two check words; if not, what is wrong with it.

Facts: docs/reference/image.md, I4 and I5. No field of a header says how long the data is: an image
ends where its check words are right. Most real data is a whole number of KiB, so these sizes are
tried first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from openrbu.formats.check_words import (
    CHECK_WORDS,
    CHECK_WORDS_BYTES,
    claimed_sizes,
    compare_words,
    register,
    sizes_by_data,
)
from openrbu.formats.layout import Field, Layout
from openrbu.units import MIB

MAX_DATA_BYTES = 64 * MIB
"""How much data after a header is searched for its check words."""

MAX_CLAIMS = 8
"""How many sizes are tried for one image: its own, and those that match by chance or by malice."""

_FORMER_TRAILER = Layout(
    "the trailer of openrbu before 0.2",
    Field("data_length", "I", unit="bytes"),
    Field("crc32", "I"),
)


class ImageState(Enum):
    """What an image's check words say about it."""

    WHOLE = "whole"
    HEADER_CHANGED = "header_changed"
    """The word over the data is right, the one over header and data is not."""

    DATA_CHANGED = "data_changed"
    """The second word belongs to this header and size, but the data was changed."""

    BYTES_BEHIND = "bytes_behind"
    """The check words are further in front: the bytes after them do not belong to the image."""

    CUT = "cut"
    """The check words are right nowhere: the end is missing, or header and data were both
    changed."""

    FORMER = "made_before_0.2"
    """It ends as openrbu before 0.2 wrote images: the size of the data, and zlib's CRC-32."""

    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class End:
    """Where an image ends: the size of its data, and the state of the image up to that end."""

    data_size_bytes: int
    state: ImageState


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """An image's state, and its end if that is known. `end.state` is the state of the image up to
    that end; it differs from `state` when more bytes follow."""

    state: ImageState
    end: End | None = None


def check_image(header: bytes, body: memoryview) -> ImageCheck:
    """Check an image whose header is valid. `body`: all bytes after the header."""
    size = len(body) - CHECK_WORDS_BYTES
    if size <= 0:
        return ImageCheck(ImageState.CUT if len(body) else ImageState.NO_DATA)
    state = _state_at_end(header, body)
    if state is not None:
        return ImageCheck(state, End(size, state))
    if _has_former_trailer(header, body):
        return ImageCheck(ImageState.FORMER)
    end = find_end(header, body)
    return ImageCheck(ImageState.CUT) if end is None else ImageCheck(ImageState.BYTES_BEHIND, end)


def find_end(header: bytes, body: memoryview) -> End | None:
    """Find the end of the image that begins with this header; None if no check word is right.

    An end with two right words comes before one with a single right word. That only the header
    was changed is found for data of whole KiB only.
    """
    body = body[: MAX_DATA_BYTES + CHECK_WORDS_BYTES]
    changed: int | None = None
    for whole_kib in (True, False):
        for size in islice(claimed_sizes(header, body, whole_kib=whole_kib), MAX_CLAIMS):
            if register(body[:size]) == CHECK_WORDS.unpack(body, size)["data_word"]:
                return End(size, ImageState.WHOLE)
            changed = changed or size
    if changed is not None:
        return End(changed, ImageState.DATA_CHANGED)
    by_data = next(sizes_by_data(body), None)
    return None if by_data is None else End(by_data, ImageState.HEADER_CHANGED)


def describe_damage(check: ImageCheck, body_size_bytes: int) -> str | None:
    """What is wrong with an image and what to do, in one line; None for a whole image."""
    if check.state is not ImageState.BYTES_BEHIND:
        return _DAMAGE[check.state]
    assert check.end is not None
    behind = body_size_bytes - check.end.data_size_bytes - CHECK_WORDS_BYTES
    text = f"{behind} bytes follow the image, which ends after its check words"
    inner = _DAMAGE[check.end.state]
    return f"{text}; and {inner}" if inner else f"{text}: rbu extract writes the image without them"


_DAMAGE = {
    ImageState.WHOLE: None,
    ImageState.HEADER_CHANGED: (
        "the image's header was changed (the check word over it is wrong, that of the data is "
        "right): get it again"
    ),
    ImageState.DATA_CHANGED: (
        "the image's data was changed (its check word is wrong; header and size are right): get "
        "it again"
    ),
    ImageState.CUT: (
        "the image was cut short, or header and data were both changed (its check words are "
        "nowhere in it): get it again"
    ),
    ImageState.FORMER: (
        "the image was made by openrbu before 0.2, with a checksum that no real BIOS knows: wrap "
        "it again with rbu build"
    ),
    ImageState.NO_DATA: "the image has a header but no data",
}


def _state_at_end(header: bytes, body: memoryview) -> ImageState | None:
    """What the last 8 bytes say; None if neither is a check word of this image."""
    words = compare_words(header, body)
    if words.data_word_is_right:
        return ImageState.WHOLE if words.whole_word_is_right else ImageState.HEADER_CHANGED
    return ImageState.DATA_CHANGED if words.whole_word_is_right else None


def _has_former_trailer(header: bytes, body: memoryview) -> bool:
    size = len(body) - _FORMER_TRAILER.size_bytes
    trailer = _FORMER_TRAILER.unpack(body, size)
    crc: int = zlib.crc32(body[:size], zlib.crc32(header))
    return bool(trailer["data_length"] == size or trailer["crc32"] == crc)
