"""Microsoft cabinets (`MSCF`): stored and MSZIP folders, unpacked a block of 32 KiB at a time.

The layout is the one that Microsoft published ("Microsoft Cabinet Format", MS-CAB). A folder is
compressed as one stream; files are parts of it. LZX and Quantum are not read: see
docs/decisions/0019.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.formats.layout import Field, Layout
from openrbu.formats.packages.streams import Inflate, Take, unpack_one
from openrbu.lazy import np

MAGIC = b"MSCF\0\0\0\0"

_HEADER = Layout(
    "the cabinet's header",
    Field("signature", "4s", required=b"MSCF"),
    Field("reserved1", "I"),
    Field("cabinet_size", "I", unit="bytes"),
    Field("reserved2", "I"),
    Field("files_offset", "I", unit="bytes"),
    Field("reserved3", "I"),
    Field("version_minor", "B", default=3),
    Field("version_major", "B", required=1),
    Field("folder_count", "H"),
    Field("file_count", "H"),
    Field("flags", "H"),
    Field("set_id", "H"),
    Field("cabinet_number", "H"),
)
_FOLDER = Layout(
    "a cabinet's folder",
    Field("data_offset", "I", unit="bytes"),
    Field("block_count", "H"),
    Field("compression", "H"),
)
_FILE = Layout(
    "a cabinet's file",
    Field("size", "I", unit="bytes"),
    Field("offset", "I", unit="bytes"),
    Field("folder", "H"),
    Field("date", "H"),
    Field("time", "H"),
    Field("attributes", "H"),
)
_BLOCK = Layout(
    "a cabinet's block",
    Field("checksum", "I"),
    Field("packed_size", "H", unit="bytes"),
    Field("unpacked_size", "H", unit="bytes"),
)

_HAS_PREVIOUS, _HAS_NEXT, _HAS_RESERVED = 1, 2, 4
_MAX_NAME_BYTES = 256
_MAX_BLOCK_BYTES = 32 * 1024
_STORED, _MSZIP = 0, 1
_OTHER_COMPRESSIONS = {2: "Quantum", 3: "LZX"}
_NAME_IS_UTF8 = 0x80
_CONTINUED_FROM = 0xFFFD
"""Folder numbers from here on: a file that begins or continues in another cabinet."""


class OtherCompressionError(ValueError):
    """A cabinet with a compression that is not read here; the text is its name."""


@dataclass(frozen=True, slots=True)
class CabinetMember:
    name: str
    content: memoryview


class Cabinet:
    """The cabinet at `start` of `view`. Its directory is read here, its contents by `members`.

    :raise DamagedInputError: when it is not a cabinet, or is damaged.
    :raise EOFError: when it is cut short.
    """

    def __init__(self, view: memoryview, start: int) -> None:
        header = _HEADER.unpack(view, start)
        size = header["cabinet_size"]
        is_one = _HEADER.violation(header) is None and header["folder_count"] > 0
        if not is_one or not _HEADER.size_bytes <= header["files_offset"] < size:
            raise DamagedInputError("not a cabinet", offset=start)
        self.end: int = start + size
        if self.end > len(view):
            raise EOFError("it is cut short")
        self._view = view[start : self.end]
        position = _HEADER.size_bytes
        folder_reserve, self._block_reserve = 0, 0
        if header["flags"] & _HAS_RESERVED:
            sizes = struct.unpack("<HBB", self._piece(position, 4))
            position += 4 + sizes[0]
            folder_reserve, self._block_reserve = sizes[1:]
        for flag in (_HAS_PREVIOUS, _HAS_NEXT):
            if header["flags"] & flag:  # a cabinet's and a disk's name
                position = self._text_at(self._text_at(position)[1])[1]
        self._folders: list[dict[str, Any]] = []
        for _ in range(header["folder_count"]):
            self._folders.append(_FOLDER.unpack(self._view, position))
            position += _FOLDER.size_bytes + folder_reserve
        self._files = self._read_files(header["files_offset"], header["file_count"])

    def _read_files(self, position: int, count: int) -> list[tuple[str, dict[str, Any]]]:
        files = []
        for _ in range(count):
            fields = _FILE.unpack(self._view, position)
            raw, position = self._text_at(position + _FILE.size_bytes)
            coding = "utf-8" if fields["attributes"] & _NAME_IS_UTF8 else "cp437"
            files.append((raw.decode(coding, "replace").replace("\\", "/"), fields))
        return files

    @property
    def names(self) -> list[str]:
        """The names of its files."""
        return [name for name, _ in self._files]

    def members(self, count: Take) -> Iterator[CabinetMember]:
        """Its files, folder by folder. `count` is called with each unpacked chunk first, and may
        raise.

        :raise DamagedInputError: (or one of `BROKEN_STREAM`) when a folder or file is damaged.
        :raise OtherCompressionError: when a folder has a compression that is not read here.
        """
        content, unpacked = memoryview(b""), None
        behind = 0
        for name, fields in sorted(
            self._files, key=lambda each: (each[1]["folder"], each[1]["offset"])
        ):
            number = fields["folder"]
            if number >= _CONTINUED_FROM:
                raise DamagedInputError(f"file {name} is split over several cabinets")
            if number >= len(self._folders):
                raise DamagedInputError(f"file {name} is in no folder")
            if number != unpacked:
                content, unpacked = self._unpack(self._folders[number], count), number
                behind = 0
            first, end = fields["offset"], fields["offset"] + fields["size"]
            if first < behind:
                raise DamagedInputError(f"file {name} overlaps another")
            behind = end
            if end > len(content):
                raise DamagedInputError(f"file {name} is cut short")
            yield CabinetMember(name, content[first:end])

    def _unpack(self, folder: dict[str, Any], count: Take) -> memoryview:
        compression = folder["compression"] & 0xF
        if compression not in (_STORED, _MSZIP):
            name = _OTHER_COMPRESSIONS.get(compression, f"compression {compression}")
            raise OtherCompressionError(name)
        content = bytearray()
        position = folder["data_offset"]
        for _ in range(folder["block_count"]):
            block = _BLOCK.unpack(self._view, position)
            position += _BLOCK.size_bytes + self._block_reserve
            packed = self._piece(position, block["packed_size"])
            position += len(packed)
            if block["checksum"] and block["checksum"] != _checksum(block, packed):
                raise DamagedInputError("a block's checksum is wrong")
            piece = bytes(packed)
            if compression == _MSZIP:
                piece = _inflate(packed, bytes(content[-_MAX_BLOCK_BYTES:]))
            if len(piece) != block["unpacked_size"]:
                raise DamagedInputError("a block has another size than it says")
            count(piece)
            content += piece
        return memoryview(content)

    def _piece(self, position: int, size: int) -> memoryview:
        piece = self._view[position : position + size]
        if len(piece) < size:
            raise DamagedInputError("it is cut short", offset=position)
        return piece

    def _text_at(self, position: int) -> tuple[bytes, int]:
        """The bytes up to a NUL, and the position after it."""
        raw = bytes(self._view[position : position + _MAX_NAME_BYTES + 1])
        end = raw.find(b"\0")
        if end < 0:
            raise DamagedInputError("a name has no end", offset=position)
        return raw[:end], position + end + 1


def _inflate(packed: memoryview, window: bytes) -> bytes:
    """Unpack a block of MSZIP: `CK`, then deflate data that may refer to the block before,
    `window`."""
    if bytes(packed[:2]) != b"CK":
        raise DamagedInputError("a block does not start with 'CK'")
    content = bytearray()

    def take(piece: bytes) -> None:
        content.extend(piece)
        if len(content) > _MAX_BLOCK_BYTES:
            raise DamagedInputError("a block unpacks to more than 32 KiB")

    unpack_one(Inflate(-zlib.MAX_WBITS, window), packed, 2, take)
    return bytes(content)


def _checksum(block: dict[str, Any], packed: Buffer) -> int:
    """XOR of all u32 and of the sizes. The remaining bytes are one big-endian number."""
    whole = len(packed) & ~3
    words = np.frombuffer(packed[:whole], "<u4")
    rest = int.from_bytes(packed[whole:], "big")
    sizes = block["packed_size"] | block["unpacked_size"] << 16
    checksum: int = int(np.bitwise_xor.reduce(words, initial=0)) ^ rest ^ sizes
    return checksum
