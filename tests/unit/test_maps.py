"""Maps of memory: the model, and the strip of letters."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu import api
from openrbu.formats.buddyinfo import parse_buddyinfo
from openrbu.formats.packet import split
from openrbu.hosts.virtual import VirtualHost
from openrbu.lazy import np
from openrbu.machine.base import Machine
from openrbu.maps.files import map_file
from openrbu.maps.kinds import KIND_OF, KINDS, free_key
from openrbu.maps.memory_map import NOTHING, Mark, MemoryMap, Ranges
from openrbu.maps.picture import picture_of
from openrbu.maps.runs import packet_runs
from openrbu.maps.strip import NARROWEST, WIDEST, Grid, as_text, draw_strip, grid_of, zoomed
from openrbu.maps.survey import make_map
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr, human_size
from rigs.cli import Cli, image_bytes
from rigs.machines import image, update

ROOT = Path(__file__).resolve().parents[2]
SIZE = 4 * KIB
SPAN = 64 * PAGE_SIZE
spans = st.lists(
    st.tuples(st.integers(0, SPAN), st.integers(1, 9 * PAGE_SIZE)).map(
        lambda s: (s[0], s[0] + s[1])
    )
)


@given(spans, st.integers(1, SPAN))
def test_bytes_in_cells_are_those_that_are_counted_one_by_one(
    pairs: list[tuple[int, int]], cell: int
) -> None:
    ranges = Ranges.of(pairs)
    one_by_one = np.zeros(2 * SPAN, np.int64)
    for start, end in pairs:
        one_by_one[start:end] = 1
    starts = np.arange(0, len(one_by_one), cell)
    ends = np.minimum(starts + cell, len(one_by_one))
    assert ranges.bytes_in(starts, ends).tolist() == np.add.reduceat(one_by_one, starts).tolist()
    assert ranges.size_bytes == one_by_one.sum()
    assert (ranges.starts[1:] > ranges.ends[:-1]).all()


def map_of(**ranges: list[tuple[int, int]]) -> MemoryMap:
    made = {"no_ram": Ranges.of(()), **{key: Ranges.of(each) for key, each in ranges.items()}}
    return MemoryMap("test", 16 * PAGE_SIZE, made)


def test_a_mark_is_shown_however_small_and_else_what_has_most() -> None:
    mapped = map_of(
        ram=[(0, 16 * PAGE_SIZE)],
        used=[(0, 5 * PAGE_SIZE), (12 * PAGE_SIZE, 13 * PAGE_SIZE)],
        packet=[(PAGE_SIZE, PAGE_SIZE + 1)],
        reject=[(PAGE_SIZE, 2 * PAGE_SIZE)],
    )
    starts = np.arange(5, dtype=np.int64) * 4 * PAGE_SIZE
    shown = [
        KINDS[place].key if place >= 0 else None for place in mapped.kinds_in(starts, SIZE * 4)
    ]
    assert shown == ["packet", "ram", "ram", "ram", None]
    assert mapped.kinds_in(starts, SIZE * 4)[-1] == NOTHING


REGIONS = (Region(PhysAddr(0), PhysAddr(640 * KIB)), Region(PhysAddr(MIB), PhysAddr(8 * MIB)))


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[RamFile]:
    file = RamFile.create(tmp_path / "ram", REGIONS)
    yield file
    file.close()


def put_packets(ram: RamFile, places: dict[int, list[int]], count: int = 12) -> None:
    """Put packets of a set at page numbers."""
    payload = image_bytes("A06")[: (SIZE - 32) * (count - 1)]
    data = bytes(split(payload, packet_size_bytes=SIZE, set_id=b"_A06"))
    for number, pages in places.items():
        for page in pages:
            ram.write(PhysAddr(page * PAGE_SIZE), data[number * SIZE : (number + 1) * SIZE])


def test_a_set_is_told_as_runs_with_gaps_and_by_number(ram: RamFile) -> None:
    places = {number: [300 + number] for number in range(5)}  # 0 to 4
    places |= {number: [330 - number] for number in range(5, 9)}  # 8 to 5, descending
    places |= {10: [400]}  # 9 and 11 are missing
    put_packets(ram, places)
    mapped = make_map("ram", ram, search(ram, PhysAddr(0)))
    (found,) = mapped.sets
    runs = [(run.start // PAGE_SIZE, run.text) for run in packet_runs(found)]
    assert runs == [
        (300, "packets 0 to 4"),
        (322, "packets 8 to 5, descending"),
        (400, "packet 10"),
    ]
    text = as_text(draw_strip(mapped, 80))
    assert "0 [PPPPPPPPP?P?] 11" in text
    assert "missing: 2" in text
    assert "10 of 12 packets" in text
    assert f"{300 * PAGE_SIZE:#x}  packets 0 to 4" in text
    assert mapped.ranges["packet"].size_bytes == 10 * SIZE


def test_a_copy_in_a_page_that_nobody_holds_is_a_leftover(ram: RamFile) -> None:
    put_packets(ram, {number: [300 + number, 400 + number] for number in range(12)})
    seen = search(ram, PhysAddr(0))
    held = (Region(PhysAddr(400 * PAGE_SIZE), PhysAddr(410 * PAGE_SIZE)),)
    mapped = make_map("ram", ram, seen, held=held)
    assert mapped.ranges["packet"].starts.tolist() == [400 * PAGE_SIZE]
    assert mapped.ranges["packet"].size_bytes == 10 * SIZE
    assert mapped.ranges["ghost"].size_bytes == 14 * SIZE
    text = as_text(draw_strip(mapped, 80))
    assert "0 [PPPPPPPPPPgg] 11" in text
    assert "only as a leftover copy: 2" in text
    unknown = make_map("ram", ram, seen)
    assert "ghost" not in unknown.ranges


def test_what_is_found_beside_packets_is_listed(ram: RamFile) -> None:
    ram.write(PhysAddr(2 * MIB), image_bytes("A07"))
    ram.write(PhysAddr(4 * MIB), image_bytes("A05")[:PAGE_SIZE])
    ram.write(PhysAddr(5 * MIB), b"$RPK" + bytes(32))
    put_packets(ram, {3: [1600]})
    ram.write(PhysAddr(1600 * PAGE_SIZE + 99), b"?")
    text = as_text(draw_strip(make_map("ram", ram, search(ram, PhysAddr(0))), 100))
    assert f"{1600 * PAGE_SIZE:#x}  packet 3 of set _A06: wrong checksum" in text
    assert "0x200000  image A07 for 0x0121" in text
    assert "0x400000  header of A05 for 0x0121" in text
    assert "0x500000  packet: " in text


@pytest.mark.parametrize("width", [1, 40, 57, 80, 120, 200, 500])
def test_a_strip_fits_the_terminal(ram: RamFile, width: int) -> None:
    rng = random.Random(3)
    put_packets(ram, {number: [rng.randrange(260, 2000)] for number in range(100)}, 120)
    ram.write(PhysAddr(5 * MIB), b"$RPK" + bytes(32))
    lines = as_text(draw_strip(make_map("a" * 20, ram, search(ram, PhysAddr(0))), width))
    widths = [len(line) for line in lines.splitlines()]
    assert max(widths) <= min(max(width, NARROWEST), WIDEST)
    assert max(widths) >= min(max(width, NARROWEST), WIDEST) - 8
    assert lines.isascii()


def test_one_packet_is_seen_in_a_tebibyte() -> None:
    """With no more rows than with little memory."""
    end = 1024 * GIB
    ranges = {"no_ram": [(3 * GIB, 512 * GIB)], "ram": [(0, 3 * GIB), (512 * GIB, end)]}
    ranges["packet"] = [(700 * GIB, 700 * GIB + SIZE)]
    made = {key: Ranges.of(each) for key, each in ranges.items()}
    text = as_text(draw_strip(MemoryMap("big", end, made), 80))
    assert text.split("\n\n", maxsplit=1)[0].count("P") == 1
    assert "no RAM up to" in text
    assert len(text.splitlines()) < 30


def test_a_machine_is_mapped_as_its_buddyinfo_counts(rbu: Cli) -> None:
    """Free blocks by order, and the pages that the driver holds beside the copies it left."""
    rbu("machine", "new", "box", "--model", "precision-390", "--ram", "1G", "--fragment", 4)
    with api.open_machine("box") as machine:
        machine.update(machine.plan(image(), api.Options(mode="packet")))
        seen = api.scan(machine.memory)
        mapped = api.map_memory(machine.memory, seen, name="box", machine=machine)
        zones = parse_buddyinfo(machine.read_file("/proc/buddyinfo").decode())
    assert {zone.name: zone.free_counts for zone in mapped.zones} == {
        zone.zone: zone.counts for zone in zones
    }
    (found,) = mapped.sets
    pages = found.found.total * SIZE
    assert mapped.ranges["held"].size_bytes == pages == mapped.ranges["packet"].size_bytes
    assert found.is_ghost is not None
    assert sorted(found.numbers[~found.is_ghost].tolist()) == list(range(found.found.total))
    free = sum(mapped.ranges[free_key(order)].size_bytes for order in range(5))
    total = sum(
        count * (SIZE << order) for zone in zones for order, count in enumerate(zone.counts)
    )
    assert free == total
    ram = sum(region.size_bytes for region in machine_regions(mapped))
    assert ram == sum(
        ranges.size_bytes
        for key, ranges in mapped.ranges.items()
        if not KIND_OF[key].is_mark and key != "no_ram"
    )


def test_a_served_machine_says_what_its_driver_holds(machine: Machine) -> None:
    assert not machine.held_regions
    update(VirtualHost(machine), image(), mode="packet")
    (found,) = search(machine.ram).packet_sets
    assert sum(region.size_bytes for region in machine.held_regions) == found.total * SIZE


def machine_regions(mapped: MemoryMap) -> list[Region]:
    """Where there is RAM, by the gaps of a map."""
    gaps = mapped.ranges["no_ram"]
    edges = [0, *sorted([*gaps.starts.tolist(), *gaps.ends.tolist()]), mapped.end]
    return [
        Region(PhysAddr(start), PhysAddr(end))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def test_the_commands_show_a_map(rbu: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rbu("machine", "new", "demo", "--ram", "512M")
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, rbu("machine", "map", "demo").out.splitlines())) <= 40
    shown = rbu("machine", "map", "demo")
    assert shown.code == 0
    assert "demo: 511.6 MiB of RAM" in shown.out
    document = rbu.json("machine", "map", "demo")["map"]
    assert [zone["name"] for zone in document["zones"]] == ["DMA", "DMA32"]
    assert document["kinds"]["no_ram"]["ranges"] == [{"start": "0xa0000", "end": "0x100000"}]
    assert rbu.json("scan", "demo", "--map")["map"] == document
    assert "map" not in rbu.json("scan", "demo")
    dump = rbu.write("ram.dump", bytes(MIB) + image_bytes("A07").ljust(MIB, b"\0"))
    assert "I" in rbu("scan", dump, "--map").out
    assert "ghost" not in rbu.json("scan", dump, "--map")["map"]["kinds"]


def test_parts_of_memory_that_are_far_from_each_other_are_drawn_larger_each(ram: RamFile) -> None:
    far = {**{number: [300 + number] for number in range(6)}, 6: [1900], 7: [1901]}
    put_packets(ram, far)
    mapped = make_map("ram", ram, search(ram, PhysAddr(0)))
    overview = Grid(16 * PAGE_SIZE, 64, np.array([0, 4 * MIB]))
    first, second = zoomed(mapped, mapped.sets[0], overview, 12)
    assert (first.cell_bytes, second.cell_bytes) == (PAGE_SIZE, PAGE_SIZE)
    for grid, page in ((first, 300), (second, 1900)):
        row = grid.row_bytes
        assert grid.starts.tolist() == [page * PAGE_SIZE // row * row]


def test_parts_that_are_not_drawn_larger_are_counted(ram: RamFile) -> None:
    put_packets(ram, {number: [300 + 250 * number] for number in range(5)})
    mapped = make_map("ram", ram, search(ram, PhysAddr(0)))
    text = as_text(draw_strip(mapped, 72))
    assert text.count("where they lie") == 1
    assert f"... and 2 more parts, up to {(300 + 250 * 4 + 1) * PAGE_SIZE:#x}" in text


HOSTILE = '<script>alert("&")</script>\x1b[31m\x00'


def hostile_map() -> MemoryMap:
    """A map of which all texts are hostile."""
    mapped = map_of(ram=[(0, 16 * PAGE_SIZE)], reject=[(0, PAGE_SIZE)])
    marks = tuple(
        Mark(kind, 0, PAGE_SIZE, HOSTILE, (("why", HOSTILE),)) for kind in ("image", "reject")
    )
    return replace(mapped, name=HOSTILE, marks=marks, notes=(HOSTILE,))


def test_a_picture_is_valid_svg_whatever_the_texts_are() -> None:
    drawn = map_file(hostile_map(), Path("a.svg"))
    root = ElementTree.fromstring(drawn)
    texts = "".join(root.itertext())
    assert '<script>alert("&")</script>' in texts
    assert {each.tag.partition("}")[2] for each in root.iter()} == {"svg", "title", "rect", "text"}
    assert drawn == map_file(hostile_map(), Path("b.svg"))


def test_a_picture_shows_what_the_strip_shows(ram: RamFile) -> None:
    """Where the two have the same cells: as many have the kind's colour."""
    put_packets(ram, {number: [300 + number] for number in range(12)})
    mapped = make_map("ram", ram, search(ram, PhysAddr(0)))
    picture = picture_of(mapped)
    grid = grid_of(mapped, 128, 32)
    cells = mapped.kinds_in(grid.cells().ravel(), grid.cell_bytes).tolist()
    drawn = [rect for rect in picture.rects if rect.height == 12 and rect.width % 6 == 0]
    packets = sum(rect.width for rect in drawn if rect.colour == KIND_OF["packet"].colour) / 6
    assert packets == cells.count(KINDS.index(KIND_OF["packet"]))


