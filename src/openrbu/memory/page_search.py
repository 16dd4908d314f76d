"""Finds the pages that begin with given words, without numpy: most memories have none, and loading
numpy takes longer than looking at 1 GiB."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.windows import VIEWED_BYTES, windows
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

    The end of RAM may cut the last page. The words of all pages are copied next to each other, to
    where none of them begins a page of this process's memory: a search of this computer's memory
    would take it for a packet, also when this program has ended.
    """
    if hasattr(memory, "pages_in"):  # as in `windows`
        yield from _among_few(cast(HasFewPages, memory), start, end, words)
        return
    row = _FirstWords(words)
    try:
        for part in whole_pages(memory, start, end):
            for base, window in windows(memory, part.start, part.end):
                for number, place in row.hits(window):
                    yield base + number * PAGE_SIZE, place
    finally:
        row.forget()


class _FirstWords:
    """The first words of a window's pages, copied into one row, and looked through there."""

    _LEAD_BYTES = 2
    """Words that begin two bytes after a multiple of four never begin a page."""

    def __init__(self, words: Sequence[int]) -> None:
        self._texts = [word.to_bytes(WORD_BYTES, sys.byteorder) for word in words]
        self._row = bytearray(self._LEAD_BYTES + VIEWED_BYTES // PAGE_SIZE * WORD_BYTES)
        self._room = memoryview(self._row)[self._LEAD_BYTES :].cast("I")

    def hits(self, window: memoryview) -> list[tuple[int, int]]:
        """The numbers of the pages that begin with one of the words, ascending, each with the place
        of that word. A window has at most `VIEWED_BYTES`."""
        cut = len(window) // WORD_BYTES * WORD_BYTES
        firsts = window[:cut].cast("I")[::_WORDS_PER_PAGE]
        self._room[: len(firsts)] = firsts
        end = self._LEAD_BYTES + len(firsts) * WORD_BYTES
        found: list[tuple[int, int]] = []
        for place, text in enumerate(self._texts):
            at = self._row.find(text, self._LEAD_BYTES, end)
            while at >= 0:
                number, rest = divmod(at - self._LEAD_BYTES, WORD_BYTES)
                if not rest:
                    found.append((number, place))
                at = self._row.find(text, at + 1, end)
        return sorted(found) if len(self._texts) > 1 else found

    def forget(self) -> None:
        """Leave no copy of a word behind."""
        self._row[:] = bytes(len(self._row))


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
