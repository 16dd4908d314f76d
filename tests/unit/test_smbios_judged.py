"""Our SMBIOS tables, and our reading of real ones, against dmidecode's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.formats.smbios import Tables, make_entry_point, make_tables
from openrbu.machine.factory import MachineSpec, make_machine
from openrbu.machine.models import MODELS
from rigs.made_tables import BIOS, both_kinds, some_tables
from rigs.needs import leave_out
from rigs.systems import each_system, tables_of


def dmidecode(*arguments: str) -> str:
    program = shutil.which("dmidecode") or shutil.which("dmidecode", path="/usr/sbin")
    if program is None:
        leave_out("dmidecode is not installed (Debian: apt-get install dmidecode)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def written_for_dmidecode(tables: Tables, path: Path) -> str:
    """A dump as dmidecode reads it: the entry point, and the table at its address, 32."""
    entry_point = make_entry_point(tables.entry_point.version, address=32)
    entry, table = make_tables(entry_point, tables.structures).build()
    path.write_bytes(entry.ljust(32, b"\0") + table)
    return str(path)


def seen_by_dmidecode(listing: str) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """The formatted part and the strings of each structure that `dmidecode -u` lists.

    It shows bytes in hex, and below the hex of each string, which ends with a 00, its text.
    """
    for block in listing.split("\n\n"):
        if not block.lstrip("\n").startswith("Handle"):
            continue
        header, _, strings = block.partition("\tStrings:\n")
        formatted = bytes.fromhex("".join(header.split("\tHeader and Data:\n")[1].split()))
        found, text = [], b""
        lines = iter(strings.splitlines())
        for line in lines:
            text += bytes.fromhex(line)
            if text.endswith(b"\0"):
                found.append(text.removesuffix(b"\0"))
                text = b""
                next(lines)
        yield formatted, tuple(found)


KEYWORDS = {
    "bios-vendor": (0, 4),
    "bios-version": (0, 5),
    "bios-release-date": (0, 8),
    "system-manufacturer": (1, 4),
    "system-product-name": (1, 5),
    "system-serial-number": (1, 7),
}


def agrees_with_dmidecode(tables: Tables, path: Path) -> None:
    dump = written_for_dmidecode(tables, path)
    listing = dmidecode("-u", "--from-dump", dump)
    ours = [(structure.formatted, structure.strings) for structure in tables.structures]
    assert list(seen_by_dmidecode(listing)) == ours
    major, minor = tables.entry_point.version
    assert f"SMBIOS {major}.{minor}" in listing
    assert not [line for line in listing.splitlines() if "Wrong DMI" in line or "Invalid" in line]
    for keyword, (kind, offset) in KEYWORDS.items():
        said = dmidecode("--from-dump", dump, "-s", keyword).splitlines()
        structure = tables.first(kind)
        assert structure is not None
        assert said[0].strip().replace("Not Specified", "") == structure.string_at(offset)


@pytest.mark.parametrize("model", MODELS)
def test_dmidecode_reads_in_our_machines_what_we_read(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    machine = make_machine("judged", MachineSpec(model=model))
    files = ((machine / name).read_bytes() for name in ("smbios_entry_point", "DMI"))
    tables = Tables.parse(*files)
    assert tables.problems == ()
    agrees_with_dmidecode(tables, tmp_path / "dump")


@each_system
def test_dmidecode_reads_in_real_machines_what_we_read(name: str, tmp_path: Path) -> None:
    agrees_with_dmidecode(tables_of(name), tmp_path / "dump")


@both_kinds
def test_dmidecode_accepts_tables_after_a_change(version: tuple[int, int], tmp_path: Path) -> None:
    tables = some_tables(version)
    fresh = BIOS.with_string_at(5, "A06").with_string_at(8, "11/23/2026")
    agrees_with_dmidecode(tables.replaced(tables.structures[0], fresh), tmp_path / "dump")
