"""What runs under `rbu run` comes to the same as on real Linux with the real driver.

Tools, unmodified, update a virtual machine and a lab machine that are alike, and both BIOSes say
the same. The commands of kmod and the permissions for ports are compared in the same way.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from lab.story import MODEL, Story, packets
from openrbu.formats.dell import CompletionCode
from openrbu.system.home import cache_home
from rigs.cli import RBU
from rigs.lab import BIOS_RULES
from rigs.needs import program
from rigs.port_programs import INHERITANCE, INVALID, PERMISSIONS
from rigs.port_programs import program as port_program
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


LINES = """
modprobe dell_rbu
modprobe dell_rbu
modprobe --first-time dell-rbu
lsmod | grep -E '^(Module|dell_rbu)' | sed 's/  *[0-9]*  0/ N  0/'
insmod $MODULE
rmmod dell_rbu
rmmod dell_rbu
rmmod dell-rbu nonsense
modprobe -r dell_rbu
modprobe -r -v dell_rbu
modprobe -r --first-time dell_rbu
modprobe dell_rbu no_such_parameter=1
echo init > /sys/devices/platform/dell_rbu/image_type
lsmod | grep dell_rbu | tr -s ' ' | cut -d ' ' -f 3,4
rmmod dell_rbu
modprobe -r dell_rbu
echo -1 > /sys/class/firmware/dell_rbu/loading
until rmmod dell_rbu 2>/dev/null; do :; done
modprobe dell_rbu image_type=packet; cat /sys/devices/platform/dell_rbu/image_type; rmmod dell_rbu
modprobe dell_rbu allocation_floor=x
modprobe dcdbas; ls /sys/devices/platform/dcdbas/smi_data; rmmod dcdbas
modprobe -q nonsense
modprobe nonsense
modprobe nonsense x=1
modprobe -a nonsense dell_rbu
modprobe -r nonsense
modprobe -n dell_rbu
modprobe -n -v nonsense
modprobe -R dell_rbu
modprobe
modprobe -a
modprobe -r
modprobe --nonsense
modprobe -Q
modprobe -V
rmmod
rmmod -Q
rmmod nonsense
modprobe -R dell_rbu
rmmod dell_rbu
insmod
insmod $MODULE no_such_parameter=1
insmod $MODULE
setpriv --reuid=65534 --regid=65534 --clear-groups rmmod dell_rbu 2>&1 | grep -v ../libkmod/
rmmod -v dell_rbu
lsmod nonsense
""".strip().splitlines()
"""What is typed, line by line. What libkmod adds, with a line of its source, is left out."""

MODULE = "kernel/drivers/platform/x86/dell/dell_rbu.ko"


def typed(directory: str, path: str = "") -> list[str]:
    """The words that type the lines. What each says is behind it, standard error too."""
    script = [f'PATH={path}:$PATH; MODULE="{directory}/{MODULE}"; cd /dev/shm; export PATH MODULE']
    for line in LINES:
        script += [f"echo {shlex.quote('$ ' + line)}", line, 'echo "[$?]"']
    return ["sh", "-c", "exec 2>&1\n" + "\n".join(script)]


def real_kmod(story: Story) -> str:
    """A directory in the guest with the commands of the kmod that the lab's kernel came with."""
    cached = max((cache_home() / "packages").glob("kmod_*/**/bin/kmod"), default=None)
    kmod = cached or program("kmod", "kmod")
    links = "for n in modprobe rmmod lsmod insmod; do ln -sf kmod $n; done"
    story.shell(f"mkdir -p /run/kmod; cd /run/kmod; cp {kmod} .; {links}")
    return "/run/kmod"


def test_the_commands_of_kmod_say_the_same(story: Story, virtual: Runner) -> None:
    release = story.machine.software.release
    kmod = real_kmod(story)
    story.shell("rmmod dell_rbu 2>/dev/null || true")
    real = story.says(*typed(f"/lib/modules/{release}", kmod)).replace(release, "RELEASE")
    here = os.uname().release
    ours = virtual.says(*typed(f"/lib/modules/{here}")).replace(here, "RELEASE")
    real = real.replace(f"{kmod}/", "")
    assert ours == real, "\n".join(unified_diff(real.splitlines(), ours.splitlines(), n=99))


def test_port_permissions_are_given_and_inherited_in_the_same_way(
    story: Story, virtual: Runner
) -> None:
    for script in (INVALID + PERMISSIONS, INHERITANCE):
        words = port_program(script)
        ours, real = json.loads(virtual.says(*words)), json.loads(story.says(*words))
        assert ours == real
