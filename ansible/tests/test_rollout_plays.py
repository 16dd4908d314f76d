"""The role in plays of one's own, and with variables that are wrong."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rigs.playbooks import ANSIBLE, COLLECTIONS, Fleet
from rigs.rollouts import CHECKED, RESTARTED, ROLLOUT, roll_out, settings, states, status

A_NUMBER = "it is a number of machines or a share such as 10%"


def test_a_play_with_serial_is_refused(fleet: Fleet) -> None:
    for name in ("a", "b"):
        fleet.machine(name)
    text = (
        "- hosts: all\n  serial: 1\n  gather_facts: false\n"
        "  roles:\n    - openrbu.firmware.rollout\n"
    )
    played = fleet.play(text, *settings(fleet, fleet.image("A06")), code=2)
    assert "serial" in played.of("a", CHECKED)["msg"]
    assert status(fleet, "a")["state"] == "none"


def own_play(*lines: str) -> str:
    """A play of one's own with the role; `lines` go to the role."""
    role = "    - role: openrbu.firmware.rollout\n" + "".join(f"      {line}\n" for line in lines)
    return f"- hosts: all\n  gather_facts: false\n  order: shuffle\n  roles:\n{role}"


def test_hosts_in_any_order_wait_for_none_that_has_no_fork(fleet: Fleet) -> None:
    """Waves are in the order in which Ansible works on the hosts: one that is shuffled once more
    would have the last wave wait in the only fork."""
    names = ("a", "b", "c", "d", "e", "f")
    for name in names:
        fleet.machine(name)
    fleet.play(own_play(), "-f", "1", *settings(fleet, fleet.image("A06")))
    assert states(fleet) == dict.fromkeys(names, "updated")


def test_later_tasks_of_a_play_know_how_each_host_has_ended(fleet: Fleet) -> None:
    for name in ("a", "b", "c", "d"):
        fleet.machine(name, faults=("erase-fails",) if name == "b" else ())
    later = "    - name: Later\n      ansible.builtin.debug:\n        var: rollout_result.state\n"
    text = own_play().replace("shuffle", "inventory") + f"  tasks:\n{later}"
    words = settings(fleet, fleet.image("A06"), waves=["1", "1"])
    checked = fleet.play(text, *words, "--check")
    later_said = [each["result"] for each in checked.results if each["task"] == "Later"]
    assert [each["rollout_result.state"] for each in later_said] == ["planned"] * 4
    played = fleet.play(text, *words, code=2)
    results = [each for each in played.results if each["task"] == "Later"]
    told = {each["host"]: each["result"]["rollout_result.state"] for each in results}
    assert sorted(told.values()) == ["stopped", "updated"]
    assert told == {host: states(fleet)[host] for host in told}


@pytest.mark.parametrize("canaries", [1, 2])
def test_who_can_not_ask_for_a_restart_is_not_waited_for(fleet: Fleet, canaries: int) -> None:
    """Such as a host whose lookup fails after it was staged. One fork: with more it may fail, and
    as a canary stop the roll-out, before the host of the wave before has asked."""
    for name in ("a", "b", "c"):
        fleet.machine(name)
    (fleet.directory / "host_vars").mkdir()
    wrong = "rollout_reboot: {reboot_timeout: '{{ none_such }}'}\n"
    (fleet.directory / "host_vars/b.yml").write_text(wrong, "utf-8")
    more = {"waves": ["1", "1"], "canary_waves": canaries}
    played = roll_out(fleet, fleet.image("A06"), "-f", "1", code=2, **more)
    last = "updated" if canaries == 1 else "stopped"
    assert states(fleet) == {"a": "updated", "b": "stopped", "c": last}
    assert "none_such" in played.of("b", RESTARTED)["msg"]


@pytest.mark.parametrize("had_a_run", [False, True])
def test_a_role_that_leaves_out_the_first_host_restarts_nobody(
    fleet: Fleet, had_a_run: bool
) -> None:
    """Without it nothing was checked, and the ledger is none, or that of an earlier run."""
    fleet.machine("a")
    fleet.machine("b")
    image = fleet.image("A06")
    if had_a_run:
        fleet.machine("c", model="precision-390")
        roll_out(fleet, image, code=2)
        assert states(fleet) == {"a": "waiting", "b": "waiting", "c": "not_staged"}
    text = own_play("when: inventory_hostname != 'a'").replace("shuffle", "inventory")
    played = fleet.play(text, *settings(fleet, image), code=2)
    assert "has not begun: the play's first host was left out" in played.of("b", RESTARTED)["msg"]
    assert status(fleet, "b")["is_armed"] is False


