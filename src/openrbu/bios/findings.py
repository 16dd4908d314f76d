"""All that is to be known of what a search found in a memory: more than the search itself says.

Of the pages: whether something holds them until the restart. Of packets with a wrong checksum: the
bit that was flipped. Of sets: the image in them. Of all: what the known BIOSes would take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from openrbu.formats.image_check import ImageState
from openrbu.memory.page_flags import FreePages
from openrbu.memory.search_result import SearchResult

if TYPE_CHECKING:
    from openrbu.bios.verdicts import RuleVerdict
    from openrbu.memory.mending import Mending
    from openrbu.memory.ram_array import Addresses

ReadFreePages = Callable[["Addresses"], FreePages | None]
"""Returns which of the pages at these addresses, and near them, are free or will be; None: this is
not known."""


class Holder(Enum):
    """Who has the pages of a finding."""

    HELD = "held"
    """The kernel keeps them in use until the restart, as it does with the memory of a driver."""

    LEFTOVER = "leftover"
    """One of them is free, or a file's or a program's: it may be overwritten before a restart."""


@dataclass(frozen=True, slots=True)
class JoinedImage:
    """The image in the packets of a set. Sizes in bytes, up to the check words.

    `damage`: what is wrong with it, or why it can't be joined; None if it is whole. `state` is None
    if it can't be joined; then the sizes and words are 0 and the digest is empty.
    """

    state: ImageState | None = None
    damage: str | None = None
    size_bytes: int = 0
    flash_size_bytes: int = 0
    data_word: int = 0
    whole_word: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a memory.

    `joined` has the image of each set of `result`, by the set's ID; `mendings` has an entry for
    each packet of `result.damaged`. `free_pages` is None where it is not known who has the pages.
    """

    result: SearchResult
    joined: Mapping[int, JoinedImage]
    mendings: tuple[Mending, ...]
    verdicts: tuple[RuleVerdict, ...]
    free_pages: FreePages | None = None

    def holder_of(self, address: int, size_bytes: int) -> Holder | None:
        """Who has these bytes; None where this is not known."""
        if self.free_pages is None:
            return None
        return Holder.LEFTOVER if self.free_pages.any_in(address, size_bytes) else Holder.HELD
