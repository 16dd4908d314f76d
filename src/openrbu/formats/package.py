"""Finds the `.HDR` images inside another file, such as a vendor's update package.

Dell ships self-extracting `.exe` files and `.BIN` packages, a shell script with an archive behind
it; an `.HDR` can also sit bare in a bigger file (BIOS image facts, "Old images"). So a file is
looked through from front to back for image headers, gzip and xz streams and tar archives, at any
offset, and for a zip archive at its end. What is inside an archive is looked through in the same
way, in memory only: nothing is written to disk.

The bytes of an archive or of an image are not looked at a second time as something else; neither
is what is left of an archive that was cut short, or half an image would pass for a whole one. An
image whose end can't be told (no check words) runs to the end of the file, so behind it only
further headers count: flash data is full of compressed modules that are nobody's packages.
"""

import heapq
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol, TypeVar, cast

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.formats.hdr import MAGIC, Header, Image, image_at
from openrbu.units import KIB, MIB, human_size

MAX_DEPTH = 8
"""Archives inside each other."""

MAX_MEMBERS = 10_000
"""Members of all archives in a file together."""

MAX_UNPACKED_BYTES = 256 * MIB
"""What all archives in a file may unpack to, together."""

MAX_IMAGES = 256

_PIECE_BYTES = 4 * KIB
"""Packed bytes unpacked at a time. xz packs up to some 7000 to 1, so this makes at most 28 MiB
before the limit is looked at again."""

_XZ_MEMORY_BYTES = 128 * MIB
"""`xz -9` needs 65 MiB to unpack."""

_TAR_MAGIC = rb"ustar(?:\x0000|  \x00)"  # as POSIX and as GNU write it
_TAR_MAGIC_OFFSET = 257

_ZIP_MEMBER = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_ZIP_END_WITHIN_BYTES = 22 + 0xFFFF
"""The end record of a zip and the longest comment behind it."""

_BROKEN = (
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
"""What the standard library's readers raise on damaged archives."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image, and the way to it: `offset 4096`, `gzip at 512 > tar member bios.hdr`."""

    image: Image
    path: str


def find_images(data: Buffer, name: str = "") -> list[FoundImage]:
    """The images in a file's bytes, in the order that they are met; each different one once.

    `name`, where given, is the file's: paths and messages begin with it. An image is a view into
    `data` or into what was unpacked. A `.HDR` itself is found at `offset 0`.

    :raise DamagedInputError: when an archive goes beyond `MAX_DEPTH`, `MAX_MEMBERS`,
        `MAX_UNPACKED_BYTES` or `MAX_IMAGES`; when no image was found and an archive was damaged.
    """
    search = _Search(name)
    search.look_into(memoryview(data), ())
    if not search.found and search.damage:
        raise DamagedInputError(f"no BIOS image found; {search.damage}")
    return search.found


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _StreamKind:
    name: str
    magic: bytes
    decompressor: Callable[[], _Decompressor]


_GZIP = _StreamKind("gzip", b"\x1f\x8b\x08", lambda: zlib.decompressobj(wbits=31))
_XZ = _StreamKind(
    "xz",
    b"\xfd7zXZ\0",
    lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
)


class _Search:
    """One walk through a file and everything in it, with the limits that hold for all of it."""

    def __init__(self, name: str) -> None:
        self.found: list[FoundImage] = []
        self.damage = ""
        self._name = name
        self._members = 0
        self._unpacked_bytes = 0

    def look_into(self, view: memoryview, steps: tuple[str, ...]) -> None:
        """Search `view`, which `steps` lead to."""
        if len(steps) > MAX_DEPTH:
            raise self._beyond(steps, f"more than {MAX_DEPTH} archives inside each other")
        position = 0
        in_image = False
        for start, kind in _signs(view):
            if start < position or (in_image and kind != "image"):
                continue
            if kind == "image":
                image = _image_at(view, start)
                if image is not None:
                    self._add(image, steps, start)
                    in_image = image.judgement.end is None
                    size = image.header.size_bytes if in_image else image.size_bytes
                    position = start + size
            elif kind == "tar":
                position = self._tar(view, start, steps)
            elif kind == "zip":
                self._zip(view, steps)
                break
            else:
                position = self._stream(_GZIP if kind == "gzip" else _XZ, view, start, steps)

    def _add(self, image: Image, steps: tuple[str, ...], offset: int) -> None:
        if offset or not steps:
            steps = (*steps, f"offset {offset}")
        if all(image != known.image for known in self.found):
            if len(self.found) == MAX_IMAGES:
                raise self._beyond(steps, f"more than {MAX_IMAGES} images in one file")
            self.found.append(FoundImage(image, self._path(steps)))

    def _stream(
        self, kind: _StreamKind, view: memoryview, start: int, steps: tuple[str, ...]
    ) -> int:
        """Search a gzip or xz stream; returns where to go on behind it."""
        steps = (*steps, f"{kind.name} at {start}")
        try:
            unpacked, end = self._unpack(kind, view, start, steps)
        except EOFError as error:
            self._note_damage(steps, error)
            return len(view)
        except _BROKEN as error:
            self._note_damage(steps, error)
            return start + 1
        self.look_into(unpacked, steps)
        return end

    def _unpack(
        self, kind: _StreamKind, view: memoryview, start: int, steps: tuple[str, ...]
    ) -> tuple[memoryview, int]:
        """What a stream (or several, one right behind the other) holds, and where it ends."""
        unpacked = bytearray()
        position = start
        while view[position : position + len(kind.magic)] == kind.magic:
            decompressor = kind.decompressor()
            while not decompressor.eof:
                piece = view[position : position + _PIECE_BYTES]
                if not piece:
                    raise EOFError("it is cut short")
                unpacked += self._counted(decompressor.decompress(piece), steps)
                position += len(piece) - len(decompressor.unused_data)
        return memoryview(unpacked), position

    def _tar(self, view: memoryview, start: int, steps: tuple[str, ...]) -> int:
        """Search a tar archive; returns where to go on behind its last member."""
        label = f"tar at {start}" if start else "tar"
        end = start + 1
        for name, content, after in self._until_broken((*steps, label), _tar_members(view, start)):
            inner = (*steps, f"{label} member {_shown(name)}")
            self._count_member(inner)
            self.look_into(content, inner)
            end = after
        return end

    def _zip(self, view: memoryview, steps: tuple[str, ...]) -> None:
        """Search the zip archive at the end of `view`."""
        try:
            archive = _open_zip(view)
        except _BROKEN as error:
            self._note_damage((*steps, "zip"), error)
            return
        for info in archive.infolist():
            inner = (*steps, f"zip member {_shown(info.filename)}")
            self._count_member(inner)
            for content in self._until_broken(inner, self._zip_content(archive, info, inner)):
                self.look_into(content, inner)

    def _zip_content(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, steps: tuple[str, ...]
    ) -> Iterator[memoryview]:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"compression method {info.compress_type} is not known")
        content = bytearray()
        with archive.open(info) as file:
            while piece := file.read(MIB):
                content += self._counted(piece, steps)
        yield memoryview(content)

    def _until_broken(self, steps: tuple[str, ...], parts: Iterable[_T]) -> Iterator[_T]:
        """`parts` of an archive, up to where it turns out to be damaged.

        What is raised while a part is searched does not come through here.
        """
        try:
            yield from parts
        except _BROKEN as error:
            self._note_damage(steps, error)

    def _note_damage(self, steps: tuple[str, ...], error: Exception) -> None:
        """Keep the first damage: it explains why nothing was found, if nothing is."""
        reason = str(error) or type(error).__name__
        self.damage = self.damage or f"{self._path(steps)} is damaged: {_shown(reason)}"

    def _count_member(self, steps: tuple[str, ...]) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise self._beyond(steps, f"more than {MAX_MEMBERS} members in its archives")

    def _counted(self, piece: bytes, steps: tuple[str, ...]) -> bytes:
        self._unpacked_bytes += len(piece)
        if self._unpacked_bytes > MAX_UNPACKED_BYTES:
            limit = human_size(MAX_UNPACKED_BYTES)
            raise self._beyond(steps, f"its archives unpack to more than {limit}")
        return piece

    def _beyond(self, steps: tuple[str, ...], what: str) -> DamagedInputError:
        return DamagedInputError(f"not searched to its end: {what} (at {self._path(steps)})")

    def _path(self, steps: tuple[str, ...]) -> str:
        return " > ".join((self._name, *steps) if self._name else steps)


