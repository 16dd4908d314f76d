"""The token in CMOS on real kernels: very often, beside a program that uses the clock all the time,
and on kernels that are locked down.

How often says the environment: `make token-soak` says 100,000 reads and 10,000 cycles, on KERNEL.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.story import Story
from openrbu.formats.dell import CompletionCode
from openrbu.linux.cmos import CLOCK, NVMEM, NVRAM, PORT
from rigs import token_load
from rigs.lab import Lab

pytestmark = pytest.mark.lab

READS = int(os.environ.get("OPENRBU_TOKEN_READS", "1500"))
CYCLES = int(os.environ.get("OPENRBU_TOKEN_CYCLES", "100"))
CARELESS_READS = 40_000
"""Of 20,000 such reads 31 were wrong."""

CLOCK_TOLERANCE_S = 5.0
"""The time that the guest's clock is asked over, and its whole seconds."""

Started = Callable[..., Story]


@pytest.fixture
def started(lab: Lab, tmp_path: Path) -> Iterator[Started]:
    """Starts machines with these processors and kernel words; they end with the test."""
    with ExitStack() as stack:

        def start(cpus: int, kernel_words: str = "") -> Story:
            machine = stack.enter_context(lab.machine(cpus=cpus, kernel_words=kernel_words))
            machine.power_on()
            return Story(lab, machine, tmp_path)

        yield start


def load(story: Story, reads: int, cycles: int, how: str) -> dict[str, Any]:
    """What `rigs.token_load` saw."""
    words = (sys.executable, token_load.__file__, str(reads), str(cycles), how)
    said: dict[str, Any] = json.loads(story.says(*words))
    print(f"{how}, {reads} reads, {cycles} cycles: {said}")
    return said


def check_sound(story: Story, said: dict[str, Any], way: str = NVMEM) -> None:
    """Nothing was wrong, all of CMOS is as it was, and the clock is right."""
    assert (said["way"], said["wrong"], said["bytes_changed"]) == (way, {}, [])
    assert not said["clock_failed"]
    off_s = float(story.shell(f"cat {CLOCK}")) - time.time()
    print(f"the clock is off by {off_s:+.1f} s")
    assert abs(off_s) < CLOCK_TOLERANCE_S


def test_beside_a_program_that_uses_the_clock_on_another_processor_nothing_is_wrong(
    started: Started,
) -> None:
    """Nor through `/dev/nvram`. The same reads through `/dev/port`, looked at once each, are: some
    of them."""
    story = started(cpus=2)
    said = load(story, READS, CYCLES, "kernel")
    assert said["processors"] == 2
    check_sound(story, said)
    story.shell("modprobe nvram")
    check_sound(story, load(story, READS // 3, CYCLES // 3, "nvram"), NVRAM)
    careless = load(story, CARELESS_READS, 0, "careless")
    assert careless["way"] == PORT
    assert careless["wrong"] or careless["clock_failed"], "the check can fail"


def test_a_kernel_that_is_locked_down_takes_an_update_and_nothing_is_wrong_on_one_processor(
    started: Started,
) -> None:
    story = started(cpus=1, kernel_words="lockdown=confidentiality")
    assert "Operation not permitted" in story.tries("dd", f"if={PORT}", "count=1").stderr
    check_sound(story, load(story, READS, CYCLES, "kernel"))
    check_updates(story)


@pytest.mark.skipif("OPENRBU_TOKEN_READS" not in os.environ, reason="only with make token-soak")
def test_so_does_one_that_is_locked_down_less(started: Started) -> None:
    story = started(cpus=1, kernel_words="lockdown=integrity")
    check_sound(story, load(story, READS, CYCLES, "kernel"))
    check_updates(story)


def check_updates(story: Story) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    plan = {check["name"]: check for check in story.rbu("plan", image)["checks"]}
    assert (plan["cmos_way"]["verdict"], plan["cmos"]["verdict"]) == ("fine", "fine")
    assert NVMEM in plan["cmos_way"]["found"]
    story.until_restart("rbu", "update", image, "--reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
    status = story.rbu("status")
    assert (status["last_update"]["succeeded"], status["token_way"]) == (True, NVMEM)
    assert story.journal[-2]["token_way"] == NVMEM