def test_errors_that_are_ignored_begin_nothing(fleet: Fleet) -> None:
    fleet.machine("a")
    fleet.machine("b", model="precision-390")
    text = own_play("ignore_errors: true")
    played = fleet.play(text, *settings(fleet, fleet.image("A06")))
    assert "1 of 2 machines are not staged" in played.of("a", RESTARTED)["msg"]
    assert status(fleet, "a")["bios"]["version"] == "A05"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"canary_waves": "the first"}, "canary_waves' is of type"),
        ({"waves": {"first": 1}}, "waves' is of type"),
        ({"retry_failed": "perhaps"}, "'rollout_retry_failed' is of type"),
        ({"reboot": "now"}, "'rollout_reboot' is of type"),
        ({"mode": "parcels"}, "value of rollout_mode must be one of"),
        ({"mode": "{{ 'par' ~ 'cels' }}"}, "value of rollout_mode must be one of"),
        ({"budget": "a few"}, f"begin: budget: {A_NUMBER}: 'a few'"),
        ({"waves": ["1", "some"]}, f"waves: {A_NUMBER}: 'some'"),
        ({"unstaged_allowed": "-1"}, f"unstaged_allowed: {A_NUMBER}: '-1'"),
        ({"directory": "/proc/none"}, "begin: directory: /proc/none can't be used: No such file"),
        ({"image": None}, "missing required arguments: rollout_image"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_variable_ends_the_play_before_anything_is_touched(
    fleet: Fleet, wrong: dict[str, Any], says: str
) -> None:
    fleet.machine("a")
    given = {
        "rollout_image": str(fleet.image("A06")),
        "rollout_directory": str(fleet.directory / "rollout"),
        **{f"rollout_{name}": value for name, value in wrong.items()},
    }
    if wrong.get("image", "") is None:
        del given["rollout_image"]
    played = fleet.play(ROLLOUT, "-e", json.dumps(given), code=2)
    (last,) = [each for each in played.results if each["outcome"] == "failed"]
    assert says in last["result"]["msg"]
    assert status(fleet, "a")["state"] == "none"
    assert not list(fleet.directory.glob("rollout/*"))


def test_a_variable_that_is_wrong_on_one_host_keeps_all_untouched(fleet: Fleet) -> None:
    """In a play of one's own, where Ansible checks the variables of each host."""
    for name in ("a", "b"):
        fleet.machine(name)
    (fleet.directory / "host_vars").mkdir()
    (fleet.directory / "host_vars/b.yml").write_text("rollout_mode: parcels\n")
    image = fleet.image("A06")
    text = "- hosts: all\n  gather_facts: false\n  roles:\n    - openrbu.firmware.rollout\n"
    played = fleet.play(text, *settings(fleet, image), code=2)
    assert "the first is b" in played.of("a", CHECKED)["msg"]
    assert status(fleet, "a")["state"] == "none"
    roll_out(fleet, image, code=2)
    assert states(fleet) == {"a": "waiting", "b": "not_staged"}
    roll_out(fleet, image, code=2, unstaged_allowed=1)
    assert states(fleet) == {"a": "updated", "b": "not_staged"}


def yaml_of(path: Path) -> Any:
    """What is in a file of YAML, which Ansible's Python can read."""
    code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"
    done = subprocess.run(
        [ANSIBLE / "python", "-c", code, path], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


@pytest.mark.usefixtures("fleet")
def test_the_specification_has_the_variables_and_defaults_of_the_role() -> None:
    role = COLLECTIONS / "ansible_collections/openrbu/firmware/roles/rollout"
    options = yaml_of(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = {name: each["default"] for name, each in options.items() if "default" in each}
    assert defaults == yaml_of(role / "defaults/main.yml")
    assert all(each["type"] and each["description"] for each in options.values())
    table = (role / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in table for name in options)
    used = set(re.findall(r"rollout_\w+", (role / "tasks/main.yml").read_text("utf-8")))
    own = {"rollout_open", "rollout_staged", "rollout_begun", "rollout_late", "rollout_result"}
    assert used - own == options.keys()
