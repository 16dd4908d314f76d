"""The hypervisor's heap: which machine frames are free, and in which order they are handed out.

Theory of operation. The heap is a stack of frames that came back, and a mark: frames behind it were
never handed out. The stack is used first, so that used frames are used again before fresh ones (a
RAM file stays sparse), and a host of any size costs no memory before it is used. Fresh frames are
handed out in ascending order.

A batch that comes back is put on the stack with its lowest frame on top. So the batch that was
freed most recently is handed out first, in ascending order. A balloon gives its frames to the guest
in the opposite order, last one first. So a guest that has ballooned down and up has its pages in
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
"""A flag of each machine frame, shape (n,): that of frame f has index f."""

_STACKED, _FRESH = 0, 1
WORDS = 2
"""How many numbers the heap has in `words`: the height of the stack, and how many frames are before
the mark, counted over all spans."""


class Heap:
    """The free frames among the machine frames in `spans`.

    `words` and `stack` have its state, in memory that processes may share. All zeros are a heap
    from which nothing was handed out. `stack` has room for as many frames as are before the mark.
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
        """How many frames are before the mark."""
        mark: int = self._words[_FRESH]
        return mark

    def mark_after(self, count: int) -> int:
        """What `marked_pages` will be after `drop(count)`."""
        return self.marked_pages + max(0, count - self._words[_STACKED])

    def peek(self, count: int) -> Frames:
        """The next `count` frames to be handed out, without a change; so many must be free."""
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
        """Hand out the frames that `peek(count)` returned."""
        height = self._words[_STACKED]
        self._words[_FRESH] = self.mark_after(count)
        self._words[_STACKED] = max(0, height - count)

    def give(self, ordered: Frames) -> None:
        """Take back frames, which must be ascending."""
        height = self._words[_STACKED]
        self._stack[height : height + len(ordered)] = ordered[::-1]
        self._words[_STACKED] = height + len(ordered)

    def rebuild(self, used: Flags) -> Frames:
        """Make all frames free but the used ones. Returns those on the stack then, ascending.

        `used` has at least one element more than the number of the last used frame. The mark comes
        right behind that frame.
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
        """The frames on the stack, the next one last: a view, not a copy."""
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
