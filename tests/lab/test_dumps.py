"""Dumps that QEMU makes of a machine's memory while the real driver holds packets in it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.story import Story
from openrbu.bios.rule_names import RULE_NAMES
from openrbu.dumps.opening import open_dump
from openrbu.errors import DamagedInputError
from openrbu.formats.dell import CompletionCode
from openrbu.memory.search_result import FoundSet
from openrbu.units import MIB
from rigs.dumps import found_in
from rigs.needs import leave_out

pytestmark = pytest.mark.lab


VOL = Path(__file__).parents[2] / "build/volatility3/bin/vol"


@dataclass
class GuestsDump:
    """The ELF core that the first test leaves, and the packets that are in it."""

    path: Path | None = None
    found: FoundSet | None = None


@pytest.fixture(scope="module")
def guests_dump() -> GuestsDump:
    return GuestsDump()


def test_packets_of_the_real_driver_are_found_alike_in_each_dump(
    story: Story,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    guests_dump: GuestsDump,
) -> None:
    """In the machine's own RAM, a raw dump, ELF cores without and with the kernel's mappings, and
    inside of the guest in its live memory. QEMU's compressed dump is refused."""
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
        in_ram = machine.ram.read(found.lowest, MIB)  # it changes as soon as the guest goes on
    assert (found.is_complete, found.conflicts) == (True, ())
    assert story.search().packet_sets == expected.packet_sets
    assert found_in(elf) == expected
    assert found_in(paged).packet_sets == expected.packet_sets
    with open_dump(elf) as memory:
        assert memory.read(found.lowest, MIB) == in_ram
    with pytest.raises(DamagedInputError, match="flattened dump of makedumpfile"):
        found_in(packed)

    guests_dump.path = elf.rename(tmp_path_factory.mktemp("guest") / "ram.elf")
    guests_dump.found = found

    document = story.rbu("scan")  # without a name: the memory of the computer that it runs on
    assert document["memory"] == "/proc/kcore"
    (inside,) = document["packet_sets"]
    seen: dict[int, set[int]] = {}
    for each in inside["places"]:
        if each["holder"] == "held":
            seen.setdefault(each["number"], set()).add(int(each["address"], 0))
    # Leftover copies, if there are any, may be gone by then.
    assert all(seen[number] & set(places) for number, places in found.places.items())
    assert inside["packet_count"] == found.total
    assert {each["rules"] for each in document["rule_sets"]} == set(RULE_NAMES)
    story.until_restart("reboot")
    post = machine.restart()
    assert (post.completion_code, post.version_after) == (CompletionCode.COMPLETED, new)


def test_volatility3_finds_them_in_the_guests_dump(guests_dump: GuestsDump, tmp_path: Path) -> None:
    """With the plugin of examples/volatility3, which has no tests of its own on a real dump."""
    if not VOL.exists():
        leave_out(f"{VOL} is not there: make example-volatility makes it")
    found = guests_dump.found
    assert guests_dump.path is not None, "the test before this one made no dump"
    assert found is not None
    plugin = Path(__file__).parents[2] / "examples/volatility3"
    words = ("-q", "--offline", "--cache-path", tmp_path, "-p", plugin, "-r", "json")
    done = subprocess.run(
        (VOL, *words, "-f", guests_dump.path, "rbu.RbuScan"),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = json.loads(done.stdout)
    assert "Elf64Layer" in rows[0]["Detail"]
    (packet_set,) = (row for row in rows if row["Finding"] == "packet set")
    assert packet_set["Address"] == found.lowest
    packets = [row for row in packet_set["__children"] if row["Finding"] == "packet"]
    assert sorted((row["Packet"], row["Address"]) for row in packets) == [
        (number, address) for number, places in found.places.items() for address in places
    ]
