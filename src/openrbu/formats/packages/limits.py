"""How much of a package is unpacked: limits against archives that are made to fill memory."""

from __future__ import annotations

from openrbu.units import MIB, human_size

MAX_DEPTH = 8
"""Archives inside each other."""

MAX_MEMBERS = 10_000
"""Members of all archives in a file together."""

MAX_UNPACKED_BYTES = 256 * MIB
"""What all archives in a file may unpack to, together."""

MAX_PIECES = 500_000
"""In how many chunks archives may be unpacked: empty ones take time, too."""

MAX_IMAGES = 256

MAX_ENDLESS = 64
"""Headers of images without an end: the search for each end takes up to 2 s (64 MiB, at every
byte)."""

MAX_FALSE_STARTS = 10_000
"""Positions that look like the start of something but are not."""


class BeyondLimitError(Exception):
    """A file is not searched to its end; the text says why and where.

    `search_package` raises it as `DamagedInputError`. Inside of it, this is a separate class, as a
    damaged archive is skipped and the search continues.
    """


class Budget:
    """What one search has used. `place` is where in the file it is, for the text of the error.

    Each method raises `BeyondLimitError` when its limit is passed.
    """

    def __init__(self) -> None:
        self._members = 0
        self._images = 0
        self._endless = 0
        self._false_starts = 0
        self._pieces = 0
        self._unpacked_bytes = 0

    def depth(self, depth: int, place: str) -> None:
        if depth > MAX_DEPTH:
            raise _beyond(f"more than {MAX_DEPTH} archives inside each other", place)

    def member(self, place: str) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise _beyond(f"more than {MAX_MEMBERS} members in its archives", place)

    def image(self, place: str) -> None:
        self._images += 1
        if self._images > MAX_IMAGES:
            raise _beyond(f"more than {MAX_IMAGES} images in one file", place)

    def endless(self, place: str) -> None:
        self._endless += 1
        if self._endless > MAX_ENDLESS:
            raise _beyond(f"more than {MAX_ENDLESS} image headers without an image", place)

    def false_start(self, place: str) -> None:
        self._false_starts += 1
        if self._false_starts > MAX_FALSE_STARTS:
            raise _beyond(
                f"more than {MAX_FALSE_STARTS} positions that look like an image or an archive",
                place,
            )

    def unpacked(self, size_bytes: int, place: str) -> None:
        self._pieces += 1
        self._unpacked_bytes += size_bytes
        if self._pieces > MAX_PIECES:
            raise _beyond(f"more than {MAX_PIECES} chunks of archives", place)
        if self._unpacked_bytes > MAX_UNPACKED_BYTES:
            limit = human_size(MAX_UNPACKED_BYTES)
            raise _beyond(f"its archives unpack to more than {limit}", place)


def _beyond(what: str, place: str) -> BeyondLimitError:
    return BeyondLimitError(f"not searched to its end: {what} (at {place})")
