"""Updates on a real kernel that makes no firmware entry, or would stage another file instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab import firmware_steps
from lab.story import Story
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.firmware_class import IGNORE_FALLBACK, SEARCH_PATH
from openrbu.update.driver import ENTRY, IMAGE_TYPE, STAGED
from rigs.machines import make, running

pytestmark = pytest.mark.lab

AGENT_ROOT = "/proc/$PPID/root"
"""The guest's root by the process that runs its programs; the kernel's first process has another
root, in which these paths mean something else."""

FOREIGN_BYTES = 50_000

PUT_FILE = f"""\
mkdir -p /run/somebody
head -c {FOREIGN_BYTES} /dev/urandom > /run/somebody/dell_rbu
printf '%s\\0' {AGENT_ROOT}/run/somebody > {SEARCH_PATH}
"""


@pytest.mark.parametrize(("mode", "hindrance"), [("mono", "no entry"), ("packet", "a file")])
def test_an_update_is_done_with_the_image_as_a_file(
    story: Story, mode: str, hindrance: str
) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    story.shell(f"echo 1 > {IGNORE_FALLBACK}" if hindrance == "no entry" else PUT_FILE)
    story.shell(f"modprobe dell_rbu; echo init > {IMAGE_TYPE}; sleep 1")
    assert story.tries("ls", ENTRY).returncode != 0
    staged_bytes = int(story.shell(f"cat {STAGED} 2>/dev/null | wc -c"))
    assert staged_bytes == (FOREIGN_BYTES if hindrance == "a file" else 0)
    path = story.shell(f"cat {SEARCH_PATH}")

    update = story.rbu("update", image, "--mode", mode)
    assert (update["mode"], update["is_armed"], update["tried"]) == (mode, True, [])
    assert story.shell(f"cat {SEARCH_PATH}") == path
    assert story.shell("find /run/openrbu-firmware -type f") == ""
    status = story.rbu("status")
    assert (status["next_restart"], status["module_is_loaded"]) == ("updates", True)

    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.reason) == (CompletionCode.COMPLETED, "")
    assert (post.version_after, post.mode) == (new, mode)


def test_a_virtual_machines_kernel_does_with_files_and_switches_what_a_real_one_does(
    story: Story, tmp_path: Path
) -> None:
    script = Path(firmware_steps.__file__)
    real = json.loads(story.says(sys.executable, str(script)))
    with running(make(tmp_path, profile="linux")) as machine:
        virtual = json.loads(json.dumps(list(firmware_steps.steps(VirtualHost(machine)))))
    assert virtual == real
