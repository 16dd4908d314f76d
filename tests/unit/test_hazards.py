"""What a plan has to see on a real machine: fourteen hazards, planted in a tree of files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.hazards import HAZARDS, Hazard, sound_machine
from rigs.machines import image


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


def checks(machine: Path) -> tuple[Check, ...]:
    """What a plan for a newer BIOS says."""
    return make_plan(LinuxHost(machine), image(), Options()).checks


def named(found: tuple[Check, ...], sound: tuple[Check, ...]) -> set[str]:
    """The hazards that these checks name, and those of the sound machine do not."""
    return {hazard.name for hazard in HAZARDS if any(tells(hazard, each, sound) for each in found)}


def tells(hazard: Hazard, check: Check, sound: tuple[Check, ...]) -> bool:
    is_right = check.verdict is hazard.verdict and re.search(hazard.says, check.message) is not None
    return is_right and check not in sound


def test_of_a_sound_machine_all_is_known_and_nothing_is_in_the_way(machine: Path) -> None:
    """The update loads the driver and makes the restart warm."""
    others = {each.name: each.verdict for each in checks(machine) if each.verdict != Verdict.FINE}
    assert others == {"driver": Verdict.HANDLED, "restart_mode": Verdict.HANDLED}


@pytest.mark.parametrize("hazard", HAZARDS, ids=str)
def test_a_plan_names_each_hazard_and_says_what_to_do(machine: Path, hazard: Hazard) -> None:
    sound = checks(machine)
    hazard.plant(machine)
    found = checks(machine)
    assert hazard.name in named(found, sound), "\n".join(
        f"{each.name}: {each.verdict.value}: {each.message}" for each in found
    )
    telling = [each for each in found if tells(hazard, each, sound)]
    assert all(each.advice for each in telling)


def test_all_fourteen_in_one_tree_are_all_named(machine: Path) -> None:
    sound = checks(machine)
    for hazard in HAZARDS:
        hazard.plant(machine)
    wanted = {hazard.name for hazard in HAZARDS}
    assert len(wanted) == 14
    assert named(checks(machine), sound) == wanted


def test_a_plan_of_such_a_tree_changes_none_of_its_files(machine: Path) -> None:
    for hazard in HAZARDS:
        hazard.plant(machine)
    before = {path: path.read_bytes() for path in machine.rglob("*") if path.is_file()}
    checks(machine)
    after = {path: path.read_bytes() for path in machine.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"port"}  # the index register: a byte of CMOS has to be asked for
    assert before.keys() == after.keys()
