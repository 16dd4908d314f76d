"""Real machines' tables in all the shapes that people have them in, and what such tables lack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats import dell, tokens
from openrbu.formats.smbios import (
    Structure,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
    parse_memory_dump,
    parse_structures,
)
from openrbu.formats.tokens import CheckRange, make_indexed_io
from openrbu.machine.factory_tables import MAX_FILE_BYTES, filled_in, lacking, read_tables
from openrbu.units import KIB
from rigs.cli import Cli
from rigs.made_tables import BARE, BIOS, END, SYSTEM
from rigs.systems import directory_of, each, each_table

ID = dell.make_oem_strings(["Dell System", "1[0121]", "7[reseller]"])
TOKENS = make_indexed_io(
    handle=0xD401,
    index_port=0x74,
    data_port=0x75,
    check=CheckRange(0, 0x10, 0x2D, 0x2E),
    tokens=[(tokens.ACTIVATE, 0x78, 0xBF, 0x40), (tokens.CANCEL, 0x78, 0xBF, 0x00)],
)
ROM = dell.make_bios_information(
    vendor="Dell Inc.", version="A05", release_date="02/13/2003", rom_size_bytes=512 * KIB
)
STRUCTURES = [ROM, SYSTEM, ID, TOKENS, dell.make_rbu(packet=True), END]


def tables_of(*structures: Structure, version: tuple[int, int] = (2, 6)) -> Tables:
    return make_tables(make_entry_point(version), structures or STRUCTURES)


def dump_of(tables: Tables) -> bytes:
    """What `dmidecode --dump-bin` writes."""
    entry_point, table = tables.build()
    return entry_point.ljust(32, b"\0") + table


def put(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


# -- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(2, 6), (3, 2)])
@pytest.mark.parametrize("shape", ["dump", "both files", "DMI alone", "dump itself", "DMI itself"])
def test_tables_are_read_in_any_shape(tmp_path: Path, version: tuple[int, int], shape: str) -> None:
    tables = tables_of(version=version)
    entry_point, table = tables.build()
    files = {
        "dump": {"smbios.dat": dump_of(tables)},
        "both files": {"smbios_entry_point": entry_point, "DMI": table},
        "DMI alone": {"DMI": table},
        "dump itself": {"anything.bin": dump_of(tables)},
        "DMI itself": {"DMI": table},
    }[shape]
    path = put(tmp_path / "tables", files)
    if shape.endswith("itself"):
        path = next(path.iterdir())
    read, cmos = read_tables(path)
    assert read.structures == tables.structures
    assert (read.problems, cmos) == ((), b"")


def test_cmos_comes_along_where_it_is_in_the_directory(tmp_path: Path) -> None:
    path = put(tmp_path / "tables", {"smbios.dat": dump_of(tables_of()), "cmos.dat": b"settings"})
    assert read_tables(path)[1] == b"settings"


def test_bare_structures_of_more_than_an_old_entry_point_can_say_get_a_new_one() -> None:
    many = [make_structure(0xDD, handle, bytes(200)) for handle in range(400)]
    table = b"".join(each.build() for each in (*many, *STRUCTURES))
    tables = parse_structures(table)
    assert (tables.entry_point.version, tables.problems) == ((3, 0), ())
    assert tables.build()[1] == table


def test_a_dump_with_a_new_entry_point_is_read_as_one() -> None:
    tables = tables_of(version=(3, 2))
    assert parse_memory_dump(dump_of(tables)) == tables


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", DamagedInputError, "has no SMBIOS tables: it does not start with an entry point"),
        (b"BIOS Information\n\tVendor: Dell", DamagedInputError, "has no SMBIOS tables"),
        (b"_SM_".ljust(4096, b"\0"), DamagedInputError, "entry point is damaged"),
        (b"_SM3_".ljust(4096, b"\0"), DamagedInputError, "entry point is damaged"),
        (BIOS.build() + END.build(), DamagedInputError, "no system information"),
        (bytes(MAX_FILE_BYTES + 1), DamagedInputError, "larger than any SMBIOS table"),
    ],
)
def test_a_file_that_has_no_tables_is_said_to_have_none(
    tmp_path: Path, data: bytes, error: type[Exception], says: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(error, match=says):
        read_tables(path)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read: No such file"):
        read_tables(tmp_path / "nowhere")


# -- what they lack -------------------------------------------------------------------------


def fill(tables: Tables, **given: Any) -> Tables:
    nothing = {"system_id": None, "bios_version": None, "flash_size_bytes": None}
    return filled_in(tables, **nothing | given)


@pytest.mark.parametrize(
    "structures",
    [
        pytest.param((BIOS, SYSTEM, BARE, END), id="none"),
        pytest.param((BIOS, SYSTEM, BARE), id="none, and no end"),
        pytest.param((BIOS, SYSTEM, ID, END), id="OEM string"),
        pytest.param((BIOS, dell.make_revisions_and_ids(0x99), SYSTEM, END), id="0xD0"),
        pytest.param((BIOS, make_structure(0xD0, 5, b"\2\5\x8c"), SYSTEM, END), id="short 0xD0"),
        pytest.param((ID, dell.make_revisions_and_ids(0x121), BIOS, END), id="both"),
        pytest.param((make_structure(0xDD, 0xD000, b"x"), BIOS, END), id="handle taken"),
    ],
)
def test_a_system_id_that_is_given_is_the_tables_own_then(
    structures: tuple[Structure, ...],
) -> None:
    tables = fill(tables_of(*structures), system_id=0x008C)
    assert dell.system_id(tables) == 0x008C
    handles = [structure.handle for structure in tables.structures]
    assert len(set(handles)) == len(handles)
    again = Tables.parse(*tables.build())
    assert again.structures == tables.structures
    has_end = structures[-1] == END
    assert (tables.structures[-1] == END) == has_end
    assert [each for each in again.problems if "count" in each or "gives the table" in each] == []


def test_a_system_id_that_the_tables_have_changes_nothing() -> None:
    tables = tables_of()
    assert fill(tables, system_id=0x0121) is tables


def test_the_reseller_stays_when_a_system_id_is_given() -> None:
    tables = fill(tables_of(), system_id=0x01DE)
    assert dell.system_id(tables) == 0x01DE
    (strings,) = tables.all(dell.OEM_STRINGS)
    assert b"7[reseller]" in strings.strings


def test_tables_without_a_bios_get_one_of_the_version_that_is_given() -> None:
    tables = fill(tables_of(SYSTEM, ID, END), bios_version="A06", flash_size_bytes=512 * KIB)
    bios = dell.BiosInformation.of(tables)
    assert (bios.vendor, bios.version, bios.rom_size_bytes) == ("Dell Inc.", "A06", 512 * KIB)


def test_a_bios_without_a_version_gets_the_one_that_is_given() -> None:
    nameless = make_structure(0, 0, b"\1\0\0\xf0\0\7" + bytes(9), ["Dell Inc."])
    tables = fill(tables_of(nameless, SYSTEM, END), bios_version="A06")
    assert dell.BiosInformation.of(tables).version == "A06"


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, DamagedInputError, r"no BIOS information \(type 0\).*: give --bios-version"),
        ({"bios_version": "A06"}, UsageError, "how large the flash is: give --flash-size"),
    ],
)
def test_what_is_missing_and_was_not_given_is_told_with_its_option(
    given: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fill(tables_of(SYSTEM, ID, END), **given)


def test_what_tables_lack_is_told_with_the_options_that_give_it() -> None:
    """As a PowerEdge 8450's: an Intel BIOS version, no Dell system ID."""
    intel = make_structure(0, 0, b"\1\2\0\xf0\3\7", ["Intel", "SABR1.86J.0012.P12", "03/05/2001"])
    first, second = lacking(tables_of(intel, SYSTEM, END))
    assert first.endswith("no image fits the machine: --system gives one")
    assert "'SABR1.86J.0012.P12' can't be compared with an image's: --bios-version" in second
    assert lacking(tables_of()) == ()


