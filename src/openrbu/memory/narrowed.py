"""A memory of which only some pages are searched: those that may begin a packet or an image.

To search all of a real machine's RAM takes seconds, and several rule sets search the same RAM
before anything is armed. So the pages are found once, and each rule set searches only these. What
is read after the start of such a page, such as the rest of a packet, comes from the whole memory.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import compress
from typing import Any

from openrbu.formats.hdr import MAGIC_WORD
from openrbu.formats.packet_header import PACKET_HEADER, PACKET_MAGIC
from openrbu.lazy import np, npt
from openrbu.memory.page_search import WORD_BYTES, pages_beginning_with
from openrbu.memory.physical import ReadableMemory, Region, joined
from openrbu.memory.ram_array import Addresses, RamArray
from openrbu.units import KIB, PAGE_SIZE, PhysAddr

_MOST_KEPT = 5000
"""Pages, 20 MiB of them."""

_FIRST_WORDS = (PACKET_MAGIC, MAGIC_WORD)
"""Of what `possible_pages` finds, by its number."""


def possible_pages(memory: ReadableMemory) -> list[tuple[int, int]]:
    """The address of each page that begins like a packet or an image, ascending, and 0 for a
    packet, 1 for an image."""
    end = memory.regions[-1].end
    return list(pages_beginning_with(memory, PhysAddr(0), end, *_FIRST_WORDS))


class NarrowedMemory:
    """A `ReadableMemory` of which only some pages count as populated: `possible`, as
    `possible_pages` returns them, ascending.

    `stays`: the memory does not change, so that these pages, if they are few, are read once only.
    """

    def __init__(
        self,
        memory: ReadableMemory,
        possible: Sequence[tuple[int, int]],
        *,
        stays: bool = False,
    ) -> None:
        self._memory, self._possible = memory, possible
        self._addresses = [address for address, _ in possible]
        keeps = stays and len(possible) <= _MOST_KEPT and not memory.is_mapped
        self._kept: dict[int, bytes] = dict.fromkeys(self._addresses, b"") if keeps else {}

    @classmethod
    def of(cls, memory: ReadableMemory) -> NarrowedMemory:
        """All pages of a memory that begin like a packet or an image."""
        return cls(memory, possible_pages(memory))

    def only(self, wanted: npt.NDArray[np.bool_]) -> NarrowedMemory:
        """The same with only those pages for which `wanted` is True; shape (pages,)."""
        return NarrowedMemory(self._memory, list(compress(self._possible, wanted.tolist())))

    def still_there(self) -> NarrowedMemory:
        """The same without the pages that begin otherwise by now."""
        texts = [word.to_bytes(WORD_BYTES, sys.byteorder) for word in _FIRST_WORDS]
        still = [self.starts_with(address, texts[kind]) for address, kind in self._possible]
        return self.only(np.array(still, np.bool_))

    @cached_property
    def pages(self) -> Addresses:
        """The addresses of the pages, ascending, shape (n,)."""
        return np.array(self._addresses, np.int64)

    @cached_property
    def is_packet(self) -> npt.NDArray[np.bool_]:
        """Whether each begins like a packet, shape (n,); the others begin like an image."""
        return np.array([kind == 0 for _, kind in self._possible], np.bool_)

    def pages_in(self, start: PhysAddr, end: PhysAddr) -> list[tuple[int, int]]:
        """The pages in [start, end), rounded up to whole pages, ascending, each with the word with
        which it began when it was found. The end of RAM leaves room for that word."""
        low, high = (-(-each // PAGE_SIZE) * PAGE_SIZE for each in (start, end))
        addresses = self._addresses
        possible = self._possible[bisect_left(addresses, low) : bisect_left(addresses, high)]
        return [(address, _FIRST_WORDS[kind]) for address, kind in possible]

    def starts_with(self, address: int, data: bytes) -> bool:
        """Whether exactly these bytes are at an address, all of them in one region of RAM."""
        end = address + len(data)
        for region in self.regions:
            if region.start <= address and end <= region.end:
                return self.read(PhysAddr(address), len(data)) == data
        return False

    @property
    def headers(self) -> npt.NDArray[Any]:
        """The start of each page as a packet header, shape (pages,); zeros where the end of RAM
        cuts it."""
        headers = np.zeros(len(self.pages), PACKET_HEADER.dtype)
        ram = RamArray(self, PhysAddr(0), self.regions[-1].end)
        fits = ram.bytes_left(self.pages) >= PACKET_HEADER.size_bytes
        headers[fits] = ram.at(self.pages[fits], PACKET_HEADER.dtype)
        return headers

    def sizes(self, image_bytes: int) -> npt.NDArray[np.int64]:
        """How many bytes what begins on each page has, shape (pages,): a packet as many as it says,
        an image `image_bytes`; at least those of a packet's header."""
        claimed = self.headers["pktSize"].astype(np.int64) * KIB
        sizes = np.where(self.is_packet, claimed, image_bytes)
        return np.maximum(sizes, PACKET_HEADER.size_bytes)

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._memory.regions

    @property
    def is_mapped(self) -> bool:
        return self._memory.is_mapped

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        page = address - address % PAGE_SIZE
        kept = self._kept.get(page)
        if kept is None or address + size_bytes > page + PAGE_SIZE:
            return self._memory.read(address, size_bytes)
        if not kept:
            if self._bytes_left(page) < PAGE_SIZE:
                del self._kept[page]
                return self._memory.read(address, size_bytes)
            kept = self._kept[page] = self._memory.read(PhysAddr(page), PAGE_SIZE)
        return kept[address - page : address - page + size_bytes]

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        self._memory.read_into(address, buffer)

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        if self._kept:
            return memoryview(self.read(address, size_bytes))
        return self._memory.view(address, size_bytes)

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        for run in self._runs:
            part = run.clip(start, end)
            if part is not None:
                yield part

    def _bytes_left(self, address: int) -> int:
        """How many bytes there are from an address up to the end of its region."""
        return max((r.end - address for r in self.regions if r.start <= address < r.end), default=0)

    @cached_property
    def _runs(self) -> list[Region]:
        """The pages as regions; adjacent pages are one region."""
        return list(joined((address, address + PAGE_SIZE) for address in self._addresses))
