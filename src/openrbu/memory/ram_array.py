"""Physical memory as numpy arrays: bytes of many pages are read at once, without a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from openrbu.lazy import np, npt
from openrbu.memory.physical import ReadableMemory, Region, unaligned_buffer
from openrbu.memory.windows import windows
from openrbu.units import MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr, pages_for

Addresses: TypeAlias = "npt.NDArray[np.int64]"

_BATCH_PAGES = 256 * MIB // PAGE_SIZE
_LONG_RUN_PAGES = 4 * MIB // PAGE_SIZE

_WORD_BYTES = 4

_FEW_BYTES = 16 * MIB
"""How much is searched without numpy: 4,096 pages take 8 ms, and loading numpy 60."""


class RamArray:
    """The RAM in [start, end), both rounded up to whole pages. (A dump may end inside a page.)

    Holes (RAM to which nothing was ever written) are not read through a mapping: in a RAM file on
    tmpfs that would take pages. Memory that is not mapped is read, a window at a time.
    """

    def __init__(self, memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> None:
        self._memory = memory
        self._regions = _parts(memory, start, end)
        self._views = [
            memory.view(part.start, part.size_bytes) for part in self._regions if memory.is_mapped
        ]
        self._starts = np.array([part.start for part in self._regions], np.int64)
        self._ends = np.array([part.end for part in self._regions], np.int64)
        self._runs = [tuple(memory.populated(part.start, part.end)) for part in self._regions]
        runs = [run for group in self._runs for run in group]
        self._run_starts = np.array([run.start for run in runs], np.int64)
        self._run_ends = np.array([run.end for run in runs], np.int64)
        self.populated_bytes = int((self._run_ends - self._run_starts).sum())

    def pages_with(self, *words: int) -> tuple[Addresses, npt.NDArray[np.intp]]:
        """The pages that begin with one of these u32: their addresses, ascending, shape (n,); and
        which of the words each begins with, by its place among `words`, shape (n,).

        The end of RAM may cut the last page: see `bytes_left`. The words themselves are kept in no
        array. Such an array lies in RAM, too, also when this program has ended, and a page of it
        begins with `$RPK`, as a packet does.
        """
        addresses, found = [np.empty(0, np.int64)], [np.empty(0, np.intp)]
        for pages, first in self._mapped_pages() if self._memory.is_mapped else self._read_pages():
            begins = [first == word for word in words]
            hits = np.logical_or.reduce(begins)
            addresses.append(pages[hits])
            found.append(np.argmax([each[hits] for each in begins], axis=0))
        return np.concatenate(addresses), np.concatenate(found)

    def bytes_left(self, addresses: Addresses) -> Addresses:
        """How many bytes there are from each address up to the end of its region; shape (n,)."""
        return self._ends[self._numbers(addresses)] - addresses

    def at(self, addresses: Addresses, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A copy of the items of `dtype` at these page addresses; shape (n,).

        Each item has to be in RAM to its last byte: see `bytes_left`.
        """
        kind = np.dtype(dtype)
        if not self._memory.is_mapped:
            return self._read_items(addresses, kind)
        numbers = self._numbers(addresses)
        whole = self._is_populated(addresses, kind.itemsize)
        if whole.all() and len(addresses) and (numbers == numbers[0]).all():
            return self._items(numbers[0], kind)[self._index(numbers[0], addresses)]
        items = np.empty(len(addresses), kind)
        for number in np.unique(numbers):
            here = whole & (numbers == number)
            items[here] = self._items(number, kind)[self._index(number, addresses[here])]
        for position in np.flatnonzero(~whole):
            raw = self._memory.read(PhysAddr(int(addresses[position])), kind.itemsize)
            items[position] = np.frombuffer(raw, kind)[0]
        return items

    def data(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The bytes at an address: a view of them if they are mapped and not a hole, else a copy.

        :raise AddressError: when any of them is outside RAM.
        """
        is_mapped = self._memory.is_mapped
        if not is_mapped or self._is_populated(np.array([address]), size_bytes)[0]:
            return self._memory.view(address, size_bytes)
        return memoryview(self._memory.read(address, size_bytes))

    def runs(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of [start, end) that may have a byte that is not 0, ascending."""
        first = int(np.searchsorted(self._run_ends, start, "right"))
        last = int(np.searchsorted(self._run_starts, end, "left"))
        for low, high in zip(self._run_starts[first:last], self._run_ends[first:last], strict=True):
            yield Region(PhysAddr(max(start, int(low))), PhysAddr(min(end, int(high))))

    def _mapped_pages(self) -> Iterator[tuple[Addresses, npt.NDArray[np.uint32]]]:
        """In batches: the addresses of populated pages, and the u32 with which each begins."""
        for number, region in enumerate(self._regions):
            column = self._items(number, np.dtype("<u4"))
            for pages in _batches(self._runs[number], region.start >> PAGE_SHIFT):
                index = np.arange(pages.start, pages.stop) if isinstance(pages, slice) else pages
                index = index[index < len(column)]  # without a last page that is less than a word
                words = column[pages] if isinstance(pages, slice) else column[index]
                yield region.start + (index << PAGE_SHIFT), words.copy()

    def _read_pages(self) -> Iterator[tuple[Addresses, npt.NDArray[np.uint32]]]:
        """`_mapped_pages` for memory that is not mapped."""
        for part in self._regions:
            for low, window in windows(self._memory, part.start, part.end):
                count = (len(window) - _WORD_BYTES) // PAGE_SIZE + 1  # a last page may be cut
                addresses = low + np.arange(count, dtype=np.int64) * PAGE_SIZE
                yield addresses, np.ndarray(count, "<u4", window, strides=(PAGE_SIZE,))

    def _read_items(self, addresses: Addresses, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """`at` for memory that is not mapped."""
        size = kind.itemsize
        buffer = unaligned_buffer(len(addresses) * size)
        for number, address in enumerate(addresses.tolist()):
            self._memory.read_into(PhysAddr(address), buffer[number * size : (number + 1) * size])
        return np.ndarray(len(addresses), kind, buffer)

    def _numbers(self, addresses: Addresses) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._starts, addresses, "right") - 1

    def _is_populated(self, addresses: Addresses, size_bytes: int) -> npt.NDArray[np.bool_]:
        """Whether each of these items is outside of holes, shape (n,). Its first page has to be."""
        runs = np.searchsorted(self._run_starts, addresses, "right") - 1
        return addresses + size_bytes <= self._run_ends[runs]

    def _index(self, number: int, addresses: Addresses) -> Addresses:
        """The index in `_items` of the item at each address of a region."""
        index: Addresses = (addresses - self._starts[number]) >> PAGE_SHIFT
        return index

    def _items(self, number: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """The item at the start of each page of a region, as far as it fits; shape (pages,)."""
        view = self._views[number]
        count = max(0, (len(view) - kind.itemsize) // PAGE_SIZE + 1)
        return np.ndarray(count, kind, view, strides=(PAGE_SIZE,))


def pages_beginning_with(
    memory: ReadableMemory, start: PhysAddr, end: PhysAddr, word: int
) -> tuple[list[int], int]:
    """The addresses of the pages in [start, end) that begin with this u32, ascending; and how many
    bytes were looked through, all that may hold anything.

    Few pages are read one by one: that takes less time than loading numpy.
    """
    parts = _parts(memory, start, end)
    runs = [run for part in parts for run in memory.populated(part.start, part.end)]
    populated_bytes = sum(run.size_bytes for run in runs)
    if populated_bytes > _FEW_BYTES:
        addresses, _ = RamArray(memory, start, end).pages_with(word)
        return addresses.tolist(), populated_bytes
    magic, first = word.to_bytes(_WORD_BYTES, "little"), unaligned_buffer(_WORD_BYTES)
    found = []
    for page in (page for run in runs for page in range(run.start, run.end - 3, PAGE_SIZE)):
        memory.read_into(PhysAddr(page), first)
        if first == magic:
            found.append(page)
    return found, populated_bytes


def _parts(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> list[Region]:
    """The RAM in [start, end), from and to whole pages: a region may begin and end inside one."""
    low, high = (-(-each // PAGE_SIZE) * PAGE_SIZE for each in (start, end))
    pages = (-(-region.start // PAGE_SIZE) * PAGE_SIZE for region in memory.regions)
    parts = (
        region.clip(max(low, page), high)
        for region, page in zip(memory.regions, pages, strict=True)
    )
    return [part for part in parts if part is not None]


def _batches(runs: tuple[Region, ...], first_page: int) -> Iterator[slice | Addresses]:
    """The pages of all runs, counted from `first_page`, ascending, in batches of limited length.

    A long run is a slice: numpy goes through it several times faster than through a list of pages
    when the memory is not in the cache. Short runs are joined into one list.
    """
    batch: list[Addresses] = []
    count = 0
    for run in runs:
        start, end = (run.start >> PAGE_SHIFT) - first_page, pages_for(run.end) - first_page
        if end - start < _LONG_RUN_PAGES:
            batch.append(np.arange(start, end))
            count += end - start
        if batch and (end - start >= _LONG_RUN_PAGES or count >= _BATCH_PAGES):
            yield np.concatenate(batch)
            batch, count = [], 0
        if end - start >= _LONG_RUN_PAGES:
            for low in range(start, end, _BATCH_PAGES):
                yield slice(low, min(low + _BATCH_PAGES, end))
    if batch:
        yield np.concatenate(batch)
