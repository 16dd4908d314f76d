"""Takes huge pages from a kernel until enough of them lie where they are wanted.

Theory of operation. Nobody can ask a kernel for pages at an address. It gives those above 4 GiB
first, and what is adjacent only by chance. So a pool's number is raised in steps, the free pages of
the pool are taken into a file, and their addresses are looked at; when enough of them are right the
others are given back. Where memory below 4 GiB is wanted, the pool takes first what is free above,
in one step: pages that nobody has used are not cleared, which is what takes time. The next ones
lie below.

A block of several huge pages needs neighbours. Where those that came first are none, the kernel is
asked to join free memory, and then for one page of 1 GiB, which is split. Only after that, more and
more pages are taken until some are neighbours.

The machine has to live meanwhile: each step leaves `MARGIN_BYTES` of what is available, and part of
what is free below 4 GiB, where some devices need their memory.

Measured: docs/reference/linux-files.md, L17.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openrbu.errors import KernelError
from openrbu.formats.buddyinfo import free_bytes, free_in_blocks, high_zones, low_zones
from openrbu.formats.meminfo import MARGIN_BYTES
from openrbu.memory.physical import Region, joined
from openrbu.own_driver.blocks import FreeBlocks
from openrbu.own_driver.page_file import HugePageFile
from openrbu.own_driver.pools import HugePageKernel, Pool, zones_of
from openrbu.units import (
    GIB,
    HUGE_PAGE_BYTES,
    HUGE_PAGE_ORDER,
    MIB,
    PAGE_SIZE,
    PhysAddr,
    human_size,
    human_sizes,
)

_LOW_END = 4 * GIB

_LOW_MARGIN_BYTES = 64 * MIB
"""So much stays free below 4 GiB, or half of what was, where that is less."""

_LARGEST_STEP = 64

_MOST_LOOKED_AT = _LOW_END // HUGE_PAGE_BYTES
"""There are no more below 4 GiB."""

_ALL = 1 << 62

_COMPACTED_STEP, _SPLIT_STEP = 2, 3
"""Before these steps to a block of several huge pages memory is compacted, and a page of 1 GiB
split, for which the kernel moves what is in the way."""

_PARTS = GIB // HUGE_PAGE_BYTES


class Need(NamedTuple):
    """`blocks` blocks of 2**order pages that end at or below `below`, where it is not None."""

    blocks: int
    order: int
    below: PhysAddr | None

    def in_huge_pages(self) -> Need:
        """The same, in blocks of whole huge pages."""
        if self.order >= HUGE_PAGE_ORDER:
            return self
        pages = -(-(self.blocks << self.order) // (1 << HUGE_PAGE_ORDER))
        return Need(pages, HUGE_PAGE_ORDER, self.below)

    def __str__(self) -> str:
        size = human_size(PAGE_SIZE << self.order)
        count = f"{self.blocks} blocks" if self.blocks > 1 else "a block"
        limit = "" if self.below is None else f" below {human_size(self.below)}"
        return f"{count} of {size}{limit}"


class Taking:
    """The pages that are being taken into a file.

    `free` is what there is without them, and is not changed. `giants`: pools of pages of 1 GiB that
    can be split. No more than `most_pages` are taken, where that is not None.
    """

    def __init__(
        self,
        kernel: HugePageKernel,
        file: HugePageFile,
        free: FreeBlocks,
        need: Need,
        *,
        giants: Sequence[Pool],
        most_pages: int | None,
    ) -> None:
        self._kernel, self._file, self._giants = kernel, file, list(giants)
        self._need, self._free = need.in_huge_pages(), free.copy()
        self._blocks = list(self._found_in(self._free, self._need.blocks))  # need no more pages
        self._most_looked_at = _MOST_LOOKED_AT if most_pages is None else most_pages
        self._may_raise = _ALL if most_pages is None else most_pages
        self._addresses: list[PhysAddr | None] = []
        self._counts: dict[str, int] = {}  # of the pools, by their paths
        self._left = 0  # pages that the pools have got, and that are not in the file
        self._why = "the kernel has no more"
        self._low_margin = min(_LOW_MARGIN_BYTES, self._low_free() // 2)

    def run(self, pools: Sequence[Pool]) -> dict[int, PhysAddr]:
        """Take pages of these pools until there are enough, and give back those that are not
        needed. Returns the address of each page that is kept, by its number in the file.

        The numbers of the pools stay raised.

        :raise KernelError: ENOMEM when there are not enough. The file keeps none then.
        :raise OSError: the kernel's error.
        """
        if self._can_not_be():
            raise KernelError(errno.ENOMEM, detail=self._shortage())
        for _ in self._steps(self._in_sequence(pools)):
            self._addresses = self._file.addresses(self._kernel)
            kept = self._enough()
            if kept is not None:
                self._file.give_back(set(range(self._file.count)) - kept.keys())
                return kept
        raise KernelError(errno.ENOMEM, detail=self._shortage())

    def _can_not_be(self) -> bool:
        """Whether there can't be enough, so that not even a page is taken."""
        missing_bytes = (self._need.blocks - len(self._blocks)) * (PAGE_SIZE << self._need.order)
        below, available = self._need.below, self._kernel.available_bytes()
        if below is not None and missing_bytes > below:
            self._why = "no computer has so much there"
            return True
        if available is not None and missing_bytes > available:
            self._why = self._why_no_room()
            return True
        return False

    def _enough(self) -> dict[int, PhysAddr] | None:
        """The pages that the blocks need, when there are enough."""
        trial, missing = self._free.copy(), self._need.blocks - len(self._blocks)
        for address in self._got():
            trial.add(_page(address))
        blocks = list(self._found_in(trial, missing))
        if len(blocks) < missing:
            return None
        size_bytes = PAGE_SIZE << self._need.order
        used = {
            page for block in blocks for page in range(block, block + size_bytes, HUGE_PAGE_BYTES)
        }
        return {
            number: address
            for number, address in enumerate(self._addresses)
            if address is not None and address in used
        }

    def _found_in(self, free: FreeBlocks, count: int) -> Iterator[PhysAddr]:
        """Up to `count` blocks out of free memory, taken there."""
        with contextlib.suppress(KernelError):
            for _ in range(count):
                yield free.allocate(self._need.order, below=self._need.below)

    def _steps(self, pools: Sequence[Pool]) -> Iterator[None]:
        """Take pages step by step."""
        for pool in pools:
            if self._need.below is not None and self._need.below <= _LOW_END:
                self._raise(pool, self._free_above(pool))
            yield from self._raise_and_take(pool)
            while self._take(_LARGEST_STEP):  # they may come in another sequence than into the pool
                yield
        if self._file.count == self._most_looked_at:
            self._why = "no more are looked at"
        elif self._left:
            self._why = (
                "pages that the kernel has got can't be used, as if a control group (hugetlb) or "
                "another program had them"
            )

    def _raise_and_take(self, pool: Pool) -> Iterator[None]:
        """Raise the number of a pool, and take the pages that come, until there are no more."""
        blocks = self._need.blocks - len(self._blocks)
        step = missing = blocks << self._need.order - HUGE_PAGE_ORDER
        number = 0
        while step := min(step, self._most_looked_at - self._file.count):
            number += 1
            if number == _COMPACTED_STEP and self._need.order > HUGE_PAGE_ORDER:
                self._kernel.compact()
            if number == _SPLIT_STEP and self._need.order > HUGE_PAGE_ORDER:
                for _ in range(self._split_a_giant(pool)):
                    if self._take(missing):
                        yield
            got = self._raise(pool, step)
            if not got and number == 1:
                self._kernel.compact()
                got = self._raise(pool, step)
            if not got:
                return
            if self._take(got):
                yield
            step = min(2 * step, max(missing, _LARGEST_STEP))

    def _split_a_giant(self, pool: Pool) -> int:
        """Have a page of 1 GiB split into pages of this pool, which are neighbours; how often it is
        worth to take some and look at them.

        :raise OSError: the kernel's error.
        """
        giant = next((each for each in self._giants if each.node == pool.node), None)
        if giant is None or self._room() < _PARTS:
            return 0
        self._giants.remove(giant)
        before = self._counts.get(pool.path, pool.count)
        if self._kernel.set_count(giant.path, giant.count + 1) <= giant.count:
            return 0
        self._kernel.split(giant)
        self._counts[pool.path] = before + _PARTS
        self._left += _PARTS
        self._may_raise -= _PARTS
        return 2

    def _take(self, count: int) -> int:
        """Take up to `count` pages that the pools have got into the file; how many it were."""
        taken = self._file.extend(min(count, self._left, self._most_looked_at - self._file.count))
        self._left -= taken
        return taken

    def _raise(self, pool: Pool, step: int) -> int:
        """Raise the number of a pool by up to `step`, as far as the machine can live with that; how
        many pages came."""
        room = self._room()
        if room < step:
            step, self._why = room, self._why_no_room()
        if not step:
            return 0
        before = self._counts.get(pool.path, pool.count)
        self._counts[pool.path] = self._kernel.set_count(pool.path, before + step)
        got = max(0, self._counts[pool.path] - before)
        self._left += got
        self._may_raise -= got
        return got

    def _room(self) -> int:
        """How many pages more the machine can live without."""
        available = self._kernel.available_bytes()
        room = _ALL if available is None else (available - MARGIN_BYTES) // HUGE_PAGE_BYTES
        if self._low_free() < self._low_margin:
            room = 0
        return max(0, min(room, self._may_raise))

    def _why_no_room(self) -> str:
        available, low = self._kernel.available_bytes() or 0, self._low_free()
        if low < self._low_margin:
            return f"{human_size(low)} are free below 4 GiB, which the machine needs"
        if (available - MARGIN_BYTES) // HUGE_PAGE_BYTES > self._may_raise:
            return "no more are asked for"
        there, left = human_sizes(available, MARGIN_BYTES)
        return f"{there} are available, and {left} of them are left to the machine"

    def _in_sequence(self, pools: Sequence[Pool]) -> list[Pool]:
        """The pools to be asked, best first: only those of nodes with memory below the limit."""
        zones = self._kernel.zones()
        low_nodes = {zone.node for zone in low_zones(zones)}
        if self._need.below is not None and self._need.below <= _LOW_END:
            return [pool for pool in pools if pool.node is None or pool.node in low_nodes]
        return sorted(pools, key=lambda pool: -free_bytes(zones_of(zones, pool.node)))

    def _free_above(self, pool: Pool) -> int:
        """How many huge pages the free memory above 4 GiB of a pool's node makes."""
        zones = zones_of(high_zones(self._kernel.zones()), pool.node)
        return free_in_blocks(zones, HUGE_PAGE_ORDER)

    def _low_free(self) -> int:
        return free_bytes(low_zones(self._kernel.zones()))

    def _got(self) -> list[PhysAddr]:
        return [address for address in self._addresses if address is not None]

    def _shortage(self) -> str:
        """What there was not enough of, how much was got where, and why there is no more."""
        got = sorted(self._got())
        text = f"too few huge pages for {self._need}: {len(got)} got"
        if got:
            low = sum(address < _LOW_END for address in got)
            spans = joined((address, address + HUGE_PAGE_BYTES) for address in got)
            largest = max(span.size_bytes for span in spans)
            text += f", {low} of them below 4 GiB, {human_size(largest)} at most in one piece"
        return f"{text}; {self._why}"


def _page(address: PhysAddr) -> Region:
    return Region(address, PhysAddr(address + HUGE_PAGE_BYTES))
