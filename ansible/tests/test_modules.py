"""The modules: what they change, what they leave, and what they say of what is in the way.

Each test runs twice: with the actions in Ansible's own process, and with the modules on the host.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from rigs.playbooks import Fleet, Played

Tasks = Callable[..., Played]


@pytest.fixture(params=["true", "false"], ids=["in process", "module"])
def tasks(request: pytest.FixtureRequest, fleet: Fleet) -> Tasks:
    """Runs tasks one way or the other."""
    how = f"openrbu_in_process={request.param}"

    def run(*each: str, words: tuple[str, ...] = (), code: int = 0) -> Played:
        return fleet.tasks(*each, words=("-e", how, *words), code=code)

    return run


def bring(what: str, image: object, *more: str) -> str:
    lines = (f"openrbu.firmware.bios_{what}:", f"  image: {image}", *(f"  {each}" for each in more))
    return "\n".join(lines)


def test_check_mode_says_what_would_change_and_changes_nothing(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one")
    before = fleet.rbu("status", "--machine", "one")
    result = tasks(bring("update", fleet.image()), words=("--check", "--diff")).of("one")
    assert (result["changed"], result["state"]) == (True, "planned")
    assert "next restart: changes_nothing" in result["diff"]["before"]
    assert "next restart: updates to A06" in result["diff"]["after"]
    assert fleet.rbu("status", "--machine", "one") == before


def test_an_update_is_armed_once_and_cancelled_once(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one")
    update = bring("update", fleet.image())
    result = tasks(update).of("one")
    assert (result["changed"], result["state"]) == (True, "armed")
    armed = fleet.rbu("status", "--machine", "one")
    assert armed["next_restart"] == "updates"
    for words in ((), ("--check",)):
        result = tasks(update, words=words).of("one")
        assert (result["changed"], result["state"]) == (False, "armed")
    assert fleet.rbu("status", "--machine", "one") == armed
    cancel = "openrbu.firmware.bios_cancel:"
    assert tasks(cancel, words=("--check",)).of("one")["changed"] is True
    assert fleet.rbu("status", "--machine", "one") == armed
    assert tasks(cancel).of("one")["changed"] is True
    assert fleet.rbu("status", "--machine", "one")["is_armed"] is False
    assert tasks(cancel).of("one")["changed"] is False


def test_a_machine_that_runs_the_version_is_left_alone(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one", bios_version="A06")
    result = tasks(bring("update", fleet.image("A06"))).of("one")
    assert (result["changed"], result["state"]) == (False, "up_to_date")


def test_another_update_that_waits_for_a_restart_is_in_the_way(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one")
    tasks(bring("update", fleet.image("A06")))
    result = tasks(bring("update", fleet.image("A07")), code=2).of("one")
    assert (result["obstacles"], result["rc"]) == (["armed_already"], 4)
    assert fleet.rbu("status", "--machine", "one")["staged_version"] == "A06"


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["", "check mode"])
def test_an_image_for_another_system_is_refused(
    fleet: Fleet, tasks: Tasks, words: tuple[str, ...]
) -> None:
    fleet.machine("one")
    image = fleet.image("2.3.0", "precision-390")
    result = tasks(bring("update", image), words=words, code=2).of("one")
    assert (result["rc"], result["error"]["kind"]) == (3, "not_for_this_machine")
    assert result["obstacles"] == ["wrong_system"]


def test_an_image_that_is_not_there_and_one_that_is_damaged(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one")
    result = tasks(bring("update", "/nowhere/A06.hdr"), code=2).of("one")
    assert "/nowhere/A06.hdr" in result["msg"]
    image = fleet.image()
    data = bytearray(image.read_bytes())
    data[5000] ^= 1
    image.write_bytes(data)
    result = tasks(bring("update", image), code=2).of("one")
    assert result["rc"] == 5


def test_the_facts_with_an_image_say_what_an_update_would_find(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one", faults=("lockdown-integrity",))
    result = tasks(bring("info", fleet.image())).of("one")
    found = result["bios"]
    assert (result["changed"], found["version"], found["system_id"]) == (False, "A05", "0x0121")
    assert (found["update_is_needed"], found["obstacles"]) == (True, [])
    assert result["answers"]["plan"]["new_version"] == "A06"


@pytest.mark.parametrize(
    ("model", "fault", "expected"),
    [
        ("poweredge-2650", "lockdown-integrity", (["mono"], "physical", "integrity")),
        (
            "precision-390",
            "lockdown-confidentiality",
            (["mono", "packet"], "read_back", "confidentiality"),
        ),
    ],
    ids=["integrity", "confidentiality"],
)
def test_the_facts_without_an_image_say_what_an_update_would_meet(
    fleet: Fleet, tasks: Tasks, model: str, fault: str, expected: tuple[object, ...]
) -> None:
    fleet.machine("one", model, faults=(fault,))
    found = tasks("openrbu.firmware.bios_info:").of("one")["bios"]
    assert (found["modes"], found["memory_view"], found["lockdown"]) == expected
    assert (found["update_is_needed"], found["obstacles"]) == (None, None)


VARYING = ("said", "id", "at", "attempt_id", "boot_id", "name", "machine_bios_rules", "invocation")
"""What differs between `rbu` on a machine and `rbu --machine`, or from one update to the next."""


def normal(told: Any) -> Any:
    """What was told, without what varies: also the journal's path, and times."""
    if isinstance(told, dict):
        return {key: normal(value) for key, value in told.items() if key not in VARYING}
    if isinstance(told, str):
        return re.sub(r"/\S*journal.jsonl|\d{4}-\d\d-\d\d \d\d:\d\d \S+", "…", told)
    return [normal(each) for each in told] if isinstance(told, list) else told


