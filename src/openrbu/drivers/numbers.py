"""The ways in which Linux reads a number that was written to an attribute.

They differ in what they forgive, and each attribute has its own. Seen on Debian's 6.1.192.
"""

from __future__ import annotations

import re

_WORD = 1 << 64
_MOST_DIGITS = 25  # more than any 64-bit number has; a larger number is too large anyway

_STRTOL = re.compile(rb"(-?)([0-9]+)")
_SCANF = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_STRICT = re.compile(rb"\+?([0-9]+)\n?")
_STRICT_ANY_BASE = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))\n?")


def simple_strtol(text: bytes) -> int:
    """Digits at the very start, a `-` before them; what follows is ignored. No digits: 0."""
    match = _STRTOL.match(text)
    if match is None:
        return 0
    sign, digits = match.groups()
    return -_number(digits) if sign else _number(digits)


def simple_strtoul(text: bytes) -> int:
    """As `simple_strtol`, but no sign is taken: `-1` is no number, so 0."""
    return max(0, simple_strtol(text))


def scan_unsigned(text: bytes) -> int | None:
    """Blanks, a sign and digits; what follows is ignored. No digits: None.

    A negative number wraps around at 64 bits, as it does in an unsigned long.
    """
    match = _SCANF.match(text)
    if match is None:
        return None
    sign, digits = match.groups()
    return -_number(digits) % _WORD if sign == b"-" else _number(digits)


def strict_unsigned(text: bytes) -> int | None:
    """Decimal digits and nothing else but a `+` before and one newline behind. Otherwise None."""
    match = _STRICT.fullmatch(text)
    return None if match is None else _number(match[1])


def strict_unsigned_any_base(text: bytes) -> int | None:
    """As `strict_unsigned`; `0x` makes it hexadecimal and a leading 0 octal."""
    match = _STRICT_ANY_BASE.fullmatch(text)
    if match is None:
        return None
    for digits, base in zip(match.groups(), (16, 8, 10), strict=True):
        if digits is not None:
            return _number(digits, base)
    raise AssertionError("one of the groups has matched")


def _number(digits: bytes, base: int = 10) -> int:
    significant = digits.lstrip(b"0")[:_MOST_DIGITS]
    return int(significant or b"0", base)
