"""A roll-out with a policy: steps, windows, who is pinned or not in it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from rigs.playbooks import Fleet
from rigs.rollouts import (
    POLICY,
    RESTARTED,
    changes,
    outcomes,
    policy_with,
    roll_out,
    states,
    status,
    summary,
)


def test_a_policy_is_followed_step_by_step_and_its_window_is_for_restarts(fleet: Fleet) -> None:
    fleet.machine("a")
    given = policy_with(fleet, "A06", "A07")
    policy = fleet.directory / "policy.toml"
    days = [f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=each):%a}".lower() for each in (2, 3)]
    window = f'days = {json.dumps(days)}\nstart = "22:00"\nend = "23:00"\nzone = "UTC"\n'
    policy.write_text(f"{POLICY}[[windows]]\n{window}")
    played = roll_out(fleet, **given, code=2)
    assert states(fleet) == {"a": "stopped"}
    assert "window opens at" in played.of("a", RESTARTED)["msg"]
    assert status(fleet, "a")["state"] == "staged"
    policy.write_text(POLICY)
    roll_out(fleet, **given)
    assert (states(fleet), status(fleet, "a")["bios"]["version"]) == ({"a": "updated"}, "A07")
    events = fleet.rbu("history", "--machine", "a")["updates"]
    assert [(each["to_version"], each["outcome"]) for each in events] == [
        ("A06", "result"),
        ("A07", "result"),
    ]
    assert outcomes(fleet) == {"a": "updated"}
    assert changes(roll_out(fleet, **given)) == []
    assert states(fleet) == {"a": "up_to_date"}


def test_what_was_staged_past_the_policy_is_not_armed(fleet: Fleet) -> None:
    """By hand, or in a roll-out without a policy: the same image is not staged again."""
    fleet.machine("a")
    image = fleet.image("A07")
    fleet.rbu("update", image, "--no-arm", "--machine", "a")
    policy = fleet.directory / "policy.toml"
    policy.write_text(POLICY)
    roll_out(fleet, image, code=2, policy=str(policy))
    assert "A05 → A07 is not a step of the policy" in summary(fleet)["machines"]["a"]["message"]
    assert status(fleet, "a")["bios"]["version"] == "A05"
    assert status(fleet, "a")["is_armed"] is False


@pytest.mark.parametrize("how", ["a directory", "an image"])
def test_machines_that_the_policy_wants_nothing_of_hold_nobody_up(fleet: Fleet, how: str) -> None:
    tables = fleet.directory / "tables"
    tables.mkdir()
    directory = fleet.machine("a", bios_version="A06")
    for name in ("smbios_entry_point", "DMI"):
        data = (directory / name).read_bytes()
        (tables / name).write_bytes(data.replace(b"OPENRBU", b"PINNED1"))
    fleet.rbu("machine", "new", "pinned", "--from-tables", tables)
    fleet.machine("there", bios_version="A07")
    given = policy_with(fleet, "A07", pinned='PINNED1 = "waits for a new battery"')
    if how == "an image":
        (given["image"],) = given["image"].iterdir()
    roll_out(fleet, **given)
    assert states(fleet) == {"a": "updated", "pinned": "pinned", "there": "up_to_date"}
    assert "waits for a new battery" in summary(fleet)["machines"]["pinned"]["message"]
    assert outcomes(fleet) == {"a": "updated", "pinned": "pinned", "there": "not_needed"}
    assert status(fleet, "pinned")["state"] == "none"
    fleet.machine("other", "precision-390")
    played = roll_out(fleet, **given, code=2)
    assert states(fleet)["other"] == "not_in_policy"
    assert "the policy says nothing of system 0x01de" in played.of("other", RESTARTED)["msg"]
    assert outcomes(fleet)["other"] == "not_in_policy"
    fleet.machine("late", bios_version="A06")
    roll_out(fleet, **given, code=2)
    assert (states(fleet)["late"], states(fleet)["other"]) == ("updated", "not_in_policy")


@pytest.mark.parametrize("in_process", [True, False], ids=["in process", "as on a real server"])
def test_all_steps_of_one_wave_come_before_the_next(fleet: Fleet, in_process: bool) -> None:
    names = ("a", "b", "c") if in_process else ("a", "b")
    for name in names:
        fleet.machine(name)
    how: dict[str, Any] = {"openrbu_in_process": in_process, "reboot": {"reboot_timeout": 60}}
    roll_out(fleet, **policy_with(fleet, "A06", "A07"), **how)
    assert set(states(fleet).values()) == {"updated"}
    ends = {}
    for name in names:
        updates = fleet.rbu("history", "--machine", name)["updates"]
        assert [each["to_version"] for each in updates] == ["A06", "A07"]
        events = [each for update in updates for each in update["events"]]
        armed = [each["at"] for each in events if each["event"] == "armed"]
        ends[name] = (min(armed), max(armed))
    # In whole seconds: in process, all of it may be in one.
    assert ends["a"][1] <= min(ends[name][0] for name in names[1:])


def test_a_next_step_that_can_not_be_staged_is_no_failure_of_the_bios(fleet: Fleet) -> None:
    fleet.machine("a")
    roll_out(fleet, **policy_with(fleet, "A06"), code=2)
    assert states(fleet) == {"a": "not_staged"}
    assert summary(fleet)["machines"]["a"]["message"].startswith("A06 runs; the next step is not")
    assert outcomes(fleet) != {"a": "updated"}
    roll_out(fleet, **policy_with(fleet, "A07"))
    assert (states(fleet), status(fleet, "a")["bios"]["version"]) == ({"a": "updated"}, "A07")


def test_a_pinned_machine_that_is_armed_is_named(fleet: Fleet) -> None:
    fleet.machine("a", bios_version="A06")
    given = policy_with(fleet, "A07")
    fleet.rbu("update", given["image"], "--machine", "a")
    tag = status(fleet, "a")["machine"]["service_tag"]
    roll_out(fleet, **policy_with(fleet, pinned=f'{tag} = "out of warranty"'))
    assert states(fleet) == {"a": "pinned"}
    assert (
        "it is armed, and the next restart updates it"
        in (summary(fleet)["machines"]["a"]["message"])
    )