def test_actions_and_modules_give_the_same_results(fleet: Fleet) -> None:
    image = fleet.image()
    steps = (
        bring("info", image),
        bring("update", image),
        bring("update", image),
        "openrbu.firmware.bios_info:",
        "openrbu.firmware.bios_cancel:",
    )
    results = {}
    for how in ("true", "false"):
        fleet.machine("one")
        played = fleet.tasks(*steps, words=("-e", f"openrbu_in_process={how}", "--diff"))
        results[how] = [normal(each["result"]) for each in played.results]
        shutil.rmtree(fleet.home / "machines/one")
    assert results["true"] == results["false"]


PASSWORD = "Zq7-geheim"


def everything_left(fleet: Fleet) -> list[str]:
    """The files below the fleet's directory that have the password in them."""
    return [
        str(path.relative_to(fleet.directory))
        for path in sorted(fleet.directory.rglob("*"))
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]


def test_a_password_arms_and_is_left_nowhere(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one", "precision-t7600", admin_password=PASSWORD)
    image = fleet.image("A02", "precision-t7600")
    result = tasks(bring("update", image), code=2).of("one")
    assert result["obstacles"] == ["password_needed"]
    (fleet.directory / "one.sh").write_text(f"#!/bin/sh\nprintf '%s\\n' {PASSWORD}\n")
    (fleet.directory / "one.sh").chmod(0o700)
    secret = "password: \"{{ lookup('ansible.builtin.pipe', './one.sh') }}\""
    played = tasks(bring("update", image, secret), words=("-vvvv", "--diff"))
    assert played.of("one")["state"] == "armed"
    assert PASSWORD not in played.out
    assert everything_left(fleet) == ["one.sh"]


def test_what_is_staged_with_another_password_is_staged_anew(fleet: Fleet, tasks: Tasks) -> None:
    """It would never be armed: its packets have the wrong password."""
    fleet.machine("one", admin_password=PASSWORD, model="precision-390")
    image = fleet.image("2.3.0", "precision-390")
    wrong, right = (bring("stage", image, f"password: {each}") for each in ("wrong", PASSWORD))
    assert tasks(wrong).of("one")["changed"] is True
    for changed in (True, False):
        result = tasks(right).of("one")
        assert (result["changed"], result["state"]) == (changed, "staged")
    before = fleet.rbu("status", "--machine", "one")
    assert tasks(right, words=("--check",)).of("one")["changed"] is False
    assert fleet.rbu("status", "--machine", "one") == before
    result = tasks(bring("stage", image), code=2).of("one")
    assert result["obstacles"] == ["password_needed"]
    arm = f"openrbu.firmware.bios_arm:\n  password: {PASSWORD}"
    assert tasks(arm).of("one")["state"] == "armed"


def test_what_the_policy_does_not_allow_is_not_armed(fleet: Fleet, tasks: Tasks) -> None:
    fleet.machine("one")
    tasks(bring("stage", fleet.image("A08")))
    policy = fleet.directory / "policy.toml"
    text = 'schema = 1\n[systems.0x0121]\ntarget = "A08"\n'
    policy.write_text(f'{text}steps = [{{ from = "..A05", via = "A06" }}]\n')
    arm = f"openrbu.firmware.bios_arm:\n  policy: {policy}"
    result = tasks(arm, code=2).of("one")
    assert result["rc"] == 4
    assert "A05 → A08 is not a step of the policy" in result["msg"]
    assert fleet.rbu("status", "--machine", "one")["state"] == "staged"
    policy.write_text(text)
    result = tasks(arm).of("one")
    assert (result["changed"], result["state"]) == (True, "armed")
