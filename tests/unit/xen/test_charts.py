"""Charts of balloons over time."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from openrbu.balloon.charts import Annotation, Panel, check_path, draw
from openrbu.balloon.scenario import END_S, run_scenario
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import ObstacleError, OutputError, UsageError
from openrbu.xen.simulation import BalloonSimulation
from rigs.model_guests import guest_on, host_of


@pytest.fixture(scope="module")
def panels() -> tuple[Panel, ...]:
    """The picture of the demo."""
    before = run_scenario(balloon_profile("hard-limit"), again_s=40.0)
    after = run_scenario(balloon_profile("linux-2.6.18-xen"))
    annotation = Annotation(40.0, "written again")
    return (
        Panel("before", before.simulation.samples, END_S, before.free_pages, (annotation,)),
        Panel("after", after.simulation.samples, END_S, after.free_pages),
    )


def texts(path: Path) -> list[str]:
    """The texts in an SVG picture, which stand in a comment before their outlines."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    tree = ET.parse(path, parser)  # our own file
    comment: object = ET.Comment  # a comment's tag is this function
    return [(node.text or "").strip() for node in tree.iter() if node.tag is comment]


def test_the_svg_names_guests_and_marks_where_each_gave_up(
    panels: tuple[Panel, ...], tmp_path: Path
) -> None:
    draw(tmp_path / "chart.svg", panels)
    said = texts(tmp_path / "chart.svg")
    for guest in ("db", "web", "batch", "test"):
        assert said.count(guest) == 2, guest
    assert sorted(text.split()[0] for text in said if "gives up" in text) == ["db", "web"]
    assert {"before", "after", "written again", "free on the host", "MiB", "seconds"} <= set(said)


def test_the_png_is_a_picture_of_a_good_size(panels: tuple[Panel, ...], tmp_path: Path) -> None:
    draw(tmp_path / "chart.PNG", panels)
    data = (tmp_path / "chart.PNG").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", data, 16)
    assert width >= 1000
    assert height >= 800


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_simulation_gives_the_same_file(
    panels: tuple[Panel, ...], suffix: str, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}{suffix}" for number in range(2)]
    for path in paths:
        draw(path, panels)
    first, second = (path.read_bytes() for path in paths)
    assert first == second


def test_many_guests_are_drawn_without_their_names(tmp_path: Path) -> None:
    host, simulation = host_of(2000), BalloonSimulation()
    for number in range(20):
        simulation.add(f"guest{number}", guest_on(host, f"guest{number}", 100).balloon)
    draw(tmp_path / "many.svg", [Panel("many", simulation.samples, 10.0)])
    assert not any(text.startswith("guest") for text in texts(tmp_path / "many.svg"))


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    names = ("$x", r"$\frac$", "主", "a" * 63)
    host, simulation = host_of(2000), BalloonSimulation()
    for name in names:
        simulation.add(name, guest_on(host, name, 100).balloon)
    for suffix in (".svg", ".png"):
        draw(tmp_path / f"names{suffix}", [Panel("$title", simulation.samples, 10.0)])
    said = texts(tmp_path / "names.svg")
    assert {"$x", r"$\frac$", "主", "a" * 19 + "…", "$title"} <= set(said)


def test_names_of_guests_of_one_size_do_not_lie_on_each_other(tmp_path: Path) -> None:
    host, simulation = host_of(2000), BalloonSimulation()
    for name in "abcd":
        simulation.add(name, guest_on(host, name, 256).balloon)
    draw(tmp_path / "same.svg", [Panel("same", simulation.samples, 10.0)])
    picture = (tmp_path / "same.svg").read_text()
    heights = [
        float(re.findall(rf"<!-- {name} -->\s*<g .*translate\(\S+ (\S+)\)", picture)[0])
        for name in "abcd"
    ]
    assert all(low - high > 10 for low, high in pairwise(heights))


def test_a_simulation_without_guests_can_be_drawn(tmp_path: Path) -> None:
    draw(
        tmp_path / "empty.svg", [Panel("empty", BalloonSimulation().samples, 10.0, free_pages=100)]
    )
    assert "empty" in texts(tmp_path / "empty.svg")


def test_a_name_that_is_none_of_a_chart_is_a_usage_error(tmp_path: Path) -> None:
    for name in ("chart", "chart.pdf", "svg"):
        with pytest.raises(UsageError, match=r"ends in \.svg or \.png"):
            check_path(tmp_path / name)


def test_without_matplotlib_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ObstacleError, match=r"a chart takes matplotlib: .*matplotlib>="):
        draw(tmp_path / "chart.svg", [])


def test_a_file_that_cannot_be_written_is_one_clear_line(
    panels: tuple[Panel, ...], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"can't be written: No such file or directory"):
        draw(tmp_path / "nowhere" / "chart.svg", panels)


def test_matplotlib_is_imported_only_when_a_chart_is_drawn() -> None:
    program = "import sys, openrbu.balloon.charts; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
