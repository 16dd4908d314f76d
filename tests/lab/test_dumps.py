"""Dumps that QEMU makes of a machine's memory while the real driver holds packets in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.story import Story
from openrbu.dumps.opening import open_dump
from openrbu.errors import DamagedInputError
from openrbu.formats.dell import CompletionCode
from openrbu.units import MIB
from rigs.dumps import found_in

pytestmark = pytest.mark.lab


def test_packets_of_the_real_driver_are_found_alike_in_each_dump(
    story: Story, tmp_path: Path
) -> None:
    """In the machine's own RAM, a raw dump, ELF cores without and with the kernel's mappings, and
    inside of the guest in /proc/kcore. QEMU's compressed dump is refused."""
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    story.rbu("update", image, "--mode", "packet")
    raw, elf, paged, packed = (tmp_path / name for name in ("raw", "elf", "paged", "packed"))
    machine = story.machine
    with machine.halted() as qemu:
        qemu.execute("pmemsave", val=0, size=machine.ram.regions[-1].end, filename=str(raw))
        for path, paging in ((elf, False), (paged, True)):
            qemu.execute("dump-guest-memory", paging=paging, protocol=f"file:{path}")
        form = {"format": "kdump-zlib"}
        qemu.execute("dump-guest-memory", paging=False, protocol=f"file:{packed}", **form)
        expected = found_in(raw)
    (found,) = expected.packet_sets
    assert (found.is_complete, found.conflicts) == (True, ())
    assert story.search().packet_sets == expected.packet_sets
    assert found_in(elf) == expected
    assert found_in(paged).packet_sets == expected.packet_sets
    with open_dump(elf) as memory:
        assert memory.read(found.lowest, MIB) == machine.ram.read(found.lowest, MIB)
    with pytest.raises(DamagedInputError, match="flattened dump of makedumpfile"):
        found_in(packed)

    (inside,) = story.rbu("scan", "/proc/kcore")["packet_sets"]
    seen: dict[int, set[int]] = {}
    for each in inside["places"]:
        seen.setdefault(each["number"], set()).add(int(each["address"], 0))
    # Leftover copies, if there are any, may be gone by then.
    assert all(seen[number] & set(places) for number, places in found.places.items())
    assert inside["packet_count"] == found.total
    story.until_restart("reboot")
    post = machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)
