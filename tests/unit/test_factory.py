"""Making a machine: its models, its tables, what is refused, and real machines' tables."""

from __future__ import annotations

import datetime as dt
import signal
from pathlib import Path

import pytest

from openrbu import __version__
from openrbu.bios.cmos_file import CMOS_FILE_BYTES
from openrbu.bios.firmware import make_firmware
from openrbu.cmos import check_value_is_right, token_is_active
from openrbu.errors import DamagedInputError, MachineError, UsageError
from openrbu.formats import dell
from openrbu.formats.packet import password_crc
from openrbu.formats.tokens import IndexedIoToken, tokens_for_update
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import factory, store
from openrbu.machine.config import load_config
from openrbu.machine.models import MODELS
from openrbu.machine.removal import remove_machine
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import GIB, KIB, MAX_BLOCK_BYTES, MIB
from openrbu.update import flow
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.target import read_target
from rigs.machines import OLDER, Quiet, bank_of, image, in_child, kill_self, make, running, update
from rigs.systems import NAMES, directory_of, each_system, tables_of

# -- models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_who_it_is_and_can_be_updated(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    directory = make(tmp_path, name, ram_bytes=None, flash_size_bytes=None)
    with running(directory) as machine:
        target = read_target(VirtualHost(machine))
        assert target.system_id == model.system_id
        assert (target.system.vendor, target.system.product) == (model.vendor, model.product)
        assert target.bios.version == model.bios_version
        assert machine.flash.size_bytes == model.flash_size_bytes
        rom_size = dell.BiosInformation.of(machine.tables).rom_size_bytes
        assert rom_size == (model.rom_size_bytes or model.flash_size_bytes)
        assert machine.config.bios_rules == model.bios_rules
        assert target.rbu is not None
        assert target.rbu.packet_supported == bool(model.packets)
        assert target.rbu.completion_code == dell.CompletionCode.NEVER_TRIED
        assert machine.config.ram_bytes == model.ram_bytes
        assert not machine.is_armed


def test_the_first_three_models_are_what_the_issue_asked_for() -> None:
    poweredge, precision, t7600, *_ = MODELS.values()
    assert (poweredge.system_id, poweredge.flash_size_bytes) == (0x0121, 512 * KIB)
    assert (precision.bios_version, precision.packets) == ("2.1.2", True)
    assert (t7600.system_id, t7600.tokens.name) == (0x0495, "CALLING_INTERFACE")


@pytest.mark.parametrize("name", ["poweredge-2650", "precision-390"])
def test_the_check_value_over_cmos_is_right_from_the_start(tmp_path: Path, name: str) -> None:
    with VirtualMachine(make(tmp_path, name)) as machine:
        tokens = tokens_for_update(machine.tables)
        assert tokens is not None
        assert isinstance(tokens.activate, IndexedIoToken)
        assert not tokens.activate.check.is_none
        assert check_value_is_right(
            bank_of(machine, tokens.activate), tokens.activate, machine.system_id
        )


def test_a_wrong_check_value_in_a_real_machines_cmos_is_put_right(tmp_path: Path) -> None:
    tables = make(tmp_path, name="tables")
    cmos = bytearray(CMOS_FILE_BYTES)
    cmos[256 * 0x70 + 0x40 : 256 * 0x70 + 0x50] = b"some settings..!"
    cmos[256 * 0x70 + 0x78] = 0x40
    (tables / "cmos.dat").write_bytes(cmos)
    with VirtualMachine(make(tmp_path, tables=tables)) as machine:
        tokens = tokens_for_update(machine.tables)
        assert tokens is not None
        assert isinstance(tokens.activate, IndexedIoToken)
        bank = bank_of(machine, tokens.activate)
        assert check_value_is_right(bank, tokens.activate, machine.system_id)
        assert not token_is_active(bank, tokens.activate)
        assert (machine.directory / "cmos").read_bytes()[256 * 0x70 + 0x40 :][:4] == b"some"


