"""The map as a page, in a real browser: keys, clicks, colours, and what hostile texts do there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu import maps
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.packet_explained import explain_packet
from openrbu.formats.version import BiosVersion
from openrbu.lazy import np
from openrbu.maps.kinds import KINDS, free_key
from openrbu.maps.memory_map import MemoryMap, Ranges
from openrbu.maps.page import MOST_RANGES, page_of
from openrbu.maps.page import _packed as packed
from openrbu.maps.survey import make_map
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr, human_size
from rigs.browser import Page, browser
from rigs.cli import image_bytes

TIB = 1024 * GIB
SIZE = 4 * KIB
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=hacked=1>\x00\u2028"
QUICK_CHECK = "Copyright </script><script>a=1//"
FIRST = 0x1234000
"""Where packet 0 is; packet 7 is missing, and behind packet 12 lies a leftover copy of packet 1."""
CRC = 0x1234ABCD
PACKETS = bytes(split(image_bytes("A06"), packet_size_bytes=SIZE, set_id=b"_<b>", password_crc=CRC))
IMAGE_AT, REJECT_AT = 64 * MIB, 96 * MIB


def packet(number: int) -> bytes:
    return PACKETS[number * SIZE : (number + 1) * SIZE]


class Made(NamedTuple):
    mapped: MemoryMap
    path: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A page of 1 TiB of RAM with packets, an image whose texts are hostile, and a reject."""
    directory = tmp_path_factory.mktemp("page")
    bounds = [(0, 640 * KIB), (MIB, 3 * GIB), (4 * GIB, TIB)]
    regions = tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in bounds)
    ram = RamFile.create(directory / "ram", regions)
    for number in [n for n in range(13) if n != 7]:
        ram.write(PhysAddr(FIRST + number * SIZE), packet(number))
    ram.write(PhysAddr(FIRST + 13 * SIZE), packet(1))
    image = make_image(
        bytes(range(256)) * 256,
        version=BiosVersion.parse("A07"),
        systems=[SystemId(0x121)],
        quick_check=QUICK_CHECK,
    )
    ram.write(PhysAddr(IMAGE_AT), image)
    ram.write(PhysAddr(REJECT_AT), b"$RPK" + bytes(PAGE_SIZE))
    held = (Region(PhysAddr(FIRST), PhysAddr(FIRST + 13 * SIZE)),)
    mapped = make_map(HOSTILE, ram, search(ram, PhysAddr(0)), held=held, notes=(HOSTILE,))
    ram.close()
    ranges = {**mapped.ranges, free_key(10): Ranges.of([(512 * GIB, TIB)])}
    ranges["ram"] = Ranges.of([(0, 640 * KIB), (MIB, 3 * GIB), (4 * GIB, 512 * GIB)])
    mapped = replace(mapped, ranges=ranges)
    path = directory / "map.html"
    path.write_text(page_of(mapped), encoding="utf-8")
    return Made(mapped, path)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(started: Page, made: Made) -> Iterator[Page]:
    """The page, just opened. Whatever a test does, it complains of nothing and asks for nothing."""
    started.set_scheme("light")
    started.resize(1280, 900)
    started.open(made.path)
    yield started
    assert started.complaints() == []
    assert started.requests() == [made.path.as_uri()]


def state(page: Page) -> dict[str, float]:
    """What the map shows: start, cell, selected, columns, rows, and where its cells are."""
    values: dict[str, str] = page.ask("({...document.querySelector('#map').dataset})")
    return {name: float(value) for name, value in values.items()}


def point_of(page: Page, address: int) -> tuple[float, float]:
    """Where the middle of an address's cell is in the window."""
    now = state(page)
    box = page.ask(
        "(r => ({x: r.x, y: r.y}))(document.querySelector('#map').getBoundingClientRect())"
    )
    place = (address - now["start"]) // now["cell"]
    row, column = divmod(place, now["columns"])
    assert 0 <= row < now["rows"]
    middle = now["cellPx"] / 2
    return (
        box["x"] + now["left"] + column * now["cellPx"] + middle,
        box["y"] + row * now["cellPx"] + middle,
    )


def focus(page: Page) -> None:
    page.ask("document.querySelector('#map').focus()")


