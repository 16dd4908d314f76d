"""What an update in the lab comes to, by what was seen of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openrbu.bios.post_report import PostReport
from openrbu.errors import ExitCode
from openrbu.formats.dell import CompletionCode
from openrbu.lab.trial import Trial

POST = PostReport("2.1.2", "2.3.0", CompletionCode.COMPLETED)
GOOD = Trial(
    post=POST,
    console_version="2.3.0",
    dmi_version="2.3.0",
    status_document={"completion": {"code": "0x0000"}},
)


def test_an_update_that_all_agree_on_has_not_failed() -> None:
    assert GOOD.failure is None


def test_nothing_to_do_in_the_guest_is_no_failure() -> None:
    assert Trial(status=0).failure is None


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(4, ExitCode.OBSTACLE), (5, ExitCode.DAMAGED_INPUT), (None, ExitCode.FAILED), (77, 1)],
)
def test_it_ends_as_rbu_update_ended_in_the_guest(status: int | None, exit_code: int) -> None:
    failure = Trial(status, "first\nrbu: the last line").failure
    assert failure is not None
    assert str(failure) == "rbu update failed in the guest: the last line"
    assert failure.exit_code == exit_code


def test_a_guest_that_said_nothing_is_told_of_too() -> None:
    assert str(Trial(status=1).failure) == "rbu update failed in the guest: nothing"


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({"post": PostReport("2.1.2", "2.1.2", CompletionCode.IMAGE_NOT_FOUND)}, "did not install"),
        ({"started": False}, "QEMU can't start it"),
        ({"console_version": "2.1.2"}, "the BIOS on the console says 2.1.2"),
        ({"dmi_version": None}, "guest's tables None"),
        ({"status_document": None}, "rbu status there None"),
        ({"status_document": {"completion": {"code": "0x000d"}}}, "rbu status there 0x000d"),
    ],
)
def test_one_that_says_otherwise_is_a_failure(seen: dict[str, Any], told: str) -> None:
    failure = replace(GOOD, **seen).failure
    assert failure is not None
    assert told in str(failure)
    assert failure.exit_code == ExitCode.FAILED