def test_what_is_ordered_is_what_is_made(tmp_path: Path) -> None:
    when = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    directory = make(
        tmp_path,
        bios_version="2.0.0",
        ram_bytes=96 * MIB,
        profile="linux",
        faults=("no-battery",),
        admin_password="secret",
        flash_size_bytes=192 * KIB,
    )
    config = load_config(directory)
    assert (config.model, config.ram_bytes, config.profile) == ("precision-390", 96 * MIB, "linux")
    assert (config.faults, config.made_by, config.format) == (("no-battery",), __version__, 3)
    with VirtualMachine(directory, clock=lambda: when) as machine:
        assert dell.BiosInformation.of(machine.tables).version == "2.0.0"
        assert machine.flash.size_bytes == 192 * KIB
        assert machine.nvram.contents.admin_password_crc == password_crc("secret")
        assert machine.ram.regions[-1].end == 96 * MIB
    assert b"secret" not in b"".join(path.read_bytes() for path in directory.glob("*.json"))


def test_a_machine_is_made_at_a_time_that_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    when = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    directory = factory.make_machine("clocked", factory.MachineSpec(), clock=lambda: when)
    assert load_config(directory).created_at == "2026-03-04T05:06:07+00:00"


def test_the_first_bios_begins_where_a_processor_does() -> None:
    """The bytes, not a run: a far jump at the reset vector, to code that says the title."""
    data = make_firmware("a BIOS", 128 * KIB)
    assert len(data) == 128 * KIB
    assert data[-16:-11] == bytes.fromhex("ea 00 e0 00 f0")
    segment = data[-64 * KIB :]
    assert segment[0xE000:0xE002] == bytes.fromhex("fa fc")
    assert segment[0xE020:].startswith(b"a BIOS\r\n\0")
    assert set(data[: 64 * KIB]) == {0xFF}


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"model": "optiplex"}, "there is no model 'optiplex'; there are: poweredge-2650"),
        ({"ram_bytes": 0}, "64 MiB to 8 TiB of RAM in whole MiB, not 0 bytes"),
        ({"ram_bytes": 63 * MIB}, "not 63 MiB"),
        ({"ram_bytes": 64 * MIB + 4096}, "whole MiB"),
        ({"ram_bytes": 9 * 1024 * GIB}, "not 9 TiB"),
        ({"bios_version": "fresh"}, "'fresh' is not a BIOS version"),
        ({"bios_version": "49.0.48"}, "is not a BIOS version"),
        ({"profile": "windows"}, "no profile 'windows'"),
        ({"faults": ("gremlins",)}, "no fault is called 'gremlins'"),
        ({"flash_size_bytes": 0}, "whole blocks of 64 KiB"),
        ({"flash_size_bytes": 100_000}, "whole blocks of 64 KiB"),
        ({"flash_size_bytes": 65 * MIB}, "up to 64 MiB"),
        ({"name": "../up"}, "can't be a machine's name"),
    ],
)
def test_what_can_not_be_made_is_a_usage_error_and_leaves_nothing(
    tmp_path: Path, order: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        make(tmp_path, **order)  # type: ignore[arg-type]
    assert not (tmp_path / "machines").exists()


def test_a_second_machine_of_a_name_is_refused_and_the_first_one_is_not_touched(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        with pytest.raises(MachineError, match="there is a machine 'box' already"):
            make(tmp_path, "poweredge-2650")
        machine.restart()
    assert load_config(tmp_path / "machines" / "box").model == "precision-390"


def test_a_making_that_is_cut_short_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        kill_self()

    monkeypatch.setattr(factory, "save_config", die)
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))

    def make_one() -> None:
        make(tmp_path)

    assert in_child(make_one) == -signal.SIGKILL
    assert sorted(entry.name[:5] for entry in tmp_path.iterdir()) == [".new-", "machi"]
    assert store.machine_names() == []
    monkeypatch.undo()
    with running(make(tmp_path)) as machine:
        assert machine.is_on
    assert [entry.name for entry in tmp_path.iterdir()] == ["machines"]
    assert sorted(entry.name for entry in (tmp_path / "machines").iterdir()) == [".flash", "box"]