def legend_of(mapped: MemoryMap) -> tuple[list[str], list[str]]:
    """The two parts of a picture's legend, as texts."""
    entries = {
        f"{kind.title}: {human_size(mapped.ranges[kind.key].size_bytes)}"
        for kind in (KINDS[place] for place in mapped.kinds)
    }
    texts = [each.text for each in picture_of(mapped).texts if each.text in {*entries, "In it:"}]
    between = texts.index("In it:") if "In it:" in texts else len(texts)
    return texts[:between], texts[between + 1 :]


def test_a_legend_has_the_memory_first_and_then_what_was_found_in_it(ram: RamFile) -> None:
    """The sizes of the first add up to all of it; those of the second are counted there, too."""
    put_packets(ram, {number: [300 + number] for number in range(12)})
    memory, found = legend_of(make_map("ram", ram, search(ram, PhysAddr(0))))
    assert memory == ["no RAM: 384 KiB", "RAM: 7.6 MiB"]
    assert found == ["packet: 48 KiB"]


def test_a_legend_of_a_memory_without_findings_has_one_part(ram: RamFile) -> None:
    memory, found = legend_of(make_map("ram", ram, search(ram, PhysAddr(0))))
    assert (len(memory), found) == (2, [])


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_picture_is_a_png_with_these_colours(rbu: Cli) -> None:
    import matplotlib.image

    dump = rbu.write("ram.dump", bytes(MIB) + image_bytes("A07").ljust(MIB, b"\0"))
    assert rbu.json("scan", dump, "--map", "a.png")["changed"]
    pixels = (matplotlib.image.imread("a.png")[:, :, :3] * 255).round().astype(int)
    colours = {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in pixels[::2, ::2].reshape(-1, 3).tolist()}
    assert {KIND_OF["image"].colour, KIND_OF["ram"].colour} <= colours


