"""Whether an image is whole, by its two check words; and if not, what was done to it.

Facts: docs/reference/image.md, I4 and I5. Nothing in a header says how long the data is: the end
of an image is where the words hold. That most real data is a whole number of KiB only says where
to look first.
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
    judge,
    register,
    sizes_by_data,
)
from openrbu.formats.layout import Field, Layout
from openrbu.units import MIB

MAX_DATA_BYTES = 64 * MIB
"""How far behind a header its check words are looked for."""

MAX_CLAIMS = 8
"""Sizes that are tried in one image: its own, and what chance or malice adds."""

_FORMER_TRAILER = Layout(
    "the trailer of openrbu before 0.2",
    Field("data_length", "I", unit="bytes"),
    Field("crc32", "I"),
)


class ImageState(Enum):
    """What an image's check words say of it."""

    WHOLE = "whole"
    HEADER_CHANGED = "header_changed"
    """The word over the data is right, the one over header and data is not."""

    DATA_CHANGED = "data_changed"
    """Header and size are those that the second word was made for, the data is not."""

    BYTES_BEHIND = "bytes_behind"
    """The words hold further in front: what is behind them is none of the image."""

    CUT = "cut"
    """The words hold nowhere: the end is missing, or header and data were both changed."""

    FORMER = "made_before_0.2"
    """It ends in what openrbu before 0.2 wrote: the size of the data, and zlib's CRC-32."""

    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class End:
    """Where an image ends: how much data there is up to its words, and what they say of it."""

    data_size_bytes: int
    state: ImageState


@dataclass(frozen=True, slots=True)
class Judgement:
    """An image's state, and its end where that is known. `end.state` is how the image up to there
    is; it differs from `state` where bytes are behind it."""

    state: ImageState
    end: End | None = None


def judge_image(header: bytes, body: memoryview) -> Judgement:
    """Judge an image whose header is sound. `body`: all that is behind the header."""
    size = len(body) - CHECK_WORDS_BYTES
    if size <= 0:
        return Judgement(ImageState.CUT if len(body) else ImageState.NO_DATA)
    state = _state_at_end(header, body)
    if state is not None:
        return Judgement(state, End(size, state))
    if _has_former_trailer(header, body):
        return Judgement(ImageState.FORMER)
    end = find_end(header, body)
    return Judgement(ImageState.CUT) if end is None else Judgement(ImageState.BYTES_BEHIND, end)


def find_end(header: bytes, body: memoryview) -> End | None:
    """Where in `body` the image ends that begins with this header; None where nothing tells.

    A whole image is preferred to one whose words say that it was changed. A changed header only
    shows at sizes of whole KiB.
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


def describe_damage(judgement: Judgement, body_size_bytes: int) -> str | None:
    """What is wrong with an image, in one line; None: nothing."""
    if judgement.state is not ImageState.BYTES_BEHIND:
        return _DAMAGE[judgement.state]
    assert judgement.end is not None
    behind = body_size_bytes - judgement.end.data_size_bytes - CHECK_WORDS_BYTES
    text = f"{behind} bytes are behind the image, which ends where its check words hold"
    inner = _DAMAGE[judgement.end.state]
    return f"{text}; and {inner}" if inner else f"{text}: rbu extract gets it out"


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
        "the image was cut short, or header and data were both changed: its check words are "
        "nowhere in it; get it again"
    ),
    ImageState.FORMER: (
        "the image was made by openrbu before 0.2, with a checksum that no real BIOS knows: wrap "
        "it again with rbu build"
    ),
    ImageState.NO_DATA: "the image has a header but no data",
}


def _state_at_end(header: bytes, body: memoryview) -> ImageState | None:
    """What the last 8 bytes say; None where they are no check words of this image."""
    verdict = judge(header, body)
    if verdict.data_holds:
        return ImageState.WHOLE if verdict.whole_holds else ImageState.HEADER_CHANGED
    return ImageState.DATA_CHANGED if verdict.whole_holds else None


def _has_former_trailer(header: bytes, body: memoryview) -> bool:
    size = len(body) - _FORMER_TRAILER.size_bytes
    trailer = _FORMER_TRAILER.unpack(body, size)
    crc: int = zlib.crc32(body[:size], zlib.crc32(header))
    return bool(trailer["data_length"] == size or trailer["crc32"] == crc)
