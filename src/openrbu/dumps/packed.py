"""Compressed dumps: gzip, zlib, xz, bzip2 and Zstandard streams (docs/reference/dumps.md, U4)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from openrbu.dumps.kinds import is_zlib
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.formats.packages.streams import (
    BROKEN_STREAM,
    BZIP2,
    XZ,
    Decompressor,
    Inflate,
    StreamKind,
    unpacked,
)
from openrbu.system.installed import remedy_for
from openrbu.units import KIB

PACKED_BYTES = 64 * KIB
_UNPACKED_BYTES = 256 * KIB
"""Chunks that stay in the processor's cache: with larger ones it takes twice as long."""

_START_BYTES = 32
"""Of a stream: enough for its pattern."""


def _zstd_library() -> Any:
    """The standard library's module of Python 3.14, or the same for older ones; None: neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _zstd() -> Decompressor:
    library = _zstd_library()
    if library is None:
        raise ObstacleError(
            "zstd streams are read with Python 3.14, or with the package backports-zstd "
            f"({remedy_for('zstd')}); without: zstd -dc FILE | rbu scan -"
        )
    decompressor: Decompressor = library.ZstdDecompressor()
    return decompressor


_GZIP = StreamKind("gzip", rb"\x1f\x8b\x08[\x00-\x1f]", lambda: Inflate(31))
_ZLIB = StreamKind("zlib", rb"\x78[\x01\x5e\x9c\xda]", lambda: Inflate(15))
_ZSTD = StreamKind(
    "zstd",  # a frame, or one that may be skipped
    rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)",
    _zstd,
)
_KINDS = (_GZIP, XZ, BZIP2, _ZSTD)


def stream_kind(head: bytes) -> StreamKind | None:
    """The kind of the stream that begins with `head`; None if that is no compressed stream."""
    for kind in _KINDS:
        if re.match(kind.pattern, head):
            return kind
    return _ZLIB if is_zlib(head) and _unpacks(head) else None


def unpacked_streams(kind: StreamKind, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content of the stream in `chunks`, and of those of the same kind that follow.

    :raise DamagedInputError: when it is cut or damaged, or something else follows.
    :raise ObstacleError: when the library for it is not installed.
    """
    source = _Source(chunks)
    number = 0
    while True:
        decompressor = kind.decompressor()
        try:
            yield from unpacked(decompressor, source.take, _UNPACKED_BYTES)
        except _broken() as error:
            raise DamagedInputError(f"its {kind.name} stream can't be unpacked: {error}") from None
        source.give_back(decompressor.unused_data)
        number += 1
        start = source.look(_START_BYTES)
        if not re.match(kind.pattern, start):
            break
    for chunk in iter(source.take, b""):
        if chunk.count(0) != len(chunk):
            raise DamagedInputError(f"something that is not {kind.name} follows its {kind.name}")


class _Source:
    """Chunks of bytes, of which some can be given back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self) -> bytes:
        """The next bytes; none at the end."""
        rest, self._rest = self._rest, b""
        return rest or next(self._chunks, b"")

    def give_back(self, data: bytes) -> None:
        self._rest = data + self._rest

    def look(self, size_bytes: int) -> bytes:
        """The next so many bytes, which stay; fewer at the end."""
        while len(self._rest) < size_bytes and (more := next(self._chunks, b"")):
            self._rest += more
        return self._rest[:size_bytes]


def _unpacks(head: bytes) -> bool:
    try:
        return len(Inflate(15).decompress(head, _UNPACKED_BYTES)) > _START_BYTES
    except BROKEN_STREAM:
        return False


def _broken() -> tuple[type[Exception], ...]:
    library = _zstd_library()
    return BROKEN_STREAM if library is None else (*BROKEN_STREAM, library.ZstdError)
