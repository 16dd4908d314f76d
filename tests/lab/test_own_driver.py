"""openrbu's own driver on real kernels that have no `dell_rbu`, looked at from outside.

Two machines: `small` has Debian's newest kernel. `large` has the other one of 6.1 and 6.12, memory
above 4 GiB, and is locked down to `confidentiality`. While the guest stands still, what is staged
is found in its RAM at the addresses that the driver says. At last there is an update, and a
restart.

More sizes, more memory and all steps: `make driver-soak`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.outside import (
    check_found,
    check_gone,
    check_taken,
    kill_each,
    regions_of,
    stage_each,
)
from lab.own_driver import Case
from lab.story import Story
from lab.test_memory import break_memory
from openrbu.errors import ObstacleError
from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region
from openrbu.units import GIB, HUGE_PAGE_BYTES, KIB, MIB
from rigs.lab import Lab, SharedMachine, find_lab, find_second_lab
from rigs.needs import leave_out
from rigs.oracle import oracle_module

pytestmark = pytest.mark.lab

DRIVER = "dell_rbu"

LOCKED_DOWN = "lockdown=confidentiality"

IS_SOAK = "OPENRBU_DRIVER_LARGE_MIB" in os.environ

LARGE_BYTES = int(os.environ.get("OPENRBU_DRIVER_LARGE_MIB", "3584")) * MIB
"""Of it, 3 GiB are below 4 GiB, and the kernel gives huge pages from above first."""

CASES = {
    "small": [
        Case("mono", 512),
        Case("packet", 512, 4 * KIB),
        Case("mono", 1024),
        Case("mono", 16 * 1024),
        Case("packet", 16 * 1024, 1024 * KIB),
    ],
    "large": [Case("mono", 16 * 1024), Case("packet", 1024, 64 * KIB)],
}

if IS_SOAK:
    ALL = [
        Case("packet" if packet_kib else "mono", size_kib, packet_kib * KIB)
        for size_kib in (512, 1024, 2048, 4096, 8192, 16384)
        for packet_kib in (0, 4, 64, 1024)
        if packet_kib <= size_kib
    ]
    CASES = dict.fromkeys(CASES, ALL)

FOR_THE_ORACLE = [Case("mono", 1024), Case("packet", 1024, 4 * KIB)]

KILLED = [Case("mono", 64), Case("packet", 64, 8 * KIB)]
KILLED_EVERY = 1 if IS_SOAK else 9
MANY_STEPS = 50


def machine_of(lab: Lab, which: str) -> SharedMachine:
    if which == "small":
        return SharedMachine(lambda: lab.machine(without_modules=[DRIVER]))
    return SharedMachine(
        lambda: lab.machine(
            ram_bytes=LARGE_BYTES, cpus=2, kernel_words=LOCKED_DOWN, without_modules=[DRIVER]
        )
    )


@pytest.fixture(scope="module", params=["small", "large"])
def own(request: pytest.FixtureRequest) -> Iterator[tuple[str, Lab, SharedMachine]]:
    which = str(request.param)
    lab = find_lab() if which == "small" else find_second_lab()
    shared = machine_of(lab, which)
    yield which, lab, shared
    shared.close()


@pytest.fixture
def story(
    own: tuple[str, Lab, SharedMachine], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Story]:
    """The machine, up, with nothing staged. After a test that failed there is a new one."""
    _, lab, shared = own
    failures = request.session.testsfailed
    try:
        machine = shared.machine
    except ObstacleError as obstacle:
        leave_out(str(obstacle))
    yield Story(lab, machine, tmp_path)
    if request.session.testsfailed > failures:
        shared.close()


def test_each_image_is_found_at_the_very_addresses_that_the_driver_says(
    own: tuple[str, Lab, SharedMachine], story: Story
) -> None:
    assert story.tries("modprobe", DRIVER).returncode != 0
    for case, line in zip(
        CASES[own[0]], stage_each(story, CASES[own[0]], check_found), strict=True
    ):
        print(case, {name: line[name] for name in ("staged", "stage_s")})
    check_gone(story)


@pytest.mark.parametrize("own", ["small"], indirect=True)
def test_the_code_of_a_real_bios_takes_what_it_stages(story: Story) -> None:
    oracle_module("bioses")
    stage_each(story, FOR_THE_ORACLE, check_taken)
    check_gone(story)


@pytest.mark.parametrize("own", ["small"], indirect=True)
def test_killed_at_any_step_it_leaves_a_whole_image_that_it_knows_or_nothing(story: Story) -> None:
    lines = kill_each(story, KILLED, every=KILLED_EVERY)
    assert {bool(line["staged"]) for line in lines} == {True, False}
    assert lines[-1]["step"] > MANY_STEPS
    check_gone(story)


def regions_in(extents: list[dict[str, str]]) -> tuple[Region, ...]:
    """Extents as JSON has them."""
    return regions_of([(int(each["start"], 0), int(each["end"], 0)) for each in extents])


def staged_in(story: Story) -> tuple[Region, ...]:
    """Where the driver says that the image is."""
    return regions_in(story.rbu("driver", "status")["staged_in"]["extents"])


def moved_page(address: int) -> dict[str, Any]:
    """A huge page, as JSON has extents."""
    start = address // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    extent = {"start": f"{start:#x}", "end": f"{start + HUGE_PAGE_BYTES:#x}"}
    return {"extent_count": 1, "extents": [extent]}


MOVE = "echo {:#x} > /sys/devices/system/memory/soft_offline_page"
"""The kernel moves a page that is said to have been damaged a little."""


@pytest.mark.parametrize("own", ["large"], indirect=True)
def test_a_page_that_the_kernel_moves_is_noticed(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    story.rbu("driver", "start")
    update = story.rbu("update", image, "--mode", "mono")
    assert update["is_armed"]
    (place,) = staged_in(story)
    assert story.rbu("status")["next_restart"] == "updates"
    story.shell(MOVE.format(place.start))
    status = story.rbu("status")
    assert (status["is_armed"], status["next_restart"]) == (True, "memory_moved")
    moved = status["moved_from"]["extents"]
    assert int(moved[0]["start"], 0) == place.start
    story.rbu("cancel")
    assert story.rbu("status")["next_restart"] == "changes_nothing"
    assert story.rbu("driver", "status")["moved_from"] == moved_page(place.start)
    assert story.rbu("update", image, "--mode", "mono")["is_armed"]
    assert story.rbu("status")["next_restart"] == "updates"
    assert staged_in(story)[0].start // HUGE_PAGE_BYTES != place.start // HUGE_PAGE_BYTES
    story.rbu("cancel")
    story.rbu("driver", "stop")
    assert "HugePages_Total:       0" in story.shell("cat /proc/meminfo")
    left = [each.address for each in story.search().images]
    assert set(left) <= {place.start}, "nobody can clear what the kernel has taken out of use"


def test_an_update_with_it_is_done(own: tuple[str, Lab, SharedMachine], story: Story) -> None:
    """On the small machine memory is broken into single pages meanwhile, but for what an operator
    has had the driver take before."""
    new, mode = story.newer(), "mono" if own[0] == "small" else "packet"
    image = story.file("new.hdr", story.image(new))
    plan = {each["name"]: each for each in story.rbu("plan", image, "--mode", mode)["checks"]}
    assert (plan["driver"]["verdict"], plan["own_driver"]["verdict"]) == ("handled", "fine")
    if own[0] == "small":
        story.rbu("driver", "start", "--memory", "4M")
        break_memory(story)
    assert story.rbu("update", image, "--mode", mode)["is_armed"]
    extents = staged_in(story)
    assert all(each.end <= 4 * GIB for each in extents)
    story.until_restart("reboot")
    seen = story.search()
    if mode == "mono":
        assert [each.address for each in seen.images] == [extents[0].start]
    else:
        (found,) = seen.packet_sets
        assert (found.is_complete, found.extents) == (True, extents)
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
    assert post.mode == mode
    status = story.rbu("status")
    assert (status["last_update"]["succeeded"], status["staged_size_bytes"]) == (True, 0)


@pytest.mark.parametrize("own", ["small"], indirect=True)
def test_rbu_as_the_tool_that_its_own_driver_is_served_to(story: Story) -> None:
    """`rbu run -- rbu update`: it verifies, arms, and what it says holds after `rbu run`."""
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    update = json.loads(
        story.says("rbu", "run", "--", "rbu", "update", image, "--mode", "mono", "--json")
    )
    assert (update["driver"], update["is_armed"]) == ("own", True)
    extents = staged_in(story)
    assert regions_in(update["extents"]) == extents
    assert story.rbu("status")["next_restart"] == "updates"
    story.until_restart("reboot")
    assert [each.address for each in story.search().images] == [extents[0].start]
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)


@pytest.mark.parametrize("own", ["small"], indirect=True)
def test_with_memory_in_single_pages_it_is_done_or_leaves_nothing(story: Story) -> None:
    image = story.file("new.hdr", story.image(story.newer()))
    assert "KiB available" in break_memory(story)
    plan = {each["name"]: each for each in story.rbu("plan", image, "--mode", "mono")["checks"]}
    print(plan["own_driver"])
    assert plan["own_driver"]["verdict"] in ("unknown", "in_the_way")
    update = story.tries("rbu", "update", image, "--mode", "mono", "--json")
    print(update)
    if update.returncode:
        assert update.returncode in (1, 4)
        assert "\n" not in json.loads(update.stdout)["error"]["message"]
    else:
        story.rbu("cancel")
    assert story.rbu("status")["is_armed"] is False
    assert story.rbu("driver", "status")["is_started"] is False
    assert "HugePages_Total:       0" in story.shell("cat /proc/meminfo")
    story.until_restart("reboot")
    assert story.search().images == ()
    story.machine.restart()
