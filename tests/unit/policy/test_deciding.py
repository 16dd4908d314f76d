"""What a policy says of one machine; and of each policy: whoever begins gets to the target by steps
that it allows, or is told why not before the first one."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.formats.version import BiosVersion
from openrbu.policy.deciding import Decision, decide, unreachable, way_to_target
from openrbu.policy.model import Policy, SystemRule, are_comparable
from openrbu.policy.reading import read_policy

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)  # a Sunday
SYSTEM = 0x0121

OLD = [f"A{number:02}" for number in range(12)] + ["X05", "P01"]
NEW = [f"{first}.{second}.0" for first in (1, 2, 92) for second in (0, 2, 10)]


def version(text: str) -> BiosVersion:
    return BiosVersion.parse(text)


def policy(text: str) -> Policy:
    read = read_policy(f"schema = 1\n{text}".encode(), ZoneInfo)
    assert read.problems == ()
    return read.policy


def decided(text: str, runs: str, **more: object) -> Decision:
    facts = {"system_id": SYSTEM, "service_tag": "1ABC234", "now": NOW} | more
    return decide(policy(text), version=version(runs), **facts)  # type: ignore[arg-type]


STEPPED = """
[systems.0x0121]
target = "A10"
steps = [{ from = "..A06", via = "A07" }, { from = "A07", via = "A08" }]
[systems.0x0121.images]
A07 = "0707070707070707070707070707070707070707070707070707070707070707"
"""


@pytest.mark.parametrize(
    ("runs", "way"),
    [
        ("A05", ["A07", "A08", "A10"]),
        ("A07", ["A08", "A10"]),
        ("A09", ["A10"]),
        ("A10", []),
        ("a10", []),
    ],
)
def test_a_machine_goes_by_the_steps_to_the_target(runs: str, way: list[str]) -> None:
    found = decided(STEPPED, runs)
    assert [each.version.text for each in found.steps] == way
    assert (found.why_not, found.is_done) == ("", not way)


def test_a_step_says_what_allows_it_and_which_image_it_takes() -> None:
    step = decided(STEPPED, "A05").next_step
    assert step is not None
    assert (step.by, step.sha256, step.is_downgrade) == (
        "systems.0x0121.steps[0]",
        "07" * 32,
        False,
    )
    last = decided(STEPPED, "A09").next_step
    assert last is not None
    assert (last.by, last.sha256) == ("systems.0x0121.target", None)


def test_a_jump_is_refused_and_the_next_step_named() -> None:
    found = decided(STEPPED, "A05")
    assert found.refusal_of(version("A07")) == ""
    assert found.refusal_of(version("A10")) == (
        "A05 → A10 is not a step of the policy: from A05 the next one is A07 "
        "(systems.0x0121.steps[0])"
    )
    assert "which runs already" in decided(STEPPED, "A10").refusal_of(version("A11"))
    assert decided(STEPPED, "A10").refusal_of(version("A10")) == ""


@pytest.mark.parametrize(
    ("text", "runs", "says"),
    [
        (STEPPED, "A11", "A11 → A10 is a downgrade (systems.0x0121.target)"),
        (STEPPED, "2.1.0", "of two styles"),
        (STEPPED, "unknown", "can't be read"),
        (STEPPED, "49.0.48", "can't be read"),
        ('[systems.0x0122]\ntarget = "A10"', "A05", "says nothing of system 0x0121"),
        (STEPPED + '[pinned]\n1abc234 = "spare parts"', "A05", "pinned: spare parts"),
    ],
)
def test_who_has_no_step_is_told_why(text: str, runs: str, says: str) -> None:
    found = decided(text, runs)
    assert found.next_step is None
    assert says in found.why_not
    assert found.refusal_of(version("A10"))


def test_a_machine_whose_system_is_not_known_has_no_step() -> None:
    assert "a system that is not known" in decided(STEPPED, "A05", system_id=None).why_not


def test_a_downgrade_is_a_step_where_the_policy_allows_it() -> None:
    step = decided('[systems.0x0121]\ntarget = "A04"\nallow_downgrade = true', "A05").next_step
    assert step is not None
    assert (step.version.text, step.is_downgrade) == ("A04", True)


def test_a_step_between_two_styles_is_one_that_the_policy_names() -> None:
    text = '[systems.0x0121]\ntarget = "2.1.0"\nsteps = [{ from = "A05..", via = "1.0.0" }]'
    assert [each.version.text for each in decided(text, "A06").steps] == ["1.0.0", "2.1.0"]
    assert decided(text, "A04").next_step is None


def test_a_way_in_a_circle_is_none() -> None:
    text = """schema = 1
