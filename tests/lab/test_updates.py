"""Whole updates: openrbu on a real kernel with the real driver, a real BIOS at the restart.

openrbu runs in the guest. What it says is held against what is seen from outside, in the RAM that
stands still before the restart. A power cut while the flash is written is not tried here: it is in
`tests/unit/test_power_cut.py`, on the same BIOS code.
"""

from __future__ import annotations

import re

import pytest

from lab.story import Story, packets
from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region
from openrbu.memory.scan import SearchResult
from openrbu.units import PAGE_SIZE, PhysAddr
from openrbu.update.driver import IMAGE_TYPE

pytestmark = pytest.mark.lab

MODES = ("mono", "packet")
LEFTOVERS = 20
JUST_FREED = 26
"""How many pages may stray: those on a processor's own list of free pages look as if they were in
use (measured: one in four updates tells one such page)."""

REBOOT_MODE = "/sys/kernel/reboot/mode"


def leave_ghosts(story: Story, image: str) -> None:
    """Leave copies of an image's pages all over the memory, in files and in freed pages."""
    copies = f"for n in $(seq {2 * LEFTOVERS}); do cp {image} /dev/shm/$n; done"
    story.shell(f"{copies}; for n in $(seq 1 2 {2 * LEFTOVERS}); do rm /dev/shm/$n; done")


def pages_of(regions: list[Region]) -> set[int]:
    return {at for region in regions for at in range(region.start, region.end, PAGE_SIZE)}


def is_staged_in(seen: SearchResult, mode: str, extents: list[Region]) -> bool:
    """Whether the one update in memory is whole, and these extents have it: all of an image; of
    packets, nothing else (openrbu tells the first of very many extents), but for a few copies in
    pages that were free by then, and taken for something else since."""
    if mode == "mono":
        (extent,) = extents
        return any(
            (each.address, each.size_bytes) == (extent.start, extent.size_bytes)
            for each in seen.images
        )
    (packet_set,) = seen.packet_sets
    places = {at for several in packet_set.places.values() for at in several}
    return packet_set.is_complete and len(pages_of(extents) - places) <= JUST_FREED


@pytest.mark.parametrize("mode", MODES)
def test_an_update_is_done(story: Story, mode: str) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    leave_ghosts(story, image)

    said = story.until_restart("rbu", "update", image, "--mode", mode, "--reboot")
    armed = story.journal[-1]
    extents = [Region(*each) for each in armed["extents"]]
    assert (armed["event"], armed["mode"], armed["read_back"]) == ("armed", mode, "right")
    assert re.search(f"found in physical memory at .*{extents[0].start:#x}", said)
    seen = story.search()
    assert len(seen.headers) > LEFTOVERS, "there are copies that a BIOS must not fall for"
    assert is_staged_in(seen, mode, extents)

    post = story.machine.restart()
    assert (post.completion_code, post.reason) == (CompletionCode.COMPLETED, "")
    assert (post.version_before, post.version_after, post.mode) == (story.old, new, mode)
    assert story.versions() == (new, new, new, new)
    status = story.rbu("status")
    assert status["completion"]["code"] == "0x0000"
    assert status["bios"]["version"] == new
    assert (status["is_armed"], status["staged_size_bytes"]) == (False, 0)
    assert (status["last_update"]["outcome"], status["last_update"]["succeeded"]) == (
        "result",
        True,
    )
    assert story.journal[-1]["completion_code"] == CompletionCode.COMPLETED


def test_an_update_is_staged_first_and_armed_later(story: Story) -> None:
    """In between another program drops it, which is seen; then memory is used by others."""
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    assert not story.rbu("update", image, "--no-arm")["armed"]
    story.shell(f"echo packet > {IMAGE_TYPE}")
    assert story.rbu("arm", status=1)["error"]["kind"] == "staged_changed"
    assert story.rbu("status")["state"] == "staged_changed"

    staged = story.rbu("update", image, "--no-arm")
    assert (staged["staged"], staged["armed"], staged["is_armed"]) == (True, False, False)
    leave_ghosts(story, image)
    now = story.rbu("status")
    assert (now["state"], now["is_armed"], now["next_restart"]) == (
        "staged",
        False,
        "changes_nothing",
    )
    armed = story.rbu("arm")
    assert (armed["armed"], armed["version"], armed["seen_in_memory"]) == (True, new, True)
    assert story.rbu("arm")["changed"] is False
    assert story.rbu("status")["next_restart"] == "updates"
    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
    assert story.rbu("status")["last_update"]["ending"] == "updated"


