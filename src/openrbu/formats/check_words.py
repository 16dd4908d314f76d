"""The two check words that the vendor puts after an image's data, and what they prove.

Facts: docs/reference/image.md, I3 and I5. Both words are the register of a reflected CRC-32
(0xEDB88320, start 0xFFFFFFFF) without the final complement: the first over the n bytes of data,
the second over header, data and the first word.

Such a register is linear. So if the first word is right, the second one depends only on the header
and on n: it is the register after the header, XOR the start, moved on by n + 4 bytes of zeros. This
has two uses here. The data is read once, not twice. And the end of an image is found without its
data, even if the data was changed: it is where the second word stands that belongs to this header
and to a data size of as many bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
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
"""x to the power 8: a byte of zeros multiplies a register by this."""

_WORD_BYTES = 4
_POSITIONS_AT_ONCE = MIB
_FEW_VALUES = 64 * KIB

_FEW_BYTES = 512
_FEW_POSITIONS = 8 * KIB
"""So many take less time one by one than with numpy, which has to be loaded for whole KiB."""


def register(data: Buffer, start: int = _START) -> int:
    """The CRC-32 register after `data`, without the final complement."""
    return zlib.crc32(data, start ^ _START) ^ _START


def check_words(header: Buffer, data: Buffer) -> bytes:
    """The 8 bytes that belong after header and data."""
    return CHECK_WORDS.pack(
        data_word=register(data), whole_word=_whole_word(register(header), len(data))
    )


@dataclass(frozen=True, slots=True)
class CheckWordsResult:
    """Which of the two check words are right.

    `whole_word_is_right`: the second word belongs to this header and to a data size of as many
    bytes. This is also true when only the data, or the first word, was changed.
    """

    data_word_is_right: bool
    whole_word_is_right: bool


def compare_words(header: Buffer, body: memoryview) -> CheckWordsResult:
    """Compare the last 8 bytes of `body` with the check words that belong after `header` and the
    data, which is the rest of `body`. Reads the data once."""
    size = len(body) - CHECK_WORDS_BYTES
    if size < 0:
        return CheckWordsResult(data_word_is_right=False, whole_word_is_right=False)
    words = CHECK_WORDS.unpack(body, size)
    return CheckWordsResult(
        data_word_is_right=words["data_word"] == register(body[:size]),
        whole_word_is_right=words["whole_word"] == _whole_word(register(header), size),
    )


def claimed_sizes(
    header: Buffer, part: Buffer, offset: int = 0, *, whole_kib: bool
) -> Iterator[int]:
    """The data sizes in bytes, ascending, for which the right second word of this header is found.

    `part` are the bytes from `offset` bytes after the header on. Only sizes are tried whose second
    word lies in `part`, and with `whole_kib` only sizes of whole KiB. Of 2**32 sizes, one matches
    by chance.
    """
    step = KIB if whole_kib else 1
    first = max(1, offset - _WORD_BYTES)
    first += -first % step
    place = first + _WORD_BYTES - offset
    count = (len(part) - place - _WORD_BYTES) // step + 1
    moved = _times(register(header) ^ _START, _power(first + _WORD_BYTES))
    if count <= (_FEW_POSITIONS if whole_kib else _FEW_BYTES):
        yield from _among_few(_words_at(part, place, count, step), moved, first, step)
        return
    while count > 0:
        here = min(count, _POSITIONS_AT_ONCE)
        # A u32 at each step: they may overlap, and nothing is copied.
        stored = np.ndarray((here,), "<u4", part, offset=place, strides=(step,))
        due = _times_each(_sequence(step, here), moved)
        for index in np.flatnonzero(stored == due).tolist():
            yield first + index * step
        count -= here
        first += here * step
        place += here * step
        moved = _times(moved, _power(here * step))


def _among_few(stored: Sequence[int], moved: int, first: int, step: int) -> Iterator[int]:
    """The sizes from `first` on, in steps, at which the stored word is the due one. `moved` is that
    of the first."""
    lowest, low, high, highest = _tables_of(step)
    size = first
    for word in stored:
        if word == moved:
            yield size
        size += step
        moved = (
            lowest[moved & 0xFF]
            ^ low[moved >> 8 & 0xFF]
            ^ high[moved >> 16 & 0xFF]
            ^ highest[moved >> 24]
        )


def _words_at(part: Buffer, place: int, count: int, step: int) -> list[int]:
    """The u32 at `place` and at each of the `count` steps from there on."""
    if count <= 0:
        return []
    view = memoryview(part).cast("B")[place : place + (count - 1) * step + _WORD_BYTES]
    if step % _WORD_BYTES == 0:
        return view.cast("I")[:: step // _WORD_BYTES].tolist()
    bytes_of_it = view.tolist()
    return [
        a | b << 8 | c << 16 | d << 24
        for a, b, c, d in zip(
            bytes_of_it, bytes_of_it[1:], bytes_of_it[2:], bytes_of_it[3:], strict=False
        )
    ]


def sizes_by_data(body: memoryview) -> Iterator[int]:
    """The data sizes of whole KiB in bytes, ascending, for which the first word is right."""
    state = _START
    for end in range(KIB, len(body) - CHECK_WORDS_BYTES + 1, KIB):
        state = register(body[end - KIB : end], state)
        if CHECK_WORDS.unpack(body, end)["data_word"] == state:
            yield end


def changed_byte(size_bytes: int, difference: int, mask: int, first: int, last: int) -> int | None:
    """The offset of the one byte in [first, last) of data whose bits `mask` were flipped, by the
    `difference` (XOR) that this makes to the register after all `size_bytes` bytes of data. None
    if the difference has another reason. A flip of one bit never has the same difference at two
    places of less than 512 MiB."""
    for end in range(min(last, size_bytes), max(first, 0), -_POSITIONS_AT_ONCE):
        start = max(first, 0, end - _POSITIONS_AT_ONCE)
        nearest = _times(mask, _power(size_bytes - end + 1))
        differences = _times_each(_sequence(1, end - start), nearest)
        found = np.flatnonzero(differences == difference)
        if len(found):
            return end - 1 - int(found[0])
    return None


def _whole_word(after_header: int, data_size_bytes: int) -> int:
    """The right second word after this much data, if the first word is right.

    `after_header`: the register after the header.
    """
    return _times(after_header ^ _START, _power(data_size_bytes + _WORD_BYTES))


@lru_cache(maxsize=2)
def _tables_of(step: int) -> tuple[list[int], ...]:
    """For each byte of a value, the lowest first: its products with the factor of so many bytes of
    zeros."""
    factor = _power(step)
    tables = []
    for number in range(_WORD_BYTES):
        table = [0]
        for bit in range(8):
            product = _times(1 << (8 * number + bit), factor)
            table += [each ^ product for each in table]
        tables.append(table)
    return tuple(tables)


@lru_cache(maxsize=64)
def _power(size_bytes: int) -> int:
    """The factor by which `size_bytes` bytes of zeros multiply a register."""
    power, base = _ONE, _A_BYTE
    while size_bytes:
        if size_bytes & 1:
            power = _times(power, base)
        base = _times(base, base)
        size_bytes >>= 1
    return power


def _times(one: int, other: int) -> int:
    """The product of two polynomials modulo the polynomial of the CRC."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & _START
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def _times_each(values: npt.NDArray[np.uint32], factor: int) -> npt.NDArray[np.uint32]:
    """Each value times `factor`, with a table for each part of a value; shape as `values`, which
    are contiguous."""
    part = np.dtype("<u2" if len(values) > _FEW_VALUES else "u1")  # larger tables take longer
    columns = values.view(part).reshape(len(values), -1)
    product = np.zeros(len(values), np.uint32)
    bits = 8 * part.itemsize
    for number in range(columns.shape[1]):
        table = np.zeros(1 << bits, np.uint32)
        for bit in range(bits):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(
                _times(1 << (bits * number + bit), factor)
            )
        product ^= table[columns[:, number]]
    return product


def _sequence(step: int, count: int) -> npt.NDArray[np.uint32]:
    """The factors for 0, `step`, 2 × `step` … bytes of zeros; shape (count,), at most
    `_POSITIONS_AT_ONCE`."""
    return _longer_sequence(step, 1 << (count - 1).bit_length())[:count]


@lru_cache(maxsize=4)
def _longer_sequence(step: int, count: int) -> npt.NDArray[np.uint32]:
    """`_sequence` where `count` is a power of two."""
    powers = np.array([_ONE], np.uint32)
    while len(powers) < count:
        moved = _times_each(powers, _power(step * len(powers)))
        powers = np.concatenate((powers, moved))
    return powers
