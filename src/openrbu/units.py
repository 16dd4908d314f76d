"""Names for addresses and sizes."""

import re
from itertools import pairwise
from typing import NewType

PhysAddr = NewType("PhysAddr", int)
"""A byte address in physical memory."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

PAGE_SIZE = 4 * KIB
"""Bytes of a page, on every machine that this project supports."""

PAGE_KIB = PAGE_SIZE // KIB
PAGES_PER_MIB = MIB // PAGE_SIZE

PAGE_SHIFT = 12

FLASH_UNIT_BYTES = 64 * KIB
"""The unit of ROM sizes in SMBIOS type 0."""

MAX_ORDER = 10
"""The largest order of the page allocator: 2**10 pages are 4 MiB (Linux on x86)."""

MAX_BLOCK_BYTES = PAGE_SIZE << MAX_ORDER
"""The largest block of contiguous memory that a driver can get: 4 MiB."""

HUGE_PAGE_ORDER = 9
"""2**9 pages are 2 MiB, the huge pages of x86."""

HUGE_PAGE_BYTES = PAGE_SIZE << HUGE_PAGE_ORDER

BIOS_SEARCH_START = PhysAddr(1 * MIB)
BIOS_SEARCH_END = PhysAddr(4 * GIB)
"""Where a BIOS searches for an image: from 1 MiB up to 4 GiB (docs/reference/bios-rules.md, B3)."""


def pages_for(size_bytes: int) -> int:
    """How many pages `size_bytes` bytes need."""
    return -(-size_bytes // PAGE_SIZE)


def order_for(size_bytes: int) -> int:
    """The order of the smallest power-of-two block of pages for `size_bytes` bytes."""
    return (max(1, pages_for(size_bytes)) - 1).bit_length()


def human_size(size_bytes: int) -> str:
    """`size_bytes` as a text for people: `512 KiB`, `1.5 MiB`, `17 bytes`. Rounded to a tenth; a
    number without a point is the size itself: 64 MiB and one byte are `64.0 MiB`. In the unit below
    where that says more, with four digits before the point at most: `1024.1 KiB`, `1025 MiB`."""
    return _rounded(size_bytes, _power_for(size_bytes))


def exact_size(size_bytes: int) -> str:
    """`size_bytes` as a text that says it exactly: `8 TiB`, `8796093022209 bytes`. For a size that
    is refused, and the limits that it is refused for: rounded, they could look the same."""
    for power in range(len(_UNITS), 0, -1):
        if size_bytes >= _unit_bytes(power) and 10 * size_bytes % _unit_bytes(power) == 0:
            return _rounded(size_bytes, power)
    return _rounded(size_bytes, 0)


def human_sizes(*sizes_bytes: int) -> tuple[str, ...]:
    """`human_size` of sizes that are compared in one sentence; exact ones where two that differ
    would look the same, as `8 TiB` and `8.0 TiB` would, or the larger one the smaller."""
    shown = map(_shown, sorted(set(sizes_bytes)))
    is_told_apart = all(small < large for small, large in pairwise(shown))
    return tuple(map(human_size if is_told_apart else exact_size, sizes_bytes))


_UNITS = ("KiB", "MiB", "GiB", "TiB")


def _unit_bytes(power: int) -> int:
    return 1 << 10 * power


def _power_for(size_bytes: int) -> int:
    """The unit for a size, as the power of 1024 that it is."""
    power = 0
    while power < len(_UNITS) and _tenths(size_bytes, power) >= 10 * KIB:  # 1023.99 KiB: 1.0 MiB
        power += 1
    is_short = power and _tenths(size_bytes, power - 1) < 10 * 10_000
    if is_short and _looks_whole(size_bytes, power) and not _looks_whole(size_bytes, power - 1):
        return power - 1
    return power


def _looks_whole(size_bytes: int, power: int) -> bool:
    """Whether a size that is no whole number of a unit is one when it is rounded."""
    return size_bytes % _unit_bytes(power) != 0 and _tenths(size_bytes, power) % 10 == 0


def _shown(size_bytes: int) -> int:
    """What `human_size` says that a size is, in tenths of a byte."""
    power = _power_for(size_bytes)
    return _tenths(size_bytes, power) * _unit_bytes(power)


def _tenths(size_bytes: int, power: int) -> int:
    """A size in tenths of 1024 to the `power`, rounded."""
    unit_bytes = _unit_bytes(power)
    return (20 * size_bytes + unit_bytes) // (2 * unit_bytes)


def _rounded(size_bytes: int, power: int) -> str:
    """A size in the unit of 1024 to the `power`; with a tenth where it is not whole."""
    if not power:
        return "1 byte" if size_bytes == 1 else f"{size_bytes} bytes"
    whole, rest = divmod(size_bytes, _unit_bytes(power))
    number = "{}.{}".format(*divmod(_tenths(size_bytes, power), 10)) if rest else f"{whole}"
    return f"{number} {_UNITS[power - 1]}"


def parse_size(text: str) -> int:
    """The bytes of a size such as `512`, `512K`, `512KiB`, `1G` or `1TiB` (powers of 1024).

    :raise ValueError: when `text` is not a size.
    """
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None:
        raise ValueError(f"{text!r} is not a size (examples: 512K, 1G, 4096)")
    power = "KMGT".index(match["unit"]) + 1 if match["unit"] else 0
    return int(match["number"]) << 10 * power


_SIZE = re.compile(r"(?P<number>[0-9]{1,20}) *(?:(?P<unit>[KMGT])(?:I?B)?|B)?")
