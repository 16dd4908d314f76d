"""The table of system IDs: each of its rows, that it is in the package, and what it answers."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from openrbu.formats import systems
from openrbu.formats.hdr import SystemId
from openrbu.formats.systems import KnownProblem, known_system, title_of
from openrbu.machine.models import MODELS
from rigs.systems import DATA, each_system, expected_of
from rigs.wheels import file_in_wheel

TABLE = Path(systems.__file__).with_name("systems.tsv")

ROWS = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]


def test_each_row_is_an_id_a_name_and_what_speaks_against_it() -> None:
    row = re.compile(r"0x[0-9a-f]{4}\t(?:[ -~]+|[ -~]*\t(?:broken|caution)\t[ -~]+)")
    assert [line for line in ROWS if not row.fullmatch(line)] == []
    assert [line for line in ROWS if re.search(r"  | \t|\t | $", line)] == []


def test_the_ids_are_unique_in_order_and_fit_an_image() -> None:
    ids = [int(line[:6], 16) for line in ROWS]
    assert ids == sorted(set(ids))
    for system_id in ids:
        assert SystemId.unpack(SystemId(system_id).pack()).id == system_id


def test_every_row_is_found_by_its_id() -> None:
    for line in ROWS:
        fields = line.split("\t")
        found = known_system(int(fields[0], 16))
        assert [found.name, found.problem.value, found.what] == [*fields[1:], "", ""][:3]


def test_an_id_that_is_not_known_has_nothing_against_it() -> None:
    for system_id in (0, 0x0076, 0x1ABC, 0xFFFF, 0x12345):
        unknown = known_system(system_id)
        assert (unknown.name, unknown.problem, unknown.what) == ("", KnownProblem.NOTHING, "")
        assert title_of(SystemId(system_id)) == f"{system_id:#06x}"


@pytest.mark.parametrize(
    ("system_id", "title", "problem"),
    [
        (0x0121, "0x0121 (PowerEdge 2650)", KnownProblem.NOTHING),
        (0x0152, "0x0152 (Latitude D500)", KnownProblem.NOTHING),
        (0x0126, "0x0126 (OptiPlex GX620)", KnownProblem.BROKEN),
        (0x01AD, "0x01ad (OptiPlex GX620)", KnownProblem.BROKEN),
        (0x01BC, "0x01bc (OptiPlex GX620)", KnownProblem.BROKEN),
        (0x02A5, "0x02a5 (PowerEdge R210)", KnownProblem.BROKEN),
        (0x02A6, "0x02a6 (PowerEdge T110)", KnownProblem.BROKEN),
        (0x0092, "0x0092", KnownProblem.BROKEN),
        (0x014B, "0x014b", KnownProblem.BROKEN),
        (0x022E, "0x022e (XPS M1530)", KnownProblem.CAUTION),
    ],
)
def test_what_the_image_facts_say_of_a_system_is_known(
    system_id: int, title: str, problem: KnownProblem
) -> None:
    found = known_system(system_id)
    assert (title_of(SystemId(system_id)), found.problem) == (title, problem)
    assert bool(found.what) == (problem is not KnownProblem.NOTHING)


def test_a_title_has_the_revision_where_it_is_not_0() -> None:
    assert title_of(SystemId(0x0121, 2)) == "0x0121:2 (PowerEdge 2650)"
    assert title_of(SystemId(0x1ABC, 1)) == "0x1abc:1"


def test_every_model_of_ours_is_known_by_its_name() -> None:
    for model in MODELS.values():
        assert known_system(model.system_id).name == model.product.replace("WorkStation ", "")


@each_system
def test_a_real_machine_bears_the_name_of_its_id_or_one_like_it(name: str) -> None:
    """By the number in it: PowerEdge 400SC is a PowerEdge 400, ES3020 a PowerEdge 2600."""
    expected = expected_of(name)
    known = known_system(int(expected["system_id"], 16)).name
    assert known
    if name != "ES3020":
        numbers = re.compile(r"[0-9]{3,}")
        assert set(numbers.findall(known)) & set(numbers.findall(expected["product"]))


def test_the_table_holds_all_that_dells_data_files_said() -> None:
    source = DATA / "dell-systems.tsv"
    if not source.exists():
        pytest.skip(f"there is no {source} (OPENRBU_DATA names another place)")
    lines = [line for line in source.read_text().splitlines() if not line.startswith("#")]
    for number, name, problem in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        found = known_system(int(number, 16))
        plain = re.sub(r" 0x[0-9A-F]+$", "", name).casefold()
        assert found.name.casefold() == plain or not plain
        assert bool(problem) == (found.problem is not KnownProblem.NOTHING)


def test_the_table_is_in_the_wheel(tmp_path: Path) -> None:
    assert file_in_wheel(tmp_path, "openrbu/formats/systems.tsv") == TABLE.read_bytes()
