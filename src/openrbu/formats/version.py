"""BIOS versions and which of two is newer (docs/reference/image.md, I7 and I8).

Two styles exist. Old: a letter and two characters, `A05`. New: three numbers, `1.2.8`. Everything
else can't be read. From oldest to newest::

    unreadable  <  old style  <  special builds (90 to 99 in front)  <  ordinary new style

so `beats` is a strict weak order: any list of versions has a newest one, however it is sorted.
"""

import re
from dataclasses import dataclass
from enum import Enum

from openrbu.errors import UsageError


class VersionStyle(Enum):
    """How a version is written."""

    UNREADABLE = "unreadable"
    OLD = "old"
    NEW = "new"


_OLD = re.compile(r"[A-Za-z][A-Za-z0-9]{2}")

_LEADING_DIGITS = re.compile(r"0*([0-9]*)")

_LEAKED = (49, 0, 48)
"""The characters `1`, NUL, `0` read as numbers: it leaked from a broken BIOS and means nothing."""

_SPECIAL_FROM = 90

_LETTER_RANKS = {"A": 3, "X": 2, "P": 1}
"""A beats X beats P beats any other letter."""

_HEADER_MAJOR_OLD = 1
_HEADER_MAJOR_NEW = 2

_Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class BiosVersion:
    """A version as it was written, and how to read it. Made by `parse` or `from_header`.

    `==` compares the writing; `same_as` compares the version.
    """

    text: str
    style: VersionStyle

    @classmethod
    def parse(cls, text: str) -> "BiosVersion":
        """Any text, blanks around it removed. What can't be read becomes `UNREADABLE`."""
        text = text.strip()
        if _OLD.fullmatch(text):
            return cls(text, VersionStyle.OLD)
        if _numbers(text) is not None:
            return cls(text, VersionStyle.NEW)
        return cls(text, VersionStyle.UNREADABLE)

    @classmethod
    def from_header(cls, major: int, three_bytes: bytes) -> "BiosVersion":
        """The version in an image's header of header version `major`.

        Major 1 has three ASCII characters, 2 and up three numbers. Bytes that are not what the
        major version promises are shown, but can't be read.
        """
        if major >= _HEADER_MAJOR_NEW:
            promised, text = VersionStyle.NEW, ".".join(map(str, three_bytes))
        else:
            promised, text = VersionStyle.OLD, _printable(three_bytes)
        version = cls.parse(text)
        if major < _HEADER_MAJOR_OLD or version.style is not promised:
            return cls(version.text, VersionStyle.UNREADABLE)
        return version

    def beats(self, other: "BiosVersion") -> bool:
        """Whether this version is strictly newer than `other`."""
        return self._key() > other._key()

    def same_as(self, other: "BiosVersion") -> bool:
        """Whether both are one version: `a05` and `A05`, `1.2` and `1.2.0`.

        Two that can't be read are the same only where they are written the same.
        """
        if self.style is other.style is VersionStyle.UNREADABLE:
            return self.text.upper() == other.text.upper()
        return self._key() == other._key()

    @property
    def is_special(self) -> bool:
        """Whether this is a special build: new style with 90 to 99 in front."""
        return self.style is VersionStyle.NEW and self._new_numbers()[0] >= _SPECIAL_FROM

    def __str__(self) -> str:
        return self.text

    def header_fields(self) -> tuple[int, bytes]:
        """What a header stores: its major version (1 or 2) and the three bytes.

        :raise UsageError: when the version can't be read, so that no header can hold it.
        """
        if self.style is VersionStyle.OLD:
            return _HEADER_MAJOR_OLD, self.text.encode("ascii")
        if self.style is VersionStyle.NEW:
            return _HEADER_MAJOR_NEW, bytes(self._new_numbers())
        raise UsageError(
            f"{self.text!r} is not a BIOS version that an image can have"
            " (examples: A06, or three numbers up to 99 such as 1.2.8)"
        )

    def _new_numbers(self) -> tuple[int, int, int]:
        numbers = _numbers(self.text)
        assert numbers is not None, f"{self.text!r} is marked as new style"
        return numbers

    def _key(self) -> _Key:
        """Sorts as the rules say; the first item is the style's rank."""
        if self.style is VersionStyle.UNREADABLE:
            return (0,)
        if self.style is VersionStyle.OLD:
            letter, rest = self.text[0].upper(), self.text[1:].upper()
            return (1, _LETTER_RANKS.get(letter, 0), letter, rest)
        return (2, int(not self.is_special), *self._new_numbers())


def _numbers(text: str) -> tuple[int, int, int] | None:
    """The three numbers of a new-style version, or nothing where `text` is not one.

    Trailing numbers that are missing count as 0; what follows a number's digits is ignored, and so
    is what follows the third number.
    """
    digits = []
    for part in text.split(".")[:3]:
        match = _LEADING_DIGITS.match(part)
        assert match is not None  # it matches the empty text, too
        digits.append(match[1] or ("0" if match[0] else ""))
    while digits and not digits[-1]:
        digits.pop()
    if not digits or any(not 1 <= len(number) <= 2 for number in digits):
        return None
    first, second, third = ([int(number) for number in digits] + [0, 0])[:3]
    return None if (first, second, third) == _LEAKED else (first, second, third)


def _printable(raw: bytes) -> str:
    """ASCII as it is, any other byte as `\\x00`, so that it is safe to show."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
