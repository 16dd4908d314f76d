"""Verdicts of `rbu try`: what follows from what was seen of a machine."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from openrbu.bios.post_report import PostReport
from openrbu.drivers.dell_rbu_profiles import PROFILES
from openrbu.errors import UsageError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image
from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.machine.models import MODELS
from openrbu.memory.physical import Region
from openrbu.trials.combinations import Combination, combined
from openrbu.trials.images import machines_for, next_version
from openrbu.trials.junit import junit_document
from openrbu.trials.matrix import default_matrix
from openrbu.trials.records import TrialResult
from openrbu.trials.tool import expecting, matrix_of
from openrbu.trials.verdicts import Seen, Verdict, judge, verdict_named
from openrbu.units import GIB, MIB, PhysAddr
from rigs.cli import FLASH_BYTES, image_bytes
from rigs.machines import image

WANTED = BiosVersion.parse("A06")
SEEN = Seen(
    version_before="A05",
    version_after="A05",
    was_armed=False,
    was_loading=False,
    was_off=False,
    is_armed=False,
    has_crashed=False,
    has_timed_out=False,
    posts=(PostReport("A05", "A05", held_bytes=0, memory_was_kept=True),),
)
UPDATED = PostReport(
    "A05",
    "A06",
    CompletionCode.COMPLETED,
    mode="mono",
    extents=(Region(PhysAddr(2 * MIB), PhysAddr(3 * MIB)),),
    copies=1,
    found_in_held_memory=True,
    held_bytes=MIB,
    memory_was_kept=True,
)
NOT_FOUND = replace(
    UPDATED,
    version_after="A05",
    completion_code=CompletionCode.IMAGE_NOT_FOUND,
    reason="nothing in memory looks like one",
    extents=(),
    found_in_held_memory=None,
)


def seen(post: PostReport | None = None, **changes: object) -> Seen:
    posts = {} if post is None else {"posts": (post,), "version_after": post.version_after}
    return replace(SEEN, **posts | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "verdict", "why"),
    [
        (seen(UPDATED), "updated", "A05 → A06 (mono)"),
        (
            seen(replace(UPDATED, found_in_held_memory=False)),
            "luck",
            "A05 → A06, from 0x200000: no driver held that memory until the restart",
        ),
        # A power cut while the flash was written: the next start finishes, and memory is gone.
        (
            seen(PostReport("A06", "A06", CompletionCode.COMPLETED, held_bytes=0)),
            "updated",
            "A05 → A06",
        ),
        (
            seen(replace(UPDATED, version_after="A07")),
            "other_version",
            "the BIOS says completed, but A07 runs, not A06",
        ),
        (
            seen(NOT_FOUND),
            "refused",
            "nothing in memory looks like one (code 0x000d)",
        ),
        (
            seen(replace(UPDATED, completion_code=CompletionCode.TWELVE_VOLTS_NOT_REMOVED)),
            "refused",
            "A05 → A06, but 12 V could not be removed (code 0x0009)",
        ),
        (
            seen(PostReport("A05", "A05", CompletionCode.FLASH_FAILURE, "no", held_bytes=0)),
            "refused",
            "no (code 0x000b)",
        ),
        (
            seen(replace(NOT_FOUND, held_bytes=0)),
            "armed_with_nothing",
            "the driver held nothing at the restart",
        ),
        (
            seen(replace(NOT_FOUND, held_bytes=0), was_loading=True),
            "armed_with_nothing",
            "the driver held nothing at the restart, and a load had begun and not ended",
        ),
        (
            seen(replace(NOT_FOUND, memory_was_kept=False)),
            "memory_cleared",
            "the restart cleared the 1 MiB of memory in which an update was staged",
        ),
        (
            seen(replace(NOT_FOUND, held_bytes=0, memory_was_kept=False), was_off=True),
            "memory_cleared",
            "the tool switched the machine off",
        ),
        (
            seen(replace(SEEN.posts[0], reason="the check value is wrong"), was_armed=True),
            "token_lost",
            "the check value is wrong",
        ),
        (seen(was_armed=True), "token_lost", "the BIOS found the token cleared"),
        # The tool has restarted the machine itself: after it the token is cleared anyway.
        (
            seen(replace(SEEN.posts[0], held_bytes=MIB, was_armed=True)),
            "token_lost",
            "the BIOS found the token cleared",
        ),
        (
            seen(is_armed=True, posts=()),
            "left_armed",
            "the token is set, and the BIOS has not run since",
        ),
        (
            seen(replace(SEEN.posts[0], held_bytes=MIB)),
            "left_staged",
            "an update was staged in 1 MiB of memory, and the BIOS was not armed: it is lost",
        ),
        (seen(), "not_tried", "nothing was staged, and the BIOS was not armed"),
        (
            seen(was_loading=True),
            "not_tried",
            "a load had begun and not ended, and the BIOS was not armed",
        ),
        (seen(has_crashed=True), "kernel_crashed", "the machine was not restarted"),
        (
            seen(has_timed_out=True, is_armed=True),
            "timed_out",
            "the tool was killed, and the machine not restarted",
        ),
    ],
)
def test_a_verdict_follows_from_what_was_seen(what: Seen, verdict: str, why: str) -> None:
    judgement = judge(what, WANTED, strict=True)
    assert (judgement.verdict, judgement.why) == (verdict, why)


def test_without_strict_luck_is_an_update() -> None:
    lucky = seen(replace(UPDATED, found_in_held_memory=False))
    assert judge(lucky, WANTED, strict=False).verdict is Verdict.UPDATED


def test_of_several_starts_the_last_one_with_an_update_counts() -> None:
    later = seen(posts=(UPDATED, SEEN.posts[0]), version_after="A06")
    assert judge(later, WANTED, strict=True).verdict is Verdict.UPDATED


# -- combinations ---------------------------------------------------------------------------------


def test_options_make_a_product() -> None:
    made = combined(
        [Combination("precision-390"), Combination("latitude-d500")],
        profiles=["linux", "linux-5.7"],
        ram_sizes=[5 * GIB],
        faults=["none", "no-battery,password"],
    )
    assert [each.name for each in made] == [
        f"{model} {profile} ram=5G{fault}"
        for model in ("precision-390", "latitude-d500")
        for profile in ("linux", "linux-5.7")
        for fault in ("", " no-battery password")
    ]


def test_the_default_matrix_has_each_model_with_each_kernel_and_machines_that_can_be() -> None:
    matrix = list(default_matrix())
    assert len({each.name for each in matrix}) == len(matrix)
    pairs = {(each.model, each.profile) for each in matrix}
    assert pairs >= {(model, name) for model in MODELS for name in PROFILES}
    for each in matrix:
        assert {verdict_named(name) for name in each.expected}
        each.check()


def test_a_matrix_of_some_models_and_kernels_is_a_part_of_it() -> None:
    part = matrix_of([Combination("latitude-d500")], ["linux"])
    assert {(each.model, each.profile) for each in part} == {("latitude-d500", "linux")}
    assert len(part) > 1


def test_what_is_expected_can_be_said_for_all_and_by_fault() -> None:
    made = combined([Combination(may_give_up=True)], faults=["none", "no-battery", "password"])
    wanted = ["updated", "luck", "no-battery=refused", "no-battery=not_tried"]
    none, battery, password = expecting(made, wanted)
    assert none.expected == password.expected == ("updated", "luck")
    assert battery.expected == ("refused", "not_tried")
    assert not battery.may_give_up
    assert expecting(made, ()) == made


@pytest.mark.parametrize(
    ("text", "says"), [("great", "no verdict 'great'"), ("no-battery=luck", "fault no-battery")]
)
def test_what_can_not_be_expected_is_a_usage_error(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        expecting([Combination()], [text])


@pytest.mark.parametrize(
    ("verdict", "status", "is_fine"),
    [
        ("updated", 0, True),
        ("not_tried", 1, True),
        ("left_staged", 1, True),
        ("not_tried", 0, False),
        ("luck", 1, False),
    ],
)
def test_to_give_up_has_to_be_said(verdict: str, status: int, is_fine: bool) -> None:
    assert Combination(may_give_up=True).is_fine(verdict, status) == is_fine
    assert Combination().is_fine(verdict, status) == (verdict == "updated")


def test_an_image_of_a_model_is_tried_on_that_model_and_another_on_the_closest() -> None:
    assert [each.model for each in machines_for(image("latitude-d500"))] == ["latitude-d500"]
    (other,) = machines_for(Image.parse(image_bytes("2.3.0", system=0x0BAD)))
    assert (other.system_id, other.flash_size_bytes) == (0x0BAD, FLASH_BYTES)
    assert BiosVersion.parse(MODELS[other.model].bios_version).style is VersionStyle.NEW


@pytest.mark.parametrize(("old", "new"), [("A09", "A10"), ("2.1.2", "2.1.3"), ("1.2", "1.2.1")])
def test_the_next_version_is_newer(old: str, new: str) -> None:
    assert next_version(BiosVersion.parse(old)).text == new


def test_after_the_last_version_there_is_none() -> None:
    with pytest.raises(UsageError, match="no version that follows A99"):
        next_version(BiosVersion.parse("A99"))


# -- JUnit ----------------------------------------------------------------------------------------


def result(verdict: str, **changes: object) -> TrialResult:
    whole = TrialResult(
        combination=Combination(),
        verdict=verdict,
        why="because <of> \x1b[1m",
        exit_status=3,
        version_before="A05",
        version_after="A05",
        completion_code=None,
        found_in_held_memory=None,
        restarted_itself=False,
        tool_said=("one", "two \0 & \ud800"),
        kernel_said="out of memory",
        seconds=0.25,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_junit_counts_what_was_not_expected_and_says_why() -> None:
    document = junit_document([result("updated"), result("refused"), result("luck", tool_said=())])
    suite = ET.fromstring(document).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("3", "2", "0.750")
    cases = suite.findall("testcase")
    assert [len(case.findall("failure")) for case in cases] == [0, 1, 1]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "refused: because <of> ?[1m"
    assert failure.text is not None
    for words in ("expected: updated", "exit code 3", "it said: two ? & ?", "out of memory"):
        assert words in failure.text
    assert [case.findtext("system-out") for case in cases] == ["one\ntwo ? & ?"] * 2 + [None]