def test_a_map_is_written_to_a_file_as_other_files_are(rbu: Cli) -> None:
    dump = rbu.write("ram.dump", bytes(MIB) + image_bytes("A07").ljust(MIB, b"\0"))
    assert rbu.json("scan", dump, "--map", "a.svg")["changed"]
    again = rbu.json("scan", "--map", "a.svg", dump)
    assert (again["changed"], again["map"]["file"]) == (False, "a.svg")
    rbu.write("b.svg", b"mine")
    refused = rbu("scan", dump, "--map", "b.svg")
    assert (refused.code, "--force" in refused.err) == (4, True)
    assert "WHOLE IMAGE AT" in refused.out  # what was found is shown all the same
    assert "wrote b.svg" in rbu("scan", dump, "--map", "b.svg", "--force").out
    assert "--map" in rbu.fails(2, "scan", dump, "c.svg")
    assert ".svg" in rbu.fails(2, "scan", dump, "--map", "c.gif")
    assert not Path("c.gif").exists()
    assert not Path("c.svg").exists()


def test_the_picture_in_the_manual_is_that_of_the_run_that_it_shows(tmp_path: Path) -> None:
    """After a change that is meant: scripts/scan-picture."""
    drawn = tmp_path / "scan.svg"
    script = ROOT / "scripts" / "scan-picture"
    subprocess.run([sys.executable, script, drawn], check=True, timeout=300)
    assert drawn.read_text() == (ROOT / "docs" / "scan.svg").read_text()
