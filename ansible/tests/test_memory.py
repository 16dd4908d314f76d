"""What a roll-out remembers of its earlier runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rigs.playbooks import COLLECTIONS, Fleet
from rigs.rollouts import ROLLOUT, roll_out, rows, settings, states, summary

POLICY = '\nschema = 1\n[systems.0x0121]\ntarget = "A06"\n'


@pytest.mark.parametrize("how", ["an image", "a policy"])
def test_a_version_that_runs_in_spite_of_a_failure_has_failed(fleet: Fleet, how: str) -> None:
    fleet.machine("a", faults=("12v-not-removed",))
    fleet.machine("b")
    image, more = fleet.image("A06"), dict[str, Any]()
    if how == "a policy":
        (fleet.directory / "images").mkdir()
        image = image.rename(fleet.directory / "images" / image.name).parent
        (fleet.directory / "policy.toml").write_text(POLICY, "utf-8")
        more = {"policy": str(fleet.directory / "policy.toml")}
    for before in ("failed", "failed_before"):
        roll_out(fleet, image, code=2, **more)
        assert states(fleet) == {"a": before, "b": "stopped"}
        assert "0x0009" in summary(fleet)["machines"]["a"]["message"]
        told = rows(fleet)["a"]
        assert (told["outcome"], told["completion_code"]) == ("refused", "0x0009")
    if how == "an image":
        roll_out(fleet, image, retry_failed=True)
        assert states(fleet) == {"a": "up_to_date", "b": "updated"}
        assert "0x0009" in summary(fleet)["machines"]["a"]["message"]


def test_machines_that_died_in_an_earlier_run_use_up_the_budget(fleet: Fleet) -> None:
    fleet.machine("a", faults=("power-cut=2",))
    fleet.machine("b", faults=("erase-fails",))
    image, more = fleet.image("A06"), {"budget": 1, "canary_waves": 0}
    roll_out(fleet, image, code=2, **more)
    assert states(fleet) == {"a": "failed", "b": "stopped"}
    before = rows(fleet)
    for _ in range(2):
        roll_out(fleet, image, code=2, unstaged_allowed=1, **more)
        assert states(fleet) == {"a": "failed_before", "b": "stopped"}
        assert fleet.rbu("status", "--machine", "b")["state"] == "staged"
        assert rows(fleet)["a"] == before["a"]
    assert before["a"]["bios_version"] == "A05"


def test_what_became_of_a_machine_is_reported_after_further_runs(fleet: Fleet) -> None:
    for name in ("a", "b"):
        fleet.machine(name)
    image = fleet.image("A06")
    roll_out(fleet, image)
    told, at = rows(fleet), summary(fleet)["machines"]["a"]["updated_at"]
    restart = {"from_version": "A05", "to_version": "A06", "completion_code": "0x0000"}
    assert summary(fleet)["machines"]["a"]["restart"] == restart
    assert {each["outcome"] for each in told.values()} == {"updated"}
    fleet.machine("c")
    roll_out(fleet, image, "-l", "a,c")
    assert states(fleet) == {"a": "up_to_date", "b": "updated", "c": "updated"}
    assert summary(fleet)["machines"]["a"]["updated_at"] == at
    assert all(each["restart"] == restart for each in summary(fleet)["machines"].values())
    now = rows(fleet)
    assert (now["a"], now["b"]) == (told["a"], told["b"])
    fleet.rbu("machine", "off", "b")
    fleet.rbu("machine", "rm", "c", "--yes")
    roll_out(fleet, image, code=2)
    now = rows(fleet)
    assert sorted(now) == ["a", "b"]
    assert (now["a"], now["b"]["bios_version"]) == (told["a"], "A06")
    assert "is off" in now["b"]["why"]
    assert summary(fleet)["machines"]["b"]["restart"] == restart
    assert (fleet.directory / "rollout/gone/c.json").exists()


def test_what_staging_found_is_reported_when_nobody_restarts(fleet: Fleet) -> None:
    names = [f"m{number}" for number in range(5)]
    for name in names:
        fleet.machine(name, "precision-390" if name != "m0" else "poweredge-2650")
    played = roll_out(fleet, fleet.image("A06"), code=2)
    message = played.of("m0", "Begin the restarts")["msg"]
    assert all(f"{name}: the image is" in message for name in names[1:4]), message
    assert "and 1 more" in message
    assert {name: each["outcome"] for name, each in rows(fleet).items()} == {
        "m0": "staged",
        **dict.fromkeys(names[1:], "prevented"),
    }


@pytest.mark.parametrize("strategy", ["free", "ansible.builtin.host_pinned"])
def test_a_play_in_which_hosts_do_not_wait_for_each_other_is_refused(
    fleet: Fleet, strategy: str
) -> None:
    fleet.machine("a")
    text = (
        f"- hosts: all\n  strategy: {strategy}\n  gather_facts: false\n"
        "  roles:\n    - openrbu.firmware.rollout\n"
    )
    played = fleet.play(text, *settings(fleet, fleet.image("A06")), code=2)
    assert "strategy" in played.of("a", "Check what is asked for")["msg"]
    assert fleet.rbu("status", "--machine", "a")["state"] == "none"


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["run", "check"])
def test_a_playbook_of_the_collection_writes_into_the_working_directory(
    fleet: Fleet, words: tuple[str, ...]
) -> None:
    fleet.machine("a")
    playbooks = COLLECTIONS / "ansible_collections/openrbu/firmware/playbooks"
    given = json.dumps({"rollout_image": str(fleet.image("A06"))})
    for _ in range(2):
        fleet.play(ROLLOUT, "-e", given, *words)
        assert [path.name for path in playbooks.iterdir()] == ["rollout.yml"]
        assert (fleet.directory / "rollout/summary.json").exists() is not bool(words)


def test_a_playbook_of_ones_own_has_its_directory_beside_it(fleet: Fleet) -> None:
    fleet.machine("a")
    text = "- hosts: all\n  gather_facts: false\n  roles:\n    - openrbu.firmware.rollout\n"
    (fleet.directory / "mine").mkdir()
    (fleet.directory / "mine/site.yml").write_text(text, "utf-8")
    fleet.play("mine/site.yml", "-e", json.dumps({"rollout_image": str(fleet.image("A06"))}))
    assert (fleet.directory / "mine/rollout/summary.json").exists()
