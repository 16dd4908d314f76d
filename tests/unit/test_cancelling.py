"""Cancelling where the disk of the machine refuses a step: what was done is said, and recorded."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from openrbu.errors import MachineError, ObstacleError, UpdateFailedError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import KIB, MIB
from openrbu.update.cancelling import cancel
from openrbu.update.driver import RbuDriver
from openrbu.update.journal import Journal
from openrbu.update.report import read_status
from rigs.cli import Cli
from rigs.machines import REBOOT_MODE, FailAt, Watched, image, make, running, update
from rigs.small_disks import largest_file


@pytest.mark.parametrize("limit", [64 * KIB, MIB, 30 * MIB])
def test_what_is_disarmed_is_told_although_the_disk_refuses_the_rest(
    tmp_path: Path, limit: int
) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"hard")
        update(VirtualHost(machine), image(), mode="mono")
    with largest_file(limit), VirtualMachine(directory) as machine:
        done = cancel(VirtualHost(machine))
        assert (done.was_armed, done.was_staged, done.left_staged) == (True, True, True)
        assert done.problem.startswith("disarmed, but what is staged could not be freed: machine")
        assert done.changed
    with VirtualMachine(directory) as machine:
        host = VirtualHost(machine)
        assert not machine.is_armed
        last = Journal(host.journal_path).last
        assert last is not None
        assert last.outcome == "cancelled"
        again = cancel(host)
        assert (again.was_armed, again.was_staged, again.problem) == (False, True, "")
        assert read_text(host, REBOOT_MODE) == "hard"
        assert read_status(host).staged_size_bytes == 0
        assert not cancel(host).changed


def test_what_was_not_armed_and_can_not_be_freed_is_an_error(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        update(VirtualHost(machine), image(), mode="mono")
        machine._activation.disarm()  # type: ignore[union-attr]
    with (
        largest_file(MIB),
        VirtualMachine(directory) as machine,
        pytest.raises(MachineError, match="allows no such size"),
    ):
        cancel(VirtualHost(machine))


@pytest.mark.parametrize("model", ["precision-390", "poweredge-2650"])
def test_a_failure_at_any_call_after_the_token_is_told(tmp_path: Path, model: str) -> None:
    """The call with number 1, 2, 3 … fails: the error is raised as long as the BIOS is armed."""
    with running(make(tmp_path, model)) as machine:
        host, number, told = VirtualHost(machine), 0, 0
        while True:
            update(host, image(model), mode="mono")
            number += 1
            fail = FailAt(number, OSError(errno.EIO, "Input/output error"))
            try:
                done = cancel(Watched(host, fail))
            except (UpdateFailedError, ObstacleError):  # the second: the tables can't be read
                assert machine.is_armed
            else:
                assert not machine.is_armed
                is_staged = RbuDriver(host).has_staged_data
                assert not is_staged or done.left_staged
                assert bool(done.problem) or not is_staged
                told += "disarmed, but " in done.problem
            cancel(host)
            assert not RbuDriver(host).has_staged_data
            if not fail.has_failed:
                break
        assert told > 3


def test_the_command_says_that_it_disarmed_and_what_is_left(rbu: Cli) -> None:
    assert rbu("machine", "new", "demo").code == 0
    rbu("update", rbu.image("A06"), "--machine", "demo")
    with largest_file(MIB):
        said = rbu("cancel", "--machine", "demo")
    assert said.code == 0
    assert "disarmed: the next restart changes nothing" in said.out
    assert "note: what was staged is still in memory" in said.out
    assert "note: disarmed, but what is staged could not be freed" in said.out
    assert "freed: nothing is staged now" not in said.out
