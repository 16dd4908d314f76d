"""The model of a map: which ranges of physical memory are of which kind, and what was found there.

Each renderer asks it the same question: of what kind is each cell of a grid (`kinds_in`)?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from openrbu.lazy import np, npt
from openrbu.maps.kinds import KINDS
from openrbu.memory.ram_array import Addresses
from openrbu.memory.search_result import FoundSet

NOTHING = -1
"""In place of a kind: the cell is not in this memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Ranges of memory in bytes, [start, end), ascending and not overlapping; shape (n,) each."""

    starts: Addresses
    ends: Addresses
    _before: Addresses = field(init=False, repr=False)
    """How many bytes are in the ranges before each one; shape (n + 1,)."""

    def __post_init__(self) -> None:
        before = np.concatenate(([0], np.cumsum(self.ends - self.starts)))
        object.__setattr__(self, "_before", before.astype(np.int64))

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Ranges:
        """From pairs in any sequence. Those that touch or overlap are joined."""
        flat = np.array(sorted(spans), np.int64).reshape(-1, 2)
        starts, ends = flat[:, 0], np.maximum.accumulate(flat[:, 1]) if len(flat) else flat[:, 1]
        begins = np.ones(len(flat), np.bool_)
        begins[1:] = starts[1:] > ends[:-1]
        lasts = np.append(begins[1:], np.ones(min(1, len(flat)), np.bool_))
        return cls(starts[begins], ends[lasts])

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def size_bytes(self) -> int:
        return int(self._before[-1])

    def bytes_in(self, starts: Addresses, ends: Addresses) -> Addresses:
        """How many bytes of [start, end) are in these ranges, for each of the cells; shape (n,)."""
        return self._bytes_below(ends) - self._bytes_below(starts)

    def _bytes_below(self, addresses: Addresses) -> Addresses:
        if not len(self.starts):
            return np.zeros(len(addresses), np.int64)
        index = np.searchsorted(self.starts, addresses, "right")
        last = np.maximum(index - 1, 0)
        inside = np.clip(addresses - self.starts[last], 0, self.ends[last] - self.starts[last])
        below: Addresses = np.where(index > 0, self._before[last] + inside, 0)
        return below


@dataclass(frozen=True, slots=True)
class MappedZone:
    """A zone of the page allocator. `free_counts`: its free blocks of each order, if known."""

    name: str
    start: int
    end: int
    free_counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something found at an address that is no packet: its kind's key, a title, and facts as pairs
    of a name and a value. The texts may come from damaged memory."""

    kind: str
    address: int
    size_bytes: int
    title: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class MappedSet:
    """A packet set and where its packets are: all copies, ascending by address; shape (n,) each.

    `header`: the 32 bytes of one of them; those of the others differ in the number and the
    checksum (and packet 0's in its size). `is_ghost`: nobody holds the page, so that it may be
    overwritten; None where that is not known. `title`: of the image, or empty.
    """

    found: FoundSet
    header: bytes
    addresses: Addresses
    numbers: npt.NDArray[np.uint16]
    checksums: npt.NDArray[np.uint16]
    is_ghost: npt.NDArray[np.bool_] | None
    title: str = ""

    def states(self) -> npt.NDArray[np.int8]:
        """What there is of each packet: 0 nothing, 1 a leftover copy, 2 a packet that may be held;
        shape (total,)."""
        states = np.zeros(self.found.total, np.int8)
        ghost = self.is_ghost
        if ghost is None:
            ghost = np.zeros(len(self.numbers), np.bool_)
        states[self.numbers[ghost]] = 1
        states[self.numbers[~ghost]] = 2
        return states


@dataclass(frozen=True, slots=True, eq=False)
class MemoryMap:
    """All that is known of a memory. `ranges`: by the key of a kind; `end`: after its last byte.

    `reject_count` counts the rejects that are not in `marks`, too. `notes`: what could not be seen.
    """

    name: str
    end: int
    ranges: Mapping[str, Ranges]
    zones: tuple[MappedZone, ...] = ()
    sets: tuple[MappedSet, ...] = ()
    marks: tuple[Mark, ...] = ()
    reject_count: int = 0
    notes: tuple[str, ...] = ()

    def kinds_in(self, starts: Addresses, cell_bytes: int) -> npt.NDArray[np.intp]:
        """The kind of each cell [start, start + cell_bytes): its place in `KINDS`, or `NOTHING`.

        A mark wins wherever there is any of it; of the others, the one that has most of the cell.
        """
        ends = np.minimum(starts + cell_bytes, self.end)
        starts = np.minimum(starts, ends)
        shown = np.full(len(starts), NOTHING, np.intp)
        most = np.zeros(len(starts), np.int64)
        for place, kind in enumerate(KINDS):
            ranges = self.ranges.get(kind.key)
            if ranges is None or not len(ranges):
                continue
            covered = ranges.bytes_in(starts, ends)
            wins = covered > (0 if kind.is_mark else most)
            shown[wins] = place
            most[wins] = covered[wins]
        return shown

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds that there are, as places in `KINDS`."""
        return tuple(
            place
            for place, kind in enumerate(KINDS)
            if kind.key in self.ranges and len(self.ranges[kind.key])
        )