def table(page: Page) -> list[list[str]]:
    """The last table of the details."""
    rows: list[list[str]] = page.ask(
        "[...[...document.querySelectorAll('#details table')].at(-1).rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return rows


def test_one_zooms_from_a_tebibyte_to_a_page_by_keys(page: Page) -> None:
    focus(page)
    assert state(page)["cell"] * state(page)["columns"] * state(page)["rows"] >= TIB
    page.press("Tab")
    page.press(*"+" * 40)
    assert state(page)["cell"] == PAGE_SIZE
    assert state(page)["selected"] == FIRST
    assert "packet 0 of set _<b>" in page.text("#details h2")
    page.press("ArrowRight", "ArrowRight")
    assert state(page)["selected"] == FIRST + 2 * PAGE_SIZE
    assert "packet 2" in page.text("#details h2")
    page.press("ArrowDown")
    assert state(page)["selected"] == FIRST + (2 + state(page)["columns"]) * PAGE_SIZE
    assert "Nothing was found here" in page.text("#details")
    page.press(*"-" * 40)
    assert state(page)["start"] == 0
    assert state(page)["cell"] * state(page)["columns"] * state(page)["rows"] >= TIB
    page.press("End")
    assert state(page)["selected"] == TIB - state(page)["cell"]
    page.press("Home")
    assert state(page)["selected"] == 0


def test_tab_goes_through_the_findings_and_out_at_the_end(page: Page) -> None:
    focus(page)
    wanted = [FIRST, FIRST + 8 * SIZE, FIRST + 13 * SIZE, IMAGE_AT, REJECT_AT]
    page.press("+", "+", "+", *"+" * 30)
    seen = []
    for _ in wanted:
        page.press("Tab")
        seen.append(int(state(page)["selected"]))
    assert seen == wanted
    page.press("Tab", shift=True)
    assert state(page)["selected"] == IMAGE_AT
    page.press("Tab", "Tab")
    assert page.ask("document.activeElement.id") != "map"


def test_enter_opens_a_finding_with_its_own_cell(page: Page) -> None:
    focus(page)
    page.press("Tab", "Tab", "Tab", "Enter")
    assert state(page)["selected"] == FIRST + 13 * SIZE
    assert "a copy of packet 1" in page.text("#details h2")
    page.press("-", "-", "-", "-", "-", "-", "-", "Tab", shift=False)
    page.press("0", "Home", "Enter")
    assert state(page)["selected"] == FIRST
    assert state(page)["cell"] == PAGE_SIZE
    assert "packet 0" in page.text("#details h2")


@pytest.mark.parametrize(("place", "number"), [(0, 0), (1, 1), (12, 12), (13, 1)])
def test_a_clicked_packet_shows_its_fields_as_they_are_in_memory(
    page: Page, place: int, number: int
) -> None:
    focus(page)
    page.press("Tab", "Enter")
    page.click(*point_of(page, FIRST + place * SIZE))
    assert f"packet {number} of set _<b>" in page.text("#details h2")
    assert ("leftover" in page.text("#details")) == (place == 13)
    shown = {row[2]: row for row in table(page)[1:]}
    for field in explain_packet(PACKETS, number).fields:
        at, raw, _, value = shown[field.name]
        assert (int(at, 16), bytes.fromhex(raw)) == (field.offset, field.raw)
        assert int(value.partition(":")[0], 0) == field.value
    assert (f"{CRC:#010x}" in page.text("#details")) == (number == 0)


def test_the_wheel_and_the_buttons_zoom(page: Page) -> None:
    before = state(page)["cell"]
    point = point_of(page, 700 * GIB)
    page.wheel(*point, -120)
    assert state(page)["cell"] == before / 2
    page.wheel(*point, 120)
    assert state(page)["cell"] == before
    page.ask("document.querySelector('#in').click()")
    assert state(page)["cell"] == before / 2
    page.ask("document.querySelector('#all').click()")
    assert state(page)["cell"] == before
    page.ask("document.querySelector('#next').click()")
    assert state(page)["selected"] <= FIRST < state(page)["selected"] + before
    page.ask("document.querySelector('#findings li:last-child button').click()")
    assert state(page)["selected"] == REJECT_AT
    page.ask("document.querySelector('#address').focus()")
    page.press(*f"{IMAGE_AT:x}", "Enter")
    assert state(page)["selected"] == IMAGE_AT


def test_the_cells_have_the_kinds_that_the_model_says(page: Page, made: Made) -> None:
    """At several zooms; the page has its own program for it. A cell's corner has its colour."""
    focus(page)
    page.press("Tab")
    seen: set[int] = set()
    for _ in range(5):
        now = state(page)
        cells = int(now["columns"] * now["rows"])
        starts = int(now["start"]) + np.arange(cells, dtype=np.int64) * int(now["cell"])
        kinds = made.mapped.kinds_in(starts, int(now["cell"])).tolist()
        colours: list[str] = page.ask(
            "(() => { const m = document.querySelector('#map'), d = m.dataset, found = [];"
            "const copy = new OffscreenCanvas(m.width, m.height);"
            "const pen = copy.getContext('2d', {willReadFrequently: true});"
            "pen.drawImage(m, 0, 0);"
            "const px = pen.getImageData(0, 0, m.width, m.height).data;"
            "for (let i = 0; i < d.columns * d.rows; i++) {"
            "const x = +d.left + i % d.columns * d.cellPx + 2;"
            "const y = Math.floor(i / d.columns) * d.cellPx + 2, at = 4 * (y * m.width + x);"
            "found.push('#' + [0, 1, 2].map((c) => px[at + c].toString(16).padStart(2, '0'))"
            ".join('')); } return found; })()"
        )
        selected = int((now["selected"] - now["start"]) // now["cell"])
        for place, (kind, colour) in enumerate(zip(kinds, colours, strict=True)):
            wanted = {"#000000", "#ffffff"} if kind < 0 else {KINDS[kind].colour}
            assert place == selected or colour in wanted, (place, now)
        seen |= set(kinds)
        page.press(*"+" * 8)
    assert {"packet", "ghost", "ram", "no_ram", "free_10"} <= {KINDS[kind].key for kind in seen}


def test_the_legend_has_the_memory_and_apart_from_it_what_was_found_in_it(page: Page) -> None:
    letters = "[...document.querySelectorAll('#legend%s .swatch')].map((each) => each.textContent)"
    by_letter = {kind.letter: kind for kind in KINDS}
    memory = [by_letter[letter] for letter in page.ask(letters % "")]
    found = [by_letter[letter] for letter in page.ask(letters % "-found")]
    assert {kind.key for kind in memory} == {"ram", "no_ram", "free_10"}
    assert {kind.key for kind in found} == {"held", "packet", "ghost", "reject"}


def test_sizes_are_those_of_the_commands(page: Page) -> None:
    """The page makes them itself, in its own language."""
    program = (Path(maps.__file__).parent / "page_files" / "page.js").read_text()
    human = program[(start := program.index("function human")) : program.index("\n}\n", start) + 2]
    sizes = {
        max(0, count * unit + more)
        for unit in (1, KIB, MIB, GIB, TIB)
        for count in (0, 1, 9, 10, 1000, 1023, 1024, 1025, 1030128)
        for more in (-1, 0, 1, unit // 4, unit // 2, unit * 19 // 20, unit * 99 // 100)
    }
    listed = sorted(size for size in sizes if size < 1 << 49)
    shown = page.ask(f"(() => {{ {human}; return {listed}.map(human); }})()")
    assert shown == [human_size(size) for size in listed]


def test_hostile_texts_are_texts(page: Page) -> None:
    focus(page)
    page.press("Tab", "Tab", "Tab", "Tab", "Enter")
    assert "</script><script>a=1" in page.text("#details")
    assert "window.hacked=1</script>" in page.text("#name")
    assert page.ask("document.title").startswith("Memory map of </script>")
    assert page.ask("typeof window.hacked + typeof window.a") == "undefinedundefined"
    assert page.ask("document.querySelectorAll('img').length") == 0
    assert page.ask("document.querySelectorAll('script').length") == 2


def test_it_is_read_at_the_width_of_a_phone_and_in_the_dark(page: Page) -> None:
    light = page.ask("getComputedStyle(document.body).backgroundColor")
    page.set_scheme("dark")
    assert page.ask("getComputedStyle(document.body).backgroundColor") != light
    page.resize(360, 740, is_phone=True)
    assert page.ask("document.documentElement.scrollWidth") <= 360
    assert state(page)["cellPx"] >= 13
    focus(page)
    page.press("Tab", "Enter")
    assert page.ask("document.documentElement.scrollWidth") <= 360
    assert page.screenshot()[:4] == b"\x89PNG"


@given(st.lists(st.integers(0, (1 << 53) - 1)))
def test_packed_numbers_are_read_back(numbers: list[int]) -> None:
    """As the page reads them."""
    import base64

    read, value, scale = [], 0, 1
    for byte in base64.b64decode(packed(np.array(numbers, np.int64))):
        value += (byte & 127) * scale
        scale *= 128
        if byte < 128:
            read.append(value)
            value, scale = 0, 1
    assert read == numbers


def test_the_data_is_small_however_much_there_is(made: Made) -> None:
    """65,535 packets, and free memory in a million pieces of each order."""
    rng = np.random.default_rng(7)
    count = 1_000_000
    starts = np.arange(count, dtype=np.int64) * 16 * PAGE_SIZE
    ends = starts + PAGE_SIZE * rng.integers(1, 15, count)
    ranges = {**made.mapped.ranges, **{free_key(order): Ranges(starts, ends) for order in range(4)}}
    (one,) = made.mapped.sets
    numbers = np.arange(0xFFFF, dtype=np.uint16)
    rng.shuffle(numbers)
    many = replace(
        one,
        numbers=numbers,
        addresses=np.arange(0xFFFF, dtype=np.int64) * 3 * PAGE_SIZE,
        checksums=rng.integers(0, 0xFFFF, 0xFFFF).astype(np.uint16),
        is_ghost=numbers > 5,
    )
    text = page_of(replace(made.mapped, ranges=ranges, sets=(many,)))
    assert len(text) < 2_000_000
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    free: dict[str, Any] = next(kind for kind in data["kinds"] if kind["key"] == free_key(0))
    assert free["size"] == int((ends - starts).sum())
    assert MOST_RANGES * 2 <= len(free["ranges"]) <= MOST_RANGES * 8
