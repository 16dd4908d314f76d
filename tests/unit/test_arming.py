"""An update that is staged first and armed later: what holds in between, and what is refused."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.cmos import write_first_bank
from openrbu.errors import ExitCode, ObstacleError, OpenRbuError, UpdateFailedError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import MIB, PhysAddr
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.arming import arm
from openrbu.update.cancelling import cancel
from openrbu.update.driver import RbuDriver, ReadBack
from openrbu.update.exclusion import BusyError, alone_on
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.passwords import PasswordNeededError, WrongPasswordError
from openrbu.update.report import NextRestart, UpdateState, UpdateStatus, read_status
from openrbu.update.staged_update import NotStagedError, StagedChangedError
from openrbu.update.target import read_target
from openrbu.update.verify import OtherDataError
from rigs.machines import (
    PROFILES,
    REBOOT_MODE,
    WAYS,
    FailAt,
    Watched,
    files,
    hidden_memory,
    image,
    image_bytes,
    in_child,
    make,
    running,
    status,
    update,
)

PACKETY = "precision-390"
PASSWORD = "Tall1-Tr"


def stage_only(machine: VirtualMachine, **options: Any) -> VirtualHost:
    """The machine as a host, with the image for its model staged."""
    host = VirtualHost(machine)
    assert not update(host, image(str(machine.config.model)), arm=False, **options).is_armed
    return host


def is_just_staged(machine: VirtualMachine) -> UpdateStatus:
    """The machine's status, in which an update is staged, and nothing armed."""
    now = read_status(VirtualHost(machine))
    assert (now.state, machine.is_armed) == (UpdateState.STAGED, False)
    assert now.next_restart in (NextRestart.CHANGES_NOTHING, NextRestart.UNKNOWN)
    return now


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_what_is_staged_is_armed_later_by_another_process_and_installed(
    tmp_path: Path, model: str, mode: Any
) -> None:
    directory = make(tmp_path, model)
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.write(REBOOT_MODE, b"cold")
        staged = update(host, image(model), arm=False, mode=mode)
        assert read_text(host, REBOOT_MODE) == "cold"
        now = is_just_staged(machine)
        assert now.last is not None
        assert [event for event, _ in now.last.events] == ["started", "staged"]
    with VirtualMachine(directory) as machine:
        armed = arm(VirtualHost(machine))
        assert (armed.is_armed, armed.changed, machine.is_armed) == (True, True, True)
        for name in ("attempt_id", "mode", "staged_sha256", "version", "verified"):
            assert getattr(armed, name) == getattr(staged, name), name
        now = read_status(VirtualHost(machine))
        assert (now.state, now.next_restart) == (UpdateState.ARMED, NextRestart.UPDATES)
        assert machine.restart().version_after == image(model).header.version.text
        last = Journal.of(VirtualHost(machine)).last
        assert last is not None
        read_status(VirtualHost(machine))
    events = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    assert [each["event"] for each in events if each["event"] != "changing"] == [
        "started",
        "staged",
        "verified",
        "armed",
        "result",
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_packets_of_each_kernels_driver_are_armed_later(tmp_path: Path, profile: str) -> None:
    """Linux 5.7 does not give all of them back: they are found in memory."""
    with running(make(tmp_path, PACKETY, profile=profile)) as machine:
        host = stage_only(machine, mode="packet")
        is_just_staged(machine)
        seen = arm(host).verified.read_back
        assert (seen is ReadBack.SKIPS_A_PACKET) == (profile == "linux-5.7")
        assert not arm(host).changed
        assert machine.restart().version_after == "2.3.0"


def test_packets_that_this_kernel_does_not_give_back_are_missed_in_memory(tmp_path: Path) -> None:
    """Even where a copy in free memory makes the set whole."""
    with running(make(tmp_path, PACKETY, profile="linux-5.7")) as machine:
        host = stage_only(machine, mode="packet")
        overwrite(machine)
        with pytest.raises(UpdateFailedError, match=r"not in physical memory any more|is missing"):
            arm(host)
        assert not machine.is_armed


def test_without_arming_a_restart_changes_nothing_and_the_journal_says_why(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        post = machine.restart()
        assert (post.completion_code, post.version_after) == (None, "2.1.2")
        with pytest.raises(NotStagedError, match=r"the machine was restarted before .* rbu update"):
            arm(host)
        now = read_status(host)
        assert now.last is not None
        assert (now.state, now.last.outcome) == (UpdateState.NONE, "interrupted")
        assert not machine.is_armed


def test_a_machine_that_is_armed_is_verified_again_and_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        host = stage_only(machine)
        arm(host)
        before, journal = status(machine), (directory / "journal.jsonl").read_bytes()
        again = arm(host)
        assert (again.is_armed, again.changed) == (True, False)
        assert (status(machine), (directory / "journal.jsonl").read_bytes()) == (before, journal)
        overwrite(machine)
        with pytest.raises(UpdateFailedError):
            arm(host)
        assert machine.is_armed


def test_so_is_one_that_an_update_has_armed_in_one_go(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image(), memory_above_4g=True)
        assert not arm(host).changed


def test_what_another_program_has_disarmed_is_armed_again(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        arm(host)
        set_armed(activation_for(host, read_target(host)), armed=False)
        assert arm(host).changed
        assert machine.is_armed


def overwrite(machine: VirtualMachine) -> None:
    """Change a byte of what is staged, in RAM alone."""
    region = machine.held_regions[-1]
    place = PhysAddr(region.start + 0x200)
    byte = machine.ram.read(place, 1)
    machine.ram.write(place, bytes([byte[0] ^ 0xFF]))


def another_staged(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    RbuDriver(host).deliver(image_bytes(seed=7), lambda size_bytes: None)


def dropped(machine: VirtualMachine) -> None:
    RbuDriver(VirtualHost(machine)).request_entry()


def unloaded(machine: VirtualMachine) -> None:
    RbuDriver(VirtualHost(machine)).unload()


@pytest.mark.parametrize(
    ("accident", "says"),
    [
        (overwrite, "something else"),
        (another_staged, "something else"),
        (dropped, "nothing staged any more"),
        (unloaded, "was unloaded"),
    ],
)
@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_has_changed_since_is_not_armed(
    tmp_path: Path, mode: Any, accident: Callable[[VirtualMachine], None], says: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine, mode=mode)
        accident(machine)
        before = status(machine)
        with pytest.raises(StagedChangedError, match=says) as refused:
            arm(host)
        assert refused.value.exit_code is ExitCode.FAILED
        assert status(machine) == before
        assert read_status(host).state is UpdateState.STAGED_CHANGED
        cancel(host)
        assert read_status(host).state is UpdateState.NONE


def test_what_a_bios_would_not_find_is_not_armed_although_the_driver_has_it(tmp_path: Path) -> None:
    """Another image lies where a BIOS searches first."""
    with running(make(tmp_path)) as machine:
        host = stage_only(machine, mode="mono")
        machine.ram.write(PhysAddr(MIB), image_bytes(version="2.1.9", seed=3))
        with pytest.raises(OtherDataError, match="because of other data in memory"):
            arm(host)
        is_just_staged(machine)


@pytest.mark.parametrize("was_cancelled", [False, True])
def test_where_nothing_of_openrbu_is_staged_nothing_is_armed(
    tmp_path: Path, was_cancelled: bool
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        if was_cancelled:
            stage_only(machine)
            assert cancel(host).was_staged
        if not was_cancelled:
            host.load_module("dell_rbu", {})
        another_staged(machine)
        with pytest.raises(NotStagedError, match="--no-arm") as refused:
            arm(host)
        assert refused.value.exit_code is ExitCode.FAILED
        assert not machine.is_armed


def test_what_another_program_has_armed_is_not_taken_over(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        set_armed(activation_for(host, read_target(host)), armed=True)
        with pytest.raises(ObstacleError, match="armed already"):
            arm(host)
        assert read_status(host).state is UpdateState.ARMED


def test_while_another_process_updates_the_machine_it_is_not_armed(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)

        def busy() -> None:
            with pytest.raises(BusyError):
                arm(host)

        with alone_on(host):
            assert in_child(busy) == 0


def test_another_update_takes_the_place_of_what_is_staged(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        update(host, image(version="2.4.0"), arm=False)
        first, second = Journal.of(host).attempts()
        assert (first.outcome, second.outcome) == ("cancelled", "staged")
        assert "another update took its place" in first.fields["why"]
        assert arm(host).version == "2.4.0"


def test_what_is_staged_already_is_verified_again_and_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        host = VirtualHost(machine)
        staged = update(host, image(), arm=False)
        before, journal = status(machine), (directory / "journal.jsonl").read_bytes()
        again = update(host, image(), arm=False)
        assert (again.changed, again.is_armed) == (False, False)
        assert (again.attempt_id, again.verified) == (staged.attempt_id, staged.verified)
        assert (status(machine), (directory / "journal.jsonl").read_bytes()) == (before, journal)


@pytest.mark.parametrize(
    "differing",
    [
        {"mode": "mono"},
        {"packet_size_bytes": 8192},
        {"memory_above_4g": True},
        {"password": PASSWORD, "mode": "packet"},
    ],
    ids=str,
)
def test_what_is_staged_in_another_way_is_staged_anew(
    tmp_path: Path, differing: dict[str, Any]
) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        assert update(host, image(), arm=False, **differing).changed
        assert len(Journal.of(host).attempts()) == 2
        is_just_staged(machine)


def test_packets_with_a_password_are_staged_anew_without_it(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine, password=PASSWORD, mode="packet")
        assert update(host, image(), arm=False, mode="packet").changed
        assert not update(host, image(), arm=False, mode="packet").changed


def test_so_is_what_was_overwritten_in_memory(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        overwrite(machine)
        assert update(host, image(), arm=False).changed
        assert arm(host).is_armed


def test_memory_that_can_not_be_read_is_not_needed(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = hidden_memory(VirtualHost(machine))
        update(host, image(), arm=False)
        assert arm(host).verified.extents is None


def test_options_of_the_update_hold_when_it_is_armed(tmp_path: Path) -> None:
    """An image for another system is taken by a BIOS only because the option says so."""
    other = image(system_id=0x0123)
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, other, arm=False, allow_any_system=True)
        assert arm(host).is_armed


def test_a_restart_that_would_clear_memory_leaves_it_staged(tmp_path: Path) -> None:
    with running(make(tmp_path, has_reboot_files=False)) as machine:
        host = VirtualHost(machine)
        update(host, image(), arm=False, allow_any_restart=True)
        assert arm(host).is_armed
    with running(make(tmp_path, name="other")) as machine:
        host = stage_only(machine)
        host.write(REBOOT_MODE, b"cold")

        def stays_cold(path: str, data: bytes, offset: int = 0) -> None:
            if path != REBOOT_MODE:
                host.write(path, data, offset)

        stuck = Watched(host, lambda *_: None, {"write": stays_cold})
        with pytest.raises(ObstacleError, match="keeps a cold restart"):
            arm(stuck)
        last = is_just_staged(machine).last
        assert last is not None
        assert "keeps a cold restart" in last.fields["why"]
        armed = arm(stuck, Options(allow_any_restart=True))
        assert armed.is_armed
        last = Journal.of(host).last
        assert last is not None
        assert (last.outcome, last.fields["why"], last.fields["left"]) == ("armed", None, [])


def test_cmos_that_became_wrong_before_arming_is_seen_and_repaired(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = stage_only(machine)
        write_first_bank(machine.cmos, 0x45, 0x99)
        with pytest.raises(ObstacleError, match="in CMOS the check value over"):
            arm(host)
        is_just_staged(machine)
        assert arm(host, Options(mend_cmos=True)).is_armed
        assert machine.restart().version_after == "2.3.0"


@pytest.mark.untraced
@pytest.mark.parametrize(("model", "mode"), [(PACKETY, "packet"), WAYS[-2]])
def test_a_failure_at_any_call_leaves_it_staged_and_not_armed(
    tmp_path: Path, model: str, mode: Any
) -> None:
    with running(make(tmp_path, model)) as machine:
        host = stage_only(machine, mode=mode)
        before, number = status(machine), 0
        while True:
            number += 1
            fail = FailAt(number, OSError(errno.EIO, "Input/output error"))
            try:
                arm(Watched(host, fail))
            except OpenRbuError:
                assert status(machine) == before, fail.failed
                is_just_staged(machine)
            else:
                assert machine.is_armed
                if not fail.has_failed:
                    break
                cancel(host)  # a failure that did not matter
                update(host, image(model), mode=mode, arm=False)
                before = status(machine)
        assert number > 20


# -- passwords ------------------------------------------------------------------------------


def test_a_token_behind_a_password_is_set_only_with_it(tmp_path: Path) -> None:
    directory = make(tmp_path, "precision-t7600", admin_password=PASSWORD)
    with running(directory) as machine:
        host = stage_only(machine, password=PASSWORD)
        for password, refused in ((None, PasswordNeededError), ("Tall2-Tr", WrongPasswordError)):
            with pytest.raises(refused):
                arm(host, Options(password=password))
            is_just_staged(machine)
        assert arm(host, Options(password=PASSWORD)).is_armed
        assert machine.restart().version_after == "A02"
    for name, data in files(directory, leave_out=("ram", "nvram", "flash")).items():
        assert PASSWORD.encode() not in data, name


def test_packets_that_have_the_password_are_armed_without_it(tmp_path: Path) -> None:
    with running(make(tmp_path, admin_password=PASSWORD)) as machine:
        host = stage_only(machine, password=PASSWORD, mode="packet")
        assert arm(host).is_armed
        assert machine.restart().version_after == "2.3.0"
