"""The functions with which Linux reads a number that was written to an attribute.

They differ in the texts that they accept; each attribute uses one of them. All of them read C
strings: a NUL ends the text. Measured on Debian's 6.1.192 (docs/reference/linux-files.md, L2).
"""

from __future__ import annotations

import errno
import re

from openrbu.buffers import Buffer
from openrbu.errors import KernelError

_WORD = 1 << 64
_INT_LIMIT = 1 << 31
_SUFFIXES = (b"K", b"M", b"G", b"T", b"P", b"E")
_MOST_DIGITS = 25  # more than any 64-bit number has; more digits are too large in any case

_STRTOL = re.compile(rb"(-?)([0-9]{1,4096})")  # a store has a page of text at most
_SCANF = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_ANY_BASE = re.compile(rb"0[xX]([0-9a-fA-F]{1,4096})|0([0-7]{0,4096})|([0-9]{1,4096})")
_STRICT = re.compile(rb"\+?([0-9]+)\n?")
_STRICT_ANY_BASE = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))\n?")
_BOOL = re.compile(rb"([yYtT1]|[oO][nN])|[nNfF0]|[oO][fF]")


def c_string(data: Buffer) -> bytes:
    """The bytes that were written, up to the first NUL."""
    return bytes(data).partition(b"\0")[0]


def simple_int(text: bytes) -> int:
    """The number at the very start, perhaps with a `-`; what follows is ignored. No digits: 0.

    The result is an int of C: only the lowest 32 bits count.
    """
    match = _STRTOL.match(text)
    if match is None:
        return 0
    sign, digits = match.groups()
    value = -int(digits) if sign else int(digits)
    return (value + _INT_LIMIT) % (2 * _INT_LIMIT) - _INT_LIMIT


def simple_strtoul(text: bytes) -> int:
    """As `simple_int`, but for an unsigned long and without a sign: `-1` is 0."""
    match = _STRTOL.match(text)
    return 0 if match is None or match[1] else int(match[2]) % _WORD


def simple_strtoull_any_base(text: bytes) -> int:
    """As `simple_strtoul`; `0x` makes it hexadecimal and a leading 0 octal."""
    return _leading_any_base(text)[0]


def memparse(text: bytes) -> int:
    """A number as for `simple_strtoull_any_base`, perhaps directly followed by a suffix.

    K, M, G, T, P and E, small or large, stand for powers of 1024. Only the lowest 64 bits count.
    """
    value, end = _leading_any_base(text)
    suffix = text[end : end + 1].upper()
    return value << 10 * (_SUFFIXES.index(suffix) + 1) & _WORD - 1 if suffix in _SUFFIXES else value


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
    """Decimal digits, perhaps with a `+` before and one newline after. For other texts None."""
    match = _STRICT.fullmatch(c_string(text))
    return None if match is None else _number(match[1])


def strict_unsigned_any_base(text: bytes) -> int | None:
    """As `strict_unsigned`; `0x` makes it hexadecimal and a leading 0 octal."""
    match = _STRICT_ANY_BASE.fullmatch(c_string(text))
    if match is None:
        return None
    for digits, base in zip(match.groups(), (16, 8, 10), strict=True):
        if digits is not None:
            return _number(digits, base)
    raise AssertionError("one of the groups has matched")


def strict_bool(text: bytes) -> bool | None:
    """The value at the start of a text: `1`, `y`, `t` and `on` are True, `0`, `n`, `f` and `of` are
    False, small or large. For other texts None."""
    match = _BOOL.match(text)
    return None if match is None else match[1] is not None


def unsigned_long(text: bytes, path: str) -> int:
    """The value of a module parameter that is an unsigned long; `path` is for the error.

    :raise KernelError: EINVAL when it is not a number, ERANGE when it has more than 64 bits.
    """
    value = strict_unsigned_any_base(text)
    if value is None:
        raise KernelError(errno.EINVAL, path)
    if value >= _WORD:
        raise KernelError(errno.ERANGE, path)
    return value


def _leading_any_base(text: bytes) -> tuple[int, int]:
    """The number at the very start, in 64 bits, and where it ends. No digits: 0, at 0."""
    match = _ANY_BASE.match(text)
    if match is None:
        return 0, 0
    for digits, base in zip(match.groups(), (16, 8, 10), strict=True):
        if digits is not None:
            return int(digits or b"0", base) % _WORD, match.end()
    raise AssertionError("one of the groups has matched")


def _number(digits: bytes, base: int = 10) -> int:
    significant = digits.lstrip(b"0")[:_MOST_DIGITS]
    return int(significant or b"0", base)
