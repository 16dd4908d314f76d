"""Commands on a computer that is not one of Dell's: what it is, and what can be done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrbu.api import machines
from openrbu.errors import NotForThisMachineError
from openrbu.formats.smbios import Tables, make_entry_point, make_structure, make_tables
from openrbu.hosts.linux import LinuxHost
from openrbu.update.target import read_target
from rigs.cli import Cli
from rigs.hazards import put, sound_machine
from rigs.machines import as_nobody, opened_up
from rigs.made_tables import END
from rigs.own_driver import RamFileHost
from rigs.own_memory import make_computer

WAY_OUT = "for a virtual machine: --machine NAME (rbu machine new NAME makes one)"
TABLES = "sys/firmware/dmi/tables"


def tables_of(vendor: str, product: str) -> Tables:
    """The SMBIOS tables of a machine that has nothing of Dell's."""
    bios = make_structure(0, 0, b"\1\2\0\xf0\3\7", [vendor, "1.0", "02/13/2020"])
    system = make_structure(1, 0x0100, b"\1\2\0\0", [vendor, product])
    return make_tables(make_entry_point((2, 6)), [bios, system, END])


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This computer is a directory: a computer of another vendor."""
    root = sound_machine(tmp_path)
    make_computer(root, ())
    entry_point, table = tables_of("ACME", "Roadrunner 9").build()
    (root / TABLES / "smbios_entry_point").write_bytes(entry_point)
    (root / TABLES / "DMI").write_bytes(table)
    put(root, "/sys/class/dmi/id/sys_vendor", "ACME\n")
    put(root, "/sys/class/dmi/id/product_name", "Roadrunner 9\n")
    monkeypatch.setattr(machines, "_this_computer", lambda driver: RamFileHost(root, driver))
    return root


def test_status_shows_what_there_is_and_ends_with_3(rbu: Cli, other: Path) -> None:
    ended = rbu("status")
    assert ended.code == 3
    assert "Roadrunner 9" in ended.out
    assert ended.err == (
        f"rbu: the machine at {other} is no Dell (ACME Roadrunner 9), and RBU updates only those; "
        f"{WAY_OUT}\n"
    )
    document = rbu("status", "--json").document
    assert document["error"]["kind"] == "not_for_this_machine"
    assert document["machine"]["vendor"] == "ACME"


@pytest.mark.usefixtures("other")
def test_the_unit_that_runs_at_boot_does_not_fail_there(rbu: Cli) -> None:
    ended = rbu("status", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("command", ["plan", "update"])
def test_plan_and_update_refuse_it_with_3_and_say_so(rbu: Cli, command: str) -> None:
    ended = rbu(command, rbu.image())
    assert ended.code == 3
    assert "no Dell (ACME Roadrunner 9)" in ended.err
    assert WAY_OUT in ended.err


def test_who_may_not_read_the_tables_is_told_by_what_the_kernel_shows_to_all(other: Path) -> None:
    table = other / TABLES / "DMI"
    opened_up(table)
    for name in ("sys_vendor", "product_name"):
        opened_up(other / "sys/class/dmi/id" / name)
    table.chmod(0o600 if os.geteuid() == 0 else 0)

    def work() -> None:
        with pytest.raises(NotForThisMachineError, match=r"no Dell \(ACME Roadrunner 9\)"):
            read_target(LinuxHost(other))

    as_nobody(work)


def test_a_computer_without_tables_is_told_how_to_get_a_machine(rbu: Cli, other: Path) -> None:
    (other / TABLES / "DMI").unlink()
    for words in (["status"], ["plan", rbu.image()], ["update", rbu.image()]):
        assert WAY_OUT in rbu.fails(4, *words)
