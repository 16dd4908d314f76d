"""What a search leaves in the memory of the program that searches: on a real machine that memory is
in the RAM that a BIOS searches, also when the program has ended.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.formats import packet
from openrbu.units import MIB, PAGE_SIZE

SEARCH = """\
import sys
from pathlib import Path

from openrbu.bios.rules import RULE_SETS, Identity
from openrbu.bios.rules.ruleset import RejectedError
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import MIB, PAGE_SIZE

ram = RamFile(Path(sys.argv[1]), pc_regions(64 * MIB), is_mapped=False)
machine = Identity(system_id=0x01DE, flash_size_bytes=MIB, revision=0, knows_packets=True)
seen = NarrowedMemory.of(ram)
kept = [seen.only(seen.is_packet), seen.only(~seen.is_packet), seen.headers]
refusals = []
for rules in RULE_SETS.values():
    for memory in (seen, ram):
        try:
            rules.find_update(memory, machine)
        except RejectedError as refused:
            refusals.append(refused)
        search(memory)

print(len(seen.pages), "pages", len(refusals), "refusals")
own = open("/proc/self/mem", "rb", buffering=0)
for line in open("/proc/self/maps"):
    places, rights, *_ = line.split()
    start, end = (int(place, 16) for place in places.split("-"))
    if "w" not in rights or end >= 1 << 47:
        continue
    for page in range(start, end, PAGE_SIZE):
        own.seek(page)
        begins = own.read(8)
        if begins[1:4] == b"RPK" and begins[:1] == b"$" and begins[4:6] in (bytes(2), b"$R"):
            print("a page begins with", begins)
"""
"""Its word is a file of RAM. It finds no page of its own that only its reading made."""


@pytest.mark.parametrize("copies", [4, 24])  # few packets and many are looked at in two ways
def test_the_words_that_a_search_finds_are_at_the_start_of_no_page_of_the_program(
    tmp_path: Path, copies: int
) -> None:
    """`$RPK` with zeros after it: a BIOS with the rules of a PowerEdge 2950 takes that for a packet
    of 0 bytes, and the update that is staged fails."""
    image = bytes(MIB)
    packets = packet.split(image, packet_size_bytes=PAGE_SIZE, set_id=0x1234)
    ram = tmp_path / "ram"
    with ram.open("wb") as file:
        file.truncate(64 * MIB)
        for number in range(copies):
            file.seek(8 * MIB + number * 2 * MIB)
            file.write(packets)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(ram)], capture_output=True, text=True, check=True
    )
    count = copies * len(packets) // PAGE_SIZE
    assert done.stdout.splitlines() == [f"{count} pages 6 refusals"]
