"""How an update ended: after a restart of each kind, and after one without the BIOS."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from openrbu.cli.history import how_it_ended
from openrbu.cmos import write_first_bank
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.reboot import Boot
from openrbu.machine.virtual import VirtualMachine
from openrbu.update import flow, stage
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Verdict
from openrbu.update.driver import Mode
from openrbu.update.ending import Ending, PasswordUse, ending_of, judge, likely_cause
from openrbu.update.journal import Attempt, Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import NextRestart, read_status
from openrbu.update.target import read_target
from rigs.machines import FLASH_BYTES, WAYS, Quiet, image, make, running, update

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
BY_FIRMWARE, BY_KEXEC = Boot("two", 7 << 4), Boot("two", 0xD << 4)


def last(machine: VirtualMachine) -> Attempt:
    attempt = read_status(VirtualHost(machine)).last
    assert attempt is not None
    return attempt


# -- each ending ----------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_update_that_waits_is_pending_and_one_that_was_installed_updated(
    tmp_path: Path, model: str, mode: str
) -> None:
    with running(make(tmp_path, model)) as machine:
        update(VirtualHost(machine), image(model), mode=mode)
        assert ending_of(last(machine)) is Ending.PENDING
        machine.restart()
        assert ending_of(last(machine)) is Ending.UPDATED


def test_a_refused_update_has_its_code_and_the_likely_cause(tmp_path: Path) -> None:
    with running(make(tmp_path, faults=("no-battery",))) as machine:
        update(VirtualHost(machine), image())
        machine.restart()
        ended = last(machine)
        assert ending_of(ended) is Ending.REFUSED
        assert ended.fields["completion_code"] == CompletionCode.NO_BATTERY
        assert "there is no battery (0x0005); 2.1.2 runs; likely cause: no battery is in" in (
            how_it_ended(ended).text
        )


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"password": "wrong"}, "the BIOS admin password that was given is wrong: nothing"),
        ({"without_password": True}, "a BIOS admin password is set, and the BIOS got none. Or the"),
    ],
)
def test_a_password_that_nobody_verified_is_the_likely_cause(
    tmp_path: Path, given: dict[str, Any], cause: str
) -> None:
    with running(make(tmp_path, admin_password="sesame")) as machine:
        update(VirtualHost(machine), image(), mode="packet", **given)
        machine.restart()
        ended = last(machine)
        assert ended.fields["completion_code"] == CompletionCode.INCONSISTENT_IMAGE
        assert f"likely cause: {cause}" in how_it_ended(ended).text
        assert b'wrong"' not in VirtualHost(machine).journal_path.read_bytes()


def test_a_password_that_the_bios_verified_is_no_cause(tmp_path: Path) -> None:
    directory = make(tmp_path, "precision-t7600", admin_password="sesame")
    with running(directory) as machine:
        update(VirtualHost(machine), image("precision-t7600"), mode="packet", password="sesame")
        assert last(machine).fields["admin_password"] == PasswordUse.VERIFIED


def test_after_a_cold_restart_memory_is_the_likely_cause(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        update(VirtualHost(machine), image())
        machine.restart(cold=True)
        ended = last(machine)
        assert ending_of(ended) is Ending.REFUSED
        assert (
            "likely cause: what was staged was not in memory any more" in how_it_ended(ended).text
        )


def test_an_image_of_another_size_than_the_flash_is_a_likely_cause_of_none_found(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, flash_size_bytes=2 * FLASH_BYTES)) as machine:
        update(VirtualHost(machine), image())
        report = machine.restart()
        assert "checksum over the data" in report.reason
        assert report.completion_code == CompletionCode.IMAGE_NOT_FOUND
        assert "the image has another size" in how_it_ended(last(machine)).text


@pytest.mark.parametrize("who", ["the BIOS", "another program"])
def test_a_token_that_somebody_cleared_is_an_update_that_was_never_looked_at(
    tmp_path: Path, who: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        if who == "the BIOS":
            write_first_bank(machine.cmos, 0x45, 0x99)  # for which it does not believe CMOS
        else:
            set_armed(activation_for(host, read_target(host)), armed=False)
        machine.restart()
        ended = last(machine)
        assert ending_of(ended) is Ending.NOT_LOOKED
        assert "never looked at: the BIOS did not try it; 2.1.2 runs; likely cause" in (
            how_it_ended(ended).text
        )


# -- a start without the BIOS ---------------------------------------------------------------


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_after_kexec_an_update_is_still_armed_and_can_be_tried_again(
    tmp_path: Path, model: str, mode: Mode
) -> None:
    directory = make(tmp_path, model)
    with running(directory) as machine:
        update(VirtualHost(machine), image(model), mode=mode)
        machine.kexec()
    with running(directory) as machine:  # what began it is kept with its state
        host = VirtualHost(machine)
        now = read_status(host)
        assert now.boot.is_by_kexec
        assert (machine.is_armed, now.staged_size_bytes) == (True, 0)
        assert ending_of(last(machine)) is Ending.BYPASSED
        written = host.journal_path.read_bytes()
        assert ending_of(last(machine)) is Ending.BYPASSED
        assert host.journal_path.read_bytes() == written, "it is recorded once"

        planned = make_plan(host, image(model), Options(mode=mode))
        assert planned.obstacles == ()
        (token,) = (each for each in planned.checks if each.name == "token")
        assert token.verdict is Verdict.HANDLED
        outcome = flow.perform(host, planned, Quiet())
        assert outcome is not None
        first, second = Journal.of(host).attempts()
        assert (first.outcome, second.outcome) == ("cancelled", "armed")
        assert "started again without the BIOS" in first.fields["why"]
        report = machine.restart()
        assert (report.completion_code, ending_of(last(machine))) == (0, Ending.UPDATED)


def test_after_kexec_a_cancel_disarms_and_leaves_the_kind_of_restart(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.kexec()
        assert read_status(host).next_restart is NextRestart.FINDS_NOTHING
        host.write("/sys/kernel/reboot/mode", b"warm")  # by somebody, in the new boot
        assert cancel(host).was_armed
        assert not machine.is_armed
        assert last(machine).outcome == "cancelled"
        assert read_status(host).restart_mode == "warm"


def test_a_restart_after_kexec_brings_the_result(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.kexec()
        machine.kexec()
        assert ending_of(last(machine)) is Ending.BYPASSED
        assert machine.restart().completion_code == CompletionCode.IMAGE_NOT_FOUND  # it was cold
        ended = last(machine)
        assert [event for event, _ in ended.events] == ["started", "armed", "bypassed", "result"]
        assert ending_of(ended) is Ending.REFUSED


def test_what_another_program_armed_after_kexec_is_not_taken_for_ours(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        cancel(host)
        machine.kexec()
        set_armed(activation_for(host, read_target(host)), armed=True)
        (obstacle,) = make_plan(host, image(), Options()).obstacles
        assert obstacle.kind == "armed_already"
        with pytest.raises(ObstacleError, match="armed already"):
            update(host, image())


def test_after_kexec_what_somebody_else_has_staged_stays_in_the_way(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.kexec()
        update_of_another_tool(machine)
        (obstacle,) = make_plan(host, image(), Options()).obstacles
        assert obstacle.kind == "armed_already"


def update_of_another_tool(machine: VirtualMachine) -> None:
    """Stage packets as a shell script does."""
    host = VirtualHost(machine)
    stage.load_driver(host, "mono")
    payload = stage.make_payload(
        image(seed=7).build(), mode="mono", packet_size_bytes=4096, password=None
    )
    stage.stage(host, payload, lambda size: None)


def test_a_try_after_kexec_that_fails_leaves_the_bios_disarmed(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        update(VirtualHost(machine), image())
        machine.kexec()
    with running(directory, faults=("allocations-fail-after=0",)) as machine:
        with pytest.raises(UpdateFailedError):
            update(VirtualHost(machine), image())
        assert not machine.is_armed


# -- the table ------------------------------------------------------------------------------


def begun(machine: VirtualMachine, began: dt.datetime = NOW) -> Attempt:
    """An update to 2.3.0 that was armed in boot "one", with the BIOS's record of now."""
    target = read_status(VirtualHost(machine)).target
    rbu = target.rbu
    assert rbu is not None
    record = [rbu.completion_code, None if rbu.when is None else rbu.when.isoformat()]
    fields = {"from_version": "2.1.2", "to_version": "2.3.0", "bios_record": record}
    return Attempt("x", (("started", began), ("armed", began)), fields | {"boot_id": "one"})


