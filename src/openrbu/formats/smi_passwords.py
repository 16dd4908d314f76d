"""Passwords in the SMI calling interface: is one set, verify it, get a security key for it.

Facts: docs/reference/smbios-and-tokens.md, S18. All of them are what libsmbios 2.4.3 does: its
calls were recorded under `rbu run`, with many different answers. No real BIOS was seen.

A password has a class, with the same selects in each. There are two ways to verify one. A BIOS that
knows `PROPERTIES` says how long a password can be and whether it is text or scan codes of keys; it
is put behind the call, and the call has its physical address (`VERIFY_IN_BUFFER`). Else it has up
to 8 scan codes, which are in the arguments (`VERIFY_IN_ARGUMENTS`). Both return a security key of
16 bits, which a call that writes a setting has to have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openrbu.errors import UsageError

ADMIN_PASSWORD: Final = 10
"""The class of the admin password. (libsmbios asks 9 for the user's, and 12 for the owner's.)"""

STATUS: Final = 0
VERIFY_IN_ARGUMENTS: Final = 1
PROPERTIES: Final = 3
VERIFY_IN_BUFFER: Final = 4
"""The selects of each class."""

STATUS_ARGUMENT: Final = 1
"""arg1 of `STATUS`, as libsmbios has it. What it means is not known."""

IS_SET: Final = 0
NOT_SET: Final = 1
"""What `STATUS` returns in res1, and the lowest byte of res2 of `PROPERTIES`. For libsmbios 0 is
set, 1 is not; 2 is set for `STATUS` only."""

ARGUMENT_BYTES: Final = 8
"""The length of a password in the arguments."""

MAX_PASSWORD_CHARS: Final = 32
"""The longest password that a Dell BIOS setup takes (the vendor's knowledge base, article
000146358)."""

_IS_TEXT = 1
_PASSWORD = struct.Struct(f"<{ARGUMENT_BYTES}s")
_WORDS = struct.Struct("<II")

_KEYS: Final = {
    0x02: "1!", 0x03: "2@", 0x04: "3#", 0x05: "4$", 0x06: "5%", 0x07: "6^", 0x08: "7&",
    0x09: "8*", 0x0A: "9(", 0x0B: "0)", 0x0C: "-_", 0x0D: "=+", 0x0F: "\t",
    0x10: "qQ", 0x11: "wW", 0x12: "eE", 0x13: "rR", 0x14: "tT", 0x15: "yY", 0x16: "uU",
    0x17: "iI", 0x18: "oO", 0x19: "pP", 0x1A: "[{", 0x1B: "]}",
    0x1E: "aA", 0x1F: "sS", 0x20: "dD", 0x21: "fF", 0x22: "gG", 0x23: "hH", 0x24: "jJ",
    0x25: "kK", 0x26: "lL", 0x27: ";:", 0x28: "'\"", 0x29: "`~", 0x2B: "\\|",
    0x2C: "zZ", 0x2D: "xX", 0x2E: "cC", 0x2F: "vV", 0x30: "bB", 0x31: "nN", 0x32: "mM",
    0x33: ",<", 0x34: ".>", 0x35: "/?", 0x39: " ",
}  # fmt: skip
"""Scan codes (set 1) of the keys of a US keyboard; capital letters have no code of their own."""

_SCAN_CODES = {character: code for code, both in _KEYS.items() for character in both}


def scan_codes(password: str) -> bytes:
    """The keys of a password, one byte each.

    :raise UsageError: when a US keyboard has no key for one of its characters.
    """
    try:
        return bytes(_SCAN_CODES[character] for character in password)
    except KeyError:
        raise UsageError(
            "the BIOS admin password has a character for which a US keyboard has no key, and this "
            "BIOS knows a password by its keys"
        ) from None


@dataclass(frozen=True, slots=True)
class PasswordProperties:
    """What a BIOS says of a password of one class: whether it is set, how many bytes it has at
    most, and whether they are text or scan codes."""

    is_set: bool
    max_bytes: int = ARGUMENT_BYTES
    is_text: bool = False

    @classmethod
    def of(cls, results: Sequence[int]) -> PasswordProperties:
        """Those in the results of `PROPERTIES`."""
        packed = results[1]
        return cls(packed & 0xFF == IS_SET, packed >> 8 & 0xFF, bool(packed >> 24 & _IS_TEXT))

    @property
    def results(self) -> tuple[int, int, int, int]:
        """The results of `PROPERTIES`. (What its third byte is was not seen; here it is 0.)"""
        status = IS_SET if self.is_set else NOT_SET
        return (0, status | self.max_bytes << 8 | self.is_text * _IS_TEXT << 24, 0, 0)

    def encoded(self, password: str) -> bytes:
        """A password as this BIOS has it, without the zeros behind it.

        :raise UsageError: when it can't be written in this way, or is too long.
        """
        if self.is_text and not password.isascii():
            raise UsageError("the BIOS admin password is not plain ASCII")
        data = password.encode("ascii") if self.is_text else scan_codes(password)
        if len(data) > self.max_bytes:
            raise UsageError(
                f"the BIOS admin password is longer than the {self.max_bytes} characters that this "
                "BIOS takes"
            )
        return data


def words_of(password: bytes) -> tuple[int, int, int, int]:
    """The arguments of `VERIFY_IN_ARGUMENTS` for a password of up to 8 bytes."""
    return (*_WORDS.unpack(_PASSWORD.pack(password)), 0, 0)


def password_in(arguments: Sequence[int]) -> bytes:
    """The password in the arguments of `VERIFY_IN_ARGUMENTS`, without the zeros behind it."""
    return _WORDS.pack(*arguments[:2]).rstrip(b"\0")
