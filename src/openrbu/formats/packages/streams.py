"""Compressed streams, unpacked in chunks of limited size: gzip, xz, bzip2, LZMA.

A few bytes of bzip2 may unpack to gigabytes (a block of 900 kB is 45 MB before run-length coding,
and 40 bytes if it is all zeros), so the output of each step is limited.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from openrbu.buffers import Buffer
from openrbu.units import KIB, MIB

_PACKED_PIECE_BYTES = 16 * KIB
_UNPACKED_PIECE_BYTES = MIB

_XZ_MEMORY_BYTES = 128 * MIB
"""`xz -9` needs 65 MiB to unpack."""

_LZMA_SIZE_UNKNOWN = b"\xff" * 8

BROKEN_STREAM = (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error)
"""The errors that are raised for a damaged stream."""

Take = Callable[[bytes], object]
"""Called with each unpacked chunk in sequence, and with an empty one at the end of each stream."""


class Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, /, max_length: int = -1) -> bytes: ...


class Inflate:
    """zlib's decompressor with the same attributes as those of `bz2` and `lzma`.

    `window` are the bytes before, to which a later block of a cabinet may refer.
    """

    def __init__(self, wbits: int, window: bytes = b"") -> None:
        if window:
            self._inner = zlib.decompressobj(wbits, zdict=window)
        else:
            self._inner = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: Buffer, /, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail or data, max_length)


@dataclass(frozen=True, slots=True)
class StreamKind:
    """A kind of stream. `pattern` matches its start. `repeats`: several streams that directly
    follow each other are one content."""

    name: str
    pattern: bytes
    decompressor: Callable[[], Decompressor]
    repeats: bool = True


GZIP = StreamKind(
    "gzip",
    # After the magic number: flags, a time, the compression level, the system (RFC 1952, 2.3).
    rb"\x1f\x8b\x08[\x00-\x1f][\x00-\xff]{4}[\x00\x02\x04][\x00-\x0d\xff]",
    lambda: Inflate(31),
)
XZ = StreamKind(
    "xz",
    re.escape(b"\xfd7zXZ\0"),
    lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
)
BZIP2 = StreamKind("bzip2", rb"BZh[1-9]1AY&SY", bz2.BZ2Decompressor)
LZMA = StreamKind(
    "lzma",
    # The usual properties, a dictionary of 64 KiB up, a size below 4 GiB or none, and the first
    # byte of the coder, which is zero. Other bytes may match by chance: see `looks_like_lzma`.
    rb"\x5d\x00\x00[\x00-\xff][\x00-\x08](?:\xff{8}|[\x00-\xff]{4}\x00{4})\x00",
    lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY_BYTES),
    repeats=False,
)
STREAM_KINDS = (GZIP, XZ, BZIP2, LZMA)


def looks_like_lzma(view: memoryview, start: int) -> bool:
    """Whether bytes that match the pattern of `.lzma` are such a stream: the first chunk unpacks.

    The size of the dictionary must be a power of two, or one and a half of it, as all programs
    write it.
    """
    (dictionary,) = struct.unpack_from("<I", view, start + 1)
    if (
        dictionary == 0
        or dictionary >> (dictionary.bit_length() - 2) << (dictionary.bit_length() - 2)
        != dictionary
    ):
        return False
    decompressor = LZMA.decompressor()
    try:
        piece = decompressor.decompress(
            view[start : start + _PACKED_PIECE_BYTES], _UNPACKED_PIECE_BYTES
        )
    except BROKEN_STREAM:
        return False
    return bool(piece)


def unpack(kind: StreamKind, view: memoryview, start: int, take: Take) -> int:
    """Unpack the stream at `start`, and those of the same kind that follow. Returns the end.

    :raise EOFError: when it is cut short. Else one of `BROKEN_STREAM` when it is damaged.
    """
    position = start
    while True:
        position = unpack_one(kind.decompressor(), view, position, take)
        if not (kind.repeats and re.match(kind.pattern, view[position : position + KIB])):
            return position


def unpack_one(decompressor: Decompressor, view: memoryview, position: int, take: Take) -> int:
    """Unpack one stream at `position`. Returns the end.

    :raise EOFError: when it is cut short. Else one of `BROKEN_STREAM` when it is damaged.
    """

    def more() -> Buffer:
        nonlocal position
        packed = view[position : position + _PACKED_PIECE_BYTES]
        position += len(packed)
        return packed

    for piece in unpacked(decompressor, more, _UNPACKED_PIECE_BYTES):
        take(piece)
    take(b"")
    return position - len(decompressor.unused_data)


def unpacked(
    decompressor: Decompressor, more: Callable[[], Buffer], most_bytes: int
) -> Iterator[bytes]:
    """The content of one stream, in chunks of at most `most_bytes`. `more` gives the next packed
    bytes, none at the end.

    :raise EOFError: when it is cut short. Else one of `BROKEN_STREAM` when it is damaged.
    """
    while not decompressor.eof:
        wants = decompressor.needs_input
        packed = more() if wants else b""
        piece = decompressor.decompress(packed, most_bytes)
        if piece:
            yield piece
        elif wants and not len(packed) and not decompressor.eof:
            raise EOFError("it is cut short")


def lzma_of_zip(view: memoryview, size_bytes: int | None) -> tuple[memoryview, Decompressor]:
    """Prepare the LZMA stream in a zip member, which has a shorter header than `lzma` reads.

    `size_bytes` is the size of the content; None: the stream has a mark at its end. Returns the
    bytes after the header, and the decompressor for them. The header (PKWARE's APPNOTE, 5.8.8) is
    two bytes of version, a u16 with the size of the properties, and the properties.

    :raise lzma.LZMAError: when the properties are not those of LZMA.
    :raise EOFError: when it is cut short.
    """
    if len(view) < 9:
        raise EOFError("it is cut short")
    (properties_size,) = struct.unpack_from("<H", view, 2)
    if properties_size != 5:
        raise lzma.LZMAError(f"{properties_size} bytes of LZMA properties, not 5")
    size = _LZMA_SIZE_UNKNOWN if size_bytes is None else struct.pack("<Q", size_bytes)
    decompressor = LZMA.decompressor()
    decompressor.decompress(bytes(view[4:9]) + size, 0)
    return view[9:], decompressor


def collected(unpacking: Callable[[Take], object], count: Take) -> memoryview:
    """The whole output of `unpacking`. `count` is called with each chunk first, and may raise."""
    content = bytearray()

    def take(piece: bytes) -> None:
        count(piece)
        content.extend(piece)

    unpacking(take)
    return memoryview(content)
