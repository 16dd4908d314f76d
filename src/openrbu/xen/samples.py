"""What balloons did over time, for charts and as events. Only changes are recorded.

There is one row per guest and moment. Several batches at the same moment leave one row, with the
state at the end of that moment; a row that equals the one before is not kept. So a balloon that is
idle, or that tries again and again without success, costs nothing here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from openrbu.lazy import np, npt
from openrbu.units import PAGE_KIB

_MOST_PAGES = 2**63 - 1  # of a column; a target may be any number that a file takes


class BalloonActivity(Enum):
    """What a balloon does now. Its goal is its target, or all its frames where these are fewer."""

    SETTLED = "settled"  # at its goal
    MOVING = "moving"  # the next batch is due
    WAITING = "waiting"  # a step fell short; the next one has a time
    STALLED = "stalled"  # short of its goal, and nothing happens until a target is set


_STATES = tuple(BalloonActivity)


class BalloonState(Protocol):
    """The state of a balloon: a `XenBalloon`, or what is known of one. See there."""

    @property
    def current_pages(self) -> int: ...

    @property
    def target_pages(self) -> int: ...

    @property
    def goal_pages(self) -> int: ...

    @property
    def credit_pages(self) -> int: ...

    @property
    def low_pages(self) -> int: ...

    @property
    def high_pages(self) -> int: ...

    @property
    def due_s(self) -> float | None: ...


def activity_of(balloon: BalloonState, now_s: float) -> BalloonActivity:
    """What a balloon does at `now_s`."""
    if not balloon.credit_pages:
        return BalloonActivity.SETTLED
    if balloon.due_s is None:
        return BalloonActivity.STALLED
    return BalloonActivity.MOVING if balloon.due_s <= now_s else BalloonActivity.WAITING


@dataclass(frozen=True, slots=True)
class Curve:
    """One guest's rows as arrays of equal length, ascending in time. A value holds until the next
    row's time. `states` are places in `tuple(BalloonActivity)`."""

    times_s: npt.NDArray[np.float64]
    current_pages: npt.NDArray[np.int64]
    target_pages: npt.NDArray[np.int64]
    goal_pages: npt.NDArray[np.int64]
    ballooned_pages: npt.NDArray[np.int64]
    states: npt.NDArray[np.uint8]

    def activity(self, row: int) -> BalloonActivity:
        """What the guest's balloon did from that row on."""
        return _STATES[int(self.states[row])]

    def spans(self, state: BalloonActivity, end_s: float) -> Iterator[tuple[float, float]]:
        """The times from which and up to which the balloon did this, ascending, up to `end_s`."""
        inside = np.concatenate(([False], self.states == _STATES.index(state), [False]))
        times = np.append(self.times_s, end_s)
        changes = np.flatnonzero(np.diff(inside))
        for first, stop in zip(changes[::2], changes[1::2], strict=True):
            yield float(times[first]), float(times[stop])


class Samples:
    """The rows of all guests, in order of time; their times are counted from `start_s`."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._start_s = start_s
        self._guests: dict[str, int] = {}
        self._last: list[tuple[int, tuple[int, ...]]] = []  # each guest's last row: place, values
        self._times = array("d")
        self._who = array("I")
        self._columns = tuple(array(kind) for kind in "qqqqB")

    def __len__(self) -> int:
        return len(self._times)

    @property
    def guests(self) -> tuple[str, ...]:
        """Their names, in the order in which they came."""
        return tuple(self._guests)

    def record(self, now_s: float, guest: str, balloon: BalloonState) -> None:
        """Record the state of a guest's balloon, if it has changed. Times must not go back."""
        time_s = now_s - self._start_s
        values = (
            balloon.current_pages,
            min(balloon.target_pages, _MOST_PAGES),
            balloon.goal_pages,
            balloon.low_pages + balloon.high_pages,
            _STATES.index(activity_of(balloon, now_s)),
        )
        number = self._guests.get(guest)
        if number is None:
            number = self._guests[guest] = len(self._last)
            self._last.append((-1, ()))
        place, before = self._last[number]
        if values == before:
            return
        if place >= 0 and self._times[place] == time_s:
            for column, value in zip(self._columns, values, strict=True):
                column[place] = value
        else:
            place = len(self._times)
            self._times.append(time_s)
            self._who.append(number)
            for column, value in zip(self._columns, values, strict=True):
                column.append(value)
        self._last[number] = (place, values)

    def curve(self, guest: str) -> Curve:
        """The rows of one guest.

        :raise KeyError: when nothing was recorded of it.
        """
        mine = np.array(self._who) == self._guests[guest]
        current, target, goal, ballooned, states = (np.array(each)[mine] for each in self._columns)
        return Curve(np.array(self._times)[mine], current, target, goal, ballooned, states)

    def released_pages(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How many pages all guests together have given back since their first rows: times,
        ascending, and pages, both of one shape. The host's free memory has grown by as many."""
        who, current = np.array(self._who), np.array(self._columns[0])
        order = np.argsort(who, kind="stable")  # guest by guest
        change = np.diff(current[order], prepend=0)
        change[np.diff(who[order], prepend=-1) != 0] = 0
        in_time = np.empty_like(change)
        in_time[order] = change
        return np.array(self._times), -np.cumsum(in_time)

    def events(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """The rows from number `start` on for JSON, sizes in KiB as in the driver's files."""
        names = self.guests
        for place in range(start, len(self)):
            *pages, state = (column[place] for column in self._columns)
            current, target, goal, ballooned = (each * PAGE_KIB for each in pages)
            yield {
                "time_s": self._times[place],
                "guest": names[self._who[place]],
                "state": _STATES[state].value,
                "current_kib": current,
                "target_kib": target,
                "goal_kib": goal,
                "balloon_kib": ballooned,
            }
