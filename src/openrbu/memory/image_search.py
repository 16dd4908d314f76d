"""What makes an image header in RAM an image: check words behind it that hold.

The work is bounded: see `WORK_BYTES`. A header that falls victim to the bound says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from openrbu.formats.check_words import CHECK_WORDS_BYTES, claimed_sizes, judge
from openrbu.formats.hdr import Header, Image
from openrbu.formats.judgement import MAX_CLAIMS, MAX_DATA_BYTES, ImageState
from openrbu.lazy import np
from openrbu.memory.ram_array import RamArray
from openrbu.units import GIB, MIB, PhysAddr

WORK_BYTES = 4 * GIB
"""How much RAM is looked at behind all headers together."""

_EVERY_BYTE_COSTS = 16
"""Looking for an end at each byte is about so many times slower than a checksum."""

_PIECE_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class Behind:
    """What is behind a header: `size_bytes` and `data_word` are those of an image that is whole,
    or whose data was overwritten; `why` says in words why it is not whole."""

    state: ImageState
    size_bytes: int = 0
    data_word: int = 0
    why: str = ""


_CUT = Behind(
    ImageState.CUT,
    why="image: cut, or not in one piece: its check words are not behind the header",
)
_NOT_LOOKED_AT = Behind(ImageState.CUT, why="image: not checked, too many headers claim to be one")
_CHANGED_MEANWHILE = Behind(
    ImageState.DATA_CHANGED, why="image: its header changed while it was looked at"
)


class ImageSearch:
    """Looks behind headers in RAM.

    `flash_size_bytes`: how much data an image has; None: as much as its check words say, 64 MiB at
    most.
    """

    def __init__(self, ram: RamArray, flash_size_bytes: int | None) -> None:
        self._ram = ram
        self._flash_size_bytes = flash_size_bytes
        self._work = WORK_BYTES

    def look_behind(self, address: PhysAddr, header: Header) -> Behind:
        """What is in RAM behind a header."""
        start = PhysAddr(address + header.size_bytes)
        room = int(self._ram.room(np.array([start]))[0]) - CHECK_WORDS_BYTES
        overwritten: Behind | None = None
        for size in self._sizes(header.build(), start, room):
            behind = self._judge(address, header, size)
            if behind.state is ImageState.WHOLE or behind is _CHANGED_MEANWHILE:
                return behind
            if behind.size_bytes:
                overwritten = overwritten or behind
        if self._work < 0:
            return _NOT_LOOKED_AT
        return overwritten or _CUT

    def _judge(self, address: PhysAddr, header: Header, data_size_bytes: int) -> Behind:
        """What the check words behind so much data say."""
        size = header.size_bytes + data_size_bytes + CHECK_WORDS_BYTES
        self._work -= size
        if self._work < 0:
            return _NOT_LOOKED_AT
        data = self._ram.data(address, size)
        if data[: header.size_bytes] != header.build():
            return _CHANGED_MEANWHILE
        image = Image(header, data[header.size_bytes :])
        verdict = judge(header.build(), image.body)
        if verdict.data_holds and verdict.whole_holds:
            return Behind(ImageState.WHOLE, size, image.data_word)
        if not verdict.whole_holds:
            return _CUT
        return Behind(
            ImageState.DATA_CHANGED,
            size,
            image.data_word,
            f"image: overwritten: its {size} bytes are there, but the data does not have its check "
            "word",
        )

    def _sizes(self, header: bytes, start: PhysAddr, room: int) -> Iterator[int]:
        """Data sizes that an image which begins with `header` may have; its data is at `start`."""
        size = self._flash_size_bytes
        if size is not None:
            if size <= room:
                yield size
            return
        room = min(room, MAX_DATA_BYTES)
        for whole_kib in (True, False):
            yield from islice(self._claimed(header, start, room, whole_kib=whole_kib), MAX_CLAIMS)

    def _claimed(
        self, header: bytes, start: PhysAddr, room: int, *, whole_kib: bool
    ) -> Iterator[int]:
        """The sizes up to `room` at which the second check word is that of this header."""
        limit = start + room + CHECK_WORDS_BYTES
        for run in self._ram.runs(start, PhysAddr(limit)):
            for low in range(run.start, run.end, _PIECE_BYTES):
                end = min(low + _PIECE_BYTES, run.end)
                self._work -= (end - low) * (1 if whole_kib else _EVERY_BYTE_COSTS)
                if self._work < 0:
                    return
                end = min(end + 3, limit)  # a word may begin here and end in the next piece
                piece = self._ram.data(PhysAddr(low), end - low)
                yield from claimed_sizes(header, piece, low - start, whole_kib=whole_kib)
