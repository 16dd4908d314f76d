"""The controller of a roll-out is killed, and the same command goes on."""

from __future__ import annotations

import time

from rigs.playbooks import Fleet
from rigs.rollouts import ROLLOUT, Begun, policy_with, settings, states, status


def test_a_controller_that_is_killed_between_two_steps_goes_on_with_the_second(
    fleet: Fleet,
) -> None:
    directory = fleet.machine("a", entry_delay_s=1.5)  # so long it takes to stage
    words = settings(fleet, **policy_with(fleet, "A06", "A07"))
    journal = directory / "journal.jsonl"
    with Begun(fleet, *words) as begun:
        while not journal.exists() or '"armed"' not in journal.read_text("utf-8"):
            assert begun.process.poll() is None
            time.sleep(0.001)
        begun.kill_controller()  # the worker ends the step that it has begun, and makes no other
    told = status(fleet, "a")
    assert (told["bios"]["version"], told["is_armed"]) == ("A06", False)
    fleet.play(ROLLOUT, *words)
    assert (states(fleet), status(fleet, "a")["bios"]["version"]) == ({"a": "updated"}, "A07")
    updates = fleet.rbu("history", "--machine", "a")["updates"]
    assert [(each["to_version"], each["succeeded"]) for each in updates] == [
        ("A06", True),
        ("A07", True),
    ]


def test_the_next_run_waits_for_a_worker_that_is_left_and_goes_on_after_it(fleet: Fleet) -> None:
    """It begins while that worker stages the second step, which it may not arm any more."""
    directory = fleet.machine("a", entry_delay_s=8)  # so long it takes to stage
    fleet.machine("b")
    words = settings(fleet, **policy_with(fleet, "A06", "A07"))
    journal = directory / "journal.jsonl"
    with Begun(fleet, *words) as begun:
        while not journal.exists() or journal.read_text("utf-8").count('"started"') < 2:
            assert begun.process.poll() is None
            time.sleep(0.001)
        begun.process.kill()
        begun.process.wait()
        fleet.play(ROLLOUT, *words)
    assert states(fleet) == {"a": "updated", "b": "updated"}
    for name in states(fleet):
        assert status(fleet, name)["bios"]["version"] == "A07"


def test_after_the_controller_was_killed_the_same_command_goes_on(fleet: Fleet) -> None:
    names = [f"m{number}" for number in range(6)]
    for name in names:
        fleet.machine(name)
    words = settings(fleet, fleet.image("A06"), waves=["1"] * len(names))  # one after the other
    machines = fleet.directory / "rollout/machines"
    with Begun(fleet, *words) as begun:
        while not list(machines.glob("m*.json")):  # all are staged
            assert begun.process.poll() is None
            time.sleep(0.01)
        begun.kill_controller()
    assert [status(fleet, name)["bios"]["version"] for name in names].count("A05") >= 2
    fleet.play(ROLLOUT, *words)
    assert {status(fleet, name)["bios"]["version"] for name in names} == {"A06"}
    for name in names:
        events = fleet.rbu("history", "--machine", name)["updates"]
        assert [each["outcome"] for each in events] == ["result"]
