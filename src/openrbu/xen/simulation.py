"""The balloons of guests in simulated time: a day of a host is computed in a moment.

Theory of operation. A queue, sorted by time, has the next step of each balloon that has one, and
the actions that the caller planned (a toolstack sets a target, a guest's programs take memory). The
simulation jumps from one entry to the next, so that an hour in which nothing is due costs nothing,
and neither does a guest whose balloon is idle. Guests that are due at the same moment take turns,
batch by batch, in the order in which they became due, so that none is preferred.

Nothing is random, and no clock is read: the same schedule gives the same history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.xen.samples import Samples

Action = Callable[[], object]

_NOT_QUEUED = -1


class BalloonSimulation:
    """Balloons that move as simulated time passes.

    The time is `now_s`, which starts at `start_s`. A batch takes `seconds_per_batch`; with 0 a
    batch takes no time, and every curve is a staircase. `steps` counts the batches, and `samples`
    records what each balloon did.
    """

    def __init__(self, *, seconds_per_batch: float = 0.0, start_s: float = 0.0) -> None:
        self.now_s = start_s
        self.steps = 0
        self.samples = Samples(start_s)
        self._seconds_per_batch = seconds_per_batch
        self._guests: dict[str, _QueuedGuest] = {}
        self._queue: list[tuple[float, int, _QueuedGuest | Action]] = []
        self._turn = 0

    @property
    def next_s(self) -> float | None:
        """The time of the next step or action; None when there is none."""
        queue = self._queue
        while queue:
            time_s, turn, what = queue[0]
            if not isinstance(what, _QueuedGuest) or what.turn == turn:
                return time_s
            heapq.heappop(queue)  # the guest was queued again at another time
        return None

    def add(self, name: str, balloon: XenBalloon) -> None:
        """Add a guest's balloon. It moves from now on.

        :raise ValueError: when there is a guest of that name.
        """
        if name in self._guests:
            raise ValueError(f"there is a guest {name!r} already")
        self._queue_next_step(self._guests.setdefault(name, _QueuedGuest(name, balloon)))

    def at(self, time_s: float, action: Action) -> None:
        """Plan an action. What is due at the same time and was known before comes first.

        :raise ValueError: when that time has passed.
        """
        if time_s < self.now_s:
            raise ValueError(f"it is {self.now_s} s already, so nothing can be done at {time_s} s")
        heapq.heappush(self._queue, (time_s, self._next_turn(), action))

    def set_target_pages(self, name: str, pages: int) -> None:
        """Set a guest's target, as a toolstack does.

        :raise KeyError: when there is no such guest.
        """
        guest = self._guests[name]
        guest.balloon.set_target_pages(pages)
        self._queue_next_step(guest)

    def refresh(self, name: str) -> None:
        """Queue a guest anew, because its balloon was changed from outside, such as by a target.

        :raise KeyError: when there is no such guest.
        """
        self._queue_next_step(self._guests[name])

    def step(self) -> bool:
        """Advance to the next batch or action, and do it. False when there is none."""
        time_s = self.next_s
        if time_s is None:
            return False
        _, _, what = heapq.heappop(self._queue)
        self.now_s = time_s
        if not isinstance(what, _QueuedGuest):
            what()
            return True
        what.turn = _NOT_QUEUED
        what.balloon.step(time_s)
        what.ready_s = time_s + self._seconds_per_batch
        self.steps += 1
        self._queue_next_step(what)
        return True

    def run(self, until_s: float) -> None:
        """Do all that is due up to `until_s`, that moment included.

        :raise ValueError: when that time has passed.
        """
        if until_s < self.now_s:
            raise ValueError(f"it is {self.now_s} s already, not yet {until_s} s")
        while (time_s := self.next_s) is not None and time_s <= until_s:
            self.step()
        self.now_s = until_s

    def _queue_next_step(self, guest: _QueuedGuest) -> None:
        """Record the state of a guest's balloon, and queue its next step."""
        self.samples.record(self.now_s, guest.name, guest.balloon)
        due_s = guest.balloon.due_s
        if due_s is None:
            guest.turn = _NOT_QUEUED
            return
        due_s = max(due_s, guest.ready_s, self.now_s)
        if guest.turn != _NOT_QUEUED and guest.due_s == due_s:
            return  # it keeps its place
        guest.due_s, guest.turn = due_s, self._next_turn()
        heapq.heappush(self._queue, (due_s, guest.turn, guest))

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn


@dataclass(slots=True, eq=False)
class _QueuedGuest:
    """A guest whose next step is due at `due_s`. `turn` is the number of its entry in the queue;
    older entries of the guest have other numbers and don't count. Its last batch ends at
    `ready_s`."""

    name: str
    balloon: XenBalloon
    due_s: float = 0.0
    ready_s: float = -inf
    turn: int = _NOT_QUEUED