def test_a_cancelled_update_is_none_although_memory_is_kept(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    story.rbu("update", image, "--mode", "packet")
    story.rbu("cancel")
    update = story.rbu("update", image, "--mode", "mono")  # the packets are not in its way
    held = [
        Region(PhysAddr(int(each["start"], 0)), PhysAddr(int(each["end"], 0)))
        for each in update["extents"]
    ]
    assert update["is_armed"]
    assert is_staged_in(story.search(), "mono", held)

    cancel = story.rbu("cancel")
    assert (cancel["was_armed"], cancel["was_staged"], cancel["left_staged"]) == (True, True, False)
    story.shell(f"echo warm > {REBOOT_MODE}; echo whole > /dev/shm/mark")
    story.until_restart("reboot")
    left = story.search()
    assert held[0].start not in [each.address for each in left.images], "it was cleared"
    assert left.headers, "copies of the file are there"

    post = story.machine.restart()
    assert not post.attempted
    assert story.search().headers, "the restart was a warm one"
    assert story.versions() == (story.old,) * 4
    assert story.rbu("status")["last_update"]["outcome"] == "cancelled"


def test_power_that_fails_in_place_of_a_restart_loses_the_update(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    assert story.rbu("update", image)["is_armed"]
    ran = story.machine.run(["reboot"], cut_power=True)
    assert ran.post is not None
    assert ran.post.completion_code == CompletionCode.IMAGE_NOT_FOUND
    assert story.versions() == (story.old,) * 4
    status = story.rbu("status")
    assert status["completion"]["code"] == "0x000d"
    assert not status["is_armed"]
    assert status["last_update"]["succeeded"] is False


def test_a_cold_restart_loses_the_update(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    assert story.rbu("update", image)["is_armed"]
    story.shell(f"echo cold > {REBOOT_MODE}")
    story.until_restart("reboot")
    assert story.search().headers, "it is the BIOS that clears memory"
    post = story.machine.restart()
    assert post.completion_code == CompletionCode.IMAGE_NOT_FOUND
    assert not story.search().headers
    assert story.machine.bios_on_console == story.old


def test_an_image_for_another_system_is_refused_by_openrbu_and_by_the_bios(story: Story) -> None:
    image = story.file("other.hdr", story.image(story.newer(), system=0x01DF))
    refusal = story.rbu("update", image, status=3)
    assert refusal["error"]["kind"] == "not_for_this_machine"
    story.until_restart("rbu", "update", image, "--allow-any-system", "--reboot")
    post = story.machine.restart()
    assert post.completion_code == CompletionCode.INCONSISTENT_IMAGE
    assert "the image is for 0x01df, not for this machine" in post.reason
    assert story.machine.bios_on_console == story.old


def test_another_update_in_memory_is_seen_before_arming(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    other = story.image(story.newer(2))
    story.shell("echo 1 > /proc/sys/vm/nr_hugepages")
    done = story.tries(*story.holding("other", other, "rbu", "update", image, "--mode", "mono"))
    assert done.returncode == 1
    assert "two different images are in memory" in done.stderr
    assert story.journal[-1]["event"] == "failed"
    assert not story.search().images, "the other one is gone, and what was staged is taken back"


@pytest.mark.parametrize("mode", MODES)
def test_a_different_set_that_gets_into_memory_after_arming_is_refused_by_the_bios(
    story: Story, mode: str
) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    story.shell("echo 1 > /proc/sys/vm/nr_hugepages")
    assert story.rbu("update", image, "--mode", mode)["is_armed"]
    other = packets(story.image(story.newer(2)))
    story.until_restart(*story.holding("other", other, "reboot"))
    seen = story.search()
    assert len(seen.packet_sets) == (2 if mode == "packet" else 1)
    post = story.machine.restart()
    assert post.completion_code == CompletionCode.INCONSISTENT_IMAGE
    assert "two different" in post.reason
    assert story.machine.bios_on_console == story.old
