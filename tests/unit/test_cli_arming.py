"""`rbu update --no-arm`, `rbu arm`, and what `rbu status` says in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openrbu.units import MIB
from rigs.cli import RBU, Cli
from rigs.machines import NEWER, image_bytes
from rigs.run import runner
from rigs.small_disks import largest_file

DEMO = ("--machine", "demo")


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo."""
    assert rbu("machine", "new", "demo", "--ram", "256M").code == 0
    return rbu


def test_an_update_is_staged_armed_later_and_installed(demo: Cli) -> None:
    path = demo.image("A06")
    done = demo.json("update", path, *DEMO, "--no-arm")
    assert [done[key] for key in ("changed", "staged", "armed", "is_armed")] == [
        True,
        True,
        False,
        False,
    ]
    assert (done["version"], done["extent_count"]) == ("A06", 1)
    now = demo.json("status", *DEMO)
    assert (now["state"], now["is_armed"], now["staged_version"]) == ("staged", False, "A06")
    assert (now["next_restart"], now["last_update"]["outcome"]) == ("changes_nothing", "staged")
    again = demo.json("update", path, *DEMO, "--no-arm")
    assert (again["changed"], again["staged"], again["armed"]) == (False, True, False)
    assert again["attempt_id"] == done["attempt_id"]
    armed = demo.json("arm", *DEMO)
    assert [armed[key] for key in ("changed", "staged", "armed")] == [True, True, True]
    for key in ("attempt_id", "version", "extents", "taken_by", "mode"):
        assert armed[key] == done[key], key
    assert (armed["from_version"], armed["machine"]["name"]) == ("A05", "demo")
    assert armed["sha256"] == now["last_update"]["sha256"]
    again = demo.json("arm", *DEMO)
    assert again == armed | {"changed": False}
    assert demo.json("status", *DEMO)["state"] == "armed"
    assert demo.json("machine", "reboot", "demo")["version_after"] == "A06"
    done = demo.json("update", path, *DEMO, "--no-arm")
    assert [done[key] for key in ("changed", "staged", "armed", "version")] == [
        False,
        False,
        False,
        "A06",
    ]


def test_people_are_told_what_waits_for_what(demo: Cli) -> None:
    path = demo.image("A06")
    said = demo("update", path, *DEMO, "--no-arm").out
    assert "staged, not armed: A06 waits for rbu arm" in said
    assert "next: rbu arm --machine demo, or rbu cancel --machine demo" in said
    said = demo("status", *DEMO).out
    assert "no: staged, not armed; rbu arm --machine demo arms it" in said
    assert "A05 → A06" in demo("status", "--quiet", *DEMO).out
    assert "armed: the next restart hands A06 to the BIOS" in demo("arm", *DEMO).out
    said = demo("arm", *DEMO).out
    assert "armed already: the next restart hands A06 to the BIOS" in said
    assert "freed: nothing is staged now" in demo("cancel", *DEMO).out
    assert "nothing of openrbu's is staged" in demo.fails(1, "arm", *DEMO)


def test_what_is_refused_has_a_kind_and_the_code_of_a_failed_update(demo: Cli) -> None:
    refused = demo.json("arm", *DEMO, code=1)
    assert refused["error"]["kind"] == "not_staged"
    demo.json("update", demo.image("A06"), *DEMO, "--no-arm")
    demo.json("module", "unload", "dell_rbu", "--abort", *DEMO)
    assert demo.json("status", *DEMO)["state"] == "staged_changed"
    assert "can't be armed; rbu cancel" in demo("status", *DEMO).out
    assert demo.json("arm", *DEMO, code=1)["error"]["kind"] == "staged_changed"
    assert demo.json("cancel", *DEMO)["changed"] is False
    assert demo.json("status", *DEMO)["state"] == "none"
    demo.json("update", demo.image("A06"), *DEMO, "--no-arm")
    demo.json("machine", "reboot", "demo")
    assert demo.json("arm", *DEMO, code=1)["error"]["kind"] == "not_staged"
    last = demo.json("status", *DEMO)["last_update"]
    assert last["outcome"] == "interrupted"
    assert "restarted before the update was armed" in last["why"]


def test_a_restart_at_once_does_not_go_with_staging_alone(demo: Cli) -> None:
    said = demo.fails(2, "update", demo.image("A06"), *DEMO, "--no-arm", "--reboot")
    assert "--reboot and --no-arm" in said
    secret = demo.write("secret", b"Tall1-Tr\n")
    said = demo.fails(2, "arm", *DEMO, "--without-password", "--password-file", secret)
    assert "--without-password and --password-file" in said


def test_where_the_disk_is_full_nothing_is_armed(demo: Cli) -> None:
    demo.json("update", demo.image("A06"), *DEMO, "--no-arm")
    with largest_file(MIB):
        demo("arm", *DEMO)
    now = demo.json("status", *DEMO)
    assert now["state"] in ("staged", "armed")
    assert demo.json("arm", *DEMO)["armed"]


def test_a_program_on_the_machine_stages_and_arms_it_as_on_a_real_one(
    rbu: Cli, tmp_path: Path
) -> None:
    """`rbu run`: both commands see the machine's files at their true paths."""
    model = "precision-390"
    run = runner(tmp_path / "home", "root", model)
    image = rbu.write("new.hdr", image_bytes(model))
    done = json.loads(run.says(*RBU, "update", image, "--no-arm", "--json"))
    assert (done["staged"], done["armed"]) == (True, False)
    assert rbu.json("status", "--machine", run.name)["state"] == "staged"
    assert json.loads(run.says(*RBU, "arm", "--json"))["armed"]
    assert json.loads(run.says(*RBU, "status", "--json"))["state"] == "armed"
    post = rbu.json("machine", "reboot", run.name)
    assert post["version_after"] == NEWER[model]
