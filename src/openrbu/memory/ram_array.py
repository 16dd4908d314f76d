"""Physical memory as numpy arrays: bytes of many pages are read at once, without a loop."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

from openrbu.lazy import np, npt
from openrbu.memory.page_search import pages_beginning_with, whole_pages
from openrbu.memory.physical import ReadableMemory, Region, unaligned_buffer
from openrbu.units import PAGE_SHIFT, PAGE_SIZE, PhysAddr

Addresses: TypeAlias = "npt.NDArray[np.int64]"


class RamArray:
    """The RAM in [start, end), both rounded up to whole pages. (A dump may end inside a page.) With
    `to_pages` False they are not rounded, and neither is where a region begins.

    Holes (RAM to which nothing was ever written) are not read through a mapping: in a RAM file on
    tmpfs that would take pages.
    """

    def __init__(
        self, memory: ReadableMemory, start: PhysAddr, end: PhysAddr, *, to_pages: bool = True
    ) -> None:
        self._memory, self._start, self._end = memory, start, end
        parts = (region.clip(start, end) for region in memory.regions)
        self._regions = (
            whole_pages(memory, start, end)
            if to_pages
            else [part for part in parts if part is not None]
        )
        self._views = [
            memory.view(part.start, part.size_bytes) for part in self._regions if memory.is_mapped
        ]
        self._first = [int(part.start) for part in self._regions]
        self._runs = [
            run for part in self._regions for run in memory.populated(part.start, part.end)
        ]
        self._run_first = [int(run.start) for run in self._runs]
        self._run_last = [int(run.end) for run in self._runs]
        self.populated_bytes = sum(run.size_bytes for run in self._runs)

    @cached_property
    def _starts(self) -> Addresses:
        return np.array(self._first, np.int64)

    @cached_property
    def _ends(self) -> Addresses:
        return np.array([part.end for part in self._regions], np.int64)

    @cached_property
    def _run_starts(self) -> Addresses:
        return np.array(self._run_first, np.int64)

    @cached_property
    def _run_ends(self) -> Addresses:
        return np.array(self._run_last, np.int64)

    def pages_with(self, *words: int) -> tuple[Addresses, npt.NDArray[np.intp]]:
        """The pages that begin with one of these u32: their addresses, ascending, shape (n,); and
        which of the words each begins with, by its place among `words`, shape (n,).

        The end of RAM may cut the last page: see `bytes_left`.
        """
        found = list(pages_beginning_with(self._memory, self._start, self._end, *words))
        columns = np.array(found, np.int64).reshape(-1, 2)
        return columns[:, 0], columns[:, 1].astype(np.intp)

    def bytes_left_at(self, address: int) -> int:
        """How many bytes there are from an address up to the end of its region."""
        return self._regions[bisect_right(self._first, address) - 1].end - address

    def bytes_left(self, addresses: Addresses) -> Addresses:
        """How many bytes there are from each address up to the end of its region; shape (n,)."""
        return self._ends[self._numbers(addresses)] - addresses

    def at(self, addresses: Addresses, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A copy of the items of `dtype` at these addresses; shape (n,). If all are those of pages,
        they are copied at once.

        Each item has to be in RAM to its last byte: see `bytes_left`.
        """
        kind = np.dtype(dtype)
        if not self._memory.is_mapped or (addresses % PAGE_SIZE).any():
            return self._read_items(addresses, kind)
        numbers = self._numbers(addresses)
        whole = self._is_populated(addresses, kind.itemsize)
        if whole.all() and len(addresses) and (numbers == numbers[0]).all():
            return self._items(numbers[0], kind)[self._index(numbers[0], addresses)]
        items = np.empty(len(addresses), kind)
        for number in set(numbers.tolist()):
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
        if not self._memory.is_mapped:
            return self._memory.view(address, size_bytes)
        run = bisect_right(self._run_first, address) - 1
        if address + size_bytes <= self._run_last[run]:
            return self._memory.view(address, size_bytes)
        return memoryview(self._memory.read(address, size_bytes))

    def runs(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of [start, end) that may have a byte that is not 0, ascending."""
        first = bisect_right(self._run_last, start)
        last = bisect_left(self._run_first, end)
        for run in self._runs[first:last]:
            yield Region(PhysAddr(max(start, run.start)), PhysAddr(min(end, run.end)))

    def _read_items(self, addresses: Addresses, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """`at` for memory that is not mapped, and for any addresses."""
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
