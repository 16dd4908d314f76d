"""What runs under `rbu run` comes to the same as on real Linux with the real driver.

Tools, unmodified, update a virtual machine and a lab machine that are alike, and both BIOSes say
the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.story import MODEL, Story, packets
from openrbu.formats.dell import CompletionCode
from rigs.cli import RBU
from rigs.lab import BIOS_RULES
from rigs.needs import program
from rigs.run import Runner, needs_x86_64, runner
from rigs.update_tools import old_client, page_tool

pytestmark = pytest.mark.lab

OTHER_SYSTEM = 0x01DF

Verdict = list[Any]
"""Completion code, reason, mode, the BIOS's version before and after, and what dmidecode says."""

UNDER_RUN = """\
import json, sys
from openrbu import api

machine, tool, dmidecode = json.loads(sys.argv[1])
first, _ = api.run_all(machine, [tool, [dmidecode, "-s", "bios-version"]])
post = first.restarted.post
print(json.dumps([post.completion_code, post.reason, post.mode, post.version_before,
                  post.version_after]))
"""
"""Has a tool run until the machine is restarted, and dmidecode after that: as `rbu run` does."""


@pytest.fixture
def virtual(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A virtual machine like that of the story."""
    needs_x86_64()
    home = tmp_path / "home"
    monkeypatch.setenv("OPENRBU_HOME", str(home))
    return runner(
        home,
        "nobody" if os.geteuid() else "root",
        MODEL,
        profile="linux",
        bios_version=story.old,
        flash_size_bytes=story.machine.flash.size_bytes,
        bios_rules=BIOS_RULES,
    )


def verdict_under_run(virtual: Runner, tool: list[str]) -> Verdict:
    words = json.dumps([virtual.name, tool, program("dmidecode", "dmidecode")])
    command = [sys.executable, "-c", UNDER_RUN, words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended
    *_, version, said = ended.stdout.splitlines()
    return [*json.loads(said), version]


def verdict_in_lab(story: Story, tool: list[str]) -> Verdict:
    story.until_restart(*tool)
    post = story.machine.restart()
    version = story.says(program("dmidecode", "dmidecode"), "-s", "bios-version").strip()
    code = post.completion_code
    return [code, post.reason, post.mode, post.version_before, post.version_after, version]


TOOLS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "the vendor's old client": ("mono", lambda image: old_client(image, "mono")),
    "the vendor's old client, packets": ("packet", lambda image: old_client(image, "packet")),
    "a shell script and libsmbios": ("mono", page_tool),
    "rbu": ("mono", lambda image: [*RBU, "update", image, "--mode", "mono", "--reboot"]),
}
"""The mode of each tool, and its words for an image (for packets: a file of them)."""


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_does_the_same_update(story: Story, virtual: Runner, name: str) -> None:
    mode, words = TOOLS[name]
    new = story.newer()
    image = story.image(new)
    tool = words(story.file("new", image if mode == "mono" else packets(image)))
    seen = verdict_under_run(virtual, tool)
    assert seen == [CompletionCode.COMPLETED, "", mode, story.old, new, new]
    assert verdict_in_lab(story, tool) == seen


def test_a_tool_that_stages_an_image_for_another_system_fails_in_the_same_way(
    story: Story, virtual: Runner
) -> None:
    tool = page_tool(story.file("new", story.image(story.newer(), system=OTHER_SYSTEM)))
    seen = verdict_under_run(virtual, tool)
    assert seen[0] == CompletionCode.INCONSISTENT_IMAGE
    assert seen[4:] == [story.old, story.old]
    assert verdict_in_lab(story, tool) == seen
