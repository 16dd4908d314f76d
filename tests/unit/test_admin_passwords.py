"""The admin password of a machine: whether SMBIOS says that one is set, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import UpdateFailedError
from openrbu.formats import security
from openrbu.formats.security import PasswordStatus
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.update import passwords
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import Plan, make_plan
from openrbu.update.tries import Staged, stage_somehow
from openrbu.update.undo import Undo
from rigs.machines import Quiet, image, make, running
from rigs.systems import each, tables_of


def hindering(host: VirtualHost, **options: Any) -> list[str]:
    """What is in the way of an update."""
    return [each.kind for each in make_plan(host, image(), Options(**options)).obstacles]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("password", [None, "secret"])
def test_every_model_says_whether_it_has_an_admin_password(
    tmp_path: Path, model: str, password: str | None
) -> None:
    with VirtualMachine(make(tmp_path, model, admin_password=password)) as machine:
        status = security.admin_password_status(machine.tables)
        assert status is (PasswordStatus.ENABLED if password else PasswordStatus.DISABLED)


@each(["precisiont7600"])
def test_our_precision_t7600_has_the_structure_of_the_real_one(tmp_path: Path, name: str) -> None:
    (real,) = tables_of(name).all(security.HARDWARE_SECURITY)
    with VirtualMachine(make(tmp_path, "precision-t7600")) as machine:
        (ours,) = machine.tables.all(security.HARDWARE_SECURITY)
    assert (ours.formatted[:2], ours.formatted[4:]) == (real.formatted[:2], real.formatted[4:])


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (b"\x00", PasswordStatus.DISABLED),
        (b"\x66", PasswordStatus.ENABLED),
        (b"\x82", PasswordStatus.DISABLED),
        (b"\x08", PasswordStatus.NOT_IMPLEMENTED),
        (b"\xff", PasswordStatus.UNKNOWN),
        (b"", PasswordStatus.UNKNOWN),
    ],
)
def test_the_status_of_an_admin_password_is_in_two_bits(
    settings: bytes, status: PasswordStatus
) -> None:
    from openrbu.formats.smbios import make_entry_point, make_structure, make_tables
    from rigs.made_tables import END

    tables = make_tables(make_entry_point(), [make_structure(24, 0x1800, settings), END])
    assert security.admin_password_status(tables) is status
    for is_set, wanted in ((True, PasswordStatus.ENABLED), (False, PasswordStatus.DISABLED)):
        changed = security.with_admin_password(tables, is_set=is_set)
        if not settings:
            assert changed is tables
            continue
        assert security.admin_password_status(changed) is wanted
        (structure,) = changed.all(24)
        assert structure.formatted[4] & 0xF3 == settings[0] & 0xF3


def test_a_password_that_is_set_and_not_given_is_in_the_way_of_packets(tmp_path: Path) -> None:
    with running(make(tmp_path, admin_password="secret")) as machine:
        host = VirtualHost(machine)
        assert hindering(host, mode="packet") == ["password_needed"]
        assert hindering(host, mode="packet", password="secret") == []
        assert hindering(host, mode="packet", without_password=True) == []
        plan = make_plan(host, image(), Options(mode="mono"))
        assert plan.obstacles == ()
        assert any("a monolithic image has no place for it" in note for note in plan.notes)


def test_a_password_that_is_given_and_not_set_is_told(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        plan = make_plan(host, image(), Options(mode="packet", password="secret"))
        assert plan.obstacles == ()
        assert any("SMBIOS says that none is set" in note for note in plan.notes)


@pytest.mark.parametrize("status", [PasswordStatus.NOT_IMPLEMENTED, PasswordStatus.UNKNOWN])
def test_a_password_is_not_told_where_nothing_says_that_none_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: PasswordStatus
) -> None:
    with running(make(tmp_path)) as machine:
        monkeypatch.setattr(passwords, "admin_password_status", lambda tables: status)
        plan = make_plan(VirtualHost(machine), image(), Options(mode="packet", password="secret"))
        assert not any("none is set" in note for note in plan.notes)


def test_a_monolithic_image_without_room_is_not_tried_as_packets_without_the_password(
    tmp_path: Path,
) -> None:
    """The plan said monolithic, for which no password is asked; packets would be refused."""
    with running(make(tmp_path, admin_password="secret", ram_bytes=64 << 20)) as machine:
        host = VirtualHost(machine)
        machine.running_kernel().allocator.fragment(keep_free_order=3)
        planned = replace(make_plan(host, image(), Options()), mode="mono")
        with pytest.raises(UpdateFailedError, match="no free block of 256 KiB"):
            staged_somehow(host, planned)
        for options in (Options(password="secret"), Options(without_password=True)):
            planned = replace(make_plan(host, image(), options), mode="mono")
            assert staged_somehow(host, planned).way.name == "packets"


def staged_somehow(host: VirtualHost, plan: Plan) -> Staged:
    """Stage what is planned, for good."""
    undo = Undo(host, Journal.of(host), "an update")
    return stage_somehow(host, plan, plan.image.build(), Quiet(), undo)
