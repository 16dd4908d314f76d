"""Memory of this computer that a process has at known physical addresses, until the restart.

`OwnMemory` is what the driver of this computer's own memory gets its pages from. How such memory
is had differs (the `kind`): huge pages, the region of a crash kernel, a device of persistent
memory. In all cases the bytes stay when the process ends, and another process continues with the
`record`.

The record is kept by whoever opens the memory. It is told of each change by a `Note`: *before*
anything of the kernel's is changed, so that a process that is killed at any moment has left a
record with which the next one finds all that there is, and gives it back; and afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from openrbu.memory.pages import PageSource
from openrbu.memory.physical import Region
from openrbu.typed_json import Natural
from openrbu.units import PhysAddr

AllocatedRows: TypeAlias = tuple[tuple[Natural, Natural, Natural, Natural], ...]
"""Blocks that are handed out: `[order, first frame, count, distance in frames]`, as the page
allocator saves them (`memory.buddy_state`)."""


@dataclass(frozen=True, slots=True)
class PoolBefore:
    """How many huge pages a pool had before the first change. `path`: the file with the number."""

    path: str
    count: Natural


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of huge pages. `pages` has the place in the file (counted in pages of `page_bytes`)
    and the physical address of each page that is kept; the others were given back."""

    name: str
    page_bytes: Natural
    pages: tuple[tuple[Natural, Natural], ...]


@dataclass(frozen=True, slots=True)
class HugePagesRecord:
    """Huge pages in files in the hugetlbfs mount at `directory`. `is_our_mount`: it was mounted for
    them. `pools`: those whose number is changed now, or may be."""

    kind: Literal["huge_pages"]
    directory: str
    is_our_mount: bool
    pools: tuple[PoolBefore, ...]
    files: tuple[PageFile, ...]
    allocated: AllocatedRows


@dataclass(frozen=True, slots=True)
class CrashRegionRecord:
    """The crash kernel's memory in [start, end). `was_loaded`: there was a crash kernel in it.
    `is_used`: something was handed out, so there may be anything of ours in it."""

    kind: Literal["crash_region"]
    start: Natural
    end: Natural
    was_loaded: bool
    is_used: bool
    allocated: AllocatedRows


@dataclass(frozen=True, slots=True)
class PmemRecord:
    """The memory of the device `/dev/DEVICE`, in [start, end). `is_used`: something was handed out,
    so there may be anything of ours in it."""

    kind: Literal["pmem"]
    device: str
    start: Natural
    end: Natural
    is_used: bool
    allocated: AllocatedRows


OwnMemoryRecord: TypeAlias = HugePagesRecord | CrashRegionRecord | PmemRecord
"""What `OwnMemory.record` returns, of each kind; the field `kind` tells them apart."""

LARGEST_ORDER = 14
"""The order of the largest block that any kind of memory hands out: 64 MiB, twice the largest ROM.
"""

Note: TypeAlias = Callable[[OwnMemoryRecord], None]
"""Called with the record before anything of the kernel's is changed, and when that is done. When
it raises, nothing more is changed."""


class OwnMemory(PageSource, Protocol):
    """Memory of this computer at known physical addresses.

    `memory` (of `PageSource`) has the true physical addresses. Its regions change when `allocate`
    or `reserve` takes more from the kernel; views of it stay valid. Two rules of `PageSource` are
    wider here. `allocate` takes more from the kernel where its pages do not do, up to a limit. And
    a block of more than a huge page is contiguous and starts on a huge page; it need not be
    naturally aligned.
    """

    @property
    def kind(self) -> str:
        """How the memory is had, for scripts: `huge_pages`, `crash_region` or `pmem`."""

    @property
    def largest_order(self) -> int:
        """The order of the largest block that `allocate` may ever hand out."""

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        """Have so many bytes free, in blocks of `block_bytes`, a power of two: what `allocate`
        does, but at once for all blocks, which takes much less time.

        :raise KernelError: ENOMEM when that is not to be had. The text says how much was got, and
            where.
        """

    def moved(self) -> tuple[Region, ...]:
        """What is no longer where it was handed out, by the old addresses: the addresses are read
        again. Nobody knows what is at the old addresses now. Empty: all is in its place.

        :raise OSError: when the addresses can't be read.
        """

    def flush(self, regions: Iterable[Region]) -> bool:
        """Have the bytes of these regions in RAM, and not in the processor's caches only, as far as
        a process can. False: this process has no means for that, and nothing was done."""

    def record(self) -> OwnMemoryRecord:
        """What another process needs to continue with this memory as it is now."""

    def give_back(self) -> None:
        """Clear all of it, and return it to the kernel, with all that was changed for it. There is
        no memory then.

        :raise OSError: the kernel's error. What could be given back was; it may be tried again.
        """


class Backend(Protocol):
    """A kind of memory for the driver. `note` is told of its changes: see `Note`."""

    def new(self, note: Note) -> OwnMemory:
        """A memory without any pages yet.

        :raise ObstacleError: when this computer has no such memory.
        """

    def open(self, record: OwnMemoryRecord, note: Note) -> OwnMemory:
        """The memory of a record, with what is in it.

        :raise ObstacleError: when it can't be opened.
        """
