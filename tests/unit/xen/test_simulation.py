"""Guests' balloons in model time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from openrbu.balloon.model import GuestPages, ModelGuest
from openrbu.drivers.xen_balloon import BATCH_PAGES as BATCH
from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES
from openrbu.xen.hypervisor import INVALID, Hypervisor
from openrbu.xen.samples import BalloonActivity, Samples, activity_of
from openrbu.xen.simulation import BalloonSimulation
from rigs.model_guests import guest_on, host_of

HOUR_S = 3600.0

NEVER_GIVE_UP = ("linux-2.6.18-xen", "linux")
"""Profiles that come to their target by themselves; `linux` without a limit of tries."""


def simulation_of(*guests: ModelGuest, seconds_per_batch: float = 0.0) -> BalloonSimulation:
    simulation = BalloonSimulation(seconds_per_batch=seconds_per_batch)
    for guest in guests:
        simulation.add(guest.name, guest.balloon)
    return simulation


# -- time -------------------------------------------------------------------------------------


def test_guests_that_are_due_in_the_same_moment_take_turns_batch_by_batch() -> None:
    host = host_of(16 * BATCH)
    guests = [guest_on(host, name, BATCH, max_pages=4 * BATCH) for name in "abc"]
    simulation = simulation_of(*guests)
    for guest in guests:
        simulation.set_target_pages(guest.name, 3 * BATCH)
    seen = []
    while simulation.step():
        seen.append(tuple(guest.balloon.current_pages // BATCH for guest in guests))
    assert seen == [(2, 1, 1), (2, 2, 1), (2, 2, 2), (3, 2, 2), (3, 3, 2), (3, 3, 3)]


def test_of_the_last_memory_each_guest_gets_a_like_share() -> None:
    host = host_of(10 * BATCH)
    guests = [guest_on(host, name, BATCH, max_pages=8 * BATCH) for name in "ab"]
    simulation = simulation_of(*guests)
    for guest in guests:
        simulation.set_target_pages(guest.name, 8 * BATCH)
    simulation.run(0.5)
    assert [guest.balloon.current_pages for guest in guests] == [5 * BATCH, 5 * BATCH]


def test_a_target_that_somebody_else_has_set_is_gone_for_after_a_look() -> None:
    guest = guest_on(host_of(8 * BATCH), "a", 4 * BATCH)
    simulation = simulation_of(guest)
    guest.balloon.set_target_pages(3 * BATCH)
    assert simulation.next_s is None
    simulation.refresh("a")
    simulation.run(0.0)
    assert guest.balloon.current_pages == 3 * BATCH


def test_a_batch_takes_its_time() -> None:
    guest = guest_on(host_of(8 * BATCH), "a", 4 * BATCH)
    simulation = simulation_of(guest, seconds_per_batch=0.5)
    simulation.set_target_pages("a", BATCH)
    has = []
    for time_s in (0.0, 0.4, 0.5, 0.9, 1.0, HOUR_S):
        simulation.run(time_s)
        has.append(guest.balloon.current_pages // BATCH)
    assert has == [3, 3, 2, 2, 1, 1]
    assert simulation.steps == 3


def test_a_target_set_during_a_batch_is_taken_up_after_it() -> None:
    guest = guest_on(host_of(8 * BATCH), "a", 4 * BATCH)
    simulation = simulation_of(guest, seconds_per_batch=0.5)
    simulation.set_target_pages("a", BATCH)
    simulation.at(0.2, partial(simulation.set_target_pages, "a", 4 * BATCH))
    simulation.run(0.49)
    assert guest.balloon.current_pages == 3 * BATCH
    simulation.run(0.5)
    assert guest.balloon.current_pages == 4 * BATCH
    assert simulation.next_s is None


def test_actions_happen_at_their_time_in_the_order_in_which_they_were_told() -> None:
    simulation = BalloonSimulation()
    seen: list[tuple[float, str]] = []

    def note(text: str) -> None:
        seen.append((simulation.now_s, text))

    simulation.at(2.0, partial(note, "later"))
    simulation.at(1.0, partial(note, "first"))
    simulation.at(1.0, partial(note, "second"))
    simulation.at(1.0, lambda: simulation.at(1.5, partial(note, "told by another")))
    simulation.run(1.5)
    assert seen == [(1.0, "first"), (1.0, "second"), (1.5, "told by another")]
    simulation.run(9.0)
    assert seen[3:] == [(2.0, "later")]
    assert (simulation.now_s, simulation.steps) == (9.0, 0)


def test_time_does_not_go_back() -> None:
    simulation = BalloonSimulation()
    simulation.run(5.0)
    with pytest.raises(ValueError, match="already"):
        simulation.run(4.0)
    with pytest.raises(ValueError, match="already"):
        simulation.at(4.0, print)


@pytest.mark.parametrize("start_s", [1_000_000.0, -50.0])
def test_a_simulation_can_start_at_any_time_and_rows_count_from_there(start_s: float) -> None:
    guest = guest_on(host_of(2 * BATCH), "a", 2 * BATCH)
    simulation = BalloonSimulation(start_s=start_s)
    simulation.add("a", guest.balloon)
    simulation.run(start_s + 5.0)
    simulation.set_target_pages("a", BATCH)
    simulation.run(start_s + 5.0)
    assert guest.balloon.current_pages == BATCH
    assert simulation.samples.curve("a").times_s.tolist() == [0.0, 5.0]


def test_two_guests_of_one_name_are_refused() -> None:
    guest = guest_on(host_of(BATCH), "a", 10)
    simulation = simulation_of(guest)
    with pytest.raises(ValueError, match="'a' already"):
        simulation.add("a", guest.balloon)
    with pytest.raises(KeyError):
        simulation.set_target_pages("b", 5)


# -- what costs nothing -----------------------------------------------------------------------


def test_an_idle_simulation_does_nothing_for_an_hour() -> None:
    host = host_of(100 * BATCH)
    simulation = simulation_of(*(guest_on(host, f"guest{number}", BATCH) for number in range(50)))
    rows = len(simulation.samples)
    assert simulation.next_s is None
    assert not simulation.step()
    simulation.run(HOUR_S)
    assert (simulation.steps, len(simulation.samples), simulation.now_s) == (0, rows, HOUR_S)


def test_only_the_guest_that_moves_makes_steps() -> None:
    host = host_of(100 * BATCH)
    simulation = simulation_of(
        *(guest_on(host, f"guest{number}", 2 * BATCH) for number in range(50))
    )
    simulation.at(7.0, partial(simulation.set_target_pages, "guest7", BATCH))
    simulation.run(HOUR_S)
    assert simulation.steps == 1
    assert simulation.next_s is None


def test_trying_in_vain_leaves_no_rows() -> None:
    host = host_of(2 * BATCH)
    guest = guest_on(host, "a", BATCH, max_pages=9 * BATCH)
    simulation = simulation_of(guest)
    simulation.set_target_pages("a", 9 * BATCH)
    simulation.run(10.0)
    rows = len(simulation.samples)
    simulation.run(HOUR_S)
    assert simulation.steps > HOUR_S - 10
    assert len(simulation.samples) == rows


def test_who_is_told_again_keeps_its_place() -> None:
    host = host_of(8 * BATCH)
    guests = [guest_on(host, name, BATCH, max_pages=4 * BATCH) for name in "ab"]
    simulation = simulation_of(*guests)
    for name, batches in (("a", 2), ("b", 2), ("a", 3)):
        simulation.set_target_pages(name, batches * BATCH)
    simulation.step()
    assert [guest.balloon.current_pages for guest in guests] == [2 * BATCH, BATCH]


def test_a_time_that_was_put_off_is_no_event() -> None:
    guest = guest_on(host_of(BATCH), "a", BATCH, max_pages=9 * BATCH)
    simulation = simulation_of(guest)
    simulation.set_target_pages("a", 2 * BATCH)
    simulation.run(0.25)
    assert simulation.next_s == 1.0
    simulation.set_target_pages("a", 3 * BATCH)
    simulation.run(0.5)
    assert (simulation.next_s, simulation.steps) == (1.25, 2)


# -- what was written down --------------------------------------------------------------------


def stalling_simulation() -> BalloonSimulation:
    """A guest that stalls at once, one that lets go at 5 s, and both are told again at 8 s."""
    host = host_of(8 * BATCH)
    small = guest_on(host, "small", 3 * BATCH, max_pages=6 * BATCH, profile="hard-limit")
    large = guest_on(host, "large", 5 * BATCH, profile="hard-limit")
    simulation = simulation_of(small, large)
    simulation.set_target_pages("small", 6 * BATCH)
    simulation.at(5.0, partial(simulation.set_target_pages, "large", 2 * BATCH))
    simulation.at(8.0, partial(simulation.set_target_pages, "small", 6 * BATCH))
    simulation.run(10.0)
    return simulation


def test_events_say_what_changed_and_when_in_kib() -> None:
    events = [tuple(event.values()) for event in stalling_simulation().samples.events()]
    batch = BATCH * 4
    assert events == [
        (0.0, "small", "stalled", 3 * batch, 6 * batch, 6 * batch, 3 * batch),
        (0.0, "large", "settled", 5 * batch, 5 * batch, 5 * batch, 0),
        (5.0, "large", "settled", 2 * batch, 2 * batch, 2 * batch, 3 * batch),
        (8.0, "small", "settled", 6 * batch, 6 * batch, 6 * batch, 0),
    ]
    first = next(stalling_simulation().samples.events(3))
    assert list(first) == [
        "time_s",
        "guest",
        "state",
        "current_kib",
        "target_kib",
        "goal_kib",
        "balloon_kib",
    ]


def test_a_curve_is_one_guests_rows_as_arrays() -> None:
    samples = stalling_simulation().samples
    assert samples.guests == ("small", "large")
    curve = samples.curve("small")
    assert curve.times_s.tolist() == [0.0, 8.0]
    assert curve.current_pages.tolist() == [3 * BATCH, 6 * BATCH]
    assert curve.ballooned_pages.tolist() == [3 * BATCH, 0]
    assert list(curve.spans(BalloonActivity.STALLED, 10.0)) == [(0.0, 8.0)]
    assert list(curve.spans(BalloonActivity.SETTLED, 10.0)) == [(8.0, 10.0)]
    assert list(curve.spans(BalloonActivity.WAITING, 10.0)) == []
    with pytest.raises(KeyError):
        samples.curve("nobody")


def test_what_all_have_let_go_is_what_the_host_has_gained() -> None:
    times_s, pages = stalling_simulation().samples.released_pages()
    assert times_s.tolist() == [0.0, 0.0, 5.0, 8.0]
    assert pages.tolist() == [0, 0, 3 * BATCH, 0]


def test_a_balloons_states_by_name() -> None:
    host = host_of(3 * BATCH)
    guest = guest_on(host, "a", BATCH, max_pages=9 * BATCH, profile="linux")
    balloon = guest.balloon
    seen = [activity_of(balloon, 0.0)]
    balloon.set_target_pages(9 * BATCH)
    seen.append(activity_of(balloon, 0.0))
    balloon.run(0.0)
    seen.append(activity_of(balloon, 0.0))
    balloon.run(HOUR_S)
    balloon.run(2 * HOUR_S)
    balloon.run(3 * HOUR_S)
    balloon.run(4 * HOUR_S)
    seen.append(activity_of(balloon, 4 * HOUR_S))
    assert seen == [
        BalloonActivity.SETTLED,
        BalloonActivity.MOVING,
        BalloonActivity.WAITING,
        BalloonActivity.STALLED,
    ]


def test_a_target_beyond_all_numbers_is_written_down() -> None:
    guest = guest_on(host_of(BATCH), "a", 100)
    guest.balloon.set_target_pages(2**64 - 1)
    samples = Samples()
    samples.record(0.0, "a", guest.balloon)
    (event,) = samples.events()
    assert (event["goal_kib"], event["target_kib"] > 2**60) == (400, True)


def test_the_same_schedule_gives_the_same_history() -> None:
    first, second = (list(stalling_simulation().samples.events()) for _ in range(2))
    assert first == second


# -- the pages of a model guest ---------------------------------------------------------------


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from(("take", "give", "use")), st.integers(0, 25)), max_size=40),
)
def test_a_guests_pages_are_handed_out_once_and_never_those_in_use(
    count: int, doings: list[tuple[str, int]]
) -> None:
    pages = GuestPages(count)
    out: list[int] = []
    for what, number in doings:
        if what == "use":
            pages.used_pages = number
        elif what == "give":
            back, out = out[:number], out[number:]
            pages.give_pages(np.array(back, np.uint32))
        else:
            taken = pages.take_pages(number).tolist()
            assert len(taken) == max(0, min(number, count - len(out) - pages.used_pages))
            out += taken
        assert len(set(out)) == len(out)
        assert set(out) <= set(range(count))
        assert pages.free_pages == count - len(out)


def test_a_busy_guest_falls_short_and_goes_on_when_it_has_let_go() -> None:
    guest = guest_on(host_of(8 * BATCH), "a", 4 * BATCH, used_pages=3 * BATCH)
    simulation = simulation_of(guest)
    simulation.set_target_pages("a", BATCH)
    simulation.at(9.5, partial(setattr, guest.pages, "used_pages", BATCH))
    simulation.run(9.9)
    assert guest.balloon.current_pages == 3 * BATCH
    simulation.run(10.0)
    assert guest.balloon.current_pages == BATCH


# -- any schedule on any host -----------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Guests as (pages, frames, used pages), what the host has free besides, and who is told what
    when, in order."""

    guests: tuple[tuple[int, int, int], ...]
    free_pages: int
    targets: tuple[tuple[float, int, int], ...]

    def build(self, profile: str, seconds_per_batch: float = 0.0) -> Build:
        """The host, and the simulation with the whole schedule in it."""
        host = host_of(sum(pages for pages, _, _ in self.guests) + self.free_pages)
        guests = [
            guest_on(host, str(number), pages, max_pages=frames, used_pages=used, profile=profile)
            for number, (pages, frames, used) in enumerate(self.guests)
        ]
        for guest in guests:
            guest.balloon.max_retry_count = 0
        simulation = simulation_of(*guests, seconds_per_batch=seconds_per_batch)
        for time_s, number, pages in self.targets:
            name = str(number % len(guests))
            simulation.at(time_s, partial(simulation.set_target_pages, name, pages))
        return Build(host, guests, simulation)


