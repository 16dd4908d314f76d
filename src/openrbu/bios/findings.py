"""All that is to be known of what a search found in a memory: more than the search itself says.

Of the pages: whether something holds them until the restart. Of packets with a wrong checksum: the
bit that was flipped. Of sets: the image in them. Of all: what the known BIOSes would take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from openrbu.bios.verdicts import RuleVerdict, verdicts
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import CHECK_WORDS, CHECK_WORDS_BYTES
from openrbu.formats.hdr import Image
from openrbu.formats.image_check import ImageState
from openrbu.lazy import np
from openrbu.memory.joined_image import joined_image
from openrbu.memory.mending import WORK_BYTES, Mending, mendings
from openrbu.memory.page_flags import FreePages
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.ram_array import Addresses
from openrbu.memory.search_result import FoundSet, SearchResult

ReadFreePages = Callable[[Addresses], FreePages | None]
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


def look_closer(
    memory: ReadableMemory, result: SearchResult, read_free_pages: ReadFreePages | None = None
) -> Findings:
    """All that is to be known of a search's `result` in `memory`.

    :raise OSError: what `read_free_pages` raises.
    """
    free_pages = None
    if read_free_pages is not None:
        free_pages = read_free_pages(np.array(sorted(_addresses(result)), np.int64))
    return Findings(
        result,
        joined=_joined(memory, result.packet_sets),
        mendings=mendings(memory, result),
        verdicts=verdicts(memory, result),
        free_pages=free_pages,
    )


def _addresses(result: SearchResult) -> set[int]:
    """Where all findings begin."""
    found = {int(at) for each in result.packet_sets for at in _places(each)}
    found |= {int(each.address) for each in result.headers}
    return found | {int(each.address) for each in result.damaged}


def _places(found: FoundSet) -> list[int]:
    return [at for places in found.places.values() for at in places]


def _joined(memory: ReadableMemory, sets: tuple[FoundSet, ...]) -> dict[int, JoinedImage]:
    work = WORK_BYTES
    joined: dict[int, JoinedImage] = {}
    for found in sets:
        if found.is_usable:
            work -= found.joined_size_bytes
        joined[found.set_id] = (
            _summary(memory, found)
            if work >= 0
            else JoinedImage(damage="not joined: too many large sets are in this memory")
        )
    return joined


def _summary(memory: ReadableMemory, found: FoundSet) -> JoinedImage:
    try:
        image = joined_image(memory, found)
    except DamagedInputError as error:
        return JoinedImage(damage=str(error))
    words = whole_words(image)
    digest = hashlib.sha256(image.header.build())
    digest.update(image.body)
    return JoinedImage(
        image.state,
        image.damage,
        image.size_bytes,
        image.flash_size_bytes,
        words[0],
        words[1],
        digest.hexdigest(),
    )


def whole_words(image: Image) -> tuple[int, int]:
    """The two check words as they are at the end of an image; 0 where it is too short."""
    if len(image.body) < CHECK_WORDS_BYTES:
        return 0, 0
    words = CHECK_WORDS.unpack(image.body, image.flash_size_bytes)
    return words["data_word"], words["whole_word"]
