"""How a plan with many rows looks: in columns, and what is in the way last."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from openrbu.api import Machine
from openrbu.cli import show
from openrbu.cli.choices import Picked
from openrbu.cli.plan_view import check_blocks, plan_document
from openrbu.formats.loading import LoadedImage
from openrbu.hosts.linux import LinuxHost
from openrbu.update.checks.check import Question
from openrbu.update.choosing import Choice
from openrbu.update.options import Options
from openrbu.update.plan import Plan, make_plan
from rigs.cli import Cli
from rigs.hazards import HAZARDS, sound_machine
from rigs.machines import image


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    machine = sound_machine(tmp_path)
    for hazard in HAZARDS:
        hazard.plant(machine)
    return machine


def planned_for(machine: Path) -> Plan:
    return make_plan(LinuxHost(machine), image(), Options())


def test_each_check_has_a_row_and_all_rows_the_same_columns(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = planned_for(machine)
    show.emit(check_blocks(planned))
    lines = capsys.readouterr().out.splitlines()
    titles = [each.text for each in Question if any(c.question is each for c in planned.checks)]
    assert [line for line in lines if line in titles] == titles
    texts = {
        line.index(check.found) for check in planned.checks for line in lines if check.found in line
    }
    advice = {line.index("→") for line in lines if line.lstrip().startswith("→")}
    assert texts == advice
    assert len(texts) == 1


def test_a_plan_ends_with_what_is_in_the_way(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = planned_for(machine)
    show.emit(check_blocks(planned))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{len(planned.obstacles)} in the way: ")
    assert "mains, battery" in last


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_on_a_terminal_no_line_is_longer_than_it(machine: Path, columns: int) -> None:
    sections = check_blocks(planned_for(machine))[0]
    assert isinstance(sections, show.Sections)
    console = Console(file=io.StringIO(), width=columns)
    with console.capture() as capture:
        console.print(show._rich_sections(sections))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("  in the way  ") for line in lines)


def test_in_json_a_plan_has_all_checks_by_question(machine: Path) -> None:
    planned = planned_for(machine)
    opened = Machine(LinuxHost(machine))
    choice = Choice(LoadedImage(planned.image), machine, "", is_given=True)
    picked = Picked(planned.target, choice, None, planned.options)
    document = plan_document(opened, planned, picked)
    assert [each["name"] for each in document["checks"]] == [each.name for each in planned.checks]
    assert {each["verdict"] for each in document["checks"]} == {
        "fine",
        "handled",
        "in_the_way",
        "unknown",
    }
    assert len(document["obstacles"]) == len(planned.obstacles)


def test_rbu_plan_counts_the_verdicts_before_it_says_ready(rbu: Cli) -> None:
    rbu("machine", "new", "demo", "--ram", "256M")
    lines = rbu("plan", rbu.image("A06"), "--machine", "demo").out.splitlines()
    assert lines[-1].startswith("ready: rbu update")
    counts = [line for line in lines if line.partition(" ")[0].isdecimal()]
    assert [line.split()[1].rstrip(":") for line in counts[:2]] == ["fine", "handled"]
    assert "handled: driver" in counts[1]
