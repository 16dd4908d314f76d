"""`rbu arm --policy`: what was staged before is armed only where the whole policy allows it now."""

from __future__ import annotations

import datetime as dt
import hashlib
import re

import pytest

from openrbu import api
from openrbu.errors import ObstacleError
from openrbu.hosts.virtual import VirtualHost
from openrbu.policy.model import DAYS
from openrbu.sharing.access import open_machine
from openrbu.units import MIB
from rigs.cli import Cli

DEMO = ("--machine", "demo")

POLICY = 'schema = 1\n[systems.0x0121]\ntarget = "A10"\n'
STEPPED = f'{POLICY}steps = [{{ from = "..A05", via = "A06" }}]\n'
DIGESTS = '[systems.0x0121.images]\nA10 = "{}"\n'


@pytest.fixture
def staged(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo, that has A10 staged and is not armed."""
    rbu("machine", "new", "demo")
    rbu.json("update", rbu.image("A10"), *DEMO, "--no-arm")
    return rbu


def with_policy(rbu: Cli, text: str) -> tuple[str, str]:
    return ("--policy", str(rbu.write("policy.toml", text.encode())))


def pinned(rbu: Cli) -> str:
    tag = rbu.json("status", *DEMO)["machine"]["service_tag"]
    return f'{POLICY}[pinned]\n{tag} = "waits for parts"\n'


def refusals(rbu: Cli) -> list[tuple[str, str]]:
    """Policies that don't allow what is staged, and what is said of each."""
    return [
        (STEPPED, "A05 → A10 is not a step of the policy: from A05 the next one is A06"),
        (pinned(rbu), "pinned: waits for parts"),
        (POLICY.replace("0121", "0122"), "the policy says nothing of system 0x0121"),
        (POLICY.replace("A10", "A09"), "from A05 the next one is A09"),
        (POLICY.replace("A10", "A04"), "A05 → A04 is a downgrade"),
        (POLICY.replace("A10", "A05"), "the policy's target is A05, which runs already"),
        (POLICY + DIGESTS.format("11" * 32), "another SHA-256 than the policy says of A10"),
        (POLICY + "power = { needs_mains = true }\n", "the policy wants mains power"),
    ]


def test_who_stages_by_a_policy_is_told_to_arm_by_it(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    how = with_policy(rbu, POLICY)
    said = rbu("update", rbu.image("A10"), *DEMO, "--no-arm", *how).out
    assert f"next: rbu arm --machine demo {' '.join(how)}, or rbu cancel" in said


def test_what_the_policy_does_not_allow_is_not_armed_and_stays_staged(staged: Cli) -> None:
    for text, says in refusals(staged):
        refused = staged.json("arm", *DEMO, *with_policy(staged, text), code=4)
        assert says in refused["error"]["message"]
        assert staged.json("status", *DEMO)["state"] == "staged"


def _refused(says: str) -> pytest.RaisesExc[ObstacleError]:
    return pytest.raises(ObstacleError, match=re.escape(says))


def test_the_library_holds_the_policy_too(staged: Cli) -> None:
    for text, says in refusals(staged):
        _, path = with_policy(staged, text)
        options = api.Options(policy=api.read_policy(path))
        with api.open_machine("demo") as machine, _refused(says):
            machine.arm(options)


def test_what_is_armed_already_is_not_left_unsaid(staged: Cli) -> None:
    """The next restart would do what the policy does not allow."""
    staged.json("arm", *DEMO)
    for text, says in refusals(staged):
        refused = staged.json("arm", *DEMO, *with_policy(staged, text), code=4)
        assert says in refused["error"]["message"]
        assert refused["error"]["message"].endswith(
            "; the BIOS is armed, and the next restart hands A10 to it: rbu cancel disarms it"
        )
        assert staged.json("status", *DEMO)["state"] == "armed"


@pytest.mark.parametrize("mode", ["packet", "mono"])
def test_the_image_that_the_policy_means_is_armed(rbu: Cli, mode: str) -> None:
    rbu("machine", "new", "demo", "--model", "precision-390", "--bios-version", "A05")
    image = rbu.image("A10", system=0x01DE, size_bytes=MIB)
    rbu.json("update", image, *DEMO, "--no-arm", "--mode", mode)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    words = with_policy(rbu, (POLICY + DIGESTS.format(digest)).replace("0121", "01de"))
    assert rbu.json("arm", *DEMO, *words)["changed"] is True
    assert rbu.json("arm", *DEMO, *words)["changed"] is False


def test_a_downgrade_that_was_staged_is_armed_where_the_policy_allows_it(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    rbu.json("update", rbu.image("A04"), *DEMO, "--no-arm", "--allow-downgrade")
    older = POLICY.replace("A10", "A04")
    refused = rbu.json("arm", *DEMO, *with_policy(rbu, older), code=4)
    assert "A05 → A04 is a downgrade" in refused["error"]["message"]
    assert rbu.json("arm", *DEMO, *with_policy(rbu, f"{older}allow_downgrade = true\n"))["armed"]


def test_the_target_once_more_is_held_by_pin_and_digest(rbu: Cli) -> None:
    """The step is none: the machine runs the target, and it is installed again."""
    rbu("machine", "new", "demo", "--bios-version", "A10")
    again = ("update", rbu.image("A10"), *DEMO, "--reinstall", "--no-arm")
    for text, says in (
        (pinned(rbu), "pinned: waits for parts"),
        (POLICY + DIGESTS.format("11" * 32), "another SHA-256 than the policy says of A10"),
    ):
        words = with_policy(rbu, text)
        assert says in rbu.json(*again, *words, code=4)["error"]["message"]
        rbu.json(*again)
        assert says in rbu.json("arm", *DEMO, *words, code=4)["error"]["message"]
        rbu.json("cancel", *DEMO)
    rbu.json(*again, *with_policy(rbu, POLICY))
    assert rbu.json("arm", *DEMO, *with_policy(rbu, POLICY))["armed"]


def test_a_password_is_not_asked_for_where_the_policy_refuses(rbu: Cli) -> None:
    secret = rbu.write("secret", b"Tall1-Tr\n")
    rbu("machine", "new", "demo", "--model", "precision-390", "--admin-password-file", secret)
    given = ("--password-file", secret)
    rbu.json(
        "update", rbu.image("2.10.0", system=0x01DE, size_bytes=MIB), *DEMO, *given, "--no-arm"
    )
    refused = rbu.json("arm", *DEMO, *with_policy(rbu, POLICY), code=4)
    assert "the policy says nothing of system 0x01de" in refused["error"]["message"]


def closed(rbu: Cli) -> str:
    """A policy whose only window is days away, by the machine's clock."""
    with open_machine("demo") as machine:
        today = VirtualHost(machine).now().astimezone(dt.UTC).weekday()
    day = DAYS[(today + 3) % 7]
    return f'{POLICY}[[windows]]\ndays = ["{day}"]\nstart = "01:00"\nend = "02:00"\nzone = "UTC"\n'


def test_until_a_window_opens_it_is_told_what_can_be_done(rbu: Cli) -> None:
    """What is staged need not be staged, and rbu arm has no option for that."""
    rbu("machine", "new", "demo")
    policy = with_policy(rbu, closed(rbu))
    image = rbu.image("A10")
    said = rbu.json("update", image, *DEMO, *policy, code=4)["error"]["message"]
    assert said.endswith("wait for it, or only stage the image (--no-arm)")
    rbu.json("update", image, *DEMO, "--no-arm")
    staged = "wait for it, then rbu arm: the image is staged, and stays so until a restart"
    assert rbu.json("plan", image, *DEMO, *policy, code=4)["error"]["message"].endswith(staged)
    assert rbu.json("arm", *DEMO, *policy, code=4)["error"]["message"].endswith(staged)
    another = rbu.json("plan", rbu.image("A09", name="a.hdr"), *DEMO, *policy, code=4)
    advice = {each["name"]: each["advice"] for each in another["checks"]}
    assert advice["policy_window"] == "wait for it, or only stage the image (--no-arm)"
    rbu.json("arm", *DEMO)
    refused = rbu.json("arm", *DEMO, *policy, code=4)["error"]["message"]
    assert ": restart only then; the BIOS is armed, and the next restart hands A10 to it" in refused


def test_where_nothing_is_staged_it_is_told_that_the_bios_is_armed(staged: Cli) -> None:
    so = "; the BIOS is armed all the same, and searches for an update at the next restart: rbu"
    staged.json("arm", *DEMO)
    (journal,) = staged.directory.parent.glob("**/machines/demo/journal.jsonl")
    lines = journal.read_bytes()
    journal.unlink()
    refused = staged.json("arm", *DEMO, code=1)["error"]
    assert refused["kind"] == "not_staged"
    assert refused["message"].startswith("openrbu has staged nothing here: ")
    assert so in refused["message"]
    journal.write_bytes(lines)
    staged.json("module", "unload", "dell_rbu", "--abort", *DEMO)
    refused = staged.json("arm", *DEMO, code=1)["error"]
    assert refused["kind"] == "staged_changed"
    assert so in refused["message"]
    assert refused["message"].endswith("disarms it; stage it again: rbu update")
    staged.json("cancel", *DEMO)
    assert so not in staged.json("arm", *DEMO, code=1)["error"]["message"]
