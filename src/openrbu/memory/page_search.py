"""Finds the pages that begin with given words, without numpy: most memories have none, and loading
numpy takes longer than looking at 1 GiB."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.windows import windows
from openrbu.units import PAGE_SIZE, PhysAddr

WORD_BYTES = 4
_WORDS_PER_PAGE = PAGE_SIZE // WORD_BYTES


class HasFewPages(ReadableMemory, Protocol):
    """Memory of which only some pages are searched, which are known."""

    def pages_in(self, start: PhysAddr, end: PhysAddr) -> Sequence[tuple[int, int]]:
        """These pages in [start, end), rounded up to whole pages, ascending: the address of each,
        and the word with which it began when it was found."""


def pages_beginning_with(
    memory: ReadableMemory, start: PhysAddr, end: PhysAddr, *words: int
) -> Iterator[tuple[int, int]]:
    """The pages in [start, end), both rounded up to whole pages, that begin with one of these u32,
    ascending: the address of each, and the place among `words` of the word with which it begins.

    The end of RAM may cut the last page.
    """
    if hasattr(memory, "pages_in"):  # as in `windows`
        yield from _among_few(cast(HasFewPages, memory), start, end, words)
        return
    hits = _hits_in_file if memory.is_mapped else _hits_in_copy
    for part in whole_pages(memory, start, end):
        for base, window in windows(memory, part.start, part.end):
            for number, place in hits(_first_words(window), words):
                yield base + number * PAGE_SIZE, place


def _first_words(window: memoryview) -> memoryview:
    """The first u32 of each page of a window; in place."""
    cut = len(window) // WORD_BYTES * WORD_BYTES
    return window[:cut].cast("I")[::_WORDS_PER_PAGE]


def _hits_in_copy(firsts: memoryview, words: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The numbers of the pages that begin with one of the words, ascending, each with the place of
    that word.

    They may be pages of this computer's memory. So the words are compared as Python's numbers and
    kept in no row: that lies in RAM, too, also when this program has ended, and a page of it may
    begin with `$RPK`, as a packet does.
    """
    numbers = firsts.tolist()
    if any(word in numbers for word in words):
        for number, word in enumerate(numbers):
            if word in words:
                yield number, words.index(word)


def _hits_in_file(firsts: memoryview, words: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The same of a file that is mapped, whose pages are in RAM anyway; several times as fast."""
    row = firsts.tobytes()
    found: list[tuple[int, int]] = []
    for place, word in enumerate(words):
        text = word.to_bytes(WORD_BYTES, sys.byteorder)
        at = row.find(text)
        while at >= 0:
            number, rest = divmod(at, WORD_BYTES)
            if not rest:
                found.append((number, place))
            at = row.find(text, at + 1)
    yield from sorted(found)


def _among_few(
    memory: HasFewPages, start: PhysAddr, end: PhysAddr, words: tuple[int, ...]
) -> Iterator[tuple[int, int]]:
    for address, word in memory.pages_in(start, end):
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
