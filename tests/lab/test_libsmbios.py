"""Programs that nobody here wrote, in the guest of a lab machine: libsmbios and the shell."""

from __future__ import annotations

import pytest

from lab.story import Story
from openrbu.formats.dell import CompletionCode
from rigs.needs import program

pytestmark = pytest.mark.lab

ARM, DISARM = 0x5C, 0x5D
ENTRY, DEVICE = "/sys/class/firmware/dell_rbu", "/sys/devices/platform/dell_rbu"


def token_ctl(story: Story, token: int, word: str) -> tuple[int, list[str]]:
    """Its exit status, and the words that it says."""
    name = program("smbios-token-ctl", "smbios-utils")
    done = story.tries(name, f"--token-id={token:#x}", word)
    return done.returncode, done.stdout.split()


def activate(story: Story, token: int) -> None:
    """smbios-token-ctl ends with 1 after an activation that it made; what it says counts."""
    _, words = token_ctl(story, token, "--activate")
    assert words[-2:] == ["value:", "true"]


def is_active(story: Story, token: int) -> bool:
    status, words = token_ctl(story, token, "--is-active")
    assert words[-2:] == ["value:", "true" if status == 0 else "false"]
    return status == 0


def test_libsmbios_sees_what_openrbu_armed_and_openrbu_what_libsmbios_armed(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    assert (is_active(story, ARM), is_active(story, DISARM)) == (False, True)
    assert story.rbu("update", image, "--mode", "mono")["is_armed"]
    assert (is_active(story, ARM), is_active(story, DISARM)) == (True, False)
    assert story.rbu("cancel")["was_armed"]
    assert (is_active(story, ARM), is_active(story, DISARM)) == (False, True)
    activate(story, ARM)
    assert story.rbu("status")["is_armed"] is True
    activate(story, DISARM)
    assert story.rbu("status")["is_armed"] is False


def test_an_update_by_the_shell_and_libsmbios_alone(story: Story) -> None:
    """The commands of the kernel's document, typed in a shell; then the token; then the restart."""
    new = story.newer()
    image = story.file("bios_image.hdr", story.image(new))
    story.shell("modprobe dell_rbu")
    story.shell(f"echo init > {DEVICE}/image_type; while [ ! -e {ENTRY}/data ]; do :; done")
    story.shell(f"echo 1 > {ENTRY}/loading; cp {image} {ENTRY}/data; echo 0 > {ENTRY}/loading")
    story.shell(f"while ! cmp {image} {DEVICE}/data; do :; done")
    activate(story, ARM)
    story.shell("echo warm > /sys/kernel/reboot/mode")
    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.reason) == (CompletionCode.COMPLETED, "")
    assert (post.mode, post.version_after) == ("mono", new)
    assert story.versions() == (new, new, new, new)