[systems.0x0121]
target = "A10"
allow_downgrade = true
steps = [{ from = "A05", via = "A06" }, { from = "A06", via = "A05" }]
"""
    read = read_policy(text.encode(), ZoneInfo)
    steps, why_not = way_to_target(read.policy.systems[SYSTEM], version("A05"))
    assert steps == ()
    assert why_not == "the policy goes in a circle (systems.0x0121): A05 → A06 → A05"
    assert [each.path for each in read.problems] == ["systems.0x0121.steps[0]"]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            [("..A04", "A05"), ("A05", "A06"), ("A06", "A07"), ("A07", "A05")],
            [("steps[1]", "the policy goes in a circle (systems.0x0121): A05 → A06 → A07 → A05")],
        ),
        (
            [("A01", "A02"), ("A02", "A01"), ("A05", "A06"), ("A06", "A05")],
            [
                ("steps[0]", "the policy goes in a circle (systems.0x0121): A01 → A02 → A01"),
                ("steps[2]", "the policy goes in a circle (systems.0x0121): A05 → A06 → A05"),
            ],
        ),
        (
            [("..A04", "A05"), ("A05..A07", "2.1.0")],
            [
                (
                    "steps[1]",
                    (
                        "2.1.0 and the target A10 are versions of two styles, and which is newer "
                        "would be a guess: add a step from 2.1.0 to systems.0x0121.steps"
                    ),
                )
            ],
        ),
    ],
)
def test_a_way_that_leads_nowhere_is_told_once_however_many_lead_there(
    steps: list[tuple[str, str]], told: list[tuple[str, str]]
) -> None:
    items = ", ".join(f'{{ from = "{start}", via = "{via}" }}' for start, via in steps)
    text = f'[systems.0x0121]\ntarget = "A10"\nallow_downgrade = true\nsteps = [{items}]'
    read = read_policy(f"schema = 1\n{text}".encode(), ZoneInfo)
    found = [(each.path.removeprefix("systems.0x0121."), each.message) for each in read.problems]
    assert found == told


def test_outside_of_the_windows_the_step_is_named_and_has_to_wait() -> None:
    window = '[[windows]]\ndays = ["mon"]\nstart = "22:00"\nend = "04:00"\nzone = "Europe/Berlin"\n'
    closed = decided(window + STEPPED, "A05")
    assert closed.next_step is not None
    assert closed.why_not == (
        "no window of the policy is open; the next one opens at 2026-11-30T21:00+00:00"
    )
    assert closed.refusal_of(version("A07")) == closed.why_not
    assert decided(window + STEPPED, "A10").why_not == ""
    opened = decided(window + STEPPED, "A05", now=NOW + dt.timedelta(hours=34))
    assert (opened.why_not, opened.window.is_open) == ("", True)


# -- every policy ---------------------------------------------------------------------------

VERSIONS = st.sampled_from([*OLD, *NEW])


@st.composite
def rules(draw: st.DrawFn) -> SystemRule:
    """A rule whose file has nothing wrong in it but, at most, ways that don't reach the target."""
    target = draw(VERSIONS)
    lines = [f'[systems.0x0121]\ntarget = "{target}"']
    lines.append(f"allow_downgrade = {str(draw(st.booleans())).lower()}")
    steps: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        ends = draw(st.tuples(st.one_of(st.just(""), VERSIONS), st.one_of(st.just(""), VERSIONS)))
        start = draw(st.sampled_from(["..".join(ends), ends[0]]))
        step = f'{{ from = "{start}", via = "{draw(VERSIONS)}" }}'
        text = "\n".join([*lines, f"steps = [{', '.join([*steps, step])}]"])
        if not _problems_but_ways(text):
            steps.append(step)
    read = read_policy(
        "\n".join(["schema = 1", *lines, f"steps = [{', '.join(steps)}]"]).encode(), ZoneInfo
    )
    return read.policy.systems[SYSTEM]


def _problems_but_ways(text: str) -> list[str]:
    read = read_policy(f"schema = 1\n{text}".encode(), ZoneInfo)
    ways = {message for _, message in unreachable(tuple(read.policy.systems.values()))}
    return [each.message for each in read.problems if each.message not in ways]


@given(rules(), st.one_of(VERSIONS, st.text(max_size=8)))
def test_every_start_reaches_its_target_by_allowed_steps_or_is_told_why_not(
    rule: SystemRule, runs: str
) -> None:
    """As a fleet does it: a step, a restart, and the policy is asked again."""
    asked = Policy({SYSTEM: rule})
    current, went = version(runs), [version(runs)]
    while True:
        found = decide(asked, system_id=SYSTEM, version=current, service_tag="", now=NOW)
        if found.next_step is None:
            break
        assert found.why_not == ""
        current = found.next_step.version
        went.append(current)
        assert len(went) <= 2 + len(rule.steps), "each step is made once, and then the target"
    if len(went) > 1:
        assert current.same_as(rule.target), "a first step that leads nowhere is none"
    assert (found.why_not == "") is current.same_as(rule.target)
    for before, after in pairwise(went):
        is_named = any(each.start.has(before) and each.via.same_as(after) for each in rule.steps)
        is_covered = any(each.start.has(before) for each in rule.steps)
        assert is_named or (after.same_as(rule.target) and not is_covered)
        if not are_comparable(before, after):
            assert is_named
        elif not rule.allow_downgrade:
            assert after.is_newer_than(before)


@given(rules(), VERSIONS)
def test_what_is_left_of_a_way_is_the_way_from_there(rule: SystemRule, runs: str) -> None:
    steps, _ = way_to_target(rule, version(runs))
    for place, step in enumerate(steps):
        assert way_to_target(rule, step.version)[0] == steps[place + 1 :]
