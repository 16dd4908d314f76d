"""A host and its guests to try the balloon driver on, as little of each as the driver can tell.

They count: a page is in one place at a time, a host has so many machine pages and no more.
"""

from __future__ import annotations

import numpy as np

from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.memory.frames import Frames


class Host:
    """`free_pages` machine pages that no guest has. `calls` counts hypercalls."""

    def __init__(self, free_pages: int = 0) -> None:
        self.free_pages = free_pages
        self.calls = 0


class Guest:
    """A guest of `frames` frames, the first `pages` of which have a machine page and are free.

    `is_clean` says of which frames nothing that the guest wrote is left. `offered` and `freed` are
    the frames of each hypercall, in order.
    """

    def __init__(
        self,
        host: Host,
        *,
        frames: int,
        pages: int,
        profile: str = "linux",
        minimum_pages: int = 0,
    ) -> None:
        self.host = host
        self.frame_count = frames
        self.populated = np.arange(frames) < pages
        self.is_free = self.populated.copy()
        self.is_clean = ~self.populated
        self.offered: list[list[int]] = []
        self.freed: list[list[int]] = []
        self.log: list[str] = []
        self.balloon = self.make_balloon(profile, minimum_pages)

    def make_balloon(self, profile: str, minimum_pages: int = 0) -> XenBalloon:
        return XenBalloon(
            self,
            self,
            profile=balloon_profile(profile),
            current_pages=int(self.populated.sum()),
            ballooned=np.flatnonzero(~self.populated).astype(np.uint32),
            minimum_pages=minimum_pages,
            scrub=self._scrub,
            log=self.log.append,
        )

    # -- the guest's page allocator ---------------------------------------------------------

    def take_pages(self, count: int) -> Frames:
        frames = np.flatnonzero(self.is_free)[:count].astype(np.uint32)
        self.is_free[frames] = False
        return frames

    def give_pages(self, frames: Frames) -> None:
        assert self.populated[frames].all()
        assert not self.is_free[frames].any()
        self.is_free[frames] = True
        self.is_clean[frames] = False

    def use(self, count: int) -> None:
        """A program of the guest takes free pages, as many as there are of them."""
        self.take_pages(count)

    def stop_using(self) -> None:
        """It ends."""
        self.is_free |= self.populated

    # -- the hypervisor ---------------------------------------------------------------------

    def populate(self, frames: Frames) -> int:
        self.host.calls += 1
        self.offered.append(frames.tolist())
        assert len(np.unique(frames)) == len(frames)
        assert not self.populated[frames].any()
        granted = min(len(frames), self.host.free_pages)
        self.host.free_pages -= granted
        self.populated[frames[:granted]] = True
        return granted

    def decrease(self, frames: Frames) -> None:
        self.host.calls += 1
        self.freed.append(frames.tolist())
        assert len(np.unique(frames)) == len(frames) > 0
        assert self.populated[frames].all()
        assert not self.is_free[frames].any()
        self.populated[frames] = False
        self.host.free_pages += len(frames)

    def _scrub(self, frames: Frames) -> None:
        assert self.populated[frames].all()
        self.is_clean[frames] = True


def short_times(guest: Guest, count: int, *, start_s: float = 0.0) -> list[float]:
    """How long the driver waits after each of so many steps that fall short."""
    delays, now_s = [], start_s
    for _ in range(count):
        assert guest.balloon.step(now_s) == 0
        if guest.balloon.due_s is None:
            break
        delays.append(guest.balloon.due_s - now_s)
        now_s = guest.balloon.due_s
    return delays
