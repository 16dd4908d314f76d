"""The document's scenario: some guests balloon up while others balloon down.

There are four guests on a host of 4 GiB that has little free memory. Two of them shall grow and two
shall shrink, and in the end there is enough memory for all. But one of those that shrink is busy
and can't give back all of it at once, and the target of the other is set later: "temporary memory
pressure while things stabilise". Nothing else happens, except that with `again_s` the targets of
the growing guests are written again at that time, with the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from openrbu.balloon.model import ModelGuest
from openrbu.drivers.xen_balloon_profiles import BalloonProfile
from openrbu.lazy import np
from openrbu.memory.physical import pc_regions
from openrbu.units import GIB, PAGES_PER_MIB
from openrbu.xen.hypervisor import Hypervisor
from openrbu.xen.samples import BalloonActivity, Curve
from openrbu.xen.simulation import BalloonSimulation

END_S = 54.0
SECONDS_PER_BATCH = 0.02
"""A batch is 2 MiB, so guests move 100 MiB/s: the picture has slopes, not stairs."""

_HOST_BYTES = 4 * GIB
_FREE_MIB = 224
"""What the host has free beside dom0 and these guests."""


class ScenarioGuest(NamedTuple):
    """A guest: its memory at the start, its target, and when that is set. Its programs use
    `used_mib` up to `done_s`, and a quarter of that from then on."""

    name: str
    start_mib: int
    target_mib: int
    target_set_s: float
    used_mib: int = 0
    done_s: float = 0.0


GUESTS = (
    ScenarioGuest("db", 512, 928, target_set_s=2.0),
    ScenarioGuest("web", 384, 1280, target_set_s=2.0),
    ScenarioGuest("batch", 1344, 704, target_set_s=2.0, used_mib=1104, done_s=10.0),
    ScenarioGuest("test", 1024, 512, target_set_s=20.0),
)
"""`db` and `web` grow, `batch` and `test` shrink."""


class ScenarioEvent(NamedTuple):
    """Something that happened to a guest, as `text` that follows its name."""

    time_s: float
    guest: str
    text: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, run up to `END_S`. `free_pages` is what the host had free at the start."""

    profile: BalloonProfile
    hypervisor: Hypervisor
    guests: dict[str, ModelGuest]
    simulation: BalloonSimulation
    free_pages: int

    def events(self) -> list[ScenarioEvent]:
        """Targets that were set, and guests that fell short, gave up or reached them; by time."""
        samples = self.simulation.samples
        events = (each for name in samples.guests for each in _events_of(name, samples.curve(name)))
        return sorted(events, key=lambda event: event.time_s)


def run_scenario(profile: BalloonProfile, *, again_s: float | None = None) -> Scenario:
    """Run the scenario with guests that all have this driver."""
    hypervisor = Hypervisor.in_memory(pc_regions(_HOST_BYTES))
    guests = {
        each.name: ModelGuest.create(
            hypervisor,
            each.name,
            profile,
            pages=each.start_mib * PAGES_PER_MIB,
            max_pages=max(each.start_mib, each.target_mib) * PAGES_PER_MIB,
            used_pages=each.used_mib * PAGES_PER_MIB,
        )
        for each in GUESTS
    }
    rest = hypervisor.free_pages - _FREE_MIB * PAGES_PER_MIB
    hypervisor.create_domain("dom0", pages=rest, max_pages=rest)
    simulation = BalloonSimulation(seconds_per_batch=SECONDS_PER_BATCH)
    scenario = Scenario(profile, hypervisor, guests, simulation, hypervisor.free_pages)
    for each in GUESTS:
        guest, target = guests[each.name], each.target_mib * PAGES_PER_MIB
        simulation.add(each.name, guest.balloon)
        simulation.at(each.target_set_s, partial(simulation.set_target_pages, each.name, target))
        if each.used_mib:
            done = partial(setattr, guest.pages, "used_pages", guest.pages.used_pages // 4)
            simulation.at(each.done_s, done)
        if again_s is not None and each.target_mib > each.start_mib:
            simulation.at(again_s, partial(simulation.set_target_pages, each.name, target))
    simulation.run(END_S)
    return scenario


def _events_of(name: str, curve: Curve) -> Iterator[ScenarioEvent]:
    """The events of one guest."""
    is_set = np.diff(curve.target_pages, prepend=curve.target_pages[0]) != 0
    before, had, has_waited = BalloonActivity.SETTLED, _mib(curve.current_pages[0]), False
    for row, time_s in enumerate(curve.times_s.tolist()):
        now = curve.activity(row)
        has, goal = _mib(curve.current_pages[row]), _mib(curve.goal_pages[row])
        if is_set[row]:
            has_waited = False
            yield ScenarioEvent(time_s, name, f"gets the target {goal}, and has {had}")
        elif now is BalloonActivity.MOVING and before is BalloonActivity.STALLED:
            yield ScenarioEvent(time_s, name, f"gets the same target again, and has {had}")
        if now is BalloonActivity.WAITING and not has_waited:
            has_waited = True
            yield ScenarioEvent(time_s, name, f"falls short at {has}, and will try again")
        if now is not before and now is BalloonActivity.STALLED:
            yield ScenarioEvent(time_s, name, f"gives up at {has} of {goal}")
        if now is not before and now is BalloonActivity.SETTLED:
            yield ScenarioEvent(time_s, name, f"reaches {has}")
        before, had = now, has


def _mib(pages: int) -> str:
    return f"{pages / PAGES_PER_MIB:.0f} MiB"
