"""What `make bench` measures of ballooning: the work, without the clock.

One guest is what a kernel has: the driver, the page allocator and the hypervisor. A thousand guests
are a model, whose pages are numbers only, with the same driver and hypervisor.
"""

from __future__ import annotations

import random
import time
from functools import partial

from openrbu.balloon.model import ModelGuest
from openrbu.drivers.xen_balloon import XenBalloon
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import Region, pc_regions
from openrbu.units import GIB, PAGE_SIZE, PAGES_PER_MIB, PhysAddr
from openrbu.xen.hypervisor import Hypervisor
from openrbu.xen.simulation import BalloonSimulation

MILLION = 1_000_000

_HOST_BYTES = 1024 * GIB
_GUESTS = 1000
_HOUR_S = 3600.0


class OneGuest:
    """A guest with all of a host's memory, `size_bytes`, that lets go of `count` pages, and takes
    them back."""

    def __init__(self, size_bytes: int, count: int) -> None:
        pages = size_bytes // PAGE_SIZE
        region = Region(PhysAddr(GIB), PhysAddr(GIB + size_bytes))
        domain = Hypervisor.in_memory((region,)).create_domain("a", pages=pages, max_pages=pages)
        allocator = BuddyAllocator(_Places(Region(PhysAddr(0), PhysAddr(size_bytes))))  # type: ignore[arg-type]
        profile = balloon_profile("linux")
        self._balloon = XenBalloon(allocator, domain, profile=profile, current_pages=pages)
        self._pages, self._count = pages, count

    def balloon(self) -> None:
        for target in (self._pages - self._count, self._pages):
            self._balloon.set_target_pages(target)
            self._balloon.run(0.0)
            assert self._balloon.current_pages == target


class _Places:
    """Memory of which only the places matter."""

    def __init__(self, *regions: Region) -> None:
        self.regions = regions


def thousand_guests() -> None:
    """1,000 guests on a host of 1 TiB, an hour of model time: each is told another target every ten
    minutes, by a sixth of its memory on average. All together want more than there is at times, and
    some can't let go of what they should. Prints the seconds."""
    start = time.perf_counter()
    rng = random.Random(1)
    hypervisor = Hypervisor.in_memory(pc_regions(_HOST_BYTES))
    simulation = BalloonSimulation()
    for number in range(_GUESTS):
        guest = ModelGuest.create(
            hypervisor,
            f"guest{number}",
            balloon_profile("linux-2.6.18-xen"),
            pages=1000 * PAGES_PER_MIB,
            max_pages=1250 * PAGES_PER_MIB,
            used_pages=rng.randrange(1000) * PAGES_PER_MIB,
        )
        simulation.add(guest.name, guest.balloon)
        for turn in range(6):
            pages = rng.randrange(750, 1251) * PAGES_PER_MIB
            time_s = 600 * (turn + rng.random())
            simulation.at(time_s, partial(simulation.set_target_pages, guest.name, pages))
    simulation.run(_HOUR_S)
    seconds = time.perf_counter() - start
    hypervisor.check()
    print(seconds)
