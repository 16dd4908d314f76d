"""The `.HDR` file: an 84-byte header, the flash data, and two check words.

Facts: docs/reference/image.md, I1 to I4. The whole file is staged in memory, header included. The
check words are in `check_words`; `image_check` says what is wrong with an image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.check_words import CHECK_WORDS, CHECK_WORDS_BYTES, check_words
from openrbu.formats.image_check import (
    ImageCheck,
    ImageState,
    check_image,
    describe_damage,
    find_end,
)
from openrbu.formats.layout import Field, Layout
from openrbu.formats.revision import MAX_REVISION
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.units import exact_size

MAGIC = b"$RBU"
MAGIC_WORD = int.from_bytes(MAGIC, "little")
MAX_SYSTEMS = 12

HEADER = Layout(
    "the image header",
    Field("header_id", "4s", required=MAGIC),
    Field("header_length", "B", unit="bytes", default=84),
    Field("header_major_ver", "B"),
    Field("header_minor_ver", "B"),
    Field("num_systems", "B"),
    Field("quick_check", "40s"),
    Field("bios_version", "3s"),
    Field("misc_flags", "B"),
    Field("bios_internal_use", "B"),
    Field("reserved", "5s"),
    Field("compat_flags", "H"),
    Field("system_id_list", "H", count=MAX_SYSTEMS),
)
HEADER_SIZE_BYTES = HEADER.size_bytes

MAX_HEADER_LENGTH = 128
"""Every real header has 84 bytes. Longer ones, as a later header version may have, are read up to
this length; a larger length is damage."""

_QUICK_CHECK = re.compile(rb"Copyright[ -~]{31}")

_MAX_SYSTEM_ID = 0x1FFF
_SYSTEM_ID_TEXT = re.compile(r"0[xX]([0-9A-Fa-f]{1,4})(?::([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True, order=True)
class SystemId:
    """A Dell system ID (13 bits in a header) and a hardware revision (3 bits)."""

    id: int
    revision: int = 0

    @classmethod
    def unpack(cls, entry: int) -> "SystemId":
        """From a u16 of the header's `systemIdList`."""
        return cls(id=entry & 0xFF | (entry & 0xF800) >> 3, revision=(entry & 0x0700) >> 8)

    @classmethod
    def parse(cls, text: str) -> "SystemId":
        """From `0x0121` or `0x0121:2`. The `0x` is required: 121 could mean either base.

        :raise UsageError: when the text is neither, or the value does not fit in a header.
        """
        match = _SYSTEM_ID_TEXT.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text!r} is not a system ID (examples: 0x0121, 0x0121:2)")
        system = cls(int(match[1], 16), int(match[2] or "0"))
        system.pack()
        return system

    def pack(self) -> int:
        """The u16 of the header's `systemIdList`.

        :raise UsageError: when the ID has more than 13 bits or the revision more than 3.
        """
        if not 0 <= self.id <= _MAX_SYSTEM_ID:
            raise UsageError(f"system ID {self.id:#06x} does not fit an image (0 to 0x1fff)")
        if not 0 <= self.revision <= MAX_REVISION:
            raise UsageError(f"hardware revision {self.revision} does not fit an image (0 to 7)")
        return self.id & 0xFF | self.revision << 8 | (self.id & 0x1F00) << 3

    def __str__(self) -> str:
        return f"{self.id:#06x}" + (f":{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class Header:
    """All bytes of an image's header. The fields are the format's own, in its sequence.

    `extra` are the bytes after the known fields, in a header longer than 84 bytes.
    """

    header_major_ver: int
    header_minor_ver: int
    num_systems: int
    quick_check: bytes
    bios_version: bytes
    misc_flags: int
    bios_internal_use: int
    reserved: bytes
    compat_flags: int
    system_id_list: tuple[int, ...]
    extra: bytes = b""

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> "Header":
        """The header that starts at `offset`.

        :raise DamagedInputError: when there is no magic, fewer bytes than the header claims, a
            header length outside 84 to `MAX_HEADER_LENGTH`, more than 12 systems, or a quick check
            that is not printable text beginning with `Copyright`.
        """
        start = bytes(data[offset : offset + len(MAGIC)])
        if not MAGIC.startswith(start):
            raise DamagedInputError(
                f"not a BIOS image (.HDR): it starts with {start!r}, not with '$RBU'",
                offset=offset,
                expected=MAGIC,
                actual=start,
            )
        fields = HEADER.unpack(data, offset)
        del fields["header_id"]
        length = fields.pop("header_length")
        _check_fields(length, fields["num_systems"], fields["quick_check"], offset)
        extra = bytes(data[offset + HEADER_SIZE_BYTES : offset + length])
        if HEADER_SIZE_BYTES + len(extra) < length:
            raise DamagedInputError(
                f"the image header is cut short: {len(data) - offset} of {length} bytes",
                offset=offset,
                expected=length,
                actual=len(data) - offset,
            )
        return cls(**fields, extra=extra)

    def build(self) -> bytes:
        """The header's bytes: exactly those that it was parsed from."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "extra"}
        return HEADER.pack(fields, header_length=self.size_bytes) + self.extra

    @property
    def size_bytes(self) -> int:
        return HEADER_SIZE_BYTES + len(self.extra)

    @property
    def header_version(self) -> str:
        """The version of the header, such as `2.1`; not that of the BIOS."""
        return f"{self.header_major_ver}.{self.header_minor_ver}"

    @property
    def version(self) -> BiosVersion:
        """The version of the BIOS in the image."""
        return BiosVersion.from_header(self.header_major_ver, self.bios_version)

    @property
    def systems(self) -> tuple[SystemId, ...]:
        """The systems that the image is for: the first `num_systems` entries of the list."""
        return tuple(map(SystemId.unpack, self.system_id_list[: self.num_systems]))

    @property
    def quick_check_text(self) -> str:
        return self.quick_check.decode("ascii").rstrip(" ")

    def is_for(self, system_id: int, revision: int | None = None) -> bool:
        """Whether the image is for a system of this hardware revision; None: of any revision."""
        return any(
            system.id == system_id and revision in (None, system.revision)
            for system in self.systems
        )


def _check_fields(length: int, num_systems: int, quick_check: bytes, offset: int) -> None:
    """Check a header, except its magic. `offset` is where the header starts.

    :raise DamagedInputError: when the length, the number of systems or the quick check is wrong.
    """
    if not HEADER_SIZE_BYTES <= length <= MAX_HEADER_LENGTH:
        raise DamagedInputError(
            f"the image header says that it is {length} bytes long; real ones are 84",
            offset=offset + HEADER.offset_of("header_length"),
            expected=HEADER_SIZE_BYTES,
            actual=length,
        )
    if num_systems > MAX_SYSTEMS:
        raise DamagedInputError(
            f"the image header claims {num_systems} systems; it has room for {MAX_SYSTEMS}",
            offset=offset + HEADER.offset_of("num_systems"),
            expected=f"0 to {MAX_SYSTEMS}",
            actual=num_systems,
        )
    if _QUICK_CHECK.fullmatch(quick_check) is None:
        raise DamagedInputError(
            "the image header's quick check is not text that begins with 'Copyright'",
            offset=offset + HEADER.offset_of("quick_check"),
            expected="Copyright…",
            actual=quick_check,
        )


# No slots: the cached property needs a dictionary.
@dataclass(frozen=True)
class Image:
    """An image: the header, and all bytes after it as a view (no copy).

    The memory of the view must not change while the image is in use.
    """

    header: Header
    body: memoryview

    @classmethod
    def parse(cls, data: Buffer) -> "Image":
        """The image of which `data` are all bytes.

        :raise DamagedInputError: when `data` is empty, is not an image, or ends in the header.
        """
        if not len(data):
            raise DamagedInputError("the file is empty", offset=0, expected=MAGIC, actual=b"")
        header = Header.parse(data)
        return cls(header, memoryview(data)[header.size_bytes :])

    def build(self) -> bytes:
        """The image's bytes: exactly those that it was parsed from."""
        return b"".join((self.header.build(), self.body))

    @property
    def size_bytes(self) -> int:
        return self.header.size_bytes + len(self.body)

    @cached_property
    def check(self) -> ImageCheck:
        """What its check words say about it. If they are right, the data is read once."""
        return check_image(self.header.build(), self.body)

    @property
    def state(self) -> ImageState:
        return self.check.state

    @property
    def is_whole(self) -> bool:
        return self.state is ImageState.WHOLE

    @property
    def damage(self) -> str | None:
        """What is wrong with the image and what to do, in one line; None if it is whole."""
        return describe_damage(self.check, len(self.body))

    @property
    def up_to_its_end(self) -> "Image | None":
        """The image without the bytes after its check words; None if they are right nowhere."""
        end = self.check.end
        if end is None:
            return None
        return Image(self.header, self.body[: end.data_size_bytes + CHECK_WORDS_BYTES])

    @property
    def data_word(self) -> int:
        """The check word over the data, as it is in the image; 0 if the image is too short."""
        if len(self.body) < CHECK_WORDS_BYTES:
            return 0
        word: int = CHECK_WORDS.unpack(self.body, self.flash_size_bytes)["data_word"]
        return word

    @property
    def flash_data(self) -> memoryview:
        """The data for the flash: the body without the 8 bytes of the check words."""
        return self.body[: self.flash_size_bytes]

    @property
    def flash_size_bytes(self) -> int:
        return max(0, len(self.body) - CHECK_WORDS_BYTES)


def sha256_of(image: Image) -> str:
    """The SHA-256 of an image's whole file, in hexadecimal. (Its CRC-32 would be the same for every
    intact image.)"""
    import hashlib  # noqa: PLC0415  (start-up time)

    digest = hashlib.sha256(image.header.build())
    digest.update(image.body)
    return digest.hexdigest()


def image_at(view: memoryview, offset: int = 0) -> Image | None:
    """The image that starts at `offset`, up to its check words; `Image.state` says whether it was
    changed. None if there is no header, or the end of the image is not known.
    """
    try:
        header = Header.parse(view, offset)
    except DamagedInputError:
        return None
    body = view[offset + header.size_bytes :]
    end = find_end(header.build(), body)
    return None if end is None else Image(header, body[: end.data_size_bytes + CHECK_WORDS_BYTES])


def make_image(
    flash_data: Buffer,
    *,
    version: BiosVersion,
    systems: Sequence[SystemId],
    quick_check: str = "Copyright 2005 Dell Inc.",
    flash_size_bytes: int | None = None,
) -> bytes:
    """A new image: header, `flash_data`, and the check words.

    `flash_size_bytes`: if given, `flash_data` is put at the end of so much erased flash (0xFF), as
    the BIOS of a smaller ROM is.

    The header's minor version is that of real files: 0 with an old-style version, 1 with a
    new-style one.

    :raise UsageError: when there is no data, no system, more than 12 systems, or a value that does
        not fit in the header.
    """
    if not len(flash_data):
        raise UsageError("an image needs flash data: the file with it is empty")
    if flash_size_bytes is not None:
        flash_data = _filled_up(flash_data, flash_size_bytes)
    if not 1 <= len(systems) <= MAX_SYSTEMS:
        raise UsageError(f"an image is for 1 to {MAX_SYSTEMS} systems, not {len(systems)}")
    padded_check = quick_check.encode("ascii", "replace").ljust(40)
    if not (quick_check.isascii() and _QUICK_CHECK.fullmatch(padded_check)):
        raise UsageError(
            f"quick check {quick_check!r} is not 'Copyright…' in up to 40 ASCII characters"
        )
    header_major, version_bytes = version.header_fields()
    entries = [system.pack() for system in systems]
    header = HEADER.pack(
        header_major_ver=header_major,
        header_minor_ver=int(version.style is VersionStyle.NEW),
        num_systems=len(entries),
        quick_check=padded_check,
        bios_version=version_bytes,
        system_id_list=tuple(entries + [0] * (MAX_SYSTEMS - len(entries))),
    )
    return b"".join((header, flash_data, check_words(header, flash_data)))


def _filled_up(flash_data: Buffer, size_bytes: int) -> bytes:
    """`flash_data` at the end of `size_bytes` bytes of erased flash.

    :raise UsageError: when it is larger than that.
    """
    if len(flash_data) > size_bytes:
        raise UsageError(
            f"the data ({exact_size(len(flash_data))}) does not fit in a flash of "
            f"{exact_size(size_bytes)}"
        )
    return bytes(flash_data).rjust(size_bytes, b"\xff")
