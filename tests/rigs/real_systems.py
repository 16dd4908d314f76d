"""The tables and CMOS of real Dell machines, which lie beside the checkout and are not part of it.

`each_system` runs a test once per machine, its name as the argument `name`; without the data that
is one skipped test, which says so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.smbios import Tables, parse_memory_dump

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("OPENRBU_DATA") or _BESIDE)
SYSTEMS = DATA / "systems"

NAMES = sorted(entry.name for entry in SYSTEMS.iterdir()) if SYSTEMS.is_dir() else []

_MISSING = pytest.mark.skip(
    reason=f"there are no tables of real machines in {SYSTEMS} (OPENRBU_DATA names another place)"
)


def each(names: list[str]) -> pytest.MarkDecorator:
    """Run a test once for each of these machines."""
    there = [name for name in names if name in NAMES]
    return pytest.mark.parametrize("name", there or [pytest.param("", marks=_MISSING)])


each_system = each(NAMES)

_MORE = SYSTEMS.parent / "more-systems"
_ALL = [
    entry
    for directory in (SYSTEMS, _MORE)
    if directory.is_dir()
    for entry in sorted(directory.iterdir())
    if entry.is_dir()
]

each_directory = pytest.mark.parametrize(
    "directory",
    [pytest.param(entry, id=entry.name) for entry in _ALL]
    or [pytest.param(Path(), marks=_MISSING)],
)
"""Run a test once for each directory with a real machine's tables, its name as `directory`."""


def files_of(name: str) -> tuple[bytes, bytes]:
    """A machine's entry point and table, as they are in its files."""
    directory = SYSTEMS / name
    dump = directory / "smbios.dat"
    if dump.exists():
        data = dump.read_bytes()
        return data[:31], data[32:]
    return (directory / "smbios_entry_point").read_bytes(), (directory / "DMI").read_bytes()


def tables_of(name: str) -> Tables:
    """A machine's tables, read in the way that fits its files."""
    dump = SYSTEMS / name / "smbios.dat"
    return parse_memory_dump(dump.read_bytes()) if dump.exists() else Tables.parse(*files_of(name))


def cmos_of(name: str) -> bytes:
    """A machine's CMOS: index i of index port p is at 256·p + i. Empty: unknown."""
    path = SYSTEMS / name / "cmos.dat"
    data = path.read_bytes() if path.exists() else b""
    return data if len(data) > 256 else b""


def expected_of(name: str) -> dict[str, Any]:
    """What is known of a machine from elsewhere."""
    expected: dict[str, Any] = json.loads((SYSTEMS / name / "expected.json").read_text())
    return expected
