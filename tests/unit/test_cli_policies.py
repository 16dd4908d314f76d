"""A policy on the command line, and an image out of many."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import pytest

from openrbu import api
from openrbu.hosts.virtual import VirtualHost
from openrbu.sharing.access import open_machine
from openrbu.update.target import read_target
from rigs.cli import Cli, image_bytes

DEMO = ("--machine", "demo")

POLICY = """
schema = 1
[systems.0x0121]
target = "A08"
steps = [{ from = "..A05", via = "A06" }]
"""

CLOSED = '[[windows]]\ndays = ["{day}"]\nstart = "{start}"\nend = "{start}"\nzone = "UTC"\n'


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo; and a directory with images."""
    assert rbu("machine", "new", "demo", "--ram", "256M").code == 0
    (rbu.directory / "images" / "old").mkdir(parents=True)
    for version in ("A04", "A06", "A08"):
        put(rbu, f"images/{version}.hdr", image_bytes(version))
    put(rbu, "images/old/other.hdr", image_bytes("A09", system=0x0126))
    put(rbu, "images/readme.txt", b"not an image\n")
    put(rbu, "images/cut.hdr", image_bytes("A10")[:-100])
    put(rbu, "fleet.toml", POLICY.encode())
    return rbu


def put(rbu: Cli, name: str, data: bytes) -> Path:
    return rbu.write(name, data)


def images(rbu: Cli) -> Path:
    return rbu.directory / "images"


def test_the_newest_image_of_a_directory_that_fits_is_planned(demo: Cli) -> None:
    plan = demo.json("plan", images(demo), *DEMO)
    assert (plan["new_version"], plan["policy"], plan["next_step"]) == ("A08", None, None)
    choice = plan["choice"]
    assert choice["path"] == str(images(demo) / "A08.hdr")
    assert choice["why"] == "A08 is the newest of 5 images that fits"
    why = {Path(each["path"]).name: each["why"] for each in choice["passed_over"]}
    assert why.keys() == {"A04.hdr", "A06.hdr", "cut.hdr", "other.hdr", "readme.txt"}
    assert (why["A06.hdr"], why["other.hdr"]) == ("A08 is newer", "it is for 0x0126")
    said = demo("plan", images(demo), *DEMO).out
    assert "because A08 is the newest of 5 images that fits" in said
    assert "other.hdr (A09): it is for 0x0126" in said


def test_it_is_installed(demo: Cli) -> None:
    done = demo.json("update", images(demo), *DEMO, "--reboot")
    assert (done["version"], done["result"]["version_after"]) == ("A08", "A08")


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"1.2.0.hdr": image_bytes("1.2.0")}, 2, "versions of two styles"),
        ({"again.hdr": image_bytes("A08", filling=7)}, 2, "two different images of A08"),
    ],
)
def test_what_would_be_a_guess_is_refused(
    demo: Cli, more: dict[str, bytes], code: int, says: str
) -> None:
    for name, data in more.items():
        put(demo, f"images/{name}", data)
    assert says in demo.fails(code, "plan", images(demo), *DEMO)


def test_the_same_image_twice_is_one(demo: Cli) -> None:
    put(demo, "images/same.hdr", image_bytes("A08"))
    choice = demo.json("plan", images(demo), *DEMO)["choice"]
    why = {Path(each["path"]).name: each["why"] for each in choice["passed_over"]}
    assert why["same.hdr"].startswith("it is the same image as ")


def test_where_none_fits_it_is_told_what_there_is(demo: Cli) -> None:
    said = demo.fails(3, "plan", images(demo) / "old", *DEMO)
    assert "no image for PowerEdge 2650 (0x0121) (other.hdr: it is for 0x0126)" in said


# -- policies -------------------------------------------------------------------------------


