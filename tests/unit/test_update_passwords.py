"""Updates of a machine with an admin password: asked, verified, passed on, and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.smi import SmiHandler
from openrbu.drivers.dcdbas import Dcdbas
from openrbu.errors import ExitCode, ObstacleError, UpdateFailedError, UsageError
from openrbu.formats.tokens import SmiCall, SmiToken
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.update import flow
from openrbu.update.arm import activation_for, read_armed, set_armed, unlock
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Verdict
from openrbu.update.options import Options
from openrbu.update.passwords import PasswordNeededError, WrongPasswordError, admin_password
from openrbu.update.plan import Plan, make_plan
from openrbu.update.report import read_status
from openrbu.update.target import read_target
from rigs.machines import Quiet, Watched, files, image, make, running, status
from rigs.run import xen_order

MODEL = "precision-t7600"
PASSWORD, WRONG = "Tall1-Tr", "Tall2-Tr"
READ, WRITE = (0, 0), (1, 0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, MODEL, admin_password=PASSWORD)) as machine:
        yield machine


@pytest.fixture
def host(machine: VirtualMachine) -> VirtualHost:
    return VirtualHost(machine)


@pytest.fixture
def loaded(host: VirtualHost) -> VirtualHost:
    """With dcdbas, so that a plan can ask the BIOS."""
    host.load_module("dcdbas", {})
    return host


def as_older_bios(machine: VirtualMachine) -> None:
    """From now on the BIOS is one that gets a password as scan codes in the arguments."""
    handler = machine._smi
    assert isinstance(handler, SmiHandler)
    handler._memory = None


def calls_of(machine: VirtualMachine) -> list[SmiCall]:
    """The calls that the BIOS gets from now on. dcdbas is loaded."""
    module = machine.running_kernel().modules["dcdbas"]
    assert isinstance(module, Dcdbas)
    answer, calls = module._smi, []

    def listening(buffer: bytes) -> bytes:
        calls.append(SmiCall.unpack(buffer))
        return answer(buffer)

    module._smi = listening
    return calls


def operations(calls: list[SmiCall]) -> list[tuple[int, int]]:
    return [(call.smi_class, call.smi_select) for call in calls]


def plan_for(host: VirtualHost, **options: Any) -> Plan:
    return make_plan(host, image(MODEL), Options(**options))


def verdict(plan: Plan) -> tuple[Verdict, str]:
    """Of the password: the verdict, and what is said."""
    (check,) = (each for each in plan.checks if each.name == "admin_password")
    return check.verdict, check.message


# -- the security key -----------------------------------------------------------------------


@pytest.mark.parametrize("is_older", [False, True])
def test_a_token_is_set_and_cleared_with_the_key_that_the_bios_gives(
    machine: VirtualMachine, loaded: VirtualHost, is_older: bool
) -> None:
    if is_older:
        as_older_bios(machine)
    calls = calls_of(machine)
    token = activation_for(loaded, read_target(loaded), PASSWORD)
    set_armed(token, armed=True)
    assert read_armed(loaded, read_target(loaded))
    set_armed(token, armed=False)
    verify = (10, 1) if is_older else (10, 4)
    assert operations(calls) == [(10, 3), (10, 0), verify, WRITE, READ, READ, WRITE, READ]
    first, second = (call for call in calls if (call.smi_class, call.smi_select) == WRITE)
    assert first.arguments[2] == second.arguments[2] != 0


def test_a_bios_under_xen_finds_the_password_in_the_memory_of_dom0(tmp_path: Path) -> None:
    directory = make(tmp_path, MODEL, admin_password=PASSWORD, **xen_order("linux"))
    with running(directory) as machine:
        host = VirtualHost(machine)
        set_armed(activation_for(host, read_target(host), PASSWORD), armed=True)


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("password", [WRONG, WRONG + "ee-and-more", "é"])
def test_a_wrong_password_is_tried_once_at_most_and_sets_nothing(
    machine: VirtualMachine, loaded: VirtualHost, is_older: bool, password: str
) -> None:
    if is_older:
        as_older_bios(machine)
    calls = calls_of(machine)
    token = activation_for(loaded, read_target(loaded), password)
    with pytest.raises(WrongPasswordError) as caught:
        token.arm()
    assert password not in str(caught.value)
    assert sum(select in (1, 4) for _, select in operations(calls)) <= 1
    assert WRITE not in operations(calls)


def test_a_key_that_is_not_asked_for_is_0_and_the_refusal_is_told(loaded: VirtualHost) -> None:
    token = activation_for(loaded, read_target(loaded), without_password=True)
    with pytest.raises(UpdateFailedError, match="error -1 to a token request"):
        token.arm()


def test_a_password_that_is_not_given_is_asked_for(loaded: VirtualHost) -> None:
    token = activation_for(loaded, read_target(loaded))
    with pytest.raises(PasswordNeededError, match="--password-file"):
        unlock(token)
    assert token.is_armed is False


@pytest.mark.parametrize("results", [(-2, 0), (-1, 7)])
def test_a_bios_that_knows_no_passwords_gets_the_key_0(
    tmp_path: Path, results: tuple[int, int]
) -> None:
    with running(make(tmp_path, MODEL)) as machine:
        host = VirtualHost(machine)
        host.load_module("dcdbas", {})
        module = machine.running_kernel().modules["dcdbas"]
        assert isinstance(module, Dcdbas)
        bios = module._smi

        def answer(buffer: bytes) -> bytes:
            call = SmiCall.unpack(buffer)
            if call.smi_class != 10:
                return bios(buffer)
            return replace(call, results=(*results, 0, 0)).pack() + buffer[52:]

        module._smi = answer
        set_armed(activation_for(host, read_target(host)), armed=True)
        assert admin_password(host, read_target(host)).answer is None


@pytest.mark.parametrize(
    ("properties", "said", "is_set"),
    [
        ((0, 0x01002000), 0, True),
        ((0, 0x01002000), 2, True),
        ((0, 0x01002000), -2, True),
        ((0, 0x01002000), 1, False),
        ((0, 0x01002001), 0, False),
        ((-2, 0), 0, True),
        ((-2, 0), 2, True),
        ((-2, 0), 1, False),
        ((-2, 0), 3, False),
        ((-2, 0), -2, None),
    ],
)
def test_whether_one_is_set_is_read_as_libsmbios_reads_it(
    machine: VirtualMachine,
    loaded: VirtualHost,
    properties: tuple[int, int],
    said: int,
    is_set: bool | None,
) -> None:
    module = machine.running_kernel().modules["dcdbas"]
    assert isinstance(module, Dcdbas)

    def answer(buffer: bytes) -> bytes:
        call = SmiCall.unpack(buffer)
        results = (*properties, 0, 0) if call.smi_select == 3 else (said, 0, 0, 0)
        return replace(call, results=results).pack() + buffer[52:]

    module._smi = answer
    assert admin_password(loaded, read_target(loaded)).answer is is_set


def test_a_bios_that_does_not_reply_has_no_password_and_sets_no_token(
    machine: VirtualMachine, loaded: VirtualHost
) -> None:
    """The buffer comes back as it was. Zeros in its results would say "set" and "done"."""
    module = machine.running_kernel().modules["dcdbas"]
    assert isinstance(module, Dcdbas)
    module._smi = lambda buffer: buffer
    target = read_target(loaded)
    known = admin_password(loaded, target)
    assert (known.answer, known.security_key(PASSWORD)) == (None, 0)
    with pytest.raises(UpdateFailedError, match="did not reply"):
        activation_for(loaded, target, PASSWORD).arm()


# -- a plan ---------------------------------------------------------------------------------


def test_a_plan_asks_the_bios_where_it_can_and_changes_nothing(
    machine: VirtualMachine, loaded: VirtualHost
) -> None:
    read_armed(loaded, read_target(loaded))
    before = files(machine.directory, leave_out=("lock", "summary"))
    for mode in ("packet", "mono"):
        fine = plan_for(loaded, mode=mode, password=PASSWORD)
        text = "the BIOS takes the admin password (up to 32 characters)"
        assert verdict(fine) == (Verdict.FINE, text)
        assert "password" not in str([each.kind for each in fine.obstacles])
        for options, kind in (({}, "password_needed"), ({"password": WRONG}, "wrong_password")):
            plan = plan_for(loaded, mode=mode, **options)
            kinds = {each.kind: each.exit_code for each in plan.obstacles}
            assert kinds[kind] is ExitCode.OBSTACLE
            assert WRONG not in str(plan.checks)
    assert verdict(plan_for(loaded, without_password=True))[0] is Verdict.UNKNOWN
    assert files(machine.directory, leave_out=("lock", "summary")) == before


def test_a_plan_says_what_the_password_of_an_older_bios_is_like(
    machine: VirtualMachine, loaded: VirtualHost
) -> None:
    as_older_bios(machine)
    found = verdict(plan_for(loaded, password=PASSWORD))
    assert found == (Verdict.FINE, "the BIOS takes the admin password (up to 8 keys)")


def test_a_plan_without_the_module_says_what_smbios_says(host: VirtualHost) -> None:
    assert verdict(plan_for(host))[0] is Verdict.IN_THE_WAY
    given = verdict(plan_for(host, password=WRONG))
    assert given[0] is Verdict.HANDLED
    assert "it is verified before anything is staged" in given[1]
    assert not host.module_is_loaded("dcdbas")


def test_a_plan_believes_a_bios_that_says_that_no_password_is_set(tmp_path: Path) -> None:
    with running(make(tmp_path, MODEL)) as machine:
        host = VirtualHost(machine)
        host.load_module("dcdbas", {})
        found = verdict(plan_for(host))
    assert found == (Verdict.FINE, "the BIOS says that no BIOS admin password is set")


def test_a_bios_that_can_not_be_asked_is_told_and_the_plan_goes_on(loaded: VirtualHost) -> None:
    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "path_lock":
            raise ObstacleError("the lock is kept")

    watched = Watched(loaded, refuse)
    checks = make_plan(watched, image(MODEL), Options()).checks
    doubt, by_smbios = (each for each in checks if each.name == "admin_password")
    assert (doubt.verdict, by_smbios.kind) == (Verdict.UNKNOWN, "password_needed")
    assert "the lock is kept" in doubt.message


def test_a_plan_says_who_else_may_change_the_token(tmp_path: Path) -> None:
    for model, password, said in (
        (MODEL, PASSWORD, "only who gives the BIOS admin password"),
        (MODEL, None, "no BIOS admin password is known to be set"),
        ("precision-390", PASSWORD, "because the BIOS's password does not protect CMOS"),
        ("precision-390", None, "because no password protects CMOS"),
    ):
        directory = make(tmp_path / f"{model}-{password}", model, admin_password=password)
        with running(directory) as machine:
            host = VirtualHost(machine)
            for options in (Options(), Options(password=WRONG)):
                checks = make_plan(host, image(model), options).checks
                (check,) = (each for each in checks if each.name == "token_writers")
                assert (check.verdict, said in check.found) == (Verdict.FINE, True)


def test_a_password_that_a_bios_can_not_verify_is_told(
    machine: VirtualMachine, loaded: VirtualHost
) -> None:
    """It says that one is set, and nothing else."""
    as_older_bios(machine)
    machine.nvram.contents.admin_password_keys_crc = None
    plan = plan_for(loaded, password=PASSWORD)
    assert verdict(plan)[0] is Verdict.UNKNOWN
    assert "no call that verifies it" in verdict(plan)[1]
    with pytest.raises(UpdateFailedError, match="error -1 to a token request"):
        flow.perform(loaded, plan, Quiet())
    assert not read_status(loaded).is_armed


def test_a_password_and_that_there_is_none_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="don't go together"):
        Options(password=PASSWORD, without_password=True)


def test_a_password_for_a_bios_behind_cmos_is_verified_by_nobody(tmp_path: Path) -> None:
    with running(make(tmp_path, admin_password=PASSWORD)) as machine:
        host = VirtualHost(machine)
        plan = make_plan(host, image(), Options(mode="packet", password=WRONG))
        assert (verdict(plan)[0], plan.obstacles) == (Verdict.UNKNOWN, ())
        assert "nothing verifies it before the restart" in verdict(plan)[1]


# -- the mode -------------------------------------------------------------------------------


def test_a_password_has_packets_chosen_where_memory_goes_above_4_gib(tmp_path: Path) -> None:
    """A monolithic image would be below, but has no place for it."""
    directory = make(tmp_path, "precision-390", admin_password=PASSWORD, ram_bytes=6 << 30)
    with running(directory) as machine:
        host = VirtualHost(machine)
        given = make_plan(host, image(), Options(password=PASSWORD))
        silent = make_plan(host, image(), Options())
        without = make_plan(host, image(), Options(without_password=True))
    assert (given.mode, [each.kind for each in given.obstacles]) == ("packet", [])
    assert (silent.mode, [each.kind for each in silent.obstacles]) == (
        "packet",
        ["password_needed"],
    )
    assert (without.mode, without.obstacles) == ("mono", ())


def test_an_update_with_a_password_goes_through_where_memory_goes_above_4_gib(
    tmp_path: Path,
) -> None:
    """On a BIOS that looks below 4 GiB only, and wants its password in packet 0."""
    directory = make(
        tmp_path,
        "precision-390",
        admin_password=PASSWORD,
        ram_bytes=6 << 30,
        bios_rules="published",
    )
    with running(directory) as machine:
        host = VirtualHost(machine)
        done = flow.perform(host, make_plan(host, image(), Options(password=PASSWORD)), Quiet())
        assert done is not None
        assert done.mode == "packet"
        machine.restart()
        assert machine.flash.current.version == image().header.version.text


def test_a_monolithic_image_is_refused_with_a_password_only_where_packets_would_carry_it(
    tmp_path: Path,
) -> None:
    for model, wanted in (
        ("precision-390", ["password_needs_packets"]),
        ("poweredge-2650", []),
        (MODEL, []),
    ):
        with running(make(tmp_path / model, model, admin_password=PASSWORD)) as machine:
            options = Options(mode="mono", password=PASSWORD)
            plan = make_plan(VirtualHost(machine), image(model), options)
            assert [each.kind for each in plan.obstacles] == wanted, model


# -- an update and a cancel -----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["packet", "mono"])
def test_an_update_with_the_password_goes_through(
    machine: VirtualMachine, host: VirtualHost, mode: str
) -> None:
    assert flow.perform(host, plan_for(host, mode=mode, password=PASSWORD), Quiet()) is not None
    assert read_status(host).is_armed
    machine.restart()
    assert machine.flash.current.version == image(MODEL).header.version.text


def test_a_wrong_password_ends_an_update_before_anything_is_staged(
    machine: VirtualMachine, host: VirtualHost
) -> None:
    before, steps = status(machine), []
    plan = plan_for(host, password=WRONG)

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        steps.append((name, *arguments[:1]))

    with pytest.raises(WrongPasswordError, match="tried once"):
        flow.perform(Watched(host, watch), plan, Quiet())
    assert status(machine) == before
    assert not any("dell_rbu" in str(path) for name, path, *_ in steps if name == "write")
    (last,) = (line for line in host.journal_path.read_text().splitlines() if "failed" in line)
    assert WRONG not in last


def test_cancelling_takes_the_password_and_changes_nothing_without_it(
    machine: VirtualMachine, host: VirtualHost
) -> None:
    flow.perform(host, plan_for(host, password=PASSWORD), Quiet())
    before = status(machine)
    with pytest.raises(PasswordNeededError):
        cancel(host)
    with pytest.raises(WrongPasswordError):
        cancel(host, WRONG)
    assert status(machine) == before
    done = cancel(host, PASSWORD)
    assert (done.was_armed, done.was_staged, done.problem) == (True, True, "")
    assert not read_status(host).is_armed


def test_what_is_only_staged_is_cancelled_without_the_password(host: VirtualHost) -> None:
    from openrbu.update import stage

    stage.load_driver(host, "packet")
    payload = stage.make_payload(
        image(MODEL).build(), mode="packet", packet_size_bytes=4096, password=None
    )
    stage.stage(host, payload, lambda count: None)
    assert cancel(host).was_staged


def test_a_token_of_the_calling_interface_shows_no_password(host: VirtualHost) -> None:
    token = activation_for(host, read_target(host), PASSWORD)
    token.arm()
    assert PASSWORD not in repr(token)
    assert isinstance(read_target(host).tokens.activate, SmiToken)  # type: ignore[union-attr]
