"""The search for packets and images that begin at any byte, not only at the start of a page.

No BIOS finds them there, but they are in dumps that were cut or have gaps, and in files and
buffers in memory.

Both `$RPK` and `$RBU` begin with the same two bytes. Memory is compared with these as a 16-bit
word, at even and at odd addresses; that is faster than a search for either text. Where they are,
the other two bytes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openrbu.formats.hdr import MAGIC
from openrbu.formats.packet_header import PACKET_ID
from openrbu.lazy import np, npt
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.windows import Window, windows
from openrbu.units import KIB, PAGE_SIZE, PhysAddr

MAX_PLACES = 1 << 20
"""The search ends after the slice of memory in which so many places were found."""

SLICE_BYTES = 512 * KIB
"""A slice, and a flag for each of its words, stay in the processor's second cache."""

_KINDS = (PACKET_ID, MAGIC)
_WORD_BYTES = 2
_KIND_BY_END = {text[_WORD_BYTES:]: kind for kind, text in enumerate(_KINDS)}
_OVERLAP_BYTES = len(MAGIC) - 1

_FEW = 64
"""So few hits in a slice are looked up one by one, which is faster than with numpy."""


class Places(NamedTuple):
    """Where packets (`packets`) and images (`images`) may begin: addresses, ascending.
    `ended_at`: where the search ended because of `MAX_PLACES`; None: at the end."""

    packets: Sequence[int]
    images: Sequence[int]
    ended_at: PhysAddr | None

    @property
    def is_somewhere(self) -> bool:
        return bool(self.packets or self.images)

    @property
    def at_pages(self) -> list[tuple[int, int]]:
        """Those at the start of a page, as `narrowed.possible_pages` returns them."""
        kinds = enumerate((self.packets, self.images))
        return sorted(
            (address, kind)
            for kind, addresses in kinds
            for address in addresses
            if address % PAGE_SIZE == 0
        )


def places_at(pages: Sequence[tuple[int, int]], start: PhysAddr, end: PhysAddr) -> Places:
    """Those of `pages`, as `narrowed.possible_pages` returns them, in [start, end)."""
    packets, images = (
        [address for address, each in pages if each == kind and start <= address < end]
        for kind in (0, 1)
    )
    return Places(packets, images, None)


def places_anywhere(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> Places:
    """All places in [start, end) that have the first four bytes of a packet or of an image."""
    found: tuple[list[int], list[int]] = ([], [])
    ended_at = None
    before, end_before = b"", -1  # the last bytes of the slice before, and its end
    compared = Compared()
    for base, data in _slices(memory, start, end):
        before = before if base == end_before else b""
        joint = before + bytes(data[:_OVERLAP_BYTES])
        for kind, starts in enumerate(compared.starts_in(data)):
            across = [at for at in range(len(joint)) if joint[at:].startswith(_KINDS[kind])]
            found[kind].extend(base - len(before) + at for at in across)
            found[kind].extend(base + at for at in starts)
        before = (before + bytes(data[-_OVERLAP_BYTES:]))[-_OVERLAP_BYTES:]
        end_before = base + len(data)
        if sum(map(len, found)) > MAX_PLACES:
            ended_at = PhysAddr(end_before)
            break
    return Places(*found, ended_at)


def _slices(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
    """The windows of memory in slices, so small that there are not many places in one of them."""
    for base, window in windows(memory, start, end):
        for low in range(0, len(window), SLICE_BYTES):
            yield PhysAddr(base + low), window[low : low + SLICE_BYTES]


class Compared:
    """Looks for the two bytes with which both texts begin, in slices that stay in the processor's
    cache: once at even and once at odd offsets."""

    def __init__(self) -> None:
        self._flags = bytearray(SLICE_BYTES // _WORD_BYTES)
        self._is_hit = np.frombuffer(self._flags, np.bool_)
        self._wanted = np.uint16(int.from_bytes(MAGIC[:_WORD_BYTES], "little"))

    def starts_in(self, window: memoryview) -> tuple[list[int], list[int]]:
        """The offsets in a slice at which a packet's and an image's first bytes are, ascending."""
        found: tuple[list[int], list[int]] = ([], [])
        for at in sorted((*self._hits(window, 0), *self._hits(window, 1))):
            kind = _KIND_BY_END.get(window[at + _WORD_BYTES : at + len(MAGIC)].tobytes())
            if kind is not None:
                found[kind].append(at)
        return found

    def _hits(self, window: memoryview, lead: int) -> list[int]:
        """The offsets at which the two bytes are: `lead`, and each second one."""
        words = np.ndarray(max(0, len(window) - lead) // _WORD_BYTES, "<u2", window, offset=lead)
        here = self._is_hit[: len(words)]
        np.equal(words, self._wanted, out=here)
        count = np.count_nonzero(here)
        if count > _FEW:
            return self._many(window, lead, here)
        places, place = [], -1
        for _ in range(count):
            place = self._flags.find(1, place + 1)
            places.append(_WORD_BYTES * place + lead)
        return places

    @staticmethod
    def _many(window: memoryview, lead: int, is_hit: npt.NDArray[np.bool_]) -> list[int]:
        """Those of many hits that go on as one of the texts does."""
        starts = _WORD_BYTES * np.flatnonzero(is_hit) + lead
        starts = starts[starts <= len(window) - len(MAGIC)]
        data = np.frombuffer(window, np.uint8)  # compared one by one: see page_search
        third, fourth = data[starts + 2], data[starts + 3]
        goes_on = [(third == kind[2]) & (fourth == kind[3]) for kind in _KINDS]
        found: list[int] = starts[goes_on[0] | goes_on[1]].tolist()
        return found
