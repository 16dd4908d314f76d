"""What became of an update: the BIOS's word, filled in after the restart."""

from __future__ import annotations

import datetime as dt
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openrbu.cli.history import how_it_ended
from openrbu.cli.show import Meaning
from openrbu.cmos import write_first_bank
from openrbu.errors import DamagedInputError, MachineError, ObstacleError
from openrbu.formats import packet
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.cmos import NVMEM
from openrbu.machine.virtual import VirtualMachine
from openrbu.update import flow
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.cancelling import cancel
from openrbu.update.driver import STAGED, RbuDriver
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import Attempt, Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import NextRestart, UpdateStatus, read_status
from openrbu.update.target import read_target
from rigs.machines import (
    ENTRY,
    WAYS,
    Quiet,
    Watched,
    image,
    image_bytes,
    in_child,
    kill_self,
    make,
    running,
    update,
)

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)


def status(machine: VirtualMachine) -> UpdateStatus:
    return read_status(VirtualHost(machine))


def completion(machine: VirtualMachine) -> int:
    rbu = status(machine).target.rbu
    assert rbu is not None
    return rbu.completion_code


def last(machine: VirtualMachine) -> Attempt:
    attempt = status(machine).last
    assert attempt is not None
    return attempt


# -- how a machine stands -------------------------------------------------------------------


