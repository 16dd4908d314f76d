"""What a plan says of the journal, and of the update before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.checks import history
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.restart import boot_id
from openrbu.update.target import read_target
from rigs.machines import as_nobody, image, make, opened_up, running, update


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path)) as machine:
        yield machine


def row(machine: VirtualMachine, name: str) -> Check | None:
    plan = make_plan(VirtualHost(machine), image(), Options())
    return next((check for check in plan.checks if check.name == name), None)


def test_a_journal_that_can_be_written_is_fine_and_none_is_made(machine: VirtualMachine) -> None:
    check = row(machine, "journal")
    assert check is not None
    assert check.verdict is Verdict.FINE
    assert row(machine, "other_update") is None
    assert not VirtualHost(machine).journal_path.exists()


@pytest.mark.parametrize(
    ("content", "exit_code", "says"),
    [(b"junk\n", 5, "line 1 of the journal"), (b'{"schema": 99}\n', 4, "by a newer openrbu")],
)
def test_a_journal_that_can_not_be_read_is_in_the_way(
    machine: VirtualMachine, content: bytes, exit_code: int, says: str
) -> None:
    VirtualHost(machine).journal_path.write_bytes(content)
    check = row(machine, "journal")
    assert check is not None
    assert (check.verdict, check.exit_code) == (Verdict.IN_THE_WAY, exit_code)
    assert says in check.message


def test_a_full_disk_and_a_directory_of_another_user_are_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "not" / "yet" / "journal.jsonl"
    assert history.why_not_written(path) == ""
    monkeypatch.setattr(history, "NEEDED_BYTES", 1 << 60)
    assert history.why_not_written(path).endswith(" are needed: free some space")
    assert history.why_not_written(Path("/proc/openrbu/journal.jsonl"))
    opened_up(tmp_path / "there")
    tmp_path.chmod(0o755 if os.geteuid() == 0 else 0o555)

    def work() -> None:
        assert history.why_not_written(path) == "this user may not (run as root)"

    as_nobody(work)
    tmp_path.chmod(0o755)


def test_another_update_is_told(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    with alone_on(host):
        assert row(machine, "other_update") is None, "it is this thread's own"
        with ThreadPoolExecutor(1) as other:
            check = other.submit(row, machine, "other_update").result()
        assert check is not None
        assert check.verdict is Verdict.IN_THE_WAY
        assert check.message.startswith("an update is under way: this very process")
    Journal.of(host).append("one", "started", host.now(), to_version="2.2.2", boot_id=boot_id(host))
    check = row(machine, "other_update")
    assert check is not None
    assert check.verdict is Verdict.HANDLED
    assert check.found == "an update to 2.2.2 was cut off: its tool was killed"
    update(host, image())
    assert row(machine, "other_update") is None


def test_an_armed_bios_is_told_with_the_update_that_it_is_armed_for(
    machine: VirtualMachine,
) -> None:
    host = VirtualHost(machine)
    set_armed(activation_for(host, read_target(host)), armed=True)
    with pytest.raises(ObstacleError, match=r"armed already.*\(by another program\)"):
        update(host, image())
    set_armed(activation_for(host, read_target(host)), armed=False)
    update(host, image())
    check = row(machine, "token")
    assert check is not None
    assert "(for the update to 2.3.0 of 20" in check.message
