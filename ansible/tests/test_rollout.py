"""The roll-out on a handful of machines, by the playbook of the collection."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from rigs.playbooks import Fleet
from rigs.rollouts import (
    CHECKED,
    RESTARTED,
    ROLLOUT,
    changes,
    outcomes,
    roll_out,
    rows,
    settings,
    states,
    status,
    summary,
)

A_LINE = 400


@pytest.mark.parametrize("in_process", [True, False], ids=["in process", "as on a real server"])
def test_machines_are_updated_and_a_second_run_changes_nothing(
    fleet: Fleet, in_process: bool
) -> None:
    for name in ("a", "b", "c")[: 3 if in_process else 2]:
        fleet.machine(name)
    image = fleet.image("A06")
    how: dict[str, Any] = {"openrbu_in_process": in_process, "reboot": {"reboot_timeout": 60}}
    roll_out(fleet, image, **how)
    assert set(states(fleet).values()) == {"updated"}
    assert summary(fleet)["waves"] == ([1, 2] if in_process else [1, 1])
    for name in states(fleet):
        assert status(fleet, name)["bios"]["version"] == "A06"
    before = {name: status(fleet, name) for name in states(fleet)}
    assert changes(roll_out(fleet, image, **how)) == []
    assert set(states(fleet).values()) == {"up_to_date"}
    assert {name: status(fleet, name) for name in before} == before


def test_the_answers_of_each_machine_are_there_for_a_report(fleet: Fleet) -> None:
    fleet.machine("a")
    fleet.machine("b", faults=("erase-fails",))
    roll_out(fleet, fleet.image("A06"), code=2)
    files = sorted((fleet.directory / "rollout/machines").iterdir())
    assert [file.name for file in files] == ["a.json", "b.json"]
    said = rows(fleet)
    assert (said["a"]["outcome"], said["a"]["completion_code"]) == ("updated", "0x0000")
    assert (said["b"]["outcome"], said["b"]["completion_code"]) == ("refused", "0x000a")


def test_a_report_has_a_row_for_each_host_by_its_name_in_the_inventory(fleet: Fleet) -> None:
    """Two computers of one name, with one service tag; and two of which nothing was heard."""
    for name in ("a", "b", "c", "d"):
        fleet.machine(name)
    fleet.rbu("machine", "off", "d")
    (fleet.directory / "host_vars").mkdir()
    (fleet.directory / "host_vars/c.yml").write_text("rollout_executable: none_such\n", "utf-8")
    roll_out(
        fleet, fleet.image("A06"), code=2, openrbu_in_process=False, unstaged_allowed=2, budget=4
    )
    assert outcomes(fleet) == {"a": "updated", "b": "updated", "c": "failed", "d": "failed"}
    assert "there is no none_such on this host" in rows(fleet)["c"]["why"]
    assert "unreachable" in rows(fleet)["d"]["why"]


def test_check_mode_changes_nothing_and_leaves_nothing(fleet: Fleet) -> None:
    fleet.machine("a")
    before = status(fleet, "a")
    played = roll_out(fleet, fleet.image("A06"), "--check")
    assert changes(played) == ["a", "a"]
    assert status(fleet, "a") == before
    assert not (fleet.directory / "rollout").exists()


def test_a_canary_whose_bios_fails_stops_all_others(fleet: Fleet) -> None:
    fleet.machine("a", faults=("erase-fails",))
    for name in ("b", "c"):
        fleet.machine(name)
    image = fleet.image("A06")
    for before in ("failed", "failed_before"):
        roll_out(fleet, image, code=2, budget=2 if before == "failed" else 1)
        assert states(fleet) == {"a": before, "b": "stopped", "c": "stopped"}
        assert "0x000a" in summary(fleet)["machines"]["a"]["message"]
        for name in ("b", "c"):
            told = status(fleet, name)
            assert (told["bios"]["version"], told["state"]) == ("A05", "staged")
    roll_out(fleet, image, code=2, budget=2)
    assert states(fleet) == {"a": "failed_before", "b": "updated", "c": "updated"}


def test_nothing_restarts_where_a_machine_is_not_staged(fleet: Fleet) -> None:
    fleet.machine("a")
    fleet.machine("b", "precision-390")
    fleet.machine("c")
    fleet.rbu("machine", "off", "c")
    image = fleet.image("A06")
    roll_out(fleet, image, code=2)
    assert states(fleet) == {"a": "waiting", "b": "not_staged", "c": "not_staged"}
    assert status(fleet, "a")["state"] == "staged"
    played = roll_out(fleet, image, code=2, unstaged_allowed=2)
    assert states(fleet) == {"a": "updated", "b": "not_staged", "c": "not_staged"}
    told = [line for line in played.out.splitlines() if "0x0121" in line]
    assert told
    assert max(map(len, told)) < A_LINE  # and not all that rbu has answered
    assert "0x0121" in summary(fleet)["machines"]["b"]["message"]
    report = fleet.rbu("report", fleet.directory / "rollout/machines/b.json")
    assert report["machines"][0]["outcome"] == "prevented"


def test_outside_of_the_window_nothing_restarts(fleet: Fleet) -> None:
    """One machine fails and says why; there may be thousands."""
    names = ("a", "b", "c")
    for name in names:
        fleet.machine(name)
    image = fleet.image("A06")
    later = dt.datetime.now().astimezone() + dt.timedelta(hours=2)
    closed = f"{later:%H:%M}-{later + dt.timedelta(hours=2):%H:%M}"
    played = roll_out(fleet, image, code=2, window=closed)
    assert states(fleet) == dict.fromkeys(names, "stopped")
    why = f"it is outside of the window {closed}"
    assert summary(fleet)["stopped"] == why
    told = [played.of(name, RESTARTED) for name in names]
    assert sorted(each["outcome"] for each in told) == ["failed", "skipped", "skipped"]
    assert {each["msg"] for each in told} == {f"not restarted: {why}"}
    played = roll_out(fleet, image, code=2, window="from ten to four")
    assert "a window is written as 22:00-04:30" in played.of("a", CHECKED)["msg"]


def test_a_module_that_crashes_is_named_with_its_last_words(fleet: Fleet) -> None:
    fleet.machine("a")
    python = fleet.directory / "python"
    python.write_text("#!/bin/sh\necho 'MemoryError: no more' >&2\nexit 1\n", "utf-8")
    python.chmod(0o755)
    more = {"openrbu_in_process": False, "ansible_python_interpreter": str(python)}
    words = settings(fleet, fleet.image("A06"))
    fleet.play(ROLLOUT, *words, "-e", json.dumps(more), code=2)
    assert summary(fleet)["machines"]["a"]["message"].endswith("MemoryError: no more")
