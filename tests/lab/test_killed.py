"""An update on a real kernel whose tool is killed before each step that changes something."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.story import Story
from openrbu.formats.dell import CompletionCode

pytestmark = pytest.mark.lab


def test_an_update_that_is_killed_at_any_step_is_told_cancelled_and_done_later(
    story: Story,
) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    script = Path(__file__).with_name("killed.py")
    said = story.says(sys.executable, str(script), image, "packet")
    steps = [json.loads(line) for line in said.splitlines()]
    assert len(steps) > 10
    for step in steps:
        before, after = step["before"], step["after"]
        assert before["under_way"] == ""
        if before["is_armed"]:
            assert (before["is_verified"], before["next_restart"]) == (True, "updates"), step
            assert (before["outcome"], before["restart_mode"]) == ("armed", "warm"), step
            assert before["staged_size_bytes"] > 0
        else:
            assert before["next_restart"] == "changes_nothing", step
        assert (after["is_armed"], after["staged_size_bytes"]) == (False, 0), step
        assert (after["restart_mode"], after["problem"]) == (steps[0]["before"]["restart_mode"], "")
        assert not after["was_cut_off"], step
    seen = {(each["before"]["is_armed"], each["before"]["was_cut_off"]) for each in steps}
    assert {(False, True), (True, False)} <= seen

    status = story.rbu("status")  # killed between arming and the line that says so
    assert (status["is_armed"], status["last_update"]["outcome"]) == (True, "armed")
    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
    assert story.rbu("status")["last_update"]["succeeded"] is True