@dataclass(frozen=True)
class Build:
    """A plan that can go on."""

    host: Hypervisor
    guests: list[ModelGuest]
    simulation: BalloonSimulation

    def check(self) -> None:
        """Each frame of the host is free or one guest's, and each frame of a guest has a machine
        page or is in its balloon; the guest and the hypervisor agree."""
        self.host.check()
        for guest in self.guests:
            balloon, domain = guest.balloon, guest.domain
            assert balloon.current_pages == domain.current_pages <= domain.max_pages
            ballooned = balloon.ballooned()
            assert len(ballooned) == domain.frame_count - balloon.current_pages
            assert set(ballooned.tolist()) == set(np.flatnonzero(domain.table == INVALID).tolist())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    guests = []
    for _ in range(draw(st.integers(1, 4))):
        pages = draw(st.integers(1, 4 * BATCH))
        frames = pages + draw(st.integers(0, 3 * BATCH))
        guests.append((pages, frames, draw(st.integers(0, pages))))
    times = sorted(draw(st.lists(st.integers(0, 200), max_size=8)))
    targets = [
        (time / 10, draw(st.integers(0, 3)), draw(st.integers(0, 8 * BATCH))) for time in times
    ]
    return Plan(tuple(guests), draw(st.integers(0, 2 * BATCH)), tuple(targets))


