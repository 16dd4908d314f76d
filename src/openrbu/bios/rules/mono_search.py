"""The search for an image in one piece: the parts that real BIOSes have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openrbu.bios.rules.ruleset import Candidate, FoundUpdate, Identity, MonoSearch, RejectedError
from openrbu.bios.rules.scratch import HOLE, Scratch
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import CHECK_WORDS, CHECK_WORDS_BYTES, register
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER, HEADER_SIZE_BYTES, MAGIC, MAGIC_WORD, Image
from openrbu.memory.page_search import pages_beginning_with
from openrbu.memory.physical import Region
from openrbu.units import GIB, PhysAddr

WHOLE_WORD = "checksum over header, data and first word"
DATA_WORD = "checksum over the data"
MAJOR = "major version"
LENGTH = "header length"

WORK_BYTES = 4 * GIB
"""How much is read for all candidates together. (A real BIOS has no limit: it may take days.)"""

_WORD_BYTES = 4


def image_size_bytes(machine: Identity) -> int:
    """The size of an image for this machine: header, data and check words."""
    return HEADER_SIZE_BYTES + machine.flash_size_bytes + CHECK_WORDS_BYTES


def pages_with_images(scratch: Scratch, start: int, end: int) -> list[int]:
    """The addresses of the pages in [start, end) that begin like an image, ascending."""
    there = pages_beginning_with(scratch.memory, PhysAddr(start), PhysAddr(end), MAGIC_WORD)
    pages = {address for address, _ in there}
    for page in scratch.changed_pages:
        if start <= page < end:
            pages.discard(page)
            if scratch.read(page, len(MAGIC)) == MAGIC:
                pages.add(page)
    return sorted(pages)


class CandidateImage:
    """A candidate: an image that may begin at `address`. Its bytes are read when needed."""

    def __init__(self, scratch: Scratch, address: int, machine: Identity) -> None:
        self._scratch, self.address, self._machine = scratch, address, machine
        self.header = scratch.read(address, HEADER_SIZE_BYTES)
        self.fields = HEADER.unpack(self.header)
        self._data: memoryview | None = None

    def bytes_at(self, offset: int, size_bytes: int) -> bytes:
        """Bytes from `offset` of the candidate on."""
        return self._scratch.read(self.address + offset, size_bytes)

    @property
    def whole(self) -> memoryview:
        """Header, data of this machine's size and check words."""
        if self._data is None:
            size = image_size_bytes(self._machine)
            self._data = memoryview(self._scratch.read(self.address, size))
        return self._data

    @property
    def is_in_hole(self) -> bool:
        """Whether it reaches into the area below 1 MiB without RAM: then it is not an image."""
        end = self.address + image_size_bytes(self._machine)
        return self.address < HOLE.end and end > HOLE.start

    @property
    def whole_word_is_right(self) -> bool:
        """Whether the second check word, over all bytes before it, is right."""
        end = len(self.whole) - _WORD_BYTES
        words = CHECK_WORDS.unpack(self.whole, len(self.whole) - CHECK_WORDS_BYTES)
        return not self.is_in_hole and bool(words["whole_word"] == register(self.whole[:end]))

    @property
    def data_word_is_right(self) -> bool:
        """Whether the first check word, over the data, is right."""
        end = len(self.whole) - CHECK_WORDS_BYTES
        words = CHECK_WORDS.unpack(self.whole, end)
        return bool(words["data_word"] == register(self.whole[HEADER_SIZE_BYTES:end]))


Checks = Callable[[CandidateImage, Identity], str | None]
"""Returns the name of the first check that a candidate fails, None if it passes all."""


def search_candidates(
    scratch: Scratch,
    machine: Identity,
    pages: Sequence[int],
    checks: Checks,
    *,
    ends_search: str | None = None,
) -> MonoSearch:
    """Check candidates in this sequence; the first that passes is taken.

    A candidate that fails the check `ends_search` ends the search. No more than `WORK_BYTES` are
    read: further candidates are not checked, and not taken.
    """
    failed: list[Candidate] = []
    work = WORK_BYTES
    for number, page in enumerate(pages):
        work -= image_size_bytes(machine)
        if work < 0:
            return MonoSearch(None, tuple(failed), unchecked=len(pages) - number)
        check = checks(CandidateImage(scratch, page, machine), machine)
        if check is None:
            return MonoSearch(PhysAddr(page), tuple(failed))
        failed.append(Candidate(PhysAddr(page), check))
        if check == ends_search:
            return MonoSearch(None, tuple(failed), is_cut_short=True)
    return MonoSearch(None, tuple(failed))


def found_update(
    scratch: Scratch,
    address: PhysAddr,
    machine: Identity,
    mode: str,
    extents: tuple[Region, ...] = (),
) -> FoundUpdate:
    """The update at `address`: in one piece, unless `extents` say where its packets are.

    :raise RejectedError: when it is not an image by the published layout, of which real BIOSes
        check less.
    """
    size = image_size_bytes(machine)
    try:
        image = Image.parse(scratch.read(address, size))
    except DamagedInputError as error:
        raise RejectedError(
            CompletionCode.INCONSISTENT_IMAGE, f"the real BIOS takes it, but {error}"
        ) from None
    return FoundUpdate(mode, image, extents or (Region(address, PhysAddr(address + size)),))


def why_none_taken(search: MonoSearch, joined_at: PhysAddr | None = None) -> str:
    """A text that says why a search for an image in one piece took no candidate. `joined_at`: where
    the BIOS had joined an image from packets; what was in memory there is not meant."""
    text = "nothing in memory looks like an image"
    if search.candidates:
        last, count = search.candidates[-1], len(search.candidates)
        text = f"the image header at {last.address:#x} failed the check of: {last.failed}"
        if last.address == joined_at:
            text = f"the image in the packets failed the check of: {last.failed}"
        text += f" (the last of {count})" if count > 1 else ""
    if search.unchecked:
        text += f"; {search.unchecked} more headers were not checked: there are too many"
    return text
