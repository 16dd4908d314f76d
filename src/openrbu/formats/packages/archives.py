"""Members of tar and zip archives, read with the standard library.

`zipfile` can't unpack bzip2 and LZMA in chunks of limited size; `streams` does that.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from openrbu.formats.packages.streams import (
    Decompressor,
    Take,
    collected,
    lzma_of_zip,
    unpack_one,
)
from openrbu.units import MIB

BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # a zip member with a password; a tar header that nests without end
    ValueError,
    OverflowError,
    struct.error,
)
"""The errors that the standard library raises for damaged archives."""

TAR_MAGIC = rb"ustar(?:\x0000|  \x00)"  # as POSIX and as GNU write it
TAR_MAGIC_OFFSET = 257

_ZIP_MEMBER = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP_END_BYTES = 22
_ZIP_END_WITHIN_BYTES = _ZIP_END_BYTES + 0xFFFF
"""The size of a zip's end record and the longest comment after it."""

_MAX_ZIP_DIRECTORY_BYTES = 4 * MIB
"""`zipfile` reads the whole directory: about 90,000 members at most. 64-bit sizes are refused."""

_ZIP_LOCAL_HEADER_BYTES = 30
_ZIP_ENCRYPTED = 0x1
_ZIP_LZMA_HAS_END_MARK = 0x2


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar archive; `content` is empty if it is not a regular file. `end`: where the
    archive continues after it."""

    name: str
    content: memoryview
    end: int


def tar_members(view: memoryview, start: int) -> Iterator[TarMember]:
    """The members of the tar archive at `start`.

    :raise tarfile.TarError: (or another of `BROKEN_ARCHIVE`) when it is damaged or cut short.
    """
    file = cast("IO[bytes]", _ViewFile(view, start))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            plain = member.isreg() and not member.issparse()
            first, size = member.offset_data, member.size if plain else 0
            if size < 0 or not start <= first <= first + size <= len(view):
                yield TarMember(member.name, view[:0], len(view))
                raise tarfile.ReadError(f"member {member.name} is cut short")
            yield TarMember(member.name, view[first : first + size], first + size)


def zip_start(view: memoryview) -> int | None:
    """The offset at which the zip archive at the end of `view` starts; of a damaged archive, that
    of its end record. None if there is none."""
    zip_end = _zip_end(view)
    if zip_end is None:
        return 0 if bytes(view[:4]) == _ZIP_MEMBER else None
    try:
        archive = open_zip(view)
    except BROKEN_ARCHIVE:
        return zip_end
    return min((max(0, info.header_offset) for info in archive.infolist()), default=None)


def _zip_end(view: memoryview) -> int | None:
    """The offset of a zip archive's end record, found in the same way as `zipfile` does."""
    without_comment = bytes(view[-_ZIP_END_BYTES:])
    if without_comment.startswith(_ZIP_END) and without_comment.endswith(b"\0\0"):
        return len(view) - len(without_comment)
    tail = bytes(view[-_ZIP_END_WITHIN_BYTES:])
    position = tail.rfind(_ZIP_END)
    return None if position < 0 else len(view) - len(tail) + position


def open_zip(view: memoryview) -> zipfile.ZipFile:
    """The zip archive at the end of `view`.

    :raise EOFError: when its end is missing.
    :raise zipfile.BadZipFile: (or another of `BROKEN_ARCHIVE`) when it is damaged, or its directory
        is too large.
    """
    end = _zip_end(view)
    if end is None or len(view) < end + _ZIP_END_BYTES:
        raise EOFError("it is cut short")
    (directory_bytes,) = struct.unpack_from("<I", view, end + 12)
    has_zip64 = bytes(view[max(0, end - 20) : end]).startswith(_ZIP64_LOCATOR)
    if has_zip64 or directory_bytes > _MAX_ZIP_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("its directory is larger than any package's")
    return zipfile.ZipFile(cast("IO[bytes]", _ViewFile(view)))


def zip_content(
    view: memoryview, archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: Take
) -> memoryview:
    """The content of a member. `count` is called with each chunk first, and may raise.

    :raise zipfile.BadZipFile: (or another of `BROKEN_ARCHIVE`) when it is damaged, has a password,
        or is packed in a way that is not known.
    """
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return collected(lambda take: _read_all(archive, info, take), count)
    packed = _packed_bytes(view, info)
    decompressor: Decompressor
    if info.compress_type == zipfile.ZIP_BZIP2:
        decompressor = bz2.BZ2Decompressor()
    elif info.compress_type == zipfile.ZIP_LZMA:
        has_mark = bool(info.flag_bits & _ZIP_LZMA_HAS_END_MARK)
        packed, decompressor = lzma_of_zip(packed, None if has_mark else info.file_size)
    else:
        raise zipfile.BadZipFile(f"compression method {info.compress_type} is not known")
    content = collected(lambda take: unpack_one(decompressor, packed, 0, take), count)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("Bad CRC-32")
    return content


def _read_all(archive: zipfile.ZipFile, info: zipfile.ZipInfo, take: Take) -> None:
    with archive.open(info) as file:
        while piece := file.read(MIB):
            take(piece)


def _packed_bytes(view: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """A member's packed bytes, which follow its header, its name and its extra field.

    :raise RuntimeError: when it is encrypted.
    :raise zipfile.BadZipFile: when its header is damaged.
    :raise EOFError: when it is cut short.
    """
    if info.flag_bits & _ZIP_ENCRYPTED:
        raise RuntimeError("it is encrypted: a password is required")
    header = view[max(0, info.header_offset) :]
    if bytes(header[:4]) != _ZIP_MEMBER:
        raise zipfile.BadZipFile("Bad magic number for file header")
    name_size, extra_size = struct.unpack_from("<HH", header, 26)
    start = _ZIP_LOCAL_HEADER_BYTES + name_size + extra_size
    packed = header[start : start + info.compress_size]
    if len(packed) < info.compress_size:
        raise EOFError("it is cut short")
    return packed


class _ViewFile(io.RawIOBase):
    """A view as a file for `tarfile` and `zipfile`, without a copy."""

    def __init__(self, view: memoryview, position: int = 0) -> None:
        self._view = view
        self._position = position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = (0, self._position, len(self._view))[whence] + offset
        if position < 0:
            raise ValueError(f"seek to {position}")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        end = None if size is None or size < 0 else self._position + size
        piece = bytes(self._view[self._position : end])
        self._position += len(piece)
        return piece