# -- machines -------------------------------------------------------------------------------


@each_table
def test_a_machine_is_made_of_any_real_tables_or_says_what_they_lack(rbu: Cli, name: str) -> None:
    tables = directory_of(name)
    made = rbu.json("machine", "new", "real", "--ram", "64M", "--from-tables", tables)
    assert made["is_on"] is True
    assert made["is_armed"] is False
    assert all("--system" in line or "--bios-version" in line for line in made["lacks"])
    if made["system_id"] is None:
        assert any("--system" in line for line in made["lacks"])
    now = rbu.json("status", "-m", "real")
    assert now["is_armed"] in (False, None)
    assert now["table_problems"] == made["table_problems"]


@each(["PE8450"])
def test_a_poweredge_8450s_tables_are_completed_by_two_options_and_updated(
    rbu: Cli, name: str
) -> None:
    words = ("machine", "new", "pe", "--ram", "64M", "--from-tables", directory_of(name))
    made = rbu.json(*words, "--system", "0x008C", "--bios-version", "A06")
    assert (made["system_id"], made["bios_version"], made["lacks"]) == ("0x008c", "A06", [])
    assert made["table_problems"] == ["the table has no end marker (type 127)"]
    image = rbu.image("A07", system=0x008C, size_bytes=made["flash_size_bytes"])
    done = rbu.json("update", image, "-m", "pe", "--reboot")
    assert done["result"]["version_after"] == "A07"


@pytest.fixture
def m1530(rbu: Cli) -> Path:
    """Tables with the tokens where an XPS M1530 has them."""
    return rbu.write("m1530.bin", dump_of(tables_of()))


def test_a_machine_with_its_tokens_behind_other_ports_is_updated(rbu: Cli, m1530: Path) -> None:
    made = rbu.json("machine", "new", "m", "--ram", "64M", "--from-tables", m1530)
    assert (made["is_armed"], made["lacks"]) == (False, [])
    assert rbu.json("status", "-m", "m")["is_armed"] is False
    done = rbu.json("update", rbu.image("A06"), "-m", "m", "--reboot")
    assert done["result"]["version_after"] == "A06"


def test_broken_tables_are_told_wherever_a_machine_is_shown(rbu: Cli) -> None:
    path = rbu.write("DMI", b"".join(each.build() for each in STRUCTURES[:-1]))
    problem = "the table has no end marker (type 127)"
    made = rbu("machine", "new", "m", "--ram", "64M", "--from-tables", path)
    assert re.search(rf"tables: +broken: {re.escape(problem)}", made.out)
    for words in (("machine", "show", "m"), ("status", "-m", "m")):
        assert rbu.json(*words)["table_problems"] == [problem]
        assert f"broken: {problem}" in rbu(*words).out
    image = rbu.image("A06")
    plan = rbu.json("plan", image, "-m", "m")
    assert plan["table_problems"] == [problem]
    assert f"the SMBIOS tables are broken: {problem}" in rbu("plan", image, "-m", "m").out


@pytest.mark.parametrize("text", ["0", "0x0", "0x10000", "precision", "0xg"])
def test_a_system_id_that_can_not_be_one_is_a_usage_error(rbu: Cli, text: str) -> None:
    rbu.fails(2, "machine", "new", "m", "--system", text)


def test_a_system_id_can_be_given_to_a_model_too(rbu: Cli) -> None:
    made = rbu.json("machine", "new", "m", "--ram", "64M", "--system", "0x01B3")
    assert made["system_id"] == "0x01b3"
