"""The tables and CMOS of Dell machines: of made ones, and of real ones where they are known.

The real ones lie beside the checkout and are not part of it. `each_system` runs a test once per
machine, its name as the argument `name`. `like(name)` is the real machine whose shape it has.
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats.smbios import Tables, parse_memory_dump
from rigs.made_systems import MADE

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("OPENRBU_DATA") or _BESIDE)

_REAL = {
    folder: {
        entry.name: entry for entry in sorted((DATA / folder).glob("*")) if (DATA / folder).is_dir()
    }
    for folder in ("systems", "more-systems")
}

NAMES = [*_REAL["systems"], *MADE]


ALL_REAL = [name for folder in _REAL.values() for name in folder]
"""All real machines that are there."""


def each(names: list[str]) -> pytest.MarkDecorator:
    """Run a test once for each of these real machines that is there, and for those made like it."""
    return pytest.mark.parametrize("name", [name for name in NAMES if like(name) in names])


each_system = pytest.mark.parametrize("name", NAMES)

each_table = pytest.mark.parametrize("name", [*NAMES, *_REAL["more-systems"]])
"""As `each_system`, but also for machines of which nothing but the tables is known."""


each_packet_server = pytest.mark.parametrize(
    "name", [name for name in ("made-640", "poweredge-r640-2.2.11") if name in MADE or
             name in _REAL["more-systems"]]
)  # fmt: skip
"""A server that takes packets and has a flash larger than any block of memory: R640."""


def like(name: str) -> str:
    """The real machine whose shape a machine has: a real one's own."""
    return MADE[name].like if name in MADE else name


@cache
def _made_directory() -> Path:
    """Where the files of made machines are, a directory for each. It is removed when this process
    ends; in a worker of pytest, which may be killed, it is in a directory that `tests/conftest.py`
    has the controller remove."""
    made = tempfile.TemporaryDirectory(prefix="openrbu-made-", dir=within)
    atexit.register(made.cleanup)
    return Path(made.name)


within: Path | None = None
"""Where directories of this process are to be; None: where temporary files are."""


@cache
def directory_of(name: str) -> Path:
    """The directory with a machine's files."""
    if name in MADE:
        directory = _made_directory() / name
        directory.mkdir()
        MADE[name].write(directory)
        return directory
    return next(folder[name] for folder in _REAL.values() if name in folder)


def files_of(name: str) -> tuple[bytes, bytes]:
    """A machine's entry point and table, as they are in its files."""
    directory = directory_of(name)
    dump = directory / "smbios.dat"
    if dump.exists():
        data = dump.read_bytes()
        return data[:31], data[32:]
    return (directory / "smbios_entry_point").read_bytes(), (directory / "DMI").read_bytes()


def tables_of(name: str) -> Tables:
    """A machine's tables, read in the way that fits its files."""
    dump = directory_of(name) / "smbios.dat"
    return parse_memory_dump(dump.read_bytes()) if dump.exists() else Tables.parse(*files_of(name))


def cmos_of(name: str) -> bytes:
    """A machine's CMOS: index i of index port p is at 256·p + i. Empty: unknown."""
    path = directory_of(name) / "cmos.dat"
    data = path.read_bytes() if path.exists() else b""
    return data if len(data) > 256 else b""


def expected_of(name: str) -> dict[str, Any]:
    """What is known of a machine from elsewhere."""
    expected: dict[str, Any] = json.loads((directory_of(name) / "expected.json").read_text())
    return expected