@st.composite
def plans_that_come_to_rest(draw: st.DrawFn) -> Plan:
    """The last targets fit the host, and each guest, whose programs need no more than that."""
    plan = draw(plans())
    left = sum(pages for pages, _, _ in plan.guests) + plan.free_pages
    guests, last = [], []
    for number, (pages, frames, _) in enumerate(plan.guests):
        rest = len(plan.guests) - number - 1  # a page for each of those that come
        target = draw(st.integers(1, min(frames, left - rest)))
        left -= target
        guests.append((pages, frames, draw(st.integers(0, min(pages, target)))))
        last.append((draw(st.integers(201, 220)) / 10, number, target))
    return Plan(tuple(guests), plan.free_pages, plan.targets + tuple(sorted(last)))


def arrive(build: Build, plan: Plan) -> bool:
    """Whether, some time after the last target, all guests have what they were told to have."""
    build.simulation.run(HOUR_S)
    told = {number: pages for _, number, pages in plan.targets[-len(plan.guests) :]}
    return told == {int(guest.name): guest.domain.current_pages for guest in build.guests}


@given(plans(), st.sampled_from(tuple(BALLOON_PROFILES)), st.sampled_from((0.0, 0.3)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_frames_are_conserved_after_every_step_of_every_schedule(
    plan: Plan, profile: str, seconds_per_batch: float
) -> None:
    build = plan.build(profile, seconds_per_batch)
    while (build.simulation.next_s or 0.0) < 60.0 and build.simulation.step():
        build.check()


@given(plans_that_come_to_rest(), st.sampled_from(NEVER_GIVE_UP), st.sampled_from((0.0, 0.3)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nobody_starves_once_the_targets_stand_still_and_fit_the_host(
    plan: Plan, profile: str, seconds_per_batch: float
) -> None:
    build = plan.build(profile, seconds_per_batch)
    assert arrive(build, plan)
    build.check()
    for guest in build.guests:  # a back-off under way goes on as long as it may
        guest.balloon.max_retry_count = 1
    build.simulation.run(2 * HOUR_S)
    assert build.simulation.next_s is None


def test_with_a_hard_limit_somebody_can_starve_though_the_targets_fit() -> None:
    def starves(plan: Plan) -> bool:
        build = plan.build("hard-limit")
        return not arrive(build, plan) and build.simulation.next_s is None

    quickly = settings(database=None, max_examples=10_000, phases=[Phase.generate])
    plan = find(plans_that_come_to_rest(), starves, settings=quickly)
    assert arrive(plan.build("linux-2.6.18-xen"), plan)


@given(
    claim=st.integers(1, 4 * BATCH),
    spare=st.integers(0, 2 * BATCH),
    greedy=st.lists(st.integers(1, 64 * BATCH), min_size=1, max_size=6),
    profile=st.sampled_from(tuple(BALLOON_PROFILES)),
)
@settings(deadline=None)
def test_who_asks_too_much_gets_neither_what_another_claims_nor_more_than_its_maximum(
    claim: int, spare: int, greedy: list[int], profile: str
) -> None:
    host = host_of(2 * BATCH + claim + spare)
    modest = guest_on(
        host, "modest", BATCH, max_pages=BATCH + claim, claim_pages=claim, profile=profile
    )
    taker = guest_on(host, "taker", BATCH, max_pages=64 * BATCH, profile=profile)
    taker.domain.set_maximum(BATCH + max(1, spare // 2))
    simulation = simulation_of(modest, taker)
    for number, pages in enumerate(greedy):
        simulation.at(float(number), partial(simulation.set_target_pages, "taker", pages))
    simulation.at(99.0, lambda: taker.domain.set_maximum(64 * BATCH))
    simulation.at(99.0, partial(simulation.set_target_pages, "taker", 64 * BATCH))
    simulation.run(98.0)
    assert taker.domain.current_pages <= BATCH + max(1, spare // 2)
    simulation.run(100.0)
    assert taker.domain.current_pages <= BATCH + spare
    simulation.set_target_pages("modest", BATCH + claim)
    simulation.run(100.0)
    assert modest.domain.current_pages == BATCH + claim
    host.check()
