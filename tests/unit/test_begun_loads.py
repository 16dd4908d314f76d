"""A load of firmware that was begun and never ended: seen, ended, or taken over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.reboot import BOOT_ID
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.scan import search
from openrbu.update import flow
from openrbu.update.begun_loads import BegunLoad, begun_load
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.driver import DATA, LOADING, USE_COUNT, RbuDriver
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import read_status
from rigs.cli import Cli
from rigs.machines import (
    FLASH_BYTES,
    NEWER,
    Quiet,
    image,
    image_bytes,
    make,
    running,
    update,
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, profile="linux")) as machine:
        yield machine


def begin(host: Host) -> None:
    """Begin a load as a program does that is killed then."""
    RbuDriver(host).load("mono")
    RbuDriver(host).ensure_entry()
    host.write(LOADING, b"1\n")
    host.write(DATA, image_bytes())


def row(host: Host) -> Check | None:
    checks = make_plan(host, image(), Options()).checks
    return next((each for each in checks if each.name == "load_under_way"), None)


def begin_as_killed(host: Host) -> None:
    """Leave what an update of ours leaves that is killed in its load."""
    boot_id = read_text(host, BOOT_ID)
    Journal.of(host).append("dead", "started", host.now(), boot_id=boot_id)
    begin(host)


def test_status_tells_a_load_that_somebody_began(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    assert read_status(host).begun_load is None
    begin(host)
    assert read_status(host).begun_load == BegunLoad(len(image_bytes()), is_ours=False)


def test_cancel_ends_it_and_clears_what_was_loaded(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    begin(host)
    assert search(machine.ram, flash_size_bytes=FLASH_BYTES).headers
    done = cancel(host)
    assert (done.was_loading, done.was_staged, done.left_staged, done.problem) == (
        True,
        False,
        False,
        "",
    )
    assert done.changed
    assert read_text(host, USE_COUNT) == "0"
    assert not search(machine.ram, flash_size_bytes=FLASH_BYTES).headers
    RbuDriver(host).unload()
    assert not cancel(host).changed


def test_an_update_beside_it_is_refused_and_the_load_goes_on(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    begin(host)
    check = row(host)
    assert check is not None
    assert check.verdict is Verdict.IN_THE_WAY
    with pytest.raises(ObstacleError, match=r"128\.1 KiB so far, by another program: .*rbu cancel"):
        update(host, image())
    assert begun_load(host) == BegunLoad(len(image_bytes()), is_ours=False)


def test_a_load_that_begins_after_the_plan_is_refused_too(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    plan = make_plan(host, image(), Options())
    begin(host)
    with pytest.raises(ObstacleError, match="by another program"):
        flow.perform(host, plan, Quiet())
    assert begun_load(host) is not None


def test_an_update_takes_over_what_a_killed_one_of_ours_began(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    begin_as_killed(host)
    begun = begun_load(host)
    assert begun is not None
    assert begun.is_ours
    check = row(host)
    assert check is not None
    assert (check.verdict, check.advice) == (Verdict.HANDLED, "the update takes it over")
    update(host, image())
    host.restart()
    assert machine.last_post is not None
    assert machine.last_post.version_after == NEWER["precision-390"]


@pytest.mark.parametrize(("left", "is_ours"), [([], False), (["the driver (it is busy)"], True)])
def test_a_load_after_a_failed_update_is_ours_only_if_that_could_not_be_undone(
    machine: VirtualMachine, left: list[str], *, is_ours: bool
) -> None:
    host = VirtualHost(machine)
    boot_id = read_text(host, BOOT_ID)
    Journal.of(host).append("dead", "started", host.now(), boot_id=boot_id)
    Journal.of(host).append("dead", "failed", host.now(), why="no memory", left=left)
    begin(host)
    assert begun_load(host) == BegunLoad(len(image_bytes()), is_ours=is_ours)


def test_what_a_killed_update_began_is_told_and_ended_on_the_command_line(
    tmp_path: Path, rbu: Cli
) -> None:
    rbu.json("machine", "new", "box", "--ram", "64M", "--profile", "linux")
    directory = Path(rbu.json("machine", "show", "box")["directory"])
    with running(directory) as machine:
        begin_as_killed(VirtualHost(machine))
    told = {"size_bytes": len(image_bytes()), "is_of_killed_update": True}
    assert rbu.json("status", "--machine", "box")["load_under_way"] == told
    said = rbu("status", "--machine", "box").out
    assert "begun and not ended, 128.1 KiB so far, by an update of openrbu that was killed" in said
    done = rbu.json("cancel", "--machine", "box")
    assert (done["was_loading"], done["changed"]) == (True, True)
    assert rbu.json("status", "--machine", "box")["load_under_way"] is None
    with running(directory) as machine:
        begin(VirtualHost(machine))
    assert "ended: the load of firmware" in rbu("cancel", "--machine", "box").out
