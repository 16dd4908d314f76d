"""Memory that does not suffice as it is, on a real kernel: the update goes through all the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lab import fragmenter
from lab.story import Story
from openrbu.errors import ObstacleError
from openrbu.formats.dell import CompletionCode
from openrbu.units import GIB, KIB, MIB
from rigs.lab import Lab
from rigs.needs import leave_out

pytestmark = pytest.mark.lab

NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"

LARGE_FLASH_BYTES = 6 * MIB
"""Its packets do not go into one block."""

HELD_TOO_HIGH = (
    "packets are above 4 GiB, where a BIOS with the published rules does not search (that of a "
    "PowerEdge 2950 does) (memory above 4 GiB held)"
)

KEEP_MIB = 24
"""So much the program that breaks memory leaves available before it gives every second page back.
(A machine of 512 MiB was seen to live with 16 MiB.)"""


def test_packets_come_to_lie_below_4_gib_where_the_kernel_puts_them_above(
    lab: Lab, tmp_path: Path
) -> None:
    """3.5 GiB, of which 3 lie below 4 GiB, packet mode, and a BIOS that searches there only. Where
    other programs free single pages above 4 GiB meanwhile, the first try may lie there, and larger
    packets do not.
    """
    try:
        machine = lab.machine(ram_bytes=7 * GIB // 2, flash_bytes=LARGE_FLASH_BYTES, cpus=2)
    except ObstacleError as obstacle:
        leave_out(str(obstacle))
    with machine:
        machine.power_on()
        story = Story(lab, machine, tmp_path)
        story.shell(f"echo 5 > {NR_HUGEPAGES}")
        new = story.newer()
        image = story.file("new.hdr", story.image(new))
        plan = story.rbu("plan", image)
        assert (plan["mode"], plan["way"]) == ("packet", "held")
        done = story.rbu("update", image)
        tries = {"held": [], "held_large": [HELD_TOO_HIGH]}
        assert (done["mode"], done["tried"]) == ("packet", tries[done["way"]])
        assert all(int(each["end"], 0) <= 4 * GIB for each in done["extents"])
        assert story.shell(f"cat {NR_HUGEPAGES}") == "5\n"
        story.until_restart("reboot")
        post = story.machine.restart()
        assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
        assert post.mode == "packet"


def break_memory(story: Story) -> str:
    """Start the program that breaks memory, which goes on until the restart; what it says."""
    return story.shell(
        "cd /tmp; rm -f hold seen; mkfifo hold; "
        f"{sys.executable} {fragmenter.__file__} {KEEP_MIB} < hold > seen 2>&1 & "
        "cd /tmp; until [ -p hold ]; do sleep 0.1; done; "
        "sleep infinity > hold 2> /dev/null < /dev/null & "
        "until grep -q 'available\\|Error' seen; do sleep 0.2; done; cat seen"
    )


def test_memory_in_single_pages_makes_it_small_packets(story: Story) -> None:
    """A program has broken memory into pages, and compacting it does not help: there is no block
    for an image in one piece, nor are there enough of 64 KiB for packets. Smaller packets go
    through, and so do those of 4 KiB.

    That packets of 8 KiB can't be staged was not reached: the kernel found room for them. Tried
    with every second page of a machine of 512 MiB pinned, 16 MiB left, caches dropped and two
    free blocks of 8 KiB or more: 2058 packets of 8 KiB were reported as short of memory once (the
    driver itself logged no refusal), and the next try, memory compacted, went through. No program
    was killed for memory. Likely from where: programs' and files' pages, which can be moved.
    """
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    assert "KiB available" in break_memory(story)
    refused = story.rbu("update", image, "--mode", "mono", status=1)
    assert "no free block of 2 MiB for an image of 1024.1 KiB" in refused["error"]["message"]
    assert "once more, memory compacted" in refused["error"]["message"]
    assert "packets would fit: use --mode packet" in refused["error"]["message"]
    smaller = story.rbu("update", image, "--packet-size", "64K")
    tried = [
        "no free memory for 18 blocks of 64 KiB",
        "no free memory for 18 blocks of 64 KiB (once more, memory compacted)",
    ]
    assert smaller["tried"][:2] == tried
    assert smaller["packet_size_bytes"] < 64 * KIB
    story.rbu("cancel")
    done = story.rbu("update", image)
    assert (done["mode"], done["packet_size_bytes"], done["tried"]) == ("packet", 4 * KIB, [])
    story.until_restart("reboot")
    post = story.machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
