"""The document's scenario: some guests balloon up while others balloon down.

Four guests on a host of 4 GiB that has little to spare. Two are to grow and two to shrink; in the
end there is enough for all. But of the two that shrink, one is busy and can't let go of all of it
at once, and the other is told later: "temporary memory pressure while things stabilise". Nothing
else happens, unless `again_s` has the targets of those that grow written again then, with the same
values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.lazy import np
from openrbu.memory.physical import pc_regions
from openrbu.units import GIB, PAGES_PER_MIB
from openrbu.xen.hypervisor import Hypervisor
from openrbu.xen.samples import Curve, Doing
from openrbu.xen.world import ModelGuest, World

END_S = 54.0
SECONDS_PER_BATCH = 0.02
"""2 MiB in so much: 100 MiB/s, for a picture with slopes."""

_HOST_BYTES = 4 * GIB
_FREE_MIB = 224
"""What dom0 leaves to the host beside these guests."""


class Part(NamedTuple):
    """What a guest has, is told to have, and when; its programs use `used_mib` up to `done_s`, and
    a quarter of that from then on."""

    name: str
    start_mib: int
    target_mib: int
    told_s: float
    used_mib: int = 0
    done_s: float = 0.0


CAST = (
    Part("db", 512, 928, told_s=2.0),
    Part("web", 384, 1280, told_s=2.0),
    Part("batch", 1344, 704, told_s=2.0, used_mib=1104, done_s=10.0),
    Part("test", 1024, 512, told_s=20.0),
)
"""Those that grow are `db` and `web`."""


class Moment(NamedTuple):
    """Something to tell of a guest."""

    time_s: float
    guest: str
    text: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """How it went, up to `END_S`. `free_pages` is what the host had free at the start."""

    profile: BalloonProfile
    hypervisor: Hypervisor
    guests: dict[str, ModelGuest]
    world: World
    free_pages: int

    def moments(self) -> list[Moment]:
        """Who was told what, who fell short, gave up and arrived, in order of time."""
        samples = self.world.samples
        told = (moment for name in samples.guests for moment in _tell(name, samples.curve(name)))
        return sorted(told, key=lambda moment: moment.time_s)


def play(profile: BalloonProfile, *, again_s: float | None = None) -> Scenario:
    """Play it with guests that all have this driver."""
    hypervisor = Hypervisor.in_memory(pc_regions(_HOST_BYTES))
    guests = {
        part.name: ModelGuest.create(
            hypervisor,
            part.name,
            profile,
            pages=part.start_mib * PAGES_PER_MIB,
            max_pages=max(part.start_mib, part.target_mib) * PAGES_PER_MIB,
            used_pages=part.used_mib * PAGES_PER_MIB,
        )
        for part in CAST
    }
    rest = hypervisor.free_pages - _FREE_MIB * PAGES_PER_MIB
    hypervisor.create_domain("dom0", pages=rest, max_pages=rest)
    world = World(seconds_per_batch=SECONDS_PER_BATCH)
    scenario = Scenario(profile, hypervisor, guests, world, hypervisor.free_pages)
    for part in CAST:
        guest, target = guests[part.name], part.target_mib * PAGES_PER_MIB
        world.add(part.name, guest.balloon)
        world.at(part.told_s, partial(world.set_target_pages, part.name, target))
        if part.used_mib:
            done = partial(setattr, guest.pages, "used_pages", guest.pages.used_pages // 4)
            world.at(part.done_s, done)
        if again_s is not None and part.target_mib > part.start_mib:
            world.at(again_s, partial(world.set_target_pages, part.name, target))
    world.run(END_S)
    return scenario


def _tell(name: str, curve: Curve) -> Iterator[Moment]:
    """The moments of one guest."""
    told = np.diff(curve.target_pages, prepend=curve.target_pages[0]) != 0
    before, had, has_waited = Doing.SETTLED, _mib(curve.current_pages[0]), False
    for row, time_s in enumerate(curve.times_s.tolist()):
        now = curve.doing(row)
        has, goal = _mib(curve.current_pages[row]), _mib(curve.goal_pages[row])
        if told[row]:
            has_waited = False
            yield Moment(time_s, name, f"is told to have {goal}, and has {had}")
        elif now is Doing.MOVING and before is Doing.STALLED:
            yield Moment(time_s, name, f"is told the same again, and has {had}")
        if now is Doing.WAITING and not has_waited:
            has_waited = True
            yield Moment(time_s, name, f"falls short at {has}, and will try again")
        if now is not before and now is Doing.STALLED:
            yield Moment(time_s, name, f"gives up at {has} of {goal}")
        if now is not before and now is Doing.SETTLED:
            yield Moment(time_s, name, f"arrives at {has}")
        before, had = now, has


def _mib(pages: int) -> str:
    return f"{pages / PAGES_PER_MIB:.0f} MiB"
