"""A guest of which only the pages matter, for simulations: its pages have no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.lazy import np
from openrbu.memory.frames import Frames
from openrbu.xen.hypervisor import Domain, Hypervisor


@dataclass(slots=True)
class GuestPages:
    """The pages of a guest without their bytes: frames 0 up to, not including, `end` are free at
    first.

    Its programs use `used_pages` of the free ones, no matter which; the balloon can take the rest.
    Pages that were given back are taken again first.
    """

    end: int
    used_pages: int = 0
    free_pages: int = field(init=False)
    _fresh: int = field(init=False, default=0)  # from here on, no page was ever handed out
    _given: list[Frames] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.free_pages = self.end

    def take_pages(self, count: int) -> Frames:
        """Take up to `count` pages that no program uses: their frames."""
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
        """Give pages to the guest: those that it had before, or new ones."""
        if len(frames):
            self._given.append(frames.copy())
            self.free_pages += len(frames)

    def _fresh_pages(self, count: int) -> Frames:
        first = self._fresh
        self._fresh = min(first + count, self.end)
        return np.arange(first, self._fresh, dtype=np.uint32)


class ModelGuest:
    """A guest of a host, with a balloon driver over `GuestPages`."""

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
        """A guest in a new domain that has `pages` of its `max_pages` frames.

        :raise KernelError: ENOMEM when the host does not have so many pages free.
        """
        domain = hypervisor.create_domain(
            name, pages=pages, max_pages=max_pages, claim_pages=claim_pages
        )
        return cls(domain, profile, used_pages=used_pages)
