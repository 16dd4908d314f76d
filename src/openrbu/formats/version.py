"""BIOS versions and which of two is newer (docs/reference/image.md, I7 and I8).

There are two styles. Old: a letter and two characters, `A05`. New: three numbers, `1.2.8`. All
other texts can't be read. From oldest to newest::

    unreadable  <  old style  <  special builds (90 to 99 in front)  <  ordinary new style

so `is_newer_than` is a strict weak order: any list of versions has a newest one.
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

_MEANINGLESS = (49, 0, 48)
"""The characters `1`, NUL, `0` read as numbers. A faulty BIOS reports them; they mean nothing."""

_SPECIAL_FROM = 90

_LETTER_RANKS = {"A": 3, "X": 2, "P": 1}
"""From newest to oldest: A, X, P, any other letter."""

_HEADER_MAJOR_OLD = 1
_HEADER_MAJOR_NEW = 2

_Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class BiosVersion:
    """A version's text and style. Made by `parse` or `from_header`.

    `==` compares the texts, `same_as` the versions.
    """

    text: str
    style: VersionStyle

    @classmethod
    def parse(cls, text: str) -> "BiosVersion":
        """The version in any text, without the blanks around it. If it can't be read, its style is
        `UNREADABLE`."""
        text = text.strip()
        if _OLD.fullmatch(text):
            return cls(text, VersionStyle.OLD)
        if _numbers(text) is not None:
            return cls(text, VersionStyle.NEW)
        return cls(text, VersionStyle.UNREADABLE)

    @classmethod
    def from_header(cls, major: int, three_bytes: bytes) -> "BiosVersion":
        """The version in an image's header with the header version `major`.

        With major 1 the bytes are three ASCII characters, with 2 and up three numbers. Other bytes
        are shown, but the version counts as unreadable.
        """
        if major >= _HEADER_MAJOR_NEW:
            promised, text = VersionStyle.NEW, ".".join(map(str, three_bytes))
        else:
            promised, text = VersionStyle.OLD, _printable(three_bytes)
        version = cls.parse(text)
        if major < _HEADER_MAJOR_OLD or version.style is not promised:
            return cls(version.text, VersionStyle.UNREADABLE)
        return version

    def is_newer_than(self, other: "BiosVersion") -> bool:
        """Whether this version is strictly newer than `other`."""
        return self._key() > other._key()

    def same_as(self, other: "BiosVersion") -> bool:
        """Whether both are one version: `a05` and `A05`, `1.2` and `1.2.0`.

        Two versions that can't be read are the same if their texts are.
        """
        if self.style is other.style is VersionStyle.UNREADABLE:
            return self.text.upper() == other.text.upper()
        return self._key() == other._key()

    @property
    def is_special(self) -> bool:
        """Whether this is a special build: new style, the first number is 90 to 99."""
        return self.style is VersionStyle.NEW and self._new_numbers()[0] >= _SPECIAL_FROM

    def __str__(self) -> str:
        return self.text

    def header_fields(self) -> tuple[int, bytes]:
        """What a header stores: its major version (1 or 2) and the three bytes.

        :raise UsageError: when the version can't be read: a header can't store it.
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
        """A key that sorts by the rules above; its first item is the style's rank."""
        if self.style is VersionStyle.UNREADABLE:
            return (0,)
        if self.style is VersionStyle.OLD:
            letter, rest = self.text[0].upper(), self.text[1:].upper()
            return (1, _LETTER_RANKS.get(letter, 0), letter, rest)
        return (2, int(not self.is_special), *self._new_numbers())


def _numbers(text: str) -> tuple[int, int, int] | None:
    """The three numbers of a new-style version; None if `text` is not one.

    Missing numbers at the end count as 0. Characters after a number's digits, and all after the
    third number, are ignored.
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
    return None if (first, second, third) == _MEANINGLESS else (first, second, third)


def _printable(raw: bytes) -> str:
    """Printable ASCII unchanged, any other byte as `\\x00`, so that it is safe to print."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)
