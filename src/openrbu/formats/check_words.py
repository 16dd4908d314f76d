"""The two check words that the vendor puts behind an image's data, and what they tell.

Facts: docs/reference/image.md, I3 and I5. Both words are the register of a reflected CRC-32
(0xEDB88320, start 0xFFFFFFFF) without the final complement: the first over the n bytes of data,
the second over header, data and the first word.

Such a register is linear, so where the first word is right the second one depends on the header
and on n alone: it is the register after the header, XOR the start, moved on by n + 4 bytes of
zeros. That has two uses here. Data is gone through once, not twice. And the end of an image can be
found without knowing its data, even when the data was changed: it is where the second word stands
that this header has with a data size of as many bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from openrbu.buffers import Buffer
from openrbu.formats.layout import Field, Layout
from openrbu.lazy import np, npt
from openrbu.units import KIB, MIB

CHECK_WORDS = Layout(
    "the check words",
    Field("data_word", "I"),
    Field("whole_word", "I"),
)
CHECK_WORDS_BYTES = CHECK_WORDS.size_bytes

_START = 0xFFFFFFFF
_POLYNOMIAL = 0xEDB88320
_ONE = 0x80000000
"""The polynomial 1: in a reflected register bit 31 is the coefficient of x to the power 0."""

_A_BYTE = 0x00800000
"""x to the power 8: by this a register is multiplied when a byte of zeros is fed in."""

_WORD_BYTES = 4
_POSITIONS_AT_ONCE = MIB


def register(data: Buffer, start: int = _START) -> int:
    """The CRC-32 register after `data`, without the final complement."""
    return zlib.crc32(data, start ^ _START) ^ _START


def check_words(header: Buffer, data: Buffer) -> bytes:
    """The 8 bytes that belong behind header and data."""
    return CHECK_WORDS.pack(
        data_word=register(data), whole_word=_whole_word(register(header), len(data))
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of the words behind some data are right.

    `whole_holds`: the second word is the one that this header has with data of this size. It is
    so where only the data, or the first word, was changed.
    """

    data_holds: bool
    whole_holds: bool


def judge(header: Buffer, body: memoryview) -> Verdict:
    """Look at the last 8 bytes of `body`, the data and its words. Goes through the data once."""
    size = len(body) - CHECK_WORDS_BYTES
    if size < 0:
        return Verdict(data_holds=False, whole_holds=False)
    words = CHECK_WORDS.unpack(body, size)
    return Verdict(
        data_holds=words["data_word"] == register(body[:size]),
        whole_holds=words["whole_word"] == _whole_word(register(header), size),
    )


def claimed_sizes(
    header: Buffer, part: Buffer, offset: int = 0, *, whole_kib: bool
) -> Iterator[int]:
    """The data sizes, ascending, at which the header's second word stands where it belongs.

    `part` is what lies behind the header, from `offset` bytes behind it on; sizes whose second
    word is not in it are not looked at. `whole_kib`: only sizes of whole KiB are. Of 2**32 sizes
    looked at, one holds by chance.
    """
    step = KIB if whole_kib else 1
    first = max(1, offset - _WORD_BYTES)
    first += -first % step
    place = first + _WORD_BYTES - offset
    count = (len(part) - place - _WORD_BYTES) // step + 1
    moved = _times(register(header) ^ _START, _power(first + _WORD_BYTES))
    while count > 0:
        here = min(count, _POSITIONS_AT_ONCE)
        # A u32 at each step: they may overlap, and nothing is copied.
        stored = np.ndarray((here,), "<u4", part, offset=place, strides=(step,))
        for index in np.flatnonzero(stored == _times_each(_sequence(step)[:here], moved)).tolist():
            yield first + index * step
        count -= here
        first += here * step
        place += here * step
        moved = _times(moved, _power(here * step))


def sizes_by_data(body: memoryview) -> Iterator[int]:
    """The data sizes of whole KiB, ascending, at which the first word is right."""
    state = _START
    for end in range(KIB, len(body) - CHECK_WORDS_BYTES + 1, KIB):
        state = register(body[end - KIB : end], state)
        if CHECK_WORDS.unpack(body, end)["data_word"] == state:
            yield end


def _whole_word(after_header: int, data_size_bytes: int) -> int:
    """The second word, where the first is right."""
    return _times(after_header ^ _START, _power(data_size_bytes + _WORD_BYTES))


@lru_cache(maxsize=64)
def _power(size_bytes: int) -> int:
    """What a register is multiplied by when `size_bytes` zeros are fed in."""
    power, base = _ONE, _A_BYTE
    while size_bytes:
        if size_bytes & 1:
            power = _times(power, base)
        base = _times(base, base)
        size_bytes >>= 1
    return power


def _times(one: int, other: int) -> int:
    """The product of two polynomials modulo the CRC's."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & _START
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def _times_each(values: npt.NDArray[np.uint32], factor: int) -> npt.NDArray[np.uint32]:
    """Each value times `factor`: a table for each of its four bytes."""
    product = np.zeros(len(values), np.uint32)
    for byte in range(_WORD_BYTES):
        table = np.zeros(256, np.uint32)
        for bit in range(8):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(
                _times(1 << (8 * byte + bit), factor)
            )
        product ^= table[values >> np.uint32(8 * byte) & np.uint32(0xFF)]
    return product


@lru_cache(maxsize=2)
def _sequence(step: int) -> npt.NDArray[np.uint32]:
    """The powers for 0, `step`, 2 × `step` … bytes of zeros; shape (`_POSITIONS_AT_ONCE`,)."""
    powers = np.array([_ONE], np.uint32)
    while len(powers) < _POSITIONS_AT_ONCE:
        moved = _times_each(powers, _power(step * len(powers)))
        powers = np.concatenate((powers, moved))
    return powers
