"""Guests' balloons in model time: what a day of a host looks like, in a moment.

Theory of operation. A queue, sorted by time, has the next step of each balloon that has one, and
what is to happen besides (a toolstack sets a target, a guest's programs take memory). The world
jumps from one entry to the next, so that an hour in which nothing is due costs nothing, and
neither does a guest whose balloon is idle. Guests that are due in the same moment take turns,
batch by batch, in the order in which they became due: nobody gets ahead by being asked first.

Nothing is random and nobody looks at a clock: the same schedule gives the same history.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.lazy import np
from openrbu.memory.frames import Frames
from openrbu.xen.hypervisor import Domain, Hypervisor
from openrbu.xen.samples import Samples

Action = Callable[[], object]

_NOT_QUEUED = -1


class World:
    """Balloons that go on as time does.

    A batch takes `seconds_per_batch`; 0: as long as nothing, so that every curve is a staircase.
    `steps` counts the batches. It is `start_s` at first.
    """

    def __init__(self, *, seconds_per_batch: float = 0.0, start_s: float = 0.0) -> None:
        self.now_s = start_s
        self.steps = 0
        self.samples = Samples(start_s)
        self._seconds_per_batch = seconds_per_batch
        self._guests: dict[str, _Entry] = {}
        self._queue: list[tuple[float, int, _Entry | Action]] = []
        self._turn = 0

    @property
    def next_s(self) -> float | None:
        """When something happens next; None: nothing will, however long one waits."""
        queue = self._queue
        while queue:
            time_s, turn, what = queue[0]
            if not isinstance(what, _Entry) or what.turn == turn:
                return time_s
            heapq.heappop(queue)  # the guest has another place in the queue since
        return None

    def add(self, name: str, balloon: XenBalloon) -> None:
        """Have a guest's balloon from now on.

        :raise ValueError: when there is a guest of that name.
        """
        if name in self._guests:
            raise ValueError(f"there is a guest {name!r} already")
        self._look(self._guests.setdefault(name, _Entry(name, balloon)))

    def at(self, time_s: float, action: Action) -> None:
        """Do something at that time; what is due then and was known before comes first.

        :raise ValueError: when that time has passed.
        """
        if time_s < self.now_s:
            raise ValueError(f"it is {self.now_s} s already, so nothing can be done at {time_s} s")
        heapq.heappush(self._queue, (time_s, self._next_turn(), action))

    def set_target_pages(self, name: str, pages: int) -> None:
        """Tell a guest how much memory to have, as a toolstack does.

        :raise KeyError: when there is no such guest.
        """
        guest = self._guests[name]
        guest.balloon.set_target_pages(pages)
        self._look(guest)

    def look(self, name: str) -> None:
        """See what somebody else has done to a guest's balloon, such as set its target.

        :raise KeyError: when there is no such guest.
        """
        self._look(self._guests[name])

    def step(self) -> bool:
        """Go on to what happens next, and have that happen: one batch, or one action. False when
        there is nothing."""
        time_s = self.next_s
        if time_s is None:
            return False
        _, _, what = heapq.heappop(self._queue)
        self.now_s = time_s
        if not isinstance(what, _Entry):
            what()
            return True
        what.turn = _NOT_QUEUED
        what.balloon.step(time_s)
        what.ready_s = time_s + self._seconds_per_batch
        self.steps += 1
        self._look(what)
        return True

    def run(self, until_s: float) -> None:
        """Let time go on to `until_s`, that moment included.

        :raise ValueError: when that time has passed.
        """
        if until_s < self.now_s:
            raise ValueError(f"it is {self.now_s} s already, not yet {until_s} s")
        while (time_s := self.next_s) is not None and time_s <= until_s:
            self.step()
        self.now_s = until_s

    def _look(self, guest: _Entry) -> None:
        """See how a guest's balloon is now: write it down, and queue its next step."""
        self.samples.note(self.now_s, guest.name, guest.balloon)
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
class _Entry:
    """A guest in the queue: at `due_s`, with this `turn`, which tells its entry from older ones.
    Its last batch takes until `ready_s`."""

    name: str
    balloon: XenBalloon
    due_s: float = 0.0
    ready_s: float = -inf
    turn: int = _NOT_QUEUED


@dataclass(slots=True)
class GuestPages:
    """The pages of a guest without their bytes: frames 0 up to `end` are free at first.

    Its programs use `used_pages` of the free ones, no matter which; the balloon gets what is left.
    Pages given back go out again first.
    """

    end: int
    used_pages: int = 0
    free_pages: int = field(init=False)
    _fresh: int = field(init=False, default=0)  # from here on, no page was ever handed out
    _given: list[Frames] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.free_pages = self.end

    def take_pages(self, count: int) -> Frames:
        """Up to `count` pages that no program uses."""
        count = max(0, min(count, self.free_pages - self.used_pages))
        self.free_pages -= count
        parts = []
        while count > 0:
            part = self._given.pop() if self._given else self._fresh_pages(count)
            if len(part) > count:
                self._given.append(part[count:])
                part = part[:count]
            parts.append(part)
            count -= len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def give_pages(self, frames: Frames) -> None:
        """Take pages back, or new ones."""
        if len(frames):
            self._given.append(frames.copy())
            self.free_pages += len(frames)

    def _fresh_pages(self, count: int) -> Frames:
        first = self._fresh
        self._fresh = min(first + count, self.end)
        return np.arange(first, self._fresh, dtype=np.uint32)


class ModelGuest:
    """A guest of a host, of which only its pages matter."""

    def __init__(self, domain: Domain, profile: BalloonProfile, *, used_pages: int = 0) -> None:
        self.name = domain.name
        self.domain = domain
        self.pages = GuestPages(domain.current_pages, used_pages)
        self.balloon = XenBalloon(
            self.pages,
            domain,
            profile=profile,
            current_pages=domain.current_pages,
            ballooned=np.arange(domain.current_pages, domain.frame_count, dtype=np.uint32),
        )

    @classmethod
    def create(
        cls,
        hypervisor: Hypervisor,
        name: str,
        profile: BalloonProfile,
        *,
        pages: int,
        max_pages: int,
        used_pages: int = 0,
        claim_pages: int = 0,
    ) -> ModelGuest:
        """A new domain, with `pages` of its `max_pages`.

        :raise KernelError: ENOMEM when the host has not so many left.
        """
        domain = hypervisor.create_domain(
            name, pages=pages, max_pages=max_pages, claim_pages=claim_pages
        )
        return cls(domain, profile, used_pages=used_pages)
