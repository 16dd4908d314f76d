"""LiME: ranges of physical memory in a file, each behind a header with its addresses.

docs/reference/dumps.md, U2. A *padded* file of LiME has no headers: zeros are where there is no
RAM, and so it is a raw dump.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openrbu.errors import DamagedInputError
from openrbu.formats.elf_core import Read
from openrbu.formats.layout import Field, Layout

RANGE_HEADER = Layout(
    "a LiME header",
    Field("magic", "4s", required=b"EMiL"),
    Field("version", "I", required=1),
    Field("s_addr", "Q", "bytes"),
    Field("e_addr", "Q", "bytes"),
    Field("reserved", "8s"),
)
MAGIC = b"EMiL"

MOST_RANGES = 200_000


class LimeRange(NamedTuple):
    """A range of physical memory: `size_bytes` from `address` on, at `offset` in the file."""

    address: int
    offset: int
    size_bytes: int


def lime_ranges(read: Read, size_bytes: int) -> Iterator[LimeRange]:
    """The ranges in a LiME file of `size_bytes`, as they follow each other.

    :raise DamagedInputError: when a header is not there, is of another version or has its end
        before its start; when the file ends inside of a range; when it has more than `MOST_RANGES`.
    """
    offset = 0
    for _ in range(MOST_RANGES):
        if offset >= size_bytes:
            return
        found = _range_at(read, offset)
        end = found.offset + found.size_bytes
        if end > size_bytes:
            raise DamagedInputError(
                f"it is cut: the range of {found.size_bytes} bytes at {found.address:#x} needs a "
                f"file of {end} bytes, and this one has {size_bytes}"
            )
        yield found
        offset = end
    raise DamagedInputError(f"it has more than {MOST_RANGES} ranges")


def _range_at(read: Read, offset: int) -> LimeRange:
    raw = read(offset, RANGE_HEADER.size_bytes)
    if len(raw) < RANGE_HEADER.size_bytes:
        raise DamagedInputError(f"it is cut inside of the LiME header at offset {offset:#x}")
    fields = RANGE_HEADER.unpack(raw)
    if fields["magic"] != MAGIC:
        raise DamagedInputError(
            f"no LiME header at offset {offset:#x}, where the next range begins"
        )
    if fields["version"] != 1:
        raise DamagedInputError(
            f"a LiME header of version {fields['version']} at offset {offset:#x}, not of version 1"
        )
    first, last = fields["s_addr"], fields["e_addr"]
    if last < first:
        raise DamagedInputError(
            f"the range at offset {offset:#x} ends at {last:#x}, before its start at {first:#x}"
        )
    return LimeRange(first, offset + RANGE_HEADER.size_bytes, last - first + 1)
