"""A policy's file: what is wrong in it is told with its place and what is allowed, all of it."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from openrbu.formats.version import BiosVersion
from openrbu.policy.model import VersionRange, are_comparable
from openrbu.policy.reading import ReadPolicy, read_policy

SCHEMA = Path(__file__).parents[3] / "src" / "openrbu" / "schemas" / "policy.json"

WHOLE = """
schema = 1

[systems.0x0121]
name = "PowerEdge 2650"
target = "A10"
allow_downgrade = false
steps = [{ from = "..A06", via = "A07" }, { from = "A07..A08", via = "A09" }]

[systems.0x0121.images]
A10 = "1010101010101010101010101010101010101010101010101010101010101010"

[systems.0x01de]
target = "2.10.0"
windows = []
power = { needs_mains = true }

[pinned]
1ABC234 = "waits for parts"

[[windows]]
days = ["sat", "sun"]
start = "22:00"
end = "04:00"
zone = "Europe/Berlin"

[power]
minimum_battery_percent = 40
"""


def problems(text: str) -> list[str]:
    return [str(each) for each in read_policy(text.encode(), ZoneInfo).problems]


def is_as_the_schema_says(text: str) -> bool:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    return Draft202012Validator(schema).is_valid(tomllib.loads(text))


def test_a_whole_policy_is_read() -> None:
    read = read_policy(WHOLE.encode(), ZoneInfo)
    assert read.problems == ()
    assert is_as_the_schema_says(WHOLE)
    first, second = read.policy.systems.values()
    assert (first.system_id, first.name, str(first.steps[1].start)) == (
        0x121,
        "PowerEdge 2650",
        "A07..A08",
    )
    assert first.digest_of(BiosVersion.parse("a10")) == "10" * 32
    assert (second.target.text, second.windows) == ("2.10.0", ())
    assert read.policy.windows_of(0x1DE) == ()
    (window,) = read.policy.windows_of(0x121)
    assert window.days == {5, 6}
    assert (window.start, window.zone_name) == (dt.time(22), "Europe/Berlin")
    assert read.policy.power_of(0x121).minimum_battery_percent == 40
    assert read.policy.power_of(0x1DE).needs_mains
    assert read.policy.pinned == {"1ABC234": "waits for parts"}


WRONG = [
    ("schema = 1", "schema = 2", "schema: 1 is allowed, '2' was found"),
    ("schema = 1", "schema = true", "schema: 1 is allowed, true was found"),
    (
        'target = "A10"',
        'targets = "A10"',
        (
            "systems.0x0121.targets: no such key; allowed are name, target, allow_downgrade, "
            "steps, images, windows, power"
        ),
    ),
    (
        'target = "A10"',
        "target = 10",
        "systems.0x0121.target: a version such as A10 or 2.10.0 is allowed, '10' was found",
    ),
    (
        "[systems.0x0121]",
        "[systems.2650]",
        "systems.2650: a system ID such as 0x0121 is allowed, '2650' was found",
    ),
    (
        "allow_downgrade = false",
        'allow_downgrade = "no"',
        "systems.0x0121.allow_downgrade: true or false is allowed, 'no' was found",
    ),
    (
        'via = "A09"',
        'vai = "A09"',
        "systems.0x0121.steps[1].vai: no such key; allowed are from, via",
    ),
    (
        'A10 = "10',
        'A10 = "1G',
        (
            "systems.0x0121.images.A10: a SHA-256 of 64 lower-case hexadecimal digits is allowed, "
            "'1G10101010101010101010101010101010101010…' was found"
        ),
    ),
    (
        '"sat"',
        '"Saturday"',
        (
            "windows[0].days[0]: mon or tue or wed or thu or fri or sat or sun is allowed, "
            "'Saturday' was found"
        ),
    ),
    (
        '"22:00"',
        '"22"',
        "windows[0].start: a time of day as a text, such as \"22:00\", is allowed, '22' was found",
    ),
    (
        "minimum_battery_percent = 40",
        "minimum_battery_percent = 140",
        "power.minimum_battery_percent: a number from 0 to 100 is allowed, '140' was found",
    ),
    (
        "1ABC234 =",
        '"1ABC 234" =',
        (
            'pinned."1ABC 234": a service tag of 5 to 7 letters and digits is allowed, '
            "'1ABC 234' was found"
        ),
    ),
    ("windows = []", 'windows = "always"', "systems.0x01de.windows: an array is allowed"),
]


@pytest.mark.parametrize(("right", "wrong", "says"), WRONG)
def test_what_is_wrong_is_told_with_its_place_and_what_is_allowed(
    right: str, wrong: str, says: str
) -> None:
    assert WHOLE.count(right) == 1
    text = WHOLE.replace(right, wrong)
    assert any(each.startswith(says) for each in problems(text)), problems(text)
    assert not is_as_the_schema_says(text)


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (
            '"..A06"',
            '"A06-A07"',
            (
                "systems.0x0121.steps[0].from: a version, or a range of versions of one style such "
                "as ..A06, A07..A09 or 2.1.0.. is allowed, 'A06-A07' was found"
            ),
        ),
        (
            "Europe/Berlin",
            "Europe/Atlantis",
            "windows[0].zone: a time zone that this computer knows",
        ),
        ("../etc", "../etc", "systems: it is missing"),
        (
            '"A07..A08"',
            '"A06..A08"',
            (
                "systems.0x0121.steps[1].from: A06..A08 and ..A06 of systems.0x0121.steps[0] have "
                "versions in common"
            ),
        ),
        (
            'via = "A07"',
            'via = "A06"',
            "systems.0x0121.steps[0].via: A06 lies in the step's own range ..A06",
        ),
        (
            'via = "A09"',
            'via = "A11"',
            (
                "systems.0x0121.steps[1]: A11 → A10 is a downgrade (systems.0x0121.target), and "
                "systems.0x0121.allow_downgrade is not set"
            ),
        ),
        (
            "[systems.0x01de]",
            '[systems.0X121]\ntarget = "A10"\n[systems.0x01de]',
            "systems.0X121: 0x0121 is there twice",
        ),
        (
            "A10 = ",
            "A11 = ",
            "systems.0x0121.images.A11: A11 is neither the target nor what a step installs (via)",
        ),
        (
            "A10 = ",
            '"2.1.0" = ',
            'systems.0x0121.images."2.1.0": 2.1.0 is neither the target nor what a step installs',
        ),
        ("A10 = ", 'a10 = "' + "11" * 32 + '"\nA10 = ', "systems.0x0121.images.A10: the version"),
    ],
)
def test_so_is_what_no_schema_can_say(right: str, wrong: str, says: str) -> None:
    text = "schema = 1" if right == "../etc" else WHOLE.replace(right, wrong)
    assert any(each.startswith(says) for each in problems(text)), problems(text)


def test_a_way_that_leads_nowhere_and_an_image_of_nothing_are_told_at_once() -> None:
    text = WHOLE.replace('via = "A09"', 'via = "A11"').replace("A10 = ", "A12 = ")
    assert [each.partition(": ")[0] for each in problems(text)] == [
        "systems.0x0121.steps[1]",
        "systems.0x0121.images.A12",
    ]


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = WHOLE.replace("schema = 1", "schema = 3").replace('"A10"', '"?"')
    assert len(problems(text)) == 2


@pytest.mark.parametrize("key", ["steps", "images"])
def test_more_steps_or_images_than_anybody_writes_are_refused_at_once(key: str) -> None:
    many = {
        "steps": "steps = [" + '{ from = "A00", via = "A01" },' * 10_000 + "]",
        "images": "images = { " + ", ".join(f'"{n}" = "x"' for n in range(10_000)) + " }",
    }[key]
    (problem,) = problems(f'schema = 1\n[systems.0x0121]\ntarget = "A10"\n{many}')
    assert problem.startswith(f"systems.0x0121.{key}: at most 200")


def test_a_byte_order_mark_is_passed_over_and_utf_16_is_named() -> None:
    def read(encoding: str) -> ReadPolicy:
        return read_policy(WHOLE.encode(encoding), ZoneInfo)

    assert read("utf-8-sig") == read("utf-8")
    assert not read("utf-8").problems
    for encoding in ("utf-16", "utf-16-be"):
        data = "\ufeff".encode(encoding) if encoding.endswith("be") else b""
        (problem,) = read_policy(data + WHOLE.encode(encoding), ZoneInfo).problems
        assert str(problem) == "it is no TOML: it is UTF-16; save it as UTF-8"


@pytest.mark.parametrize("data", [b"\xff", b"schema = ", b"[" * 5000, b"schema = 1\nschema = 1"])
def test_what_is_no_toml_is_told_in_one_line(data: bytes) -> None:
    (problem,) = read_policy(data, ZoneInfo).problems
    assert str(problem).startswith("it is no TOML: ")
    assert "\n" not in str(problem)


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
PLACES = [
    ("schema",),
    ("systems",),
    ("systems", "0x0121"),
    ("systems", "0x0121", "target"),
    ("systems", "0x0121", "steps"),
    ("systems", "0x0121", "images"),
    ("systems", "0x0121", "more"),
    ("pinned",),
    ("windows",),
    ("power",),
    ("more",),
]


@given(st.sampled_from(PLACES), JSON_LIKE)
def test_whatever_is_in_a_place_what_the_schema_refuses_is_a_problem(
    place: tuple[str, ...], value: Any
) -> None:
    """And no value of any kind is more than a problem."""
    from openrbu.policy.reading import _Reader

    document = tomllib.loads(WHOLE)
    *way, last = place
    inner = document
    for key in way:
        inner = inner[key]
    inner[last] = value
    reader = _Reader(ZoneInfo)
    reader.policy(document)
    schema = json.loads(SCHEMA.read_text("utf-8"))
    if not Draft202012Validator(schema).is_valid(document):
        assert reader.problems, value


VERSIONS = st.sampled_from(["A00", "A05", "A10", "X03", "1.2.0", "2.0.0", "2.10.0", "92.1.0"])
ENDS = st.one_of(st.none(), VERSIONS.map(BiosVersion.parse))


@st.composite
def ranges(draw: st.DrawFn) -> VersionRange:
    first, last = draw(ENDS), draw(ENDS)
    if first is None or last is None:
        assume(first is not None or last is not None)
    else:
        assume(are_comparable(first, last) and not first.is_newer_than(last))
    return VersionRange(first, last)


@given(ranges(), ranges(), VERSIONS.map(BiosVersion.parse))
def test_ranges_with_a_version_in_common_overlap(
    one: VersionRange, other: VersionRange, version: BiosVersion
) -> None:
    assert one.overlaps(other) == other.overlaps(one)
    if one.has(version) and other.has(version):
        assert one.overlaps(other)
