"""The roll-out on a handful of machines, by the playbook of the collection."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.playbooks import ANSIBLE, COLLECTIONS, Fleet, Played
from rigs.rollouts import ROLLOUT, roll_out, rows, settings, states, summary

PASSWORD = "Zq7-geheim"
CHECKED = "Check what is asked for"
RESTARTED = "Arm, restart, and hear what the BIOS says"
A_LINE = 400


def status(fleet: Fleet, name: str) -> Any:
    return fleet.rbu("status", "--machine", name)


def changes(played: Played) -> list[str]:
    return [each["host"] for each in played.results if each["result"].get("changed")]


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
    report = fleet.rbu("report", *files)
    rows = {each["name"]: each for each in report["machines"]}
    assert (rows["a"]["outcome"], rows["a"]["completion_code"]) == ("updated", "0x0000")
    assert (rows["b"]["outcome"], rows["b"]["completion_code"]) == ("refused", "0x000a")


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
    outcomes = {name: row["outcome"] for name, row in rows(fleet).items()}
    assert outcomes == {"a": "updated", "b": "updated", "c": "failed", "d": "failed"}
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
    fleet.machine("a")
    image = fleet.image("A06")
    later = dt.datetime.now().astimezone() + dt.timedelta(hours=2)
    closed = f"{later:%H:%M}-{later + dt.timedelta(hours=2):%H:%M}"
    roll_out(fleet, image, code=2, window=closed)
    assert states(fleet) == {"a": "stopped"}
    assert summary(fleet)["stopped"] == f"it is outside of the window {closed}"
    played = roll_out(fleet, image, code=2, window="from ten to four")
    assert "a window is written as 22:00-04:30" in played.of("a", CHECKED)["msg"]


POLICY = """
schema = 1
[systems.0x0121]
target = "A07"
steps = [{ from = "..A05", via = "A06" }]
"""


def test_a_policy_is_followed_step_by_step_and_its_window_is_for_restarts(fleet: Fleet) -> None:
    fleet.machine("a")
    images = fleet.directory / "images"
    images.mkdir()
    for version in ("A06", "A07"):
        image = fleet.image(version)
        image.rename(images / image.name)
    policy = fleet.directory / "policy.toml"
    days = [f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=each):%a}".lower() for each in (2, 3)]
    window = f'days = {json.dumps(days)}\nstart = "22:00"\nend = "23:00"\nzone = "UTC"\n'
    policy.write_text(f"{POLICY}[[windows]]\n{window}")
    played = roll_out(fleet, images, code=2, policy=str(policy))
    assert states(fleet) == {"a": "stopped"}
    assert "window opens at" in played.of("a", "Arm, restart, and hear what the BIOS says")["msg"]
    assert status(fleet, "a")["state"] == "staged"
    policy.write_text(POLICY)
    roll_out(fleet, images, policy=str(policy))
    assert (states(fleet), status(fleet, "a")["bios"]["version"]) == ({"a": "updated"}, "A07")
    events = fleet.rbu("history", "--machine", "a")["updates"]
    assert [(each["to_version"], each["outcome"]) for each in events] == [
        ("A06", "result"),
        ("A07", "result"),
    ]
    assert outcomes(fleet) == {"a": "updated"}
    assert changes(roll_out(fleet, images, policy=str(policy))) == []
    assert states(fleet) == {"a": "up_to_date"}


def policy_with(fleet: Fleet, *versions: str, pinned: str = "") -> dict[str, Any]:
    """The policy as a file, with images of these versions, as settings of a roll-out."""
    images = fleet.directory / "images"
    images.mkdir(exist_ok=True)
    for version in versions:
        image = fleet.image(version)
        image.rename(images / image.name)
    policy = fleet.directory / "policy.toml"
    policy.write_text(f"{POLICY}[pinned]\n{pinned}\n")
    return {"image": images, "policy": str(policy)}


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


def outcomes(fleet: Fleet) -> dict[str, str]:
    """What `rbu report` says of each machine, in a word."""
    return {name: each["outcome"] for name, each in rows(fleet).items()}


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


@pytest.mark.parametrize("canaries", [1, 2])
def test_who_can_not_ask_for_a_restart_is_not_waited_for(fleet: Fleet, canaries: int) -> None:
    """Such as a host whose lookup fails after it was staged."""
    for name in ("a", "b", "c"):
        fleet.machine(name)
    (fleet.directory / "host_vars").mkdir()
    wrong = "rollout_reboot: {reboot_timeout: '{{ none_such }}'}\n"
    (fleet.directory / "host_vars/b.yml").write_text(wrong, "utf-8")
    more = {"waves": ["1", "1"], "canary_waves": canaries}
    played = roll_out(fleet, fleet.image("A06"), code=2, **more)
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


def test_a_module_that_crashes_is_named_with_its_last_words(fleet: Fleet) -> None:
    fleet.machine("a")
    python = fleet.directory / "python"
    python.write_text("#!/bin/sh\necho 'MemoryError: no more' >&2\nexit 1\n", "utf-8")
    python.chmod(0o755)
    more = {"openrbu_in_process": False, "ansible_python_interpreter": str(python)}
    words = settings(fleet, fleet.image("A06"))
    fleet.play(ROLLOUT, *words, "-e", json.dumps(more), code=2)
    assert summary(fleet)["machines"]["a"]["message"].endswith("MemoryError: no more")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"canary_waves": "the first"}, "canary_waves' is of type"),
        ({"waves": {"first": 1}}, "waves' is of type"),
        ({"retry_failed": "perhaps"}, "'rollout_retry_failed' is of type"),
        ({"reboot": "now"}, "'rollout_reboot' is of type"),
        ({"mode": "parcels"}, "value of rollout_mode must be one of"),
        ({"mode": "{{ 'par' ~ 'cels' }}"}, "value of rollout_mode must be one of"),
        ({"budget": "a few"}, "it is a number of machines or a share such as 10%: 'a few'"),
        ({"waves": ["1", "some"]}, "it is a number of machines or a share such as 10%: 'some'"),
        ({"unstaged_allowed": "-1"}, "it is a number of machines or a share such as 10%: '-1'"),
        ({"directory": "/proc/none"}, "the roll-out can't begin"),
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
    own = {"rollout_open", "rollout_staged", "rollout_begun", "rollout_late"}
    assert used - own == options.keys()


class Watcher:
    """Looks at the arguments and the environment of all processes, for a text."""

    def __init__(self, text: str) -> None:
        self._text, self._is_over = text.encode(), threading.Event()
        self.looks, self.found = 0, set[str]()

    def _look(self) -> None:
        while not self._is_over.is_set():
            self.looks += 1
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    for name in ("cmdline", "environ"):
                        with contextlib.suppress(OSError):
                            if self._text in (entry / name).read_bytes():
                                self.found.add(f"{name} of {(entry / 'comm').read_text()}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()


@pytest.mark.parametrize("in_process", [True, False], ids=["in process", "as on a real server"])
def test_a_password_is_left_nowhere(fleet: Fleet, in_process: bool) -> None:
    fleet.machine("a", "precision-t7600", admin_password=PASSWORD)
    fleet.machine("b", "precision-t7600", admin_password=PASSWORD, faults=("erase-fails",))
    (fleet.directory / "secret.yml").write_text(f"rollout_password: {PASSWORD}\n")
    watcher = Watcher(PASSWORD)
    with watcher.watching():
        played = roll_out(
            fleet,
            fleet.image("A02", "precision-t7600"),
            *("-e", "@secret.yml", "-vvvv", "--diff"),
            code=2,
            openrbu_in_process=in_process,
            reboot={"reboot_timeout": 60},
        )
    assert states(fleet) == {"a": "updated", "b": "failed"}
    assert watcher.looks > 10
    assert watcher.found == set()
    assert PASSWORD not in played.out
    left = [
        path
        for path in fleet.directory.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert left == [fleet.directory / "secret.yml"]


def begun(fleet: Fleet, *words: str) -> subprocess.Popen[bytes]:
    """A roll-out in a process group of its own."""
    return subprocess.Popen(
        fleet.command(ROLLOUT, *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=fleet.directory,
        env=fleet.environment,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the controller."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_controller_that_is_killed_between_two_steps_goes_on_with_the_second(
    fleet: Fleet,
) -> None:
    directory = fleet.machine("a")
    words = settings(fleet, **policy_with(fleet, "A06", "A07"))
    process = begun(fleet, *words)
    journal = directory / "journal.jsonl"
    while not journal.exists() or '"armed"' not in journal.read_text("utf-8"):
        assert process.poll() is None
        time.sleep(0.001)
    kill(process)  # the worker ends the step that it has begun, and makes no other
    while fleet.rbu("status", "--machine", "a")["bios"]["version"] == "A05":
        time.sleep(0.1)
    time.sleep(1)
    told = status(fleet, "a")
    assert (told["bios"]["version"], told["is_armed"]) == ("A06", False)
    fleet.play(ROLLOUT, *words)
    assert (states(fleet), status(fleet, "a")["bios"]["version"]) == ({"a": "updated"}, "A07")
    updates = fleet.rbu("history", "--machine", "a")["updates"]
    assert [(each["to_version"], each["succeeded"]) for each in updates] == [
        ("A06", True),
        ("A07", True),
    ]


def test_after_the_controller_was_killed_the_same_command_goes_on(fleet: Fleet) -> None:
    names = [f"m{number}" for number in range(6)]
    for name in names:
        fleet.machine(name)
    words = settings(fleet, fleet.image("A06"))
    machines = fleet.directory / "rollout/machines"
    process = begun(fleet, *words)
    while not list(machines.glob("m*.json")):  # the first machine is done
        assert process.poll() is None
        time.sleep(0.01)
    kill(process)
    while any(fleet.rbu("status", "--machine", name).get("error") for name in names):
        time.sleep(0.1)  # a worker ends what it has begun
    assert [status(fleet, name)["bios"]["version"] for name in names].count("A05") >= 2
    fleet.play(ROLLOUT, *words)
    assert {status(fleet, name)["bios"]["version"] for name in names} == {"A06"}
    for name in names:
        events = fleet.rbu("history", "--machine", name)["updates"]
        assert [each["outcome"] for each in events] == ["result"]
