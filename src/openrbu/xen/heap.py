"""The hypervisor's heap: which machine frames are free, and in which order they are handed out.

Theory of operation. A stack of frames that came back, and a mark behind which nothing was ever
handed out. The stack goes first, so that used frames are used again before fresh ones (a RAM file
stays sparse) and a host costs no memory before it is used, whatever its size. Fresh frames come in
ascending order.

A batch that comes back is put on the stack with its lowest frame on top. So the batch that was
freed most recently is handed out first, in ascending order. As a balloon hands its frames back the
other way round, last one first, a guest that has ballooned down and up has its pages in
*descending* order in machine memory, as was seen on Xen 4.17.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from openrbu.lazy import np, npt
from openrbu.memory.frames import Frames

Spans = tuple[tuple[int, int], ...]
"""Machine frames as (first, behind the last), ascending."""

Flags: TypeAlias = "npt.NDArray[np.bool_]"
"""Something about each machine frame, shape (n,): frame f has place f."""

_STACKED, _FRESH = 0, 1
WORDS = 2
"""How many numbers the heap keeps in `words`: the height of the stack, and how many frames lie
before the mark, counted over all spans."""


class Heap:
    """The free ones of the machine frames in `spans`.

    `words` and `stack` are where its state is, in memory that processes may share. All of zeros,
    they are a heap of which nothing was handed out. `stack` has room for as many frames as lie
    before the mark.
    """

    def __init__(self, spans: Spans, words: memoryview, stack: Frames) -> None:
        self._spans, self._words, self._stack = spans, words, stack
        self.total_pages = sum(end - first for first, end in spans)
        self.end = spans[-1][1]

    @property
    def free_pages(self) -> int:
        return self._words[_STACKED] + self.total_pages - self._words[_FRESH]

    @property
    def marked_pages(self) -> int:
        """How many frames lie before the mark."""
        mark: int = self._words[_FRESH]
        return mark

    def mark_after(self, count: int) -> int:
        """What `marked_pages` will be when `count` frames more have been dropped."""
        return self.marked_pages + max(0, count - self._words[_STACKED])

    def peek(self, count: int) -> Frames:
        """The next `count` frames to be handed out; that many are free. Nothing changes."""
        height = self._words[_STACKED]
        top = self._stack[max(0, height - count) : height][::-1]
        if len(top) == count:
            return top.copy()
        fresh = [
            np.arange(first, end, dtype=np.uint32)
            for first, end in self.fresh_spans(count - len(top))
        ]
        return np.concatenate([top, *fresh])

    def drop(self, count: int) -> None:
        """Hand out the frames that `peek` said."""
        height = self._words[_STACKED]
        self._words[_FRESH] = self.mark_after(count)
        self._words[_STACKED] = max(0, height - count)

    def give(self, ordered: Frames) -> None:
        """Take back frames, which are ascending."""
        height = self._words[_STACKED]
        self._stack[height : height + len(ordered)] = ordered[::-1]
        self._words[_STACKED] = height + len(ordered)

    def make_anew(self, used: Flags) -> Frames:
        """Have all frames free but the used ones; the ones on the stack now, ascending.

        `used` has a place for each machine frame up to one behind the last used one at least. The
        mark comes right behind that one.
        """
        end = len(used) - int(used[::-1].argmax()) if used.any() else 0
        spans = [(first, min(last, end)) for first, last in self._spans if first < end]
        parts = [(~used[first:last]).nonzero()[0] + first for first, last in spans]
        free = np.concatenate([np.empty(0, np.uint32), *parts]).astype(np.uint32)
        self._words[_STACKED] = 0
        self._words[_FRESH] = sum(last - first for first, last in spans)
        self.give(free)
        return free

    def stacked(self) -> Frames:
        """The frames on the stack, the next one last. Not a copy."""
        return self._stack[: self._words[_STACKED]]

    def fresh_spans(self, count: int | None = None) -> Iterator[tuple[int, int]]:
        """The first `count` frames behind the mark, or all of them, as (first, behind the last)."""
        skip = self.marked_pages
        left = self.total_pages - skip if count is None else count
        for first, end in self._spans:
            start = min(first + skip, end)
            stop = min(start + left, end)
            if start < stop:
                yield start, stop
            skip -= start - first
            left -= stop - start
