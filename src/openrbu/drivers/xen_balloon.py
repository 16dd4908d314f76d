"""The Xen balloon driver: moves a guest's memory toward a target, batch by batch.

Theory of operation. A guest has *frames* (its page frame numbers). Each has a machine page, or is
in the balloon. The goal is the target, but no more than all frames of the guest; *credit* is the
goal less what the guest has now. A step moves one batch of up to 512 pages:

- credit > 0, *increase*: the frames that went into the balloon last are offered to the hypervisor,
  last one first. Those that it populates are free pages of the guest again. It may populate fewer
  than offered, because the host is short of memory.
- credit < 0, *decrease*: free pages of the guest are taken (no other memory is freed for that) and
  scrubbed. Their machine pages go to the hypervisor and their frames into the balloon. There may be
  fewer free pages than wanted, because the guest is short of memory.

The value of `due_s` is the state, and these are all its changes:

==========  ========================  ========================================================
state       `due_s`                   leaves it by
==========  ========================  ========================================================
idle        None, no credit           a new target -> working, where it leaves credit
working     -inf: at once             a step: see below; a new target without credit -> idle
waiting     the time of the next try  a step when it is due: see below; a new target: as idle
given up    None, with credit         a new target: as idle
==========  ========================  ========================================================

=====================  =======================================================================
a step that …          goes to
=====================  =======================================================================
moved all              idle where the credit is used up, otherwise working; the back-off starts
                       anew
fell short             what the profile says of that kind of shortage: *go on* as above; *wait*
                       and *back off* -> waiting, or given up after too many; *give up* -> given up
=====================  =======================================================================

The back-off counts tries. The first one that falls short makes the count 2 and the delay 2 s, and
the driver waits for that delay; the next one makes them 3 and 4 s, and so on. A try that would make
the count more than the limit cancels instead: the driver has given up, and both are 1 again. Two
things are special to the back-off:

- When the same target is set again while the driver waits or has given up, nothing happens, with
  a profile that says so. A different target is always tried, even when the goal stays the same.
- A new target that leaves no credit does not end the waiting. It leads to one more try at once,
  which moves nothing and counts as one that fell short.

Facts and their sources: docs/reference/balloon.md, X1 to X4 and X6.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from openrbu.drivers.states import FrameRuns, XenBalloonState
from openrbu.drivers.xen_balloon_profiles import BalloonProfile, Reaction
from openrbu.errors import MachineError
from openrbu.lazy import np
from openrbu.memory.frames import Frames
from openrbu.memory.pages import BalloonPages
from openrbu.units import PAGES_PER_MIB

BATCH_PAGES = 512
"""One page has room for so many 8-byte frame numbers."""

RETRY_DELAY_S = 1
MAX_SCHEDULE_DELAY_S = 32

TICK_S = 1 / 250
"""A delay of 0 lasts as long as a tick of Debian's kernels. This is a choice of openrbu: a real
driver makes 90,000 tries a second then (measured)."""

_MINIMUMS = ((128, 8, 1), (512, 40, 2), (2048, 104, 3), (inf, 296, 5))
"""(limit, base, shift): a guest whose maximum is below `limit` MiB has a minimum of `base` MiB and
its maximum shifted right by `shift` bits."""


class Reservation(Protocol):
    """A guest's memory at the hypervisor, which the guest can change by hypercalls."""

    def populate(self, frames: Frames) -> int:
        """Get machine pages for these frames, in their order. Returns how many got one."""

    def decrease(self, frames: Frames) -> None:
        """Give the machine pages of these frames back.

        :raise MachineError: when the hypervisor refuses. Then the guest keeps them.
        """


def minimum_pages_for(max_pages: int) -> int:
    """The target below which later 2.6.18-xen trees don't let a guest of this maximum go."""
    base_mib, shift = next(row[1:] for row in _MINIMUMS if max_pages < row[0] * PAGES_PER_MIB)
    return base_mib * PAGES_PER_MIB + (max_pages >> shift)


def reachable_pages(target_pages: int, current_pages: int, frames_left: int) -> int:
    """The size that a guest with this target moves to: it can't grow past the frames that it has,
    of which `frames_left` have no page."""
    return min(target_pages, current_pages + frames_left)


