"""A host's state, and how it stays whole when a process is killed inside of a hypercall.

Theory of operation. The frame tables are the truth; the heap and all counters follow from them. A
hypercall that changes them sets a mark first and clears it last. Who finds the mark when the lock
is free knows that its holder died in between, and makes the rest anew (`_make_anew`). In
between, each hypercall keeps an order that leaves true tables wherever it is cut off:

========  ===========================================================================
populate  backing is committed, the table gets the frames, the heap loses them
decrease  the table loses the frames, backing is released, the heap gets them
create    the table is filled, then the guest's row begins to count
destroy   the row ends to count, backing is released, the heap gets the frames
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
    """What machine frames are made of, such as a RAM file."""

    def commit(self, frames: Frames) -> int:
        """Take memory for the first ones of these frames; for how many there was some."""

    def release(self, frames: Frames) -> None:
        """Give the memory of these frames back: they hold zeros then."""

    def discard(self, first: int, count: int) -> None:
        """The same for `count` frames from `first` on."""


class HostState:
    """The state of a host. As a context manager it is the inside of a hypercall.

    `takes_memory`: populating a guest takes memory of the backing. `may_change`: this process may
    do more than look; it has the backing, if there is one.
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
                self._make_anew()
        except BaseException:
            self.arrays.unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.arrays.unlock()

    def begin_change(self, *, handing_out: int = 0) -> None:
        """From here on until `end_change`, being cut off is noticed by the next hypercall.

        `handing_out`: how many frames the heap may lose meanwhile.

        :raise MachineError: when this process may only look, or the disk has no room for what the
            heap will need when they come back. Then nothing has changed.
        """
        if not self.may_change:
            raise MachineError("this host's memory is not open here: nothing of it can be moved")
        try:
            self.arrays.make_stack_room(self.heap.mark_after(handing_out))
        except OSError as error:
            raise MachineError(
                f"the Xen host can't keep on the disk which pages are free ({error.strerror}): "
                "free some space and try again"
            ) from None
        self._words[_CHANGING] = 1

    def end_change(self) -> None:
        self._words[_CHANGING] = 0

    @property
    def has_ended(self) -> bool:
        """Whether the host is of no use any more. See `end`."""
        return bool(self._words[_ENDED])

    @property
    def claimed_pages(self) -> int:
        """What all guests together have claimed."""
        claimed: int = self._words[_CLAIMED]
        return claimed

    @property
    def unclaimed_pages(self) -> int:
        """What is free and nobody has claimed."""
        return self.heap.free_pages - self.claimed_pages

    def end(self) -> None:
        """There is no guest any more, and the host is of no use. For processes that have it open
        when its files are removed: what they have mapped stays, and must not reach the RAM of the
        host that comes after it.

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
        """End a guest, and have its frame table lead nowhere for who has it mapped. The machine
        frames that it had, ascending: nobody has them now.
        """
        table = self.table(row)
        frames = np.sort(table[table != INVALID])
        row.give_to(None)
        table[:] = INVALID
        return frames

    def next_id(self) -> int:
        """A number that no guest had yet, from 1 on."""
        self._words[_NEXT_ID] += 1
        number: int = self._words[_NEXT_ID]
        return number

    def set_counts(self, row: Row, current_pages: int, claim_pages: int) -> None:
        """What a guest has, and has claimed."""
        self._words[_CLAIMED] += claim_pages - row.claim_pages
        row.set_counts(current_pages, claim_pages)

    def commit(self, count: int) -> Frames:
        """The next `count` frames of the heap, with memory behind them. Fewer than asked when the
        backing is short of it. The heap still has them.
        """
        frames = self.heap.peek(count)
        if self.backing is None or not self.takes_memory:
            return frames
        return frames[: self.backing.commit(frames)]

    def take_back(self, ordered: Frames) -> None:
        """Scrub frames that are in no table any more, and free them; they are ascending."""
        self.scrub(ordered)
        self.heap.give(ordered)

    def scrub(self, frames: Frames) -> None:
        """Have frames hold zeros, and no memory."""
        if self.backing is not None:
            self.backing.release(frames)

    def table(self, row: Row) -> Frames:
        """A guest's frame table."""
        number = row.domain_id
        assert number is not None
        return self.arrays.table(number, row.frame_count)

    def check(self) -> None:
        """See that each machine frame is free or one guest's, and that all is counted right.

        :raise MachineError: when it is not so.
        """
        used, counts = self._true_state()
        stacked = self.heap.stacked()
        if used[stacked].any():
            raise MachineError("a machine frame is free, and a guest's")
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
            raise MachineError("a frame table is nobody's")

    def _true_state(self) -> tuple[Flags, dict[int, int]]:
        """What the frame tables say: which machine frames are used, and how many by which row.

        :raise MachineError: when that can't be.
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
            raise MachineError("a machine frame is two guests'")
        return used, counts

    def _make_anew(self) -> None:
        """Make the heap and all counters anew from the frame tables.

        Pages that the process that died had put into a table come off its guest's claim, unless it
        had counted them. Who may only look leaves the mark: memory has to be scrubbed yet.
        """
        used, counts = self._true_state()
        for row in self.rows:
            gained = max(0, counts[row.number] - row.current_pages)
            row.set_counts(counts[row.number], max(0, row.claim_pages - gained))
        self._words[_CLAIMED] = sum(row.claim_pages for row in self.rows)
        free = self.heap.make_anew(used)
        self.scrub(free)
        if self.backing is not None:
            for first, end in self.heap.fresh_spans():
                self.backing.discard(first, end - first)
        for number in set(self.arrays.table_numbers()) - {row.domain_id for row in self.rows}:
            self.arrays.drop_table(number)
        if self.may_change:
            self.end_change()
