"""Where the bytes of a dump lie in physical memory: pieces, ascending, that do not overlap.

A dump may have the same memory twice: a kernel's own text, say, as a segment of its own beside the
RAM that it lies in. Both have to be the same bytes; if not, nobody can say which are right.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from openrbu.buffers import same_bytes
from openrbu.errors import DamagedInputError
from openrbu.formats.elf_core import Read
from openrbu.units import MIB

HIGHEST_ADDRESS = 1 << 52
"""No processor of this architecture has more: 52 bits of a physical address."""

MOST_RANGES = 50_000
"""Of memory with gaps between them. A computer has tens; each takes 0.1 ms in a search."""

COMPARED_BYTES = 256 * MIB
"""How much memory that a dump has twice is compared."""

_AT_ONCE = MIB


class Piece(NamedTuple):
    """Memory from `start` up to, not including, `end`: at `offset` in the file, or zeros that the
    file does not have (None)."""

    start: int
    end: int
    offset: int | None


def in_sequence(pieces: Iterable[Piece], read: Read) -> list[Piece]:
    """The same memory as pieces that ascend and do not overlap. What continues in the file as it
    does in memory is one piece. `read` reads the file.

    :raise DamagedInputError: when there is no memory, an address is above `HIGHEST_ADDRESS`,
        two pieces have different bytes for the same memory, or there are more than `MOST_RANGES`.
    """
    found: list[Piece] = []
    twice: list[Piece] = []
    for piece in sorted(filter(_is_memory, pieces), key=lambda each: (each.start, -each.end)):
        last, end = (found[-1].start, found[-1].end) if found else (0, 0)
        if piece.start < end and not (piece.start >= last and _continues(found[-1], piece)):
            twice.append(_part(piece, piece.start, min(piece.end, end)))
        if piece.end <= end:
            continue
        rest = _part(piece, max(piece.start, end), piece.end)
        if found and rest.start == end and _continues(found[-1], rest):
            found[-1] = Piece(found[-1].start, rest.end, found[-1].offset)
        else:
            found.append(rest)
    if not found:
        raise DamagedInputError("it has no memory in it")
    gaps = sum(one.end != other.start for one, other in pairwise(found))
    if gaps >= MOST_RANGES:
        raise DamagedInputError(
            f"it has {gaps + 1} ranges of memory with gaps between them, more than {MOST_RANGES}"
        )
    _check(found, twice, read)
    return found


def read_pieces(pieces: list[Piece], first: int, start: int, end: int, read: Read) -> bytes:
    """The bytes of [start, end), in which the pieces have no gap; `first` is the number of the
    piece that `start` is in. Shorter where the file ends."""
    parts = []
    for number in range(first, len(pieces)):
        piece = pieces[number]
        if piece.start >= end:
            break
        part = _part(piece, max(start, piece.start), min(end, piece.end))
        size = part.end - part.start
        parts.append(bytes(size) if part.offset is None else read(part.offset, size))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def number_at(pieces: list[Piece], address: int) -> int:
    """The number of the last piece that begins at or below an address; -1: there is none."""
    return bisect_right(pieces, address, key=lambda piece: piece.start) - 1


def _is_memory(piece: Piece) -> bool:
    """Whether it has any bytes.

    :raise DamagedInputError: when its addresses are none of a computer.
    """
    if piece.end > HIGHEST_ADDRESS:
        raise DamagedInputError(
            f"it has memory of {piece.end - piece.start} bytes at {piece.start:#x}: a physical "
            "address has 52 bits"
        )
    return piece.start < piece.end


def _part(piece: Piece, start: int, end: int) -> Piece:
    offset = None if piece.offset is None else piece.offset + start - piece.start
    return Piece(start, end, offset)


def _continues(before: Piece, after: Piece) -> bool:
    """Whether in the file, too, `after` is where the bytes of `before` would go on."""
    if before.offset is None or after.offset is None:
        return before.offset is after.offset
    return after.offset - before.offset == after.start - before.start


def _check(found: list[Piece], twice: list[Piece], read: Read) -> None:
    """Compare what the dump has twice."""
    if sum(piece.end - piece.start for piece in twice) > COMPARED_BYTES:
        raise DamagedInputError(
            f"its ranges overlap by more than {COMPARED_BYTES // MIB} MiB, the first at "
            f"{twice[0].start:#x}"
        )
    for piece in twice:
        number = number_at(found, piece.start)
        for start in range(piece.start, piece.end, _AT_ONCE):
            end = min(start + _AT_ONCE, piece.end)
            number = max(number, number_at(found, start))
            one = read_pieces(found, number, start, end, read)
            other = read_pieces([piece], 0, start, end, read)
            if not same_bytes(one, other):
                raise DamagedInputError(
                    f"two of its ranges have different bytes for the memory at {start:#x}"
                )