def _signs(view: memoryview) -> Iterator[tuple[int, str]]:
    """Where something may start, and what, from front to back."""

    # One pattern at a time is several times faster than all of them in one expression.
    def places(kind: str, pattern: bytes, offset: int = 0) -> Iterator[tuple[int, str]]:
        for match in re.finditer(pattern, view):
            yield match.start() - offset, kind

    zip_start = _zip_start(view)
    return heapq.merge(
        [] if zip_start is None else [(zip_start, "zip")],
        places("image", re.escape(MAGIC)),
        places("gzip", re.escape(_GZIP.magic)),
        places("xz", re.escape(_XZ.magic)),
        places("tar", _TAR_MAGIC, _TAR_MAGIC_OFFSET),
    )


def _image_at(view: memoryview, start: int) -> Image | None:
    """The image at `start`, up to its check words or else to the end; nothing if it is none."""
    try:
        header = Header.parse(view, start)
    except DamagedInputError:
        return None
    return image_at(view, start) or Image(header, view[start + header.size_bytes :])


class _ViewFile(io.RawIOBase):
    """A view as the file that `tarfile` and `zipfile` want, without a copy of it."""

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


def _tar_members(view: memoryview, start: int) -> Iterator[tuple[str, memoryview, int]]:
    """Name, content and end of each member. What is not a plain file has empty content."""
    file = cast("IO[bytes]", _ViewFile(view, start))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            plain = member.isreg() and not member.issparse()
            first, size = member.offset_data, member.size if plain else 0
            if size < 0 or not start <= first <= first + size <= len(view):
                yield member.name, view[:0], len(view)
                raise tarfile.ReadError(f"member {member.name} is cut short")
            yield member.name, view[first : first + size], first + size


def _zip_start(view: memoryview) -> int | None:
    """Where the zip archive at the end of `view` starts; of a damaged one, where that shows."""
    zip_end = _zip_end(view)
    if zip_end is None:
        return 0 if bytes(view[:4]) == _ZIP_MEMBER else None
    try:
        archive = _open_zip(view)
    except _BROKEN:
        return zip_end
    return min((max(0, info.header_offset) for info in archive.infolist()), default=None)


def _zip_end(view: memoryview) -> int | None:
    """Where the end record of a zip archive is."""
    tail = bytes(view[-_ZIP_END_WITHIN_BYTES:])
    place = tail.rfind(_ZIP_END)
    return None if place < 0 else len(view) - len(tail) + place


def _open_zip(view: memoryview) -> zipfile.ZipFile:
    if _zip_end(view) is None:
        raise EOFError("it is cut short")
    return zipfile.ZipFile(cast("IO[bytes]", _ViewFile(view)))


def _shown(name: str) -> str:
    """Text from a file, safe to show on one line of a terminal."""
    return name if name.isprintable() else repr(name)
