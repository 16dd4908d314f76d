"""The document's scenario: guests balloon up while others balloon down."""

from __future__ import annotations

import pytest

from openrbu.balloon.scenario import END_S, GUESTS, Scenario, run_scenario
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.units import MIB, PAGE_SIZE
from openrbu.xen.samples import BalloonActivity

GROWING = ("db", "web")
AGAIN_S = 40.0


def has_mib(scenario: Scenario) -> dict[str, int]:
    pages_per_mib = MIB // PAGE_SIZE
    return {
        name: guest.balloon.current_pages // pages_per_mib
        for name, guest in scenario.guests.items()
    }


def targets() -> dict[str, int]:
    return {part.name: part.target_mib for part in GUESTS}


def told(scenario: Scenario) -> dict[str, int]:
    """How often each guest's target was set."""
    return {
        name: sum(m.guest == name and " target " in m.text for m in scenario.events())
        for name in scenario.guests
    }


@pytest.mark.parametrize("profile", ["linux-2.6.18-xen", "linux"])
def test_without_a_hard_limit_all_arrive_without_anyone_touching_them(profile: str) -> None:
    scenario = run_scenario(balloon_profile(profile))
    assert has_mib(scenario) == targets()
    assert set(told(scenario).values()) == {1}
    for name in GROWING:  # there was pressure, and it passed
        assert any(
            event.guest == name and "falls short" in event.text for event in scenario.events()
        )
    scenario.hypervisor.check()


def test_with_a_hard_limit_who_grows_stalls_though_memory_comes_free() -> None:
    scenario = run_scenario(balloon_profile("hard-limit"))
    has = has_mib(scenario)
    for part in GUESTS:
        if part.name in GROWING:
            assert part.start_mib < has[part.name] < part.target_mib
            curve = scenario.simulation.samples.curve(part.name)
            ((start_s, end_s),) = curve.spans(BalloonActivity.STALLED, END_S)
            assert start_s < 12
            assert end_s == END_S
            missing = (part.target_mib - has[part.name]) * MIB // PAGE_SIZE
            assert scenario.hypervisor.free_pages > missing
        else:
            assert has[part.name] == part.target_mib
    scenario.hypervisor.check()


def test_with_a_hard_limit_the_same_target_written_again_gets_it_going() -> None:
    scenario = run_scenario(balloon_profile("hard-limit"), again_s=AGAIN_S)
    assert has_mib(scenario) == targets()
    for name in GROWING:
        curve = scenario.simulation.samples.curve(name)
        ((start_s, end_s),) = curve.spans(BalloonActivity.STALLED, END_S)
        assert start_s < 12
        assert end_s == AGAIN_S
    assert told(scenario) == {"db": 2, "web": 2, "batch": 1, "test": 1}


def test_the_host_can_spare_what_all_are_to_have() -> None:
    scenario = run_scenario(balloon_profile("linux-2.6.18-xen"))
    grown = sum(part.target_mib - part.start_mib for part in GUESTS) * MIB // PAGE_SIZE
    assert 0 < scenario.free_pages - grown == scenario.hypervisor.free_pages


def test_events_are_in_order_of_time_and_end_with_the_last_guest_that_reaches_its_target() -> None:
    events = run_scenario(balloon_profile("linux-2.6.18-xen")).events()
    assert [event.time_s for event in events] == sorted(event.time_s for event in events)
    assert events[0].text == "gets the target 928 MiB, and has 512 MiB"
    assert events[-1].text.startswith("reaches ")
