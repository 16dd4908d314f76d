"""A host's state, and how it stays consistent when a process is killed inside of a hypercall.

Theory of operation. The frame tables are the truth; the heap and all counters follow from them. A
hypercall that changes them sets a mark first and clears it last. A process that gets the lock and
finds the mark knows that another one died in between, and rebuilds the rest (`_rebuild`). The steps
of each hypercall have an order that leaves the tables true wherever it is cut off:

========  ===========================================================================
populate  backing is committed, the table gets the frames, the heap loses them
decrease  the table loses the frames, backing is released, the heap gets them
create    the table is filled, then the guest's row begins to count
destroy   the row no longer counts, backing is released, the heap gets the frames
========  ===========================================================================

So a machine frame is never in two tables, and never in a table without its backing.
"""

from __future__ import annotations

from typing import Protocol, Self

from openrbu.errors import MachineError
from openrbu.lazy import np
from openrbu.memory.frames import Frames
from openrbu.xen.arrays import HostArrays
from openrbu.xen.heap import WORDS as HEAP_WORDS
from openrbu.xen.heap import Flags, Heap, Spans
from openrbu.xen.records import MAX_GUESTS, ROW_WORDS, Row, Rows

INVALID = 0xFFFF_FFFF
"""In a frame table: no machine page here."""

_CHANGING, _CLAIMED, _NEXT_ID, _ENDED = range(4)
_HEAP = 4
_ROWS = 16
WORD_COUNT = _ROWS + MAX_GUESTS * ROW_WORDS


class Backing(Protocol):
    """The memory behind machine frames, such as a RAM file."""

    def commit(self, frames: Frames) -> int:
        """Take memory for these frames, in their order, as far as there is some. Returns for how
        many there was."""

    def release(self, frames: Frames) -> None:
        """Give the memory of these frames back: they have zeros then."""

    def discard(self, first: int, count: int) -> None:
        """The same for `count` frames from `first` on."""


