"""Looks closer at what a search found in a memory: see `findings`."""

from __future__ import annotations

from openrbu.bios.findings import Findings, JoinedImage, ReadFreePages
from openrbu.bios.verdicts import verdicts
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import CHECK_WORDS, CHECK_WORDS_BYTES
from openrbu.formats.hdr import Image, sha256_of
from openrbu.lazy import np
from openrbu.memory.joined_image import joined_image
from openrbu.memory.mending import WORK_BYTES, mendings
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.search_result import FoundSet, SearchResult


def look_closer(
    memory: NarrowedMemory, result: SearchResult, read_free_pages: ReadFreePages | None = None
) -> Findings:
    """All that is to be known of a search's `result` in `memory`. (The rule sets search the pages
    that it has.)

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
    return JoinedImage(
        image.state,
        image.damage,
        image.size_bytes,
        image.flash_size_bytes,
        words[0],
        words[1],
        sha256_of(image),
    )


def whole_words(image: Image) -> tuple[int, int]:
    """The two check words as they are at the end of an image; 0 where it is too short."""
    if len(image.body) < CHECK_WORDS_BYTES:
        return 0, 0
    words = CHECK_WORDS.unpack(image.body, image.flash_size_bytes)
    return words["data_word"], words["whole_word"]
