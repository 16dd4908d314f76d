"""The tables of `docs/reference` say what the code declares, field by field."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import openrbu
from openrbu.formats.layout import Field, Layout

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MARK = re.compile(
    r"<!-- layout (?P<module>[\w.]+):(?P<name>\w+) at (?P<base>\d+) -->\s*"
    r"\| offset \| width \| field \| unit \| value \|[^\n]*\n\|[ -|]*\|\n(?P<rows>(?:\|[^\n]*\n)+)"
)
OTHER_PEOPLES_FORMATS = ("openrbu.formats.packages.",)
"""Their layouts are cited beside the code: Microsoft's cabinets, archives."""


class Table(NamedTuple):
    """A table of a page: the structure that it describes, where it starts, its rows' cells."""

    page: str
    declared_in: str
    base: int
    rows: list[list[str]]


def tables() -> list[Table]:
    found = []
    for page in sorted(REFERENCE.glob("*.md")):
        for mark in MARK.finditer(page.read_text(encoding="utf-8")):
            rows = [
                [cell.strip() for cell in line.strip("|").split("|")]
                for line in mark["rows"].splitlines()
            ]
            declared_in = f"{mark['module']}:{mark['name']}"
            found.append(Table(page.name, declared_in, int(mark["base"]), rows))
    return found


def layout_of(declared_in: str) -> Layout:
    module, _, name = declared_in.partition(":")
    layout = getattr(importlib.import_module(module), name)
    assert isinstance(layout, Layout)
    return layout


def shown(field: Field) -> set[str]:
    """How a page may write a field's constant or default; none is written as nothing."""
    value = field.default if field.required is None else field.required
    match value:
        case bytes():
            return {f"`{value.decode('ascii')}`"}
        case int():
            texts = {str(value), f"0x{value:X}"}
            return texts if field.required is not None or value else texts | {""}
    return {""}


def differences(table: Table) -> list[str]:
    layout = layout_of(table.declared_in)
    wrong = []
    if len(table.rows) != len(layout.fields):
        wrong.append(f"{len(table.rows)} rows, {len(layout.fields)} fields")
    for field, row in zip(layout.fields, table.rows, strict=False):
        expected = [
            str(table.base + layout.offset_of(field.name)),
            str(field.size_bytes),
            f"`{field.name}`",
            field.unit,
        ]
        if row[:4] != expected:
            wrong.append(f"{row[:4]} is {expected} in the code")
        if row[4] not in shown(field) and not (field.required is None and row[4] == ""):
            wrong.append(f"{field.name}: {row[4]!r} is {shown(field)} in the code")
        if len(row) != 7 or not row[6]:
            wrong.append(f"{field.name}: no source")
    return wrong


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.declared_in)
def test_a_table_is_what_the_code_declares(table: Table) -> None:
    assert differences(table) == []


def test_every_structure_of_ours_has_a_table() -> None:
    declared = set()
    for module in pkgutil.walk_packages(openrbu.__path__, "openrbu."):
        if module.name.startswith(("openrbu.formats.", "openrbu.bios.")):
            loaded = importlib.import_module(module.name)
            declared |= {
                f"{module.name}:{name}"
                for name, value in vars(loaded).items()
                if isinstance(value, Layout) and not module.name.startswith(OTHER_PEOPLES_FORMATS)
            }
    described = {table.declared_in for table in tables()}
    ids = {id(layout_of(each)) for each in described}
    assert [each for each in sorted(declared) if id(layout_of(each)) not in ids] == []


@pytest.mark.parametrize(
    ("cell", "text"), [(0, "5"), (1, "2"), (2, "`magic`"), (3, "KiB"), (4, "`$RBX`"), (6, "")]
)
def test_a_wrong_cell_is_found(cell: int, text: str) -> None:
    table = next(each for each in tables() if each.declared_in == "openrbu.formats.hdr:HEADER")
    rows = [list(row) for row in table.rows]
    rows[0][cell] = text
    assert len(differences(table._replace(rows=rows))) == 1
