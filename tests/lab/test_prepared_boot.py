"""openrbu's own driver on memory that a prepared boot keeps free, on real kernels without
`dell_rbu`: the crash kernel's, and a device of persistent memory.

Two machines: Debian's newest kernel, and the other one of 6.1 and 6.12, locked down to
`confidentiality`. Both end with an update.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.story import Story
from openrbu.errors import ObstacleError
from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region, joined
from openrbu.units import MIB, PhysAddr
from rigs.lab import Lab, SharedMachine, find_lab, find_second_lab
from rigs.needs import leave_out

pytestmark = pytest.mark.lab

WORDS = "crashkernel=64M memmap=32M!192M"
LOCKED_DOWN = f"{WORDS} lockdown=confidentiality"
PMEM = Region(PhysAddr(192 * MIB), PhysAddr(224 * MIB))

LOAD_KDUMP = """\
import ctypes, mmap
from openrbu.own_driver.crash_region import _Segment, _address_of, _kexec_load
page = mmap.mmap(-1, 4096)
_kexec_load([_Segment(_address_of(memoryview(page)), 4096, {start}, 4096)])
"""
"""Has a page loaded as a crash kernel, as kdump has one."""

UNLOAD_KDUMP = "from openrbu.own_driver.crash_region import _kexec_load; _kexec_load([])"


def story_on(lab: Lab, words: str, directory: Path) -> Iterator[Story]:
    shared = SharedMachine(lambda: lab.machine(kernel_words=words, without_modules=["dell_rbu"]))
    try:
        yield Story(lab, shared.machine, directory)
    except ObstacleError as obstacle:
        leave_out(str(obstacle))
    finally:
        shared.close()


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    yield from story_on(find_lab(), WORDS, tmp_path)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Story]:
    yield from story_on(find_second_lab(), LOCKED_DOWN, tmp_path)


def load_pmem(story: Story) -> None:
    """What udev does elsewhere."""
    story.shell("modprobe nd_e820; modprobe nd_pmem; while [ ! -b /dev/pmem0 ]; do :; done")


def regions_of(extents: dict[str, Any]) -> tuple[Region, ...]:
    return joined((int(each["start"], 16), int(each["end"], 16)) for each in extents["extents"])


def staged_in(story: Story) -> tuple[Region, ...]:
    """Where the driver says that the update is: a search from outside finds it there, and nowhere
    else."""
    told = regions_of(story.rbu("driver", "status")["staged_in"])
    seen = story.search()
    found = [each.extents for each in seen.packet_sets]
    found += [
        (Region(each.address, PhysAddr(each.address + each.size_bytes)),) for each in seen.images
    ]
    (extents,) = found
    assert joined((each.start, each.end) for each in extents) == told
    return told


def check_update(story: Story, version: str) -> None:
    """The restart carries it out."""
    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, version)
    assert story.rbu("status")["last_update"]["succeeded"] is True


def test_an_update_from_the_crash_kernels_memory_is_done(story: Story) -> None:
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    iomem = story.says("cat", "/proc/iomem").split("\n")
    (line,) = (line for line in iomem if line.endswith("Crash kernel"))
    start, end = (int(word, 16) for word in line.split(" : ")[0].split("-"))
    story.says("python3", "-c", LOAD_KDUMP.format(start=start))
    assert "kdump" in story.rbu("driver", "start", "--memory-from", "crash-region")["loses"]
    assert story.says("cat", "/sys/kernel/kexec_crash_loaded") == "1\n"  # nothing is staged
    story.rbu("update", image, "--mode", "packet", "--packet-size", "4096")
    assert story.says("cat", "/sys/kernel/kexec_crash_loaded") == "0\n"
    staged = staged_in(story)
    assert start + 2 * MIB <= staged[0].start
    assert staged[-1].end <= end + 1
    story.says("python3", "-c", LOAD_KDUMP.format(start=start))
    assert story.rbu("status")["next_restart"] == "memory_moved"
    story.says("python3", "-c", UNLOAD_KDUMP)  # it was loaded beside the image
    check_update(story, new)


def test_a_kernel_that_is_locked_down_leaves_pmem(locked: Story) -> None:
    story, new = locked, locked.newer()
    image = story.file("new.hdr", story.image(new))
    refused = story.rbu("driver", "start", "--memory-from", "crash-region", status=4)
    assert "not locked down" in refused["error"]["message"]
    load_pmem(story)
    story.rbu("driver", "start", "--memory-from", "pmem")
    story.rbu("update", image)
    (staged,) = staged_in(story)
    assert PMEM.start <= staged.start < staged.end <= PMEM.end
    check_update(story, new)
