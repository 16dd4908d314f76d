"""A memory of which only some pages are searched: those that may begin a packet or an image.

To search all of a real machine's RAM takes seconds, and several rule sets search the same RAM
before anything is armed. So the pages are found once, and each rule set searches only these. What
is read after the start of such a page, such as the rest of a packet, comes from the whole memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from openrbu.formats.hdr import MAGIC_WORD
from openrbu.formats.packet_header import PACKET_HEADER, PACKET_MAGIC
from openrbu.lazy import np, npt
from openrbu.memory.frames import frame_runs
from openrbu.memory.page_search import WORD_BYTES, pages_beginning_with
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_array import Addresses, RamArray
from openrbu.units import KIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr


def possible_pages(memory: ReadableMemory) -> list[tuple[int, int]]:
    """The address of each page that begins like a packet or an image, ascending, and 0 for a
    packet, 1 for an image."""
    end = memory.regions[-1].end
    return list(pages_beginning_with(memory, PhysAddr(0), end, PACKET_MAGIC, MAGIC_WORD))


class NarrowedMemory:
    """A `ReadableMemory` of which only `pages` count as populated.

    `pages` are the addresses of pages, ascending, shape (n,). `is_packet`: whether each begins like
    a packet, shape (n,); the others begin like an image.
    """

    def __init__(
        self, memory: ReadableMemory, pages: Addresses, is_packet: npt.NDArray[np.bool_]
    ) -> None:
        self._memory, self.pages, self.is_packet = memory, pages, is_packet

    @classmethod
    def of(cls, memory: ReadableMemory) -> NarrowedMemory:
        """All pages of a memory that begin like a packet or an image."""
        return cls.on(memory, possible_pages(memory))

    @classmethod
    def on(cls, memory: ReadableMemory, pages: Sequence[tuple[int, int]]) -> NarrowedMemory:
        """These pages of a memory, as `possible_pages` returns them."""
        columns = np.array(pages, np.int64).reshape(-1, 2)
        return cls(memory, columns[:, 0], columns[:, 1] == 0)

    def only(self, wanted: npt.NDArray[np.bool_]) -> NarrowedMemory:
        """The same with only those pages for which `wanted` is True; shape (pages,)."""
        return NarrowedMemory(self._memory, self.pages[wanted], self.is_packet[wanted])

    def pages_in(self, start: PhysAddr, end: PhysAddr) -> list[int]:
        """The addresses of the pages in [start, end), rounded up to whole pages, ascending, that
        have the first word of a packet or an image."""
        low, high = (-(-each // PAGE_SIZE) * PAGE_SIZE for each in (start, end))
        pages = self.pages[(self.pages >= low) & (self.pages < high)]
        ram = RamArray(self, PhysAddr(0), self.regions[-1].end)
        whole: list[int] = pages[ram.bytes_left(pages) >= WORD_BYTES].tolist()
        return whole

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
        return self._memory.read(address, size_bytes)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        self._memory.read_into(address, buffer)

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return self._memory.view(address, size_bytes)

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        for run in self._runs:
            part = run.clip(start, end)
            if part is not None:
                yield part

    @cached_property
    def _runs(self) -> list[Region]:
        """The pages as regions; adjacent pages are one region."""
        return [
            Region(PhysAddr(first << PAGE_SHIFT), PhysAddr((first + count) << PAGE_SHIFT))
            for first, count in frame_runs((self.pages >> PAGE_SHIFT).astype(np.uint32))
        ]
