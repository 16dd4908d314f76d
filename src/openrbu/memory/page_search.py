"""Finds the pages that begin with given words, without numpy: most memories have none, and loading
numpy takes longer than looking at 1 GiB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from openrbu.memory.physical import ReadableMemory, Region, unaligned_buffer
from openrbu.memory.windows import windows
from openrbu.units import PAGE_SIZE, PhysAddr

WORD_BYTES = 4
_WORDS_PER_PAGE = PAGE_SIZE // WORD_BYTES


@runtime_checkable
class HasFewPages(ReadableMemory, Protocol):
    """Memory of which only some pages are searched, so few that they are read one by one."""

    def pages_in(self, start: PhysAddr, end: PhysAddr) -> Sequence[int]:
        """The addresses of these pages in [start, end), rounded up to whole pages, ascending."""


def pages_beginning_with(
    memory: ReadableMemory, start: PhysAddr, end: PhysAddr, *words: int
) -> Iterator[tuple[int, int]]:
    """The pages in [start, end), both rounded up to whole pages, that begin with one of these u32,
    ascending: the address of each, and the place among `words` of the word with which it begins.

    The end of RAM may cut the last page. The words of all pages are compared as Python's numbers
    and kept in no array. Such an array lies in RAM, too, also when this program has ended, and a
    page of it may begin with `$RPK`, as a packet does.
    """
    if isinstance(memory, HasFewPages):
        yield from _among_few(memory, start, end, words)
        return
    for part in whole_pages(memory, start, end):
        for base, window in windows(memory, part.start, part.end):
            cut = len(window) // WORD_BYTES * WORD_BYTES
            first_words = window[:cut].cast("I")[::_WORDS_PER_PAGE].tolist()
            if any(word in first_words for word in words):
                for number, word in enumerate(first_words):
                    if word in words:
                        yield base + number * PAGE_SIZE, words.index(word)


def _among_few(
    memory: HasFewPages, start: PhysAddr, end: PhysAddr, words: tuple[int, ...]
) -> Iterator[tuple[int, int]]:
    first = unaligned_buffer(WORD_BYTES)
    for address in memory.pages_in(start, end):
        memory.read_into(PhysAddr(address), first)
        word = int.from_bytes(first, "little")
        if word in words:
            yield address, words.index(word)


def whole_pages(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> list[Region]:
    """The RAM in [start, end), from and to whole pages. (A dump may end inside a page.)"""
    low, high = -(-start // PAGE_SIZE) * PAGE_SIZE, -(-end // PAGE_SIZE) * PAGE_SIZE
    regions = (_from_a_page(region) for region in memory.regions)
    parts = (region.clip(low, high) for region in regions if region.start < region.end)
    return [part for part in parts if part is not None]


def _from_a_page(region: Region) -> Region:
    return Region(PhysAddr(-(-region.start // PAGE_SIZE) * PAGE_SIZE), region.end)