def test_a_machine_that_lost_its_description_can_be_removed(tmp_path: Path) -> None:
    directory = make(tmp_path)
    (directory / "machine.json").unlink()
    with pytest.raises(MachineError, match=r"has no machine\.json.*remove it: rbu machine rm box"):
        VirtualMachine(directory)
    with pytest.raises(MachineError, match=r"there is a machine 'box' already.*rbu machine rm box"):
        make(tmp_path)
    with store.locked(directory):
        remove_machine(directory)
    with running(make(tmp_path)) as machine:
        assert machine.is_on


# -- tables of real machines ----------------------------------------------------------------


@each_system
def test_any_real_machine_can_be_made_again_and_updated_where_it_has_what_it_takes(
    tmp_path: Path, name: str
) -> None:
    directory = make(
        tmp_path, name="real", tables=directory_of(name), ram_bytes=None, flash_size_bytes=None
    )
    with running(directory) as machine:
        host = VirtualHost(machine)
        target = read_target(host)
        size = machine.flash.size_bytes
        assert size == target.flash_size_bytes
        system_id = target.system_id or 0
        what = image(version="9.9.9", flash_size_bytes=size, system_id=system_id & 0x1FFF)
        plan = make_plan(host, what, Options(allow_downgrade=True, allow_known_broken=True))
        kinds = [obstacle.kind for obstacle in plan.obstacles]
        if target.rbu is None or target.tokens is None or target.system_id is None:
            assert set(kinds) & {"no_rbu", "no_switch", "not_a_dell"}
        elif what.size_bytes > MAX_BLOCK_BYTES and not target.rbu.packet_supported:
            assert kinds == ["too_large_for_mono"]
        else:
            flow.perform(host, plan, Quiet())
            report = machine.restart()
            assert (report.version_after, report.completion_code) == ("9.9.9", 0)
            assert read_target(host).version.text == "9.9.9"


def test_most_real_machines_are_ones_that_can_be_updated() -> None:
    """Lest the test above prove nothing."""
    able = [
        name
        for name in NAMES
        if dell.RbuInformation.of(tables_of(name)) and tokens_for_update(tables_of(name))
    ]
    assert len(able) > len(NAMES) // 2


@each_system
def test_a_real_machine_can_be_given_another_first_bios(tmp_path: Path, name: str) -> None:
    directory = make(
        tmp_path, name="real", tables=directory_of(name), bios_version="A01", flash_size_bytes=None
    )
    with running(directory) as machine:
        assert read_target(VirtualHost(machine)).bios.version == "A01"


def test_a_machine_of_our_own_tables_is_the_same_machine(tmp_path: Path) -> None:
    first = make(tmp_path, name="first")
    second = make(tmp_path, "poweredge-2650", name="second", tables=first)
    assert (second / "DMI").read_bytes() == (first / "DMI").read_bytes()
    assert load_config(second).model == "first"
    with running(second) as machine:
        host = VirtualHost(machine)
        assert update(host, image()).mode == "packet"
        assert machine.restart().version_after == "2.3.0"
        with pytest.raises(Exception, match="not newer"):
            update(host, image(version=OLDER["precision-390"]))


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({}, UsageError, "has no SMBIOS tables: smbios.dat"),
        ({"smbios_entry_point": b"x"}, UsageError, "DMI can't be read: No such file"),
        ({"smbios_entry_point": b"", "DMI": b""}, DamagedInputError, "entry point"),
        ({"smbios.dat": b""}, DamagedInputError, "entry point"),
        ({"smbios.dat": b"\0" * 4096}, DamagedInputError, "entry point"),
    ],
)
def test_tables_that_are_none_make_no_machine(
    tmp_path: Path, files: dict[str, bytes], error: type[Exception], says: str
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for name, data in files.items():
        (tables / name).write_bytes(data)
    with pytest.raises(error, match=says):
        make(tmp_path, tables=tables)
    assert not (tmp_path / "machines").exists()


def test_tables_without_a_bios_make_no_machine(tmp_path: Path) -> None:
    source = make(tmp_path, name="source")
    table = (source / "DMI").read_bytes()
    (source / "DMI").write_bytes(b"\x7e" + table[1:])  # type 126: inactive
    with pytest.raises(DamagedInputError, match="no BIOS information"):
        make(tmp_path, tables=source)