class HostState:
    """The state of a host. Used as a context manager, the block is the inside of a hypercall.

    `takes_memory`: populating a guest takes memory of the backing. `may_change`: this process may
    change the state, because it has the backing, or there is none.
    """

    def __init__(
        self,
        arrays: HostArrays,
        spans: Spans,
        backing: Backing | None,
        *,
        takes_memory: bool,
        may_change: bool = True,
    ) -> None:
        words = arrays.words
        self.arrays, self.backing, self.takes_memory = arrays, backing, takes_memory
        self.may_change = may_change
        self.heap = Heap(spans, words[_HEAP : _HEAP + HEAP_WORDS], arrays.stack)
        self._words, self.rows = words[:_HEAP], Rows(words[_ROWS:])

    def __enter__(self) -> Self:
        self.arrays.lock()
        try:
            if self.has_ended:
                raise MachineError("the Xen host was switched off, or started again")
            if self._words[_CHANGING]:
                self._rebuild()
        except BaseException:
            self.arrays.unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.arrays.unlock()

    def begin_change(self, *, handing_out: int = 0) -> None:
        """Begin a change. If the process dies before `end_change`, the next hypercall notices.

        `handing_out`: how many frames the heap may lose meanwhile.

        :raise MachineError: when this process may only read, or the disk has no room for what the
            heap will need when the frames come back. Then nothing has changed.
        """
        if not self.may_change:
            raise MachineError(
                "this host's memory is not open in this process, so none of it can be moved"
            )
        try:
            self.arrays.make_stack_room(self.heap.mark_after(handing_out))
        except OSError as error:
            raise MachineError(
                f"the Xen host can't write to the disk which pages are free ({error.strerror}): "
                "free some space and try again"
            ) from None
        self._words[_CHANGING] = 1

    def end_change(self) -> None:
        self._words[_CHANGING] = 0

    @property
    def has_ended(self) -> bool:
        """Whether the host was switched off, or started again. See `end`."""
        return bool(self._words[_ENDED])

    @property
    def claimed_pages(self) -> int:
        """How many pages all guests together have claimed."""
        claimed: int = self._words[_CLAIMED]
        return claimed

    @property
    def unclaimed_pages(self) -> int:
        """How many pages are free and not claimed."""
        return self.heap.free_pages - self.claimed_pages

    def end(self) -> None:
        """End the host and all its guests, before its files are removed. A process that has it open
        keeps what it has mapped, which must not lead into the RAM of the next host.

        :raise MachineError: when a process stays inside of a hypercall.
        """
        self.arrays.lock()
        try:
            self._words[_ENDED] = 1  # first: a process killed here leaves no host without guests
            for row in self.rows:
                self.forget(row)
        finally:
            self.arrays.unlock()

    def forget(self, row: Row) -> Frames:
        """End a guest, and empty its frame table for all processes that have it mapped. Returns
        the machine frames that it had, ascending. They are in no table now, and not in the heap.
        """
        table = self.table(row)
        frames = np.sort(table[table != INVALID])
        row.assign(None)
        table[:] = INVALID
        return frames

    def next_id(self) -> int:
        """A number that no guest had yet, from 1 on."""
        self._words[_NEXT_ID] += 1
        number: int = self._words[_NEXT_ID]
        return number

    def set_counts(self, row: Row, current_pages: int, claim_pages: int) -> None:
        """Set how many pages a guest has, and has claimed."""
        self._words[_CLAIMED] += claim_pages - row.claim_pages
        row.set_counts(current_pages, claim_pages)

    def commit(self, count: int) -> Frames:
        """Take memory for the next `count` frames of the heap, which keeps them as free. Returns
        those that got memory: fewer when the backing is short of it.
        """
        frames = self.heap.peek(count)
        if self.backing is None or not self.takes_memory:
            return frames
        return frames[: self.backing.commit(frames)]

    def take_back(self, ordered: Frames) -> None:
        """Scrub frames that are in no table any more, and free them. They must be ascending."""
        self.scrub(ordered)
        self.heap.give(ordered)

    def scrub(self, frames: Frames) -> None:
        """Give the memory of frames back, so that they have zeros."""
        if self.backing is not None:
            self.backing.release(frames)

    def table(self, row: Row) -> Frames:
        """A guest's frame table."""
        number = row.domain_id
        assert number is not None
        return self.arrays.table(number, row.frame_count)

    def check(self) -> None:
        """Check that each machine frame is free or has one guest, and that all counts are right.

        :raise MachineError: when that is not so.
        """
        used, counts = self._true_state()
        stacked = self.heap.stacked()
        if used[stacked].any():
            raise MachineError("a machine frame is free, and a guest has it")
        used[stacked] = True
        if np.count_nonzero(used) != sum(counts.values()) + len(stacked):
            raise MachineError("a machine frame is free twice")
        if np.count_nonzero(used) != self.heap.marked_pages or any(
            used[first:end].any() for first, end in self.heap.fresh_spans()
        ):
            raise MachineError("a machine frame is lost")
        if any(row.current_pages != counts[row.number] for row in self.rows):
            raise MachineError("a guest's pages are counted wrong")
        claimed = sum(row.claim_pages for row in self.rows)
        if self.claimed_pages != claimed or claimed > self.heap.free_pages:
            raise MachineError("more is claimed than is free, or it is counted wrong")
        if set(self.arrays.table_numbers()) != {row.domain_id for row in self.rows}:
            raise MachineError("a frame table has no guest")

    def _true_state(self) -> tuple[Flags, dict[int, int]]:
        """What the frame tables say: which machine frames are used, and how many each row has.

        :raise MachineError: when the tables contradict each other.
        """
        used = np.zeros(self.heap.end, np.bool_)
        counts: dict[int, int] = {}
        for row in self.rows:
            table = self.table(row)
            frames = table[table != INVALID]
            if len(frames) and frames.max() >= len(used):
                raise MachineError(f"guest {row.name!r} has a machine frame that is not RAM")
            used[frames] = True
            counts[row.number] = len(frames)
        if np.count_nonzero(used) != sum(counts.values()):
            raise MachineError("a machine frame is in the frame tables twice")
        return used, counts

    def _rebuild(self) -> None:
        """Rebuild the heap and all counters from the frame tables.

        Pages that the dead process had put into a table come off its guest's claim, unless it had
        counted them. A process that may only read leaves the mark set, because it can't scrub.
        """
        used, counts = self._true_state()
        for row in self.rows:
            gained = max(0, counts[row.number] - row.current_pages)
            row.set_counts(counts[row.number], max(0, row.claim_pages - gained))
        self._words[_CLAIMED] = sum(row.claim_pages for row in self.rows)
        free = self.heap.rebuild(used)
        self.scrub(free)
        if self.backing is not None:
            for first, end in self.heap.fresh_spans():
                self.backing.discard(first, end - first)
        for number in set(self.arrays.table_numbers()) - {row.domain_id for row in self.rows}:
            self.arrays.drop_table(number)
        if self.may_change:
            self.end_change()
