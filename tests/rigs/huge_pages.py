"""A kernel with huge pages that tells where they are, so that a test decides it.

The files of pages are files of a directory; what a kernel does with its pools is here. (What a real
one does is in tests/unit/test_real_huge_pages.py and in the lab.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from openrbu.formats.buddyinfo import ZoneFree, parse_buddyinfo
from openrbu.own_driver.own_memory import HugePagesRecord
from openrbu.own_driver.pools import MappedPage, Pool
from openrbu.units import GIB, HUGE_PAGE_BYTES, MIB, PhysAddr
from rigs.needs import leave_out

HUGE = HUGE_PAGE_BYTES
FOUR_GIB = PhysAddr(4 * GIB)

NUMBER = Path("/proc/sys/vm/nr_hugepages")
GIANTS = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
PATH = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

SMALL = "Node 0, zone    DMA32   0 0 0 0 0 0 0 0 0 0 190\n"
LARGE = f"{SMALL}Node 0, zone   Normal   0 0 0 0 0 0 0 0 0 0 4\n"
"""`/proc/buddyinfo`: of a machine without memory above 4 GiB; and with 16 MiB free there."""


class MadeKernel:
    """A kernel that gives the pages at `free`, in this sequence, and has one pool.

    `directory`: where the files are. `asked`: how many pages others have, who asked for as many.
    `available_bytes` shrinks with the pages that it gives. `compacted`: pages that there are only
    when memory was compacted. `giant`: where it has a page of 1 GiB to give; None: it has none. A
    file gets those pages first that came last into the pool, as from a real kernel, unless
    `first_comes_first`.
    """

    def __init__(
        self,
        free: Sequence[int],
        *,
        asked: int = 0,
        buddyinfo: str = SMALL,
        available_bytes: int = GIB,
        compacted: Sequence[int] = (),
        giant: int | None = None,
        first_comes_first: bool = False,
    ) -> None:
        self.free, self.asked, self._buddyinfo = list(free), asked, buddyinfo
        self._available, self._compacted = available_bytes, list(compacted)
        self._giant, self.giants = giant, 0
        self._others, self._first_comes_first = asked, first_comes_first
        self.pooled: list[int] = []  # got, and in no file
        self.places: dict[tuple[str, int], int] = {}
        self.most_pooled = 0
        self.directory = Path("/nowhere")

    def pools(self, page_bytes: int = HUGE) -> tuple[Pool, ...]:
        if page_bytes == GIB:
            return () if self._giant is None else (Pool(GIANTS, None, GIB, self.giants, 0),)
        self._take_back_removed()
        count = self._others + len(self.pooled) + len(self.places)
        return (Pool(PATH, None, page_bytes, count, max(0, count - self.asked)),)

    def set_count(self, path: str, count: int) -> int:
        if path == GIANTS:
            self.giants = min(count, 1)
            return self.giants
        assert path == PATH
        self._take_back_removed()
        in_use = self._others + len(self.places)
        wanted = max(0, count - in_use)
        while len(self.pooled) < wanted and self.free:
            self.pooled.append(self.free.pop(0))
        while len(self.pooled) > wanted:
            self.free.insert(0, self.pooled.pop())
        self.asked = min(count, in_use + len(self.pooled))
        self.most_pooled = max(self.most_pooled, len(self.pooled) + len(self.places))
        return in_use + len(self.pooled)

    def can_split(self, pool: Pool) -> bool:
        return pool.path == GIANTS

    def split(self, pool: Pool) -> None:
        assert (pool.path, self.giants) == (GIANTS, 1)
        assert self._giant is not None
        self.giants = 0
        self.pooled += pages_from(self._giant, GIB // HUGE)
        self.asked += GIB // HUGE

    def zones(self) -> tuple[ZoneFree, ...]:
        return tuple(parse_buddyinfo(self._buddyinfo))

    def available_bytes(self) -> int:
        return self._available - (len(self.pooled) + len(self.places)) * HUGE

    def compact(self) -> None:
        self.free += self._compacted
        self._compacted = []

    def has_huge_pages(self, fd: int) -> bool:
        return fd >= 0

    def addresses(self, pages: Iterable[MappedPage]) -> list[PhysAddr | None]:
        found: list[PhysAddr | None] = []
        for page in pages:
            key = (page.name, page.number)
            if key not in self.places and self.pooled:
                self.places[key] = self.pooled.pop(0 if self._first_comes_first else -1)
            place = self.places.get(key)
            found.append(None if place is None else PhysAddr(place))
        return found

    def take_back(self, record: HugePagesRecord) -> None:
        """Take back the pages of files that a record does not have."""
        kept = {(file.name, number) for file in record.files for number, _ in file.pages}
        for key in self.places.keys() - kept:
            self.free.insert(0, self.places.pop(key))

    def _take_back_removed(self) -> None:
        for key in [key for key in self.places if not (self.directory / key[0]).exists()]:
            self.free.insert(0, self.places.pop(key))


def make_root(root: Path) -> Path:
    """A tree of files with a hugetlbfs mount; the directory of that mount."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mounts").write_text(
        "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
    )
    (root / "dev/hugepages").mkdir(parents=True)
    return root / "dev/hugepages"


def pages_from(start: int, count: int, *, step: int = HUGE) -> list[int]:
    """The addresses of `count` huge pages."""
    return [start + number * step for number in range(count)]


SCATTERED = pages_from(64 * MIB, 8, step=3 * HUGE)


def needs_huge_pages() -> None:
    if not Path(PATH).exists():
        leave_out("this kernel has no huge pages of 2 MiB")
    if os.geteuid():
        leave_out("only root may take huge pages")
    if not os.access(PATH, os.W_OK):
        leave_out("the number of huge pages can't be changed here, as in a container")


@contextlib.contextmanager
def number_locked() -> Iterator[None]:
    """In this block no other test changes how many huge pages this computer has."""
    with NUMBER.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