def test_a_policys_steps_are_made_one_after_the_other(demo: Cli) -> None:
    words = (images(demo), *DEMO, "--policy", demo.directory / "fleet.toml")
    for version in ("A06", "A08"):
        plan = demo.json("plan", *words)
        assert plan["why_not"] is None
        assert (plan["next_step"]["version"], plan["new_version"]) == (version, version)
        assert plan["policy"]["target"] == "A08"
        done = demo.json("update", *words, "--reboot")
        assert done["result"]["version_after"] == version
    plan = demo.json("plan", *words)
    assert (plan["next_step"], plan["why_not"], plan["policy"]["is_done"]) == (None, None, True)
    assert "nothing to do: A08 runs" in demo("plan", *words).out
    done = demo.json("update", *words)
    assert (done["changed"], done["staged"], done["armed"]) == (False, False, False)


def test_a_jump_is_refused(demo: Cli) -> None:
    policy = ("--policy", demo.directory / "fleet.toml")
    plan = demo.json("plan", images(demo) / "A08.hdr", *DEMO, *policy, code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["policy"]
    assert plan["next_step"]["version"] == "A06"
    assert "A05 → A08 is not a step of the policy" in plan["error"]["message"]
    refused = demo.json("update", images(demo) / "A08.hdr", *DEMO, *policy, code=4)
    assert refused["plan"]["next_step"]["version"] == "A06"
    assert demo.json("status", *DEMO)["state"] == "none"


def test_an_image_that_the_policy_does_not_mean_is_refused(demo: Cli) -> None:
    digest = hashlib.sha256(image_bytes("A06", filling=1)).hexdigest()
    text = f'{POLICY}[systems.0x0121.images]\nA06 = "{digest}"\n'
    policy = ("--policy", put(demo, "digests.toml", text.encode()))
    plan = demo.json("plan", images(demo) / "A06.hdr", *DEMO, *policy, code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["policy_image"]
    said = demo.fails(3, "plan", images(demo), *DEMO, *policy)
    assert "no image of A06, the policy's next step," in said
    put(demo, "images/right.hdr", image_bytes("A06", filling=1))
    choice = demo.json("plan", images(demo), *DEMO, *policy)["choice"]
    assert choice["path"].endswith("right.hdr")


def test_outside_of_a_window_it_is_staged_and_not_armed(demo: Cli) -> None:
    """The only window is far away: a day's, that this machine's clock comes to in days."""
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    with open_machine("demo") as machine:
        now = VirtualHost(machine).now().astimezone(dt.UTC)
    text = CLOSED.format(day=days[(now.weekday() + 3) % 7], start="00:00") + POLICY.replace(
        "schema = 1", ""
    )
    policy = ("--policy", put(demo, "closed.toml", b"schema = 1\n" + text.encode()))
    plan = demo.json("plan", images(demo), *DEMO, *policy, code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["policy_window"]
    assert "no window of the policy is open" in plan["why_not"]
    demo.json("update", images(demo), *DEMO, *policy, code=4)
    done = demo.json("update", images(demo), *DEMO, *policy, "--no-arm")
    assert (done["staged"], done["armed"], done["version"]) == (True, False, "A06")
    refused = demo.json("arm", *DEMO, *policy, code=4)
    assert "no window of the policy is open" in refused["error"]["message"]
    assert demo.json("status", *DEMO)["state"] == "staged"
    soon = f'"{days[now.weekday()]}", "{days[(now.weekday() + 1) % 7]}"'  # it may be midnight
    open_now = text.replace(f'"{days[(now.weekday() + 3) % 7]}"', soon)
    opened = ("--policy", put(demo, "open.toml", b"schema = 1\n" + open_now.encode()))
    assert demo.json("arm", *DEMO, *opened)["armed"]


def test_a_machine_that_is_pinned_or_has_no_rule_is_left_alone(demo: Cli) -> None:
    with open_machine("demo") as machine:
        tag = read_target(VirtualHost(machine)).system.service_tag
    pinned = put(demo, "pinned.toml", f'{POLICY}[pinned]\n{tag} = "waits for parts"\n'.encode())
    plan = demo.json("plan", images(demo), *DEMO, "--policy", pinned, code=4)
    assert plan["why_not"] == f"pinned: waits for parts (pinned.{tag})"
    assert plan["policy"]["pinned"] == "waits for parts"
    other = put(demo, "other.toml", POLICY.replace("0x0121", "0x0122").encode())
    plan = demo.json("plan", images(demo), *DEMO, "--policy", other, code=4)
    assert "says nothing of system 0x0121" in plan["why_not"]
    assert plan["error"]["exit_code"] == 4


def test_the_power_that_a_policy_wants_is_looked_at(demo: Cli) -> None:
    text = POLICY + "power = { needs_mains = true }\n"
    policy = put(demo, "power.toml", text.encode())
    plan = demo.json("plan", images(demo), *DEMO, "--policy", policy, code=4)
    assert [each["kind"] for each in plan["obstacles"]] == ["policy_mains"]


def test_a_policy_is_checked(demo: Cli) -> None:
    right = demo.json("policy", "check", demo.directory / "fleet.toml")
    assert (right["is_right"], right["problems"]) == (True, [])
    said = demo("policy", "check", demo.directory / "fleet.toml").out
    assert said == "right: 1 system, 0 pinned\n"
    wrong = put(demo, "wrong.toml", POLICY.replace("target", "targte").encode())
    ended = demo("policy", "check", wrong)
    assert (ended.code, ended.out.splitlines()[0]) == (
        5,
        (
            "systems.0x0121.targte: no such key; allowed are name, target, allow_downgrade, steps, "
            "images, windows, power"
        ),
    )
    assert ended.err == f"rbu: {wrong} can't be used: 2 problems\n"
    found = demo.json("policy", "check", wrong, code=5)
    assert [each["path"] for each in found["problems"]] == [
        "systems.0x0121.targte",
        "systems.0x0121.target",
    ]
    said = demo.fails(5, "plan", images(demo), *DEMO, "--policy", wrong)
    assert "(and 1 more: rbu policy check " in said
    assert "can't be read" in demo.fails(2, "policy", "check", demo.directory / "none.toml")


TWO_STYLES = """
schema = 1
[systems.0x0121]
target = "A07"
steps = [{ from = "1.2.3", via = "A05" }]
"""


@pytest.mark.parametrize("more", ["", "allow_downgrade = true\n"])
def test_a_step_that_names_two_styles_is_made(rbu: Cli, more: str) -> None:
    """Dell's rule says that A05 is older than 1.2.3; the policy has said what comes next."""
    rbu("machine", "new", "demo", "--bios-version", "1.2.3")
    text = TWO_STYLES.replace("steps", f"{more}steps")
    words = (*DEMO, "--policy", put(rbu, "two.toml", text.encode()))
    image = rbu.image("A05")
    plan = rbu.json("plan", image, *words)
    (version,) = [each for each in plan["checks"] if each["name"] == "version"]
    assert (version["verdict"], version["advice"]) == ("handled", "the policy names this step")
    assert rbu.json("update", image, *words, "--no-arm")["staged"]
    assert rbu.json("arm", *words)["armed"]
    assert rbu.json("machine", "reboot", "demo")["version_after"] == "A05"
    assert rbu.json("plan", rbu.image("A07"), *words)["next_step"]["version"] == "A07"


def test_the_library_makes_a_downgrade_that_the_policy_has(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    text = '[systems.0x0121]\ntarget = "A04"\nallow_downgrade = true\n'
    path = put(rbu, "older.toml", f"schema = 1\n{text}".encode())
    image = api.read_image(rbu.image("A04"))
    with api.open_machine("demo") as machine:
        plan = machine.plan(image, api.Options(policy=api.read_policy(path)))
        assert plan.refusal is None
        outcome = machine.update(plan)
    assert outcome is not None
    assert outcome.is_armed
