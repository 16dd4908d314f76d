"""What openrbu's own driver stages in a guest, looked at from outside, in the guest's RAM."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab import own_driver, own_killed
from lab.own_driver import POWEREDGE_2950, Case
from lab.story import Story
from openrbu.bios.rules import Identity
from openrbu.memory.physical import Region, joined
from openrbu.memory.scan import search
from openrbu.units import KIB, PhysAddr
from rigs.oracle import REAL_FLASH_BYTES, our_poweredge, real_poweredge

Numbers = dict[str, Any]
"""A line that a script in the guest wrote."""

Look = Callable[[Story, Case, Numbers], None]


def follow(
    story: Story, script: str, words: Sequence[str], look: Callable[[Numbers], None]
) -> list[Numbers]:
    """Run a script that waits after each of its lines, `look` at each, and let the script go on.
    All its lines. Its first word is the directory where it waits for files."""
    go = Path(tempfile.mkdtemp(prefix="go-", dir=story.machine.disk))
    said: list[Numbers] = []
    errors, rest = bytearray(), bytearray()

    def take(stream: int, data: bytes) -> None:
        if stream == 2:
            errors.extend(data)
            return
        rest.extend(data)
        *lines, last = bytes(rest).split(b"\n")
        rest[:] = last
        for line in lines:
            said.append(json.loads(line))
            look(said[-1])
            (go / str(said[-1]["line"])).touch()

    argv = (sys.executable, script, f"/lab/{go.name}", *words)
    ran = story.machine.run(argv, output=take)
    assert ran.status == 0, errors.decode()
    return said


def stage_each(story: Story, cases: Sequence[Case], look: Look) -> list[Numbers]:
    """Stage the images, one after the other, and `look` at each while the guest waits. Its
    lines."""

    def one(said: Numbers) -> None:
        look(story, cases[said["line"]], said)

    words = [str(case) for case in cases]
    return follow(story, own_driver.__file__, words, one)


def check_found(story: Story, case: Case, said: Numbers) -> None:
    """A BIOS's search finds the image, and nothing else, at the very addresses that were said."""
    staged = regions_of(said["staged"])
    assert said["moved"] == []
    ram, image = story.machine.ram, case.image
    seen = search(ram, flash_size_bytes=case.size_kib * KIB)
    if case.mode == "mono":
        (found,) = seen.images
        assert seen.packet_sets == ()
        (place,) = staged
        assert (found.address, found.size_bytes) == (place.start, len(image))
        assert said["staged_size_bytes"] >= len(image)
        assert ram.read(found.address, len(image)) == image
    else:
        (packets,) = seen.packet_sets
        assert seen.images == ()
        assert (packets.set_id, packets.is_complete) == (case.set_id, True)
        assert packets.conflicts == ()
        assert {len(places) for places in packets.places.values()} == {1}, "there are no copies"
        assert joined((each.start, each.end) for each in packets.extents) == staged
        assert packets.assemble(ram)[: len(image)] == image


def check_taken(story: Story, case: Case, said: Numbers) -> None:
    """The code of a real BIOS takes it, from the addresses that were said."""
    assert case.size_kib * KIB == REAL_FLASH_BYTES
    path = story.machine.ram_path
    machine = Identity(POWEREDGE_2950, REAL_FLASH_BYTES)
    told = real_poweredge(path, machine)
    assert told == our_poweredge(path, machine)
    staged = regions_of(said["staged"])
    if case.mode == "mono":
        assert (told.first.accepted, told.packets) == (staged[0].start, None)
        return
    assert told.packets is not None
    assert told.packets.image[: len(case.image)] == case.image
    inside = [at for at in told.packets.taken for each in staged if each.start <= at < each.end]
    assert sorted(inside) == sorted(told.packets.taken)
    assert told.second is not None
    assert told.second.accepted is not None


def check_gone(story: Story) -> None:
    """Nothing is in memory, and the kernel has its pages again."""
    seen = search(story.machine.ram)
    assert (seen.images, seen.packet_sets) == ((), ())
    assert story.shell("grep HugePages_Total /proc/meminfo").split() == ["HugePages_Total:", "0"]
    assert "hugetlbfs" not in story.shell("cat /proc/mounts")


def kill_each(story: Story, cases: Sequence[Case], *, every: int) -> list[Numbers]:
    """Kill the driver at each of its steps, or at each `every`-th one. Each time a whole image is
    in memory, and the driver says so, or it says that there is none; and when a process has opened
    it after that, there is none. Its lines."""
    by_mode = {case.mode: case for case in cases}

    def one(said: Numbers) -> None:
        if said["staged"]:
            check_found(story, by_mode[said["image_type"]], said)
        elif said["opened"]:
            seen = search(story.machine.ram)
            assert (seen.images, seen.packet_sets) == ((), ()), said

    words = [str(case) for case in cases]
    return follow(story, own_killed.__file__, [str(every), *words], one)


def regions_of(pairs: Sequence[Sequence[int]]) -> tuple[Region, ...]:
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in pairs)