class XenBalloon:
    """The driver of one guest. It has no clock: its caller says what time it is.

    `current_pages` pages of the guest have a machine page now; `ballooned` are the frames that
    have none; the last of them comes back first. A target below `minimum_pages` counts as
    that, but never makes the guest grow; 0 turns this off. `scrub` clears pages. `log` gets
    a line when the driver gives up.
    """

    high_pages = 0
    """Balloon pages of high memory, which 64-bit guests have not got."""

    def __init__(
        self,
        pages: BalloonPages,
        reservation: Reservation,
        *,
        profile: BalloonProfile,
        current_pages: int,
        ballooned: Frames | None = None,
        minimum_pages: int = 0,
        scrub: Callable[[Frames], None] = lambda frames: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._pages, self._reservation = pages, reservation
        self._scrub, self._log = scrub, log
        self.profile = profile
        self.minimum_pages = minimum_pages
        self.current_pages = self.target_pages = current_pages
        self.hard_limit_pages: int | None = None
        self.retry_count = 1
        self.schedule_delay_s = RETRY_DELAY_S
        self.max_retry_count = profile.max_retry_count
        self.max_schedule_delay_s = MAX_SCHEDULE_DELAY_S
        self.scrub_pages = True
        self.due_s: float | None = None
        """When the next step is due, by the caller's clock: -inf is at once, None never."""
        self._frames = _Stack(ballooned)

    @property
    def low_pages(self) -> int:
        """How many frames are in the balloon."""
        return len(self._frames)

    @property
    def goal_pages(self) -> int:
        """The size that the driver moves to."""
        frames_left = self.low_pages + self.high_pages
        return reachable_pages(self.target_pages, self.current_pages, frames_left)

    @property
    def credit_pages(self) -> int:
        """How many pages the guest has still to get; below 0: to give back."""
        return self.goal_pages - self.current_pages

    def ballooned(self) -> Frames:
        """A copy of the balloon's frames; the last one comes back first."""
        return self._frames.copy()

    def set_target_pages(self, pages: int) -> None:
        """Set how much memory the guest shall have. The work is due at once, not done here."""
        before = self.target_pages
        self.target_pages = max(pages, min(self.goal_pages, self.minimum_pages))
        self.hard_limit_pages = None
        if self.target_pages != before or self.profile.same_target_is_tried:
            self._schedule_next()

    def step(self, now_s: float) -> int:
        """Move one batch, if it is due. Returns how many pages were moved."""
        if self.due_s is None or self.due_s > now_s:
            return 0
        credit = self.credit_pages
        if credit < 0:
            moved, reaction = self._decrease(min(-credit, BATCH_PAGES))
        elif credit > 0:
            moved, reaction = self._increase(min(credit, BATCH_PAGES))
        else:  # in a back-off
            moved, reaction = 0, Reaction.BACK_OFF
        match reaction:
            case Reaction.GO_ON:
                self._reset_retries()
                self._schedule_next()
            case Reaction.WAIT:
                self.due_s = now_s + RETRY_DELAY_S
            case Reaction.BACK_OFF:
                self._back_off(now_s)
            case Reaction.GIVE_UP:
                self.due_s = None
        return moved

    def clock_is(self, now_s: float) -> None:
        """Read the caller's clock, which may have been set back: no timer is further away than it
        was when it was started."""
        if self.due_s is not None and self.due_s > now_s:
            delay_s = max(self.schedule_delay_s, RETRY_DELAY_S)
            self.due_s = min(self.due_s, now_s + delay_s)

    def run(self, now_s: float) -> None:
        """Step until nothing is due. A timer that ended long ago counts as one try, not several."""
        while self.due_s is not None and self.due_s <= now_s:
            self.step(now_s)

    def snapshot(self) -> XenBalloonState:
        """What `restore` needs."""
        return XenBalloonState(
            current_pages=self.current_pages,
            target_pages=self.target_pages,
            frames=to_runs(self._frames.copy()),
            hard_limit_pages=self.hard_limit_pages,
            retry_count=self.retry_count,
            schedule_delay_s=self.schedule_delay_s,
            max_retry_count=self.max_retry_count,
            max_schedule_delay_s=self.max_schedule_delay_s,
            scrub_pages=self.scrub_pages,
            due_s="at once" if self.due_s == -inf else self.due_s,
        )

    def restore(self, state: XenBalloonState) -> None:
        """Go on where the snapshot was taken. The pages and the reservation are restored apart."""
        self.current_pages = state.current_pages
        self.target_pages = state.target_pages
        self._frames = _Stack(from_runs(state.frames))
        self.hard_limit_pages = state.hard_limit_pages
        self.retry_count = state.retry_count
        self.schedule_delay_s = state.schedule_delay_s
        self.max_retry_count = state.max_retry_count
        self.max_schedule_delay_s = state.max_schedule_delay_s
        self.scrub_pages = state.scrub_pages
        self.due_s = -inf if state.due_s == "at once" else state.due_s

    # -- the two ways -----------------------------------------------------------------------

    def _increase(self, count: int) -> tuple[int, Reaction]:
        offered = self._frames.last(count)
        granted = self._reservation.populate(offered)
        reaction = Reaction.GO_ON
        if granted < count:
            profile = self.profile
            reaction = profile.on_partial_grant if granted else profile.on_no_grant
            if reaction is Reaction.GIVE_UP:
                self._find_hard_limit(offered[:granted])
                return 0, reaction
        self._frames.drop(granted)
        self.current_pages += granted
        self._pages.give_pages(offered[:granted])
        return granted, reaction

    def _decrease(self, count: int) -> tuple[int, Reaction]:
        frames = self._pages.take_pages(count)
        taken = len(frames)
        if taken:
            if self.scrub_pages:
                self._scrub(frames)
            self._frames.push(frames)
            self.current_pages -= taken
            try:
                self._reservation.decrease(frames)
            except MachineError:
                self._frames.drop(taken)
                self.current_pages += taken
                self._pages.give_pages(frames)
                raise
        return taken, Reaction.GO_ON if taken == count else self.profile.on_short_guest

    def _find_hard_limit(self, granted: Frames) -> None:
        self.hard_limit_pages = self.current_pages + len(granted)
        if len(granted):
            self._reservation.decrease(granted)
        self._log(f"xen_balloon: the hard limit is {self.hard_limit_pages} pages")

    # -- when the next step is due --------------------------------------------------------------

    def _schedule_next(self) -> None:
        is_backing_off = self.retry_count > 1
        self.due_s = -inf if self.credit_pages or is_backing_off else None

    def _reset_retries(self) -> None:
        self.retry_count = 1
        self.schedule_delay_s = RETRY_DELAY_S

    def _back_off(self, now_s: float) -> None:
        self.retry_count += 1
        if self.max_retry_count and self.retry_count > self.max_retry_count:
            self._log(f"xen_balloon: gave up at {self.current_pages} of {self.goal_pages} pages")
            self._reset_retries()
            self.due_s = None
            return
        self.schedule_delay_s = min(2 * self.schedule_delay_s, self.max_schedule_delay_s)
        self.due_s = now_s + max(self.schedule_delay_s, TICK_S)


class _Stack:
    """Frame numbers, last in, first out, in an array that doubles when it is full."""

    def __init__(self, frames: Frames | None) -> None:
        self._array: Frames = np.array(() if frames is None else frames, np.uint32)
        self._count = len(self._array)

    def __len__(self) -> int:
        return self._count

    def push(self, frames: Frames) -> None:
        """Put frames on top; the last of them is taken first."""
        end = self._count + len(frames)
        if end > len(self._array):
            larger = np.empty(max(end, 2 * len(self._array)), np.uint32)
            larger[: self._count] = self._array[: self._count]
            self._array = larger
        self._array[self._count : end] = frames
        self._count = end

    def last(self, count: int) -> Frames:
        """A copy of the top `count` frames, from the top down."""
        return self._array[self._count - count : self._count][::-1].copy()

    def drop(self, count: int) -> None:
        """Remove `count` frames from the top."""
        self._count -= count

    def copy(self) -> Frames:
        """A copy of all frames, from the bottom up."""
        return self._array[: self._count].copy()


def to_runs(frames: Frames) -> FrameRuns:
    """Frames, in their order, as runs `[first, count, step]` of frames at equal distances."""
    numbers = frames.astype(np.int64)
    steps = np.diff(numbers)
    ends = (np.flatnonzero(np.diff(steps)) + 1).tolist()
    if len(steps):
        ends.append(len(steps))
    rows: list[tuple[int, int, int]] = []
    done = 0  # so many frames are in rows
    for end in ends:  # the same step leads from each frame to the next one, up to this one
        if end > done:  # or else the run before has had the only frame that is left of these
            rows.append((int(numbers[done]), end - done + 1, int(steps[done])))
            done = end + 1
    if done < len(numbers):
        rows.append((int(numbers[done]), 1, 0))
    return tuple(rows)


def from_runs(runs: FrameRuns) -> Frames:
    """The frames that `to_runs` was given."""
    pieces = [first + step * np.arange(count) for first, count, step in runs]
    return np.concatenate([np.zeros(0, np.int64), *pieces]).astype(np.uint32)