@pytest.mark.parametrize(
    ("boot", "is_armed", "ending"),
    [
        (BY_KEXEC, True, Ending.BYPASSED),
        (BY_KEXEC, None, Ending.BYPASSED),
        (BY_KEXEC, False, Ending.NOT_LOOKED),
        (BY_FIRMWARE, True, Ending.BYPASSED),
        (BY_FIRMWARE, None, Ending.NOT_LOOKED),
        (BY_FIRMWARE, False, Ending.NOT_LOOKED),
        (Boot("two", None), None, Ending.NOT_LOOKED),
    ],
)
def test_without_a_new_record_the_token_tells_and_the_boot_where_it_can_not(
    tmp_path: Path, boot: Boot, *, is_armed: bool | None, ending: Ending
) -> None:
    with running(make(tmp_path)) as machine:
        target = read_status(VirtualHost(machine)).target
        assert judge(begun(machine), target, boot, is_armed=is_armed) is ending


@pytest.mark.parametrize(("minute", "ending"), [(6, Ending.REFUSED), (5, Ending.NOT_LOOKED)])
def test_a_failure_in_the_minute_in_which_the_update_began_may_be_its_own(
    tmp_path: Path, minute: int, ending: Ending
) -> None:
    """The record has no seconds: the same failure, in the same minute, is the same record."""
    with running(make(tmp_path), clock=lambda: NOW.replace(minute=minute)) as machine:
        update(VirtualHost(machine), image())
        machine.restart(cold=True)
        target = read_status(VirtualHost(machine)).target
        assert judge(begun(machine), target, BY_FIRMWARE, is_armed=False) is ending


@pytest.mark.parametrize("code", [*CompletionCode, 0x77, None])
def test_each_refusal_has_a_likely_cause(code: int | None) -> None:
    has_none = code in (CompletionCode.NEVER_TRIED, 0x77, None)
    assert (likely_cause(Ending.REFUSED, code) == "") is has_none
    assert likely_cause(Ending.UPDATED, code) == ""


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({"succeeded": True, "completion_code": 0}, Ending.UPDATED),
        ({"succeeded": None, "completion_code": 0}, Ending.NOT_KNOWN),
        ({"succeeded": False, "completion_code": 13}, Ending.REFUSED),
        ({"succeeded": False, "completion_code": 0xFFFF}, Ending.NOT_LOOKED),
        ({"succeeded": False, "completion_code": None}, Ending.NOT_LOOKED),
        ({"succeeded": False, "completion_code": 13, "ending": "from the future"}, Ending.REFUSED),
    ],
)
def test_a_result_that_an_older_openrbu_wrote_has_an_ending(
    fields: dict[str, object], ending: Ending
) -> None:
    assert ending_of(Attempt("x", (("started", NOW), ("result", NOW)), fields)) is ending
    assert ending_of(Attempt("x", (("started", NOW),), {})) is None
