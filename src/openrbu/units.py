"""Names for addresses and sizes."""

import re
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
    """`size_bytes` as a text for people: `512 KiB`, `1.5 MiB`, `17 bytes`. Rounded to a tenth,
    but never to a whole number: `1025 MiB`, which is 1.001 GiB, is not shown as `1 GiB`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        unit_bytes = KIB**power
        text = f"{size_bytes / unit_bytes:.1f}"
        is_whole = text.endswith(".0")
        if size_bytes >= unit_bytes and is_whole == (size_bytes % unit_bytes == 0):
            return f"{text.removesuffix('.0')} {unit}"
    return "1 byte" if size_bytes == 1 else f"{size_bytes} bytes"


def exact_size(size_bytes: int) -> str:
    """`size_bytes` as a text that says it exactly: `8 TiB`, `8796093022209 bytes`. For a size that
    is refused, and the limits that it is refused for: rounded, they could look the same."""
    text = human_size(size_bytes)
    number, _, unit = text.partition(" ")
    power = ("KiB", "MiB", "GiB", "TiB").index(unit) + 1 if unit.endswith("iB") else 0
    return text if float(number) * KIB**power == size_bytes else f"{size_bytes} bytes"


def human_sizes(*sizes_bytes: int) -> tuple[str, ...]:
    """`human_size` of sizes that are compared in one sentence; exact ones where two that differ
    would look the same."""
    texts = tuple(map(human_size, sizes_bytes))
    if len(set(texts)) == len(set(sizes_bytes)):
        return texts
    return tuple(map(exact_size, sizes_bytes))


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
