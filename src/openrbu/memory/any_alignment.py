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
from openrbu.lazy import np
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.ram_array import Addresses
from openrbu.memory.windows import Window, windows
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr

MAX_PLACES = 1 << 20
"""The search ends after the slice of memory in which so many places were found."""

_SLICE_BYTES = 2 * MIB

_KINDS = (PACKET_ID, MAGIC)
_WORD_BYTES = 2
_OVERLAP_BYTES = len(MAGIC) - 1

_BLOCK_WORDS = 128 * KIB
"""So many words are compared at once: they stay in the processor's cache."""

_FEW = 64
"""So few hits in a block are looked up one by one, which is faster than with numpy."""


class Places(NamedTuple):
    """Where packets (`packets`) and images (`images`) may begin: addresses, ascending, each of
    shape (n,). `ended_at`: where the search ended because of `MAX_PLACES`; None: at the end."""

    packets: Addresses
    images: Addresses
    ended_at: PhysAddr | None

    @property
    def at_pages(self) -> list[tuple[int, int]]:
        """Those at the start of a page, as `narrowed.possible_pages` returns them."""
        kinds = enumerate((self.packets, self.images))
        return sorted(
            (address, kind)
            for kind, addresses in kinds
            for address in addresses[addresses % PAGE_SIZE == 0].tolist()
        )


def places_at(pages: Sequence[tuple[int, int]], start: PhysAddr, end: PhysAddr) -> Places:
    """Those of `pages`, as `narrowed.possible_pages` returns them, in [start, end)."""
    columns = np.array(pages, np.int64).reshape(-1, 2)
    columns = columns[(columns[:, 0] >= start) & (columns[:, 0] < end)]
    packets, images = (columns[columns[:, 1] == kind, 0] for kind in (0, 1))
    return Places(packets, images, None)


def places_anywhere(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> Places:
    """All places in [start, end) that have the first four bytes of a packet or of an image."""
    found: tuple[list[Addresses], list[Addresses]] = ([], [])
    count, ended_at = 0, None
    before, end_before = b"", -1  # the last bytes of the slice before, and its end
    for base, data in _slices(memory, start, end):
        before = before if base == end_before else b""
        joint = before + bytes(data[:_OVERLAP_BYTES])
        for kind, starts in enumerate(_starts_in(data)):
            across = [at for at in range(len(joint)) if joint[at:].startswith(_KINDS[kind])]
            found[kind].append(np.array(across, np.int64) + (base - len(before)))
            found[kind].append(starts + base)
            count += len(across) + len(starts)
        before = (before + bytes(data[-_OVERLAP_BYTES:]))[-_OVERLAP_BYTES:]
        end_before = base + len(data)
        if count > MAX_PLACES:
            ended_at = PhysAddr(end_before)
            break
    packets, images = (np.concatenate([np.empty(0, np.int64), *each]) for each in found)
    return Places(packets, images, ended_at)


def _slices(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
    """The windows of memory in slices, so small that there are not many places in one of them."""
    for base, window in windows(memory, start, end):
        for low in range(0, len(window), _SLICE_BYTES):
            yield PhysAddr(base + low), window[low : low + _SLICE_BYTES]


def _starts_in(window: memoryview) -> tuple[Addresses, Addresses]:
    """The offsets in a window at which a packet's and an image's first bytes are."""
    hits = [np.empty(0, np.int64), *_even_hits(window, 0), *_even_hits(window, 1)]
    starts = np.sort(np.concatenate(hits))
    starts = starts[starts <= len(window) - len(MAGIC)]
    data = np.frombuffer(window, np.uint8)  # compared one by one: see page_search
    third, fourth = data[starts + 2], data[starts + 3]
    packets, images = (starts[(third == kind[2]) & (fourth == kind[3])] for kind in _KINDS)
    return packets, images


def _even_hits(window: memoryview, lead: int) -> Iterator[Addresses]:
    """The offsets at which the first two bytes of both texts are: `lead`, and each second one."""
    words = np.ndarray(max(0, len(window) - lead) // _WORD_BYTES, "<u2", window, offset=lead)
    wanted = np.uint16(int.from_bytes(MAGIC[:_WORD_BYTES], "little"))
    flags = bytearray(_BLOCK_WORDS)
    is_hit = np.frombuffer(flags, np.bool_)
    for first in range(0, len(words), _BLOCK_WORDS):
        block = words[first : first + _BLOCK_WORDS]
        here = is_hit[: len(block)]
        np.equal(block, wanted, out=here)
        count = np.count_nonzero(here)
        if count > _FEW:
            yield _WORD_BYTES * (first + np.flatnonzero(here)) + lead
        elif count:
            place, places = -1, []
            for _ in range(count):
                place = flags.find(1, place + 1)
                places.append(_WORD_BYTES * (first + place) + lead)
            yield np.array(places, np.int64)
