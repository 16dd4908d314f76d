"""A plan says which machine it is, by each way, and whether RBU or a capsule updates its BIOS."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from openrbu.formats import dell
from openrbu.formats.chassis import (
    MachineKind,
    chassis_text,
    has_uefi,
    machine_kind,
    release_year,
    system_id_by_sku,
)
from openrbu.formats.dell import BiosInformation
from openrbu.formats.rom_identity import ADDRESS
from openrbu.formats.smbios import Tables, make_entry_point, make_structure, make_tables
from openrbu.hosts.linux import LinuxHost
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.target import read_target
from rigs.hazards import EFI, put, put_capsule_target, put_tables, sound_machine
from rigs.machines import image
from rigs.made_tables import dell_tables
from rigs.systems import each_table, tables_of

SYSTEM_ID = 0x01DE


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


def check(machine: Path, name: str, **options: Any) -> Check:
    """The one check of that name."""
    planned = make_plan(LinuxHost(machine), image(), Options(**options))
    (found,) = [each for each in planned.checks if each.name == name]
    return found


def made_tables(
    product: str,
    *,
    chassis: int | None = None,
    uefi: bool = False,
    date: str = "02/13/2003",
) -> Tables:
    tables = dell_tables(system_id=SYSTEM_ID, product=product, packets=True)
    tables = dell.with_bios(tables, "A05", date)
    bios = tables.first(dell.BIOS_INFORMATION)
    assert bios is not None
    tables = tables.replaced(bios, bios.with_field(0x13, b"\x0f" if uefi else b"\x07"))
    if chassis is None:
        return tables
    return tables.added(make_structure(3, 0x0300, bytes([1, chassis, 0, 0, 0]), ["Dell Inc."]))


# -- which machine --------------------------------------------------------------------------


def test_a_plan_says_which_machine_it_is(machine: Path) -> None:
    tables = made_tables("PowerEdge 2950", chassis=0x97, date="11/16/2005")
    put_tables(machine, tables)
    said = check(machine, "machine")
    assert said.found == "Dell Inc. PowerEdge 2950, rack server; BIOS A05 of 11/16/2005"
    assert said.verdict is Verdict.FINE
    assert check(machine, "rbu_structure").found.endswith("takes monolithic images and packets")


def test_a_machine_of_another_vendor_is_told(machine: Path) -> None:
    own = [
        dell.make_bios_information(
            vendor="SeaBIOS", version="1.16", release_date="4/1/14", rom_size_bytes=1 << 20
        ),
        dell.make_system_information(vendor="QEMU", product="Standard PC", service_tag="1"),
    ]
    put_tables(machine, make_tables(make_entry_point((2, 8)), own))
    said = check(machine, "machine")
    assert said.verdict is Verdict.UNKNOWN
    assert said.found == "QEMU Standard PC; BIOS 1.16 of 4/1/14"


def test_the_system_id_is_told_by_each_way_that_has_it(machine: Path) -> None:
    tables = dell_tables(system_id=SYSTEM_ID, product="Precision WorkStation 390")
    put_tables(machine, tables)
    only = check(machine, "system_id")
    assert only.found.startswith("0x01de by the OEM string; the hardware revision can't be read")
    put_tables(machine, tables.added(dell.make_revisions_and_ids(SYSTEM_ID)))
    both = check(machine, "system_id")
    assert "0x01de by the OEM string and by structure 0xD0" in both.found
    assert only.verdict is both.verdict is Verdict.FINE


def with_sku(tables: Tables, sku: str) -> Tables:
    """The tables with this SKU number in type 1."""
    old = tables.first(dell.SYSTEM_INFORMATION)
    assert old is not None
    strings = [each.decode() for each in old.strings]
    body = old.formatted[4:25].ljust(21, b"\0") + bytes([len(strings) + 1, 0])
    new = make_structure(dell.SYSTEM_INFORMATION, old.handle, body, [*strings, sku])
    return tables.replaced(old, new)


@pytest.mark.parametrize(
    ("sku", "says", "verdict"),
    [
        ("01DE", "0x01de by the OEM string and by the SKU number", Verdict.FINE),
        ("0716", "the SKU number says 0x0716", Verdict.UNKNOWN),
        ("SKU=NotProvided;ModelName=PowerEdge R640", "0x01de by the OEM string;", Verdict.FINE),
    ],
)
def test_the_sku_number_of_newer_machines_is_one_of_the_ways(
    machine: Path, sku: str, says: str, verdict: Verdict
) -> None:
    tables = dell_tables(system_id=SYSTEM_ID, product="Precision WorkStation 390")
    put_tables(machine, with_sku(tables, sku))
    said = check(machine, "system_id")
    assert says in said.found
    assert said.verdict is verdict


@each_table
def test_the_sku_number_of_a_real_machine_is_its_system_id_or_none(name: str) -> None:
    tables = tables_of(name)
    assert system_id_by_sku(tables) in (None, dell.system_id(tables))


def test_the_bios_in_its_rom_is_one_of_the_ways(machine: Path) -> None:
    identity = struct.pack("<H3sBB5x", SYSTEM_ID, b"212", 0xFE, 3)
    put(machine, "/dev/mem", bytes(ADDRESS) + identity)
    said = check(machine, "system_id").found
    assert "and by the BIOS in its ROM; hardware revision 3" in said


def test_system_ids_that_disagree_are_told_and_the_oem_string_counts(machine: Path) -> None:
    tables = dell_tables(system_id=SYSTEM_ID, product="Precision WorkStation 390")
    put_tables(machine, tables.added(dell.make_revisions_and_ids(0x0121)))
    said = check(machine, "system_id")
    assert said.verdict is Verdict.UNKNOWN
    assert "the OEM string says 0x01de, structure 0xD0 says 0x0121" in said.found
    assert said.advice.startswith("the OEM string counts here")
    assert read_target(LinuxHost(machine)).system_id == SYSTEM_ID


@each_table
def test_of_a_real_machine_the_kind_is_that_of_its_name(name: str) -> None:
    """Towers are both: an old PowerEdge 400SC has the chassis of a Dimension."""
    tables = tables_of(name)
    product = dell.SystemInformation.of(tables).product
    is_server = product.startswith(("Power", "Dell Power", "ES3020"))
    expected = MachineKind.SERVER if is_server else MachineKind.CLIENT
    assert machine_kind(tables) is expected


def test_a_machine_without_a_known_name_is_what_its_chassis_is() -> None:
    kinds = {0x17: MachineKind.SERVER, 0x8A: MachineKind.CLIENT, 2: MachineKind.UNKNOWN}
    for chassis, kind in kinds.items():
        assert machine_kind(made_tables("Thing 5", chassis=chassis)) is kind
    assert machine_kind(made_tables("Thing 5")) is MachineKind.UNKNOWN
    assert chassis_text(made_tables("Thing 5")) == ""
    assert chassis_text(made_tables("Thing 5", chassis=0x1F)) == "convertible"


@pytest.mark.parametrize(
    ("date", "year"),
    [("11/16/2005", 2005), ("07/09/99", 1999), ("01/02/05", 2005), ("", None), ("2005", None)],
)
def test_the_year_of_a_bios_is_that_of_its_date(date: str, year: int | None) -> None:
    assert release_year(BiosInformation("", "", date, None)) == year


# -- RBU on clients, and capsules -----------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "uefi", "date", "verdict"),
    [
        ("Precision WorkStation 390", False, "10/31/2006", Verdict.FINE),
        ("Precision T7600", False, "04/06/2012", Verdict.UNKNOWN),
        ("XPS 13 9365", True, "12/05/2017", Verdict.IN_THE_WAY),
        ("OptiPlex 9010", True, "02/13/2003", Verdict.IN_THE_WAY),
    ],
)
def test_a_client_machine_is_judged_by_its_age(
    machine: Path, product: str, uefi: bool, date: str, verdict: Verdict
) -> None:
    tables = made_tables(product, uefi=uefi, date=date)
    assert has_uefi(tables) == uefi
    put_tables(machine, tables)
    said = check(machine, "client_machine")
    assert said.verdict is verdict
    if verdict is Verdict.IN_THE_WAY:
        assert "fwupdmgr" in said.advice
        allowed = check(machine, "client_machine", allow_known_broken=True)
        assert allowed.verdict is Verdict.UNKNOWN


def test_a_client_that_uefi_started_has_it_whatever_its_tables_say(machine: Path) -> None:
    (machine / EFI.lstrip("/")).mkdir(parents=True)
    assert check(machine, "client_machine").verdict is Verdict.IN_THE_WAY


def test_a_server_has_no_such_row(machine: Path) -> None:
    put_tables(machine, made_tables("PowerEdge R640", uefi=True, date="06/13/2019"))
    planned = make_plan(LinuxHost(machine), image(), Options())
    assert "client_machine" not in {each.name for each in planned.checks}


@pytest.mark.parametrize(
    ("status", "attempted", "says"),
    [
        (0, 0, "no attempt is known"),
        (0, 0x10600, "last attempt: version 0x00010600 succeeded"),
        (4, 0x10600, "last attempt: version 0x00010600 failed: the signature is not right"),
        (6, 0x10600, "last attempt: version 0x00010600 failed: the battery is too low"),
        (0x1234, 0x10600, "last attempt: version 0x00010600 failed: status 0x1234"),
    ],
)
def test_a_machine_that_takes_capsules_is_told_how_the_last_one_ended(
    machine: Path, status: int, attempted: int, says: str
) -> None:
    put_capsule_target(machine, kind=2)
    put_capsule_target(machine, 1, status=status, attempted=attempted)
    said = check(machine, "capsules")
    assert said.verdict is Verdict.IN_THE_WAY
    assert "230c8b18-8d9b-53ec-838b-6cfc0383493a, version 0x00010500" in said.found
    assert said.found.endswith(f"{says})")
    assert "fwupdmgr" in said.advice
    allowed = check(machine, "capsules", allow_known_broken=True)
    assert allowed.verdict is Verdict.UNKNOWN


def test_capsules_for_other_devices_are_not_for_the_bios(machine: Path) -> None:
    put_capsule_target(machine, kind=2)
    assert check(machine, "capsules").verdict is Verdict.FINE


def test_a_server_that_takes_both_can_be_updated_either_way(machine: Path) -> None:
    put_tables(machine, made_tables("PowerEdge R640", uefi=True, date="06/13/2019"))
    put_capsule_target(machine)
    said = check(machine, "capsules")
    assert (said.verdict, said.advice) == (Verdict.UNKNOWN, "fwupdmgr is the tested way")


def test_a_machine_that_takes_capsules_only_has_no_other_way(machine: Path) -> None:
    tables = made_tables("Precision 5820", uefi=True)
    rbu = tables.first(dell.RBU)
    assert rbu is not None
    put_tables(machine, tables.replaced(rbu, make_structure(0x80, rbu.handle, b"")))
    put_capsule_target(machine)
    said = check(machine, "capsules", allow_known_broken=True)
    assert said.verdict is Verdict.IN_THE_WAY
    assert "--allow-known-broken" not in said.advice


def test_an_esrt_that_only_root_may_read_is_no_system_firmware(machine: Path) -> None:
    (machine / f"{EFI}/esrt/entries/entry0/fw_type".lstrip("/")).mkdir(parents=True)
    assert check(machine, "capsules").verdict is Verdict.FINE