def test_a_machine_that_was_never_updated_says_so(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        now = status(machine)
        assert now.target.bios.version == "2.1.2"
        assert (now.module_is_loaded, now.staged_size_bytes, now.is_armed) == (False, 0, False)
        assert completion(machine) == CompletionCode.NEVER_TRIED
        assert now.last is None
        assert not VirtualHost(machine).journal_path.exists()


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_armed_machine_says_what_is_staged(tmp_path: Path, model: str, mode: str) -> None:
    with running(make(tmp_path, model)) as machine:
        update(VirtualHost(machine), image(model), mode=mode)
        now = status(machine)
        size = image(model).size_bytes if mode == "mono" else 34 * 4096
        assert (now.module_is_loaded, now.staged_size_bytes, now.is_armed) == (True, size, True)
        assert now.last is not None
        assert now.last.outcome == "armed"
        assert now.last.fields["to_version"] == image(model).header.version.text


def test_looking_twice_shows_the_same_and_writes_nothing_more(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        first = status(machine)
        written = host.journal_path.read_bytes()
        assert status(machine) == first
        assert host.journal_path.read_bytes() == written


def test_a_token_that_can_not_be_asked_for_is_unknown(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600")) as machine:
        assert status(machine).is_armed is None


def test_a_machine_that_is_restarted_while_it_is_looked_at_is_an_obstacle(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        update(VirtualHost(machine), image())

        def restart(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "chunk" and arguments[0] == STAGED:
                machine.restart()

        with pytest.raises(ObstacleError, match=r"while its status was read: .*; try again"):
            read_status(Watched(VirtualHost(machine), restart))


def test_a_machine_that_is_off_has_no_status(tmp_path: Path) -> None:
    with VirtualMachine(make(tmp_path)) as machine, pytest.raises(MachineError, match="is off"):
        status(machine)


# -- results --------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_after_the_restart_the_bioss_result_is_behind_the_update(
    tmp_path: Path, model: str, mode: str
) -> None:
    directory = make(tmp_path, model)
    with running(directory) as machine:
        update(VirtualHost(machine), image(model), mode=mode)
        assert last(machine).is_open
    with VirtualMachine(directory) as machine:
        machine.restart()
    with VirtualMachine(directory) as machine:
        ended = last(machine)
        assert [event for event, _ in ended.events] == ["started", "armed", "result"]
        assert ended.fields["completion_code"] == 0
        assert ended.fields["version_now"] == image(model).header.version.text
        assert ended.fields["succeeded"] is True
        assert completion(machine) == CompletionCode.COMPLETED


def test_a_cold_restart_loses_the_image_and_that_is_the_result(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        update(VirtualHost(machine), image())
        assert machine.restart(cold=True).completion_code == CompletionCode.IMAGE_NOT_FOUND
        ended = last(machine)
        assert (ended.outcome, ended.fields["completion_code"]) == ("result", 0x000D)
        assert (ended.fields["succeeded"], ended.fields["version_now"]) == (False, "2.1.2")


def test_a_machine_that_lost_its_power_says_so_when_it_is_on_again(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        update(VirtualHost(machine), image())

    def die() -> None:
        with VirtualMachine(directory) as machine:
            VirtualHost(machine).write("/sys/class/firmware/timeout", b"5")
            kill_self()

    assert in_child(die) == -signal.SIGKILL
    with VirtualMachine(directory) as machine:
        with pytest.raises(MachineError, match="lost its power"):
            status(machine)
        machine.power_on()
        ended = last(machine)
        assert (ended.outcome, ended.fields["completion_code"]) == ("result", 0x000D)
        assert ended.fields["succeeded"] is False


def test_an_image_that_the_bios_rejects_is_a_result_and_no_success(tmp_path: Path) -> None:
    """It is whole, and for another system: the tool was told to try."""
    with running(make(tmp_path, bios_rules="published")) as machine:
        what = image("poweredge-2650", "9.9.9")
        update(VirtualHost(machine), what, allow_any_system=True)
        assert machine.restart().completion_code == CompletionCode.INCONSISTENT_IMAGE
        ended = last(machine)
        assert (ended.fields["completion_code"], ended.fields["succeeded"]) == (1, False)
        assert completion(machine) == CompletionCode.INCONSISTENT_IMAGE


def test_a_broken_part_is_a_result_and_no_success(tmp_path: Path) -> None:
    with running(make(tmp_path, faults=("erase-fails",))) as machine:
        update(VirtualHost(machine), image())
        machine.restart()
        assert (last(machine).fields["completion_code"], last(machine).fields["succeeded"]) == (
            CompletionCode.ERASE_FAILED,
            False,
        )


def test_completed_alone_is_no_success_when_another_version_runs(tmp_path: Path) -> None:
    """A BIOS that says completed of another update: what was staged is what counts."""
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        journal = Journal(host.journal_path)
        journal.append("other", "started", NOW, boot_id="another", to_version="2.4.0")
        journal.append("other", "armed", NOW)
        ended = last(machine)
        assert (ended.id, ended.outcome) == ("other", "result")
        assert (ended.fields["completion_code"], ended.fields["succeeded"]) == (0, False)


def test_the_completion_code_of_an_update_before_is_not_laid_to_one_that_was_not_tried(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        update(host, image(version="2.4.0"))
        write_first_bank(machine.cmos, 0x45, 0x99)  # for which the BIOS does not believe CMOS
        assert not machine.restart().attempted
        ended = last(machine)
        assert (ended.outcome, ended.fields["succeeded"]) == ("result", False)
        assert (ended.fields["completion_code"], ended.fields["version_now"]) == (None, "2.3.0")
        first, _ = Journal(host.journal_path).attempts()
        assert first.fields["completion_code"] == CompletionCode.COMPLETED


def test_each_of_several_updates_has_its_own_result(tmp_path: Path) -> None:
    directory = make(tmp_path)
    ends = []
    for version, cold in (("2.3.0", False), ("2.4.0", True), ("2.5.0", False)):
        with running(directory) as machine:
            update(VirtualHost(machine), image(version=version, seed=int(version[2])))
            machine.restart(cold=cold)
            status(machine)
    for each in Journal(directory / "journal.jsonl").attempts():
        ends.append((each.fields["to_version"], each.fields["completion_code"]))
    assert ends == [("2.3.0", 0), ("2.4.0", 0x000D), ("2.5.0", 0)]


def test_a_result_that_nobody_looked_at_is_written_down_by_the_next_update(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        update(host, image(version="2.4.0", seed=4))
        first, second = Journal(host.journal_path).attempts()
        assert (first.outcome, first.fields["succeeded"]) == ("result", True)
        assert second.outcome == "armed"


def test_a_version_that_is_installed_again_has_the_bioss_new_record_for_its_result(
    tmp_path: Path,
) -> None:
    directory = make(tmp_path)
    for minute, reinstall in ((6, False), (8, True)):
        with running(directory, clock=lambda minute=minute: NOW.replace(minute=minute)) as machine:
            update(VirtualHost(machine), image(), reinstall=reinstall)
            machine.restart()
            assert last(machine).fields["succeeded"] is True
    assert len(Journal(directory / "journal.jsonl").attempts()) == 2


def test_a_version_that_ran_before_is_no_proof_that_it_was_installed_again(tmp_path: Path) -> None:
    """The token is taken away before the restart, by somebody who can: the BIOS does nothing."""
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        update(host, image(), reinstall=True)
        switch = activation_for(host, read_target(host))
        set_armed(switch, armed=False)
        assert not machine.restart().attempted
        ended = last(machine)
        assert (ended.outcome, ended.fields["succeeded"]) == ("result", None)
        words = how_it_ended(ended)
        assert (
            words.text == "not known: 2.3.0 runs as before, and the BIOS's record has not changed"
        )
        assert words.meaning is Meaning.CAUTION


# -- updates that never got there -----------------------------------------------------------


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_has_ended_stays_ended_over_a_restart(tmp_path: Path, end: str) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        if end == "failed":
            stuck = Watched(host, refuse)
            with pytest.raises(Exception, match="kernel refused"):
                update(stuck, image())
        else:
            update(host, image())
            cancel(host)
        machine.restart()
        assert last(machine).outcome == end


def refuse(name: str, arguments: tuple[Any, ...]) -> None:
    """A kernel that refuses every write, but lets CMOS be used."""
    if name == "write" and arguments[0] != NVMEM:
        raise OSError(5, "Input/output error", arguments[0])


def test_a_tool_that_died_before_arming_has_interrupted_its_update(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory):
        pass

    def die() -> None:
        def at_delivery(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "write" and arguments[0] == f"{ENTRY}/data":
                kill_self()

        with VirtualMachine(directory) as machine:
            update(Watched(VirtualHost(machine), at_delivery), image())

    assert in_child(die) == -signal.SIGKILL
    with running(directory) as machine:
        ended = last(machine)
        assert ended.outcome == "interrupted"
        assert "ended before the update was armed" in ended.fields["why"]
        assert completion(machine) == CompletionCode.NEVER_TRIED


def test_a_tool_that_died_between_arming_and_writing_it_down_still_gets_the_result(
    tmp_path: Path,
) -> None:
    """Seen on a real machine, which goes on: here the update is armed and its line taken away."""
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        started, *_, armed = host.journal_path.read_bytes().splitlines(keepends=True)
        assert b'"armed"' in armed
        host.journal_path.write_bytes(started)
        machine.restart()
        ended = last(machine)
        assert (ended.outcome, ended.fields["succeeded"]) == ("result", True)


def test_a_status_knows_an_update_that_was_armed_and_not_written_down(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        lines = host.journal_path.read_bytes().splitlines(keepends=True)
        host.journal_path.write_bytes(b"".join(lines[:-1]))
        with alone_on(host), ThreadPoolExecutor(1) as other:  # it is just about to be written down
            during = other.submit(status, machine).result()
            assert (bool(during.under_way), during.was_cut_off) == (True, False)
            assert (during.is_armed, during.last and during.last.outcome) == (True, "started")
        now = status(machine)
        assert (now.is_verified, now.next_restart) == (True, NextRestart.UPDATES)
        assert (now.under_way, now.was_cut_off) == ("", False)
        assert [event for event, _ in last(machine).events] == ["started", "armed"]
        host.journal_path.write_bytes(b"".join(lines[:2]))
        set_armed(activation_for(host, now.target), armed=False)
        now = status(machine)
        assert (now.was_cut_off, now.last and now.last.outcome) == (True, "started")


def test_so_does_one_whose_update_ends_in_the_minute_of_the_one_before_it(tmp_path: Path) -> None:
    """The BIOS's record of both is the same; the version that runs is not."""
    with running(make(tmp_path), clock=lambda: NOW) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        assert last(machine).fields["succeeded"] is True
        update(host, image(version="2.4.0"))
        *lines, armed = host.journal_path.read_bytes().splitlines(keepends=True)
        assert b'"armed"' in armed
        host.journal_path.write_bytes(b"".join(lines))
        machine.restart()
        ended = last(machine)
        assert (ended.outcome, ended.fields["succeeded"]) == ("result", True)
        assert ended.fields["version_now"] == "2.4.0"


# -- a journal that is damaged --------------------------------------------------------------


def test_a_journal_cut_in_its_last_line_shows_what_is_before(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        started, *_ = host.journal_path.read_bytes().splitlines(keepends=True)
        host.journal_path.write_bytes(started + started[:-30])
        assert last(machine).outcome == "started"
        machine.restart()
        ended = last(machine)
        assert (ended.outcome, ended.fields["succeeded"]) == ("result", True)


def test_a_damaged_journal_is_told_by_its_line(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        first, *others = host.journal_path.read_bytes().splitlines(keepends=True)
        host.journal_path.write_bytes(b"".join((first, b"{]\n", *others)))
        with pytest.raises(DamagedInputError, match=r"line 2 of the journal"):
            status(machine)
        host.journal_path.rename(tmp_path / "away")
        assert status(machine).last is None


def test_the_time_of_each_event_is_the_hosts(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine, clock=lambda: NOW)
        flow.perform(host, make_plan(host, image(), Options()), Quiet())
        attempt = Journal(host.journal_path).last
        assert attempt is not None
        assert attempt.events == (("started", NOW), ("armed", NOW))


def test_status_says_when_something_else_is_staged_than_was_armed(tmp_path: Path) -> None:
    for mode in ("mono", "packet"):
        with running(make(tmp_path / mode)) as machine:
            host = VirtualHost(machine)
            update(host, image(), mode=mode)
            assert read_status(host).next_restart is NextRestart.UPDATES
            driver = RbuDriver(host)
            driver.set_type("mono")
            driver.deliver(image_bytes(seed=2), lambda _: None)
            assert read_status(host).next_restart is NextRestart.FINDS_ANOTHER


def test_status_says_when_packets_are_staged_for_a_bios_that_takes_none(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        host = VirtualHost(machine)
        update(host, image("poweredge-2650"))
        driver = RbuDriver(host)
        driver.set_type("packet")
        driver.set_packet_size(4096)
        driver.deliver(packet.split(image_bytes("poweredge-2650"), set_id=1), lambda _: None)
        assert read_status(host).next_restart is NextRestart.TAKES_NO_PACKETS


# -- beside an update -----------------------------------------------------------------------


def test_nothing_is_recorded_while_another_process_updates_the_machine(tmp_path: Path) -> None:
    """Here another thread, whose lock is the same."""
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        before = host.journal_path.read_bytes()
        with ThreadPoolExecutor(1) as pool, alone_on(host):
            seen = pool.submit(status, machine).result()
            assert host.journal_path.read_bytes() == before
        assert seen.last is not None
        assert seen.last.outcome == "armed"
        now = status(machine).last
        assert now is not None
        assert (now.outcome, now.fields["ending"]) == ("result", "updated")


@pytest.mark.parametrize("options", [{"mode": "mono"}, {"mode": "packet"}], ids=str)
def test_a_status_says_which_version_is_staged(tmp_path: Path, options: dict[str, Any]) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        assert status(machine).staged_version == ""
        update(VirtualHost(machine), image(), **options)
        assert status(machine).staged_version == image().header.version.text


@pytest.mark.parametrize(
    "data", [b"", b"no image", packet.split(bytes(9000), set_id=b"none")[4096:]], ids=len
)
def test_of_what_does_not_begin_like_an_image_no_version_is_told(
    tmp_path: Path, data: bytes
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        RbuDriver(host).deliver(data, lambda count: None)
        seen = status(machine)
        assert (seen.staged_size_bytes, seen.staged_version) == (len(data), "")
