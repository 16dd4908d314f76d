"""An update on a real kernel whose tool is killed before each step that changes something."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.story import Story
from openrbu.formats.dell import CompletionCode
from rigs.all_cases import ALL_CASES

pytestmark = pytest.mark.lab

EVERY = 1 if ALL_CASES else 2


def test_an_update_that_is_killed_at_any_step_is_told_cancelled_and_done_later(
    story: Story,
) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    script = Path(__file__).with_name("killed.py")
    said = story.says(sys.executable, str(script), image, "packet", str(EVERY))
    steps = [json.loads(line) for line in said.splitlines()]
    assert steps[-1]["step"] > 10
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


LOCKS = """
import json, os, subprocess, sys
from openrbu.hosts.linux import LinuxHost
from openrbu.update.exclusion import BusyError, alone_on, who_updates
try:
    with alone_on(LinuxHost()):
        said = ["alone"]
        for words in json.loads(sys.argv[1]) if len(sys.argv) > 1 else []:
            command = [*words, sys.executable, "-c", os.environ["LOCKS"]]
            said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(json.dumps([os.getpid(), *said]))
except BusyError as busy:
    print(busy, end="")
"""

MOUNTS = 'mount -t tmpfs none /run; mount -t tmpfs none /var/lib; exec "$@"'


def test_another_process_with_other_mounts_and_namespaces_is_told_who_has_the_machine(
    story: Story,
) -> None:
    other = ("unshare", "--mount", "sh", "-euc", MOUNTS, "sh")
    contained = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")
    ways = [(), other, (*contained, *other[2:])]
    environment = ("env", f"LOCKS={LOCKS}")
    said = story.says(*environment, sys.executable, "-c", LOCKS, json.dumps(ways))
    pid, mine, *theirs = json.loads(said)
    assert mine == "alone"
    assert [f"process {pid} (" in each for each in theirs] == [True, True, False]
    assert theirs[2].endswith("wait for it: a process that can't be seen from here")
