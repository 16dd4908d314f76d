"""Whether an image header in RAM begins an image: the right check words have to follow it.

The work is limited: see `WORK_BYTES`. A header that is not checked because of the limit says so.
What costs little is done for all headers first, so that a few headers without an image, for which
everything is tried, do not hide an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from openrbu.formats.check_words import (
    CHECK_WORDS,
    CHECK_WORDS_BYTES,
    CheckWordsResult,
    claimed_sizes,
    compare_words,
    sizes_by_data,
)
from openrbu.formats.hdr import Header, Image
from openrbu.formats.image_check import MAX_CLAIMS, MAX_DATA_BYTES, ImageState
from openrbu.memory.ram_array import RamArray
from openrbu.units import GIB, MIB, PhysAddr

WORK_BYTES = 4 * GIB
"""How much RAM is read for all headers together."""

_BYTEWISE_COST = 16
"""To search for the end at each byte is about so many times slower than a checksum."""

BY_DATA_BYTES = 512 * MIB
"""How much RAM is read to find out for headers without an end whether only they were changed."""

_CHUNK_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class BodyCheck:
    """What follows a header.

    `size_bytes` (of header, data and check words) and the check words are those of an image that is
    whole or of which either the data or the header was changed; else 0. `why` says why it is not
    whole; empty if it is. `is_limited`: the work was at its limit before all was tried.
    """

    state: ImageState
    size_bytes: int = 0
    data_word: int = 0
    whole_word: int = 0
    why: str = ""
    is_limited: bool = False

    @property
    def is_final(self) -> bool:
        """Whether no other check may find more."""
        return self.state is ImageState.WHOLE or self is _CHANGED_MEANWHILE


_CUT = BodyCheck(
    ImageState.CUT,
    why="image: cut, or not in one piece: its check words do not follow the header",
)
_NOT_CHECKED = BodyCheck(
    ImageState.CUT, why="image: not checked, too many headers claim to be one", is_limited=True
)
_CHANGED_MEANWHILE = BodyCheck(
    ImageState.DATA_CHANGED, why="image: its header changed while it was read"
)


class ImageSearch:
    """Checks what follows headers in RAM.

    `flash_size_bytes`: how much data an image has. None: the position of its check words tells, up
    to 64 MiB.
    """

    def __init__(self, ram: RamArray, flash_size_bytes: int | None) -> None:
        self._ram = ram
        self._flash_size_bytes = flash_size_bytes
        self._work = WORK_BYTES
        self._work_by_data = BY_DATA_BYTES

    def check_bodies(self, headers: Sequence[tuple[PhysAddr, Header]]) -> list[BodyCheck]:
        """Check what follows each of these headers, which are at these addresses."""
        bodies = [self._in_whole_kib(*each) for each in headers]
        for check in (self._at_any_byte, self._by_data):
            for number, (address, header) in enumerate(headers):
                before = bodies[number]
                if before.is_final or (before.size_bytes and check == self._by_data):
                    continue
                body = check(address, header)
                if body.is_final or (body is not _CUT and not before.size_bytes):
                    bodies[number] = body
        return bodies

    def _in_whole_kib(self, address: PhysAddr, header: Header) -> BodyCheck:
        return self._by_header(address, header, whole_kib=True)

    def _at_any_byte(self, address: PhysAddr, header: Header) -> BodyCheck:
        if self._flash_size_bytes is not None:
            return _CUT
        return self._by_header(address, header, whole_kib=False)

    def _by_header(self, address: PhysAddr, header: Header, *, whole_kib: bool) -> BodyCheck:
        """The check of an image that has the second check word that belongs to its header."""
        start, room = self._data_of(address, header)
        overwritten: BodyCheck | None = None
        for size in self._sizes(header.build(), start, room, whole_kib=whole_kib):
            body = self._check_size(address, header, size)
            if body.is_final:
                return body
            if body.size_bytes:
                overwritten = overwritten or body
        return overwritten or (_NOT_CHECKED if self._work < 0 else _CUT)

    def _data_of(self, address: PhysAddr, header: Header) -> tuple[PhysAddr, int]:
        """Where an image's data begins, and how much there can be."""
        start = PhysAddr(address + header.size_bytes)
        return start, self._ram.bytes_left_at(start) - CHECK_WORDS_BYTES

    def _by_data(self, address: PhysAddr, header: Header) -> BodyCheck:
        """The check of an image of which only the header was changed, for data of whole KiB."""
        start, room = self._data_of(address, header)
        size = min(room, MAX_DATA_BYTES)
        if self._flash_size_bytes is not None or size <= 0:
            return _CUT
        self._work_by_data -= size
        if self._work_by_data < 0 or self._work < 0:
            return _NOT_CHECKED
        sizes = sizes_by_data(self._ram.data(start, size + CHECK_WORDS_BYTES))
        found = next(sizes, None)
        return _CUT if found is None else self._check_size(address, header, found)

    def _check_size(self, address: PhysAddr, header: Header, data_size_bytes: int) -> BodyCheck:
        """Compare the check words that follow so much data."""
        size = header.size_bytes + data_size_bytes + CHECK_WORDS_BYTES
        self._work -= size
        if self._work < 0:
            return _NOT_CHECKED
        data = self._ram.data(address, size)
        if data[: header.size_bytes] != header.build():
            return _CHANGED_MEANWHILE
        image = Image(header, data[header.size_bytes :])
        right = compare_words(header.build(), image.body)
        state, why = _state(right)
        if state is ImageState.CUT:
            return _CUT
        words = CHECK_WORDS.unpack(image.body, data_size_bytes)
        why = why and f"image: {why.format(size)}"
        return BodyCheck(state, size, words["data_word"], words["whole_word"], why)

    def _sizes(
        self, header: bytes, start: PhysAddr, room: int, *, whole_kib: bool
    ) -> Iterator[int]:
        """The data sizes to try for an image that begins with `header`; its data is at `start`."""
        size = self._flash_size_bytes
        if size is not None:
            if size <= room:
                yield size
            return
        room = min(room, MAX_DATA_BYTES)
        yield from islice(self._claimed(header, start, room, whole_kib=whole_kib), MAX_CLAIMS)

    def _claimed(
        self, header: bytes, start: PhysAddr, room: int, *, whole_kib: bool
    ) -> Iterator[int]:
        """The data sizes, up to `room`, after which this header's second check word stands."""
        limit = start + room + CHECK_WORDS_BYTES
        for run in self._ram.runs(start, PhysAddr(limit)):
            for low in range(run.start, run.end, _CHUNK_BYTES):
                end = min(low + _CHUNK_BYTES, run.end)
                self._work -= (end - low) * (1 if whole_kib else _BYTEWISE_COST)
                if self._work < 0:
                    return
                end = min(end + 3, limit)  # a word may begin here and end in the next chunk
                chunk = self._ram.data(PhysAddr(low), end - low)
                yield from claimed_sizes(header, chunk, low - start, whole_kib=whole_kib)


def _state(right: CheckWordsResult) -> tuple[ImageState, str]:
    """What it says of an image which of its check words are right; and what is wrong."""
    if right.data_word_is_right and right.whole_word_is_right:
        return ImageState.WHOLE, ""
    if right.data_word_is_right:
        text = "its header was changed: the check word over its {} bytes is wrong, that of the "
        return ImageState.HEADER_CHANGED, text + "data is right"
    if right.whole_word_is_right:
        text = "overwritten: its {} bytes are there, but the data does not have its check word"
        return ImageState.DATA_CHANGED, text
    return ImageState.CUT, ""
