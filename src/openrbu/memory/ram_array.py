"""Physical memory as numpy arrays: what many pages hold, fetched in one go and without a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.units import MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr

Addresses = npt.NDArray[np.int64]

_BATCH_PAGES = 256 * MIB // PAGE_SIZE
_LONG_RUN_PAGES = 4 * MIB // PAGE_SIZE


class RamArray:
    """The RAM in [start, end), from and to whole pages.

    Where nothing was ever written (holes) it is not looked at through a mapping: in a RAM file
    on tmpfs that would take pages.
    """

    def __init__(self, memory: PhysicalMemory, start: PhysAddr, end: PhysAddr) -> None:
        self._memory = memory
        low, high = -(-start // PAGE_SIZE) * PAGE_SIZE, end // PAGE_SIZE * PAGE_SIZE
        parts = (region.clip(low, high) for region in memory.regions)
        self._regions = [part for part in parts if part is not None]
        self._views = [memory.view(part.start, part.size_bytes) for part in self._regions]
        self._starts = np.array([part.start for part in self._regions], np.int64)
        self._ends = np.array([part.end for part in self._regions], np.int64)
        self._runs = [tuple(memory.populated(part.start, part.end)) for part in self._regions]
        runs = [run for group in self._runs for run in group]
        self._run_starts = np.array([run.start for run in runs], np.int64)
        self._run_ends = np.array([run.end for run in runs], np.int64)
        self.populated_bytes = int((self._run_ends - self._run_starts).sum())

    def pages_with(self, *words: int) -> tuple[Addresses, npt.NDArray[np.uint32]]:
        """The pages that begin with one of these u32: their addresses, ascending, and which."""
        addresses, found = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
        for number, region in enumerate(self._regions):
            column = self._items(number, np.dtype("<u4"))
            for pages in _batches(self._runs[number], region.start >> PAGE_SHIFT):
                first = column[pages].copy()
                hits = np.zeros(len(first), np.bool_)
                for word in words:
                    hits |= first == word
                places = np.flatnonzero(hits)
                index = places + pages.start if isinstance(pages, slice) else pages[places]
                addresses.append(region.start + (index << PAGE_SHIFT))
                found.append(first[places])
        return np.concatenate(addresses), np.concatenate(found)

    def room(self, addresses: Addresses) -> Addresses:
        """How many bytes of RAM there are without a gap from each address on."""
        return self._ends[self._numbers(addresses)] - addresses

    def at(self, addresses: Addresses, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A copy of what is at these page addresses, taken as items of `dtype`; shape (n,).

        All of an item has to be in RAM: see `room`.
        """
        kind = np.dtype(dtype)
        numbers = self._numbers(addresses)
        whole = self._is_populated(addresses, kind.itemsize)
        if whole.all() and len(addresses) and (numbers == numbers[0]).all():
            return self._items(numbers[0], kind)[self._index(numbers[0], addresses)]
        items = np.empty(len(addresses), kind)
        for number in np.unique(numbers):
            here = whole & (numbers == number)
            items[here] = self._items(number, kind)[self._index(number, addresses[here])]
        for place in np.flatnonzero(~whole):
            raw = self._memory.read(PhysAddr(int(addresses[place])), kind.itemsize)
            items[place] = np.frombuffer(raw, kind)[0]
        return items

    def data(self, address: PhysAddr, size_bytes: int) -> memoryview:
        """The bytes at an address: themselves where they can be viewed, else a copy.

        :raise AddressError: when any of them is outside RAM.
        """
        if self._is_populated(np.array([address]), size_bytes)[0]:
            return self._memory.view(address, size_bytes)
        return memoryview(self._memory.read(address, size_bytes))

    def runs(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of [start, end) that may hold anything but zeros, ascending."""
        first = int(np.searchsorted(self._run_ends, start, "right"))
        last = int(np.searchsorted(self._run_starts, end, "left"))
        for low, high in zip(self._run_starts[first:last], self._run_ends[first:last], strict=True):
            yield Region(PhysAddr(max(start, int(low))), PhysAddr(min(end, int(high))))

    def _numbers(self, addresses: Addresses) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._starts, addresses, "right") - 1

    def _is_populated(self, addresses: Addresses, size_bytes: int) -> npt.NDArray[np.bool_]:
        """Whether each of these items touches no hole. Their first pages are known not to."""
        runs = np.searchsorted(self._run_starts, addresses, "right") - 1
        return addresses + size_bytes <= self._run_ends[runs]

    def _index(self, number: int, addresses: Addresses) -> Addresses:
        """Which of `_items` is at each address of a region."""
        index: Addresses = (addresses - self._starts[number]) >> PAGE_SHIFT
        return index

    def _items(self, number: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """One item at the start of each page of a region that has room for it; shape (pages,)."""
        view = self._views[number]
        count = max(0, (len(view) - kind.itemsize) // PAGE_SIZE + 1)
        return np.ndarray(count, kind, view, strides=(PAGE_SIZE,))


def _batches(runs: tuple[Region, ...], first_page: int) -> Iterator[slice | Addresses]:
    """The pages of all runs, counted from `first_page`, ascending, in pieces of bounded length.

    A long run is a slice, which numpy walks several times faster than a list of pages when the
    memory is not in the cache; short ones are gathered.
    """
    batch: list[Addresses] = []
    count = 0
    for run in runs:
        start, end = (run.start >> PAGE_SHIFT) - first_page, (run.end >> PAGE_SHIFT) - first_page
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
