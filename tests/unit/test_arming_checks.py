"""Whether the BIOS believes that it is armed: CMOS and its check values, ports that nobody answers;
and what is said of the next restart."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.post_report import PostReport
from openrbu.cmos import read_first_bank, write_first_bank
from openrbu.errors import ExitCode, ObstacleError, UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.hosts.restart_command import SYSTEMD_RUNS
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.cmos import NVMEM
from openrbu.linux.reboot import KEXEC_LOADED, NEXT_ROOT
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import IoPorts
from openrbu.sharing.access import open_machine
from openrbu.update import arming_checks, flow
from openrbu.update.arm import NoAnswerError, activation_for, read_armed
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Question, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import NextRestart, read_status
from openrbu.update.restarted import update_failure
from openrbu.update.target import read_target
from rigs.cli import RBU, Cli
from rigs.machines import (
    REBOOT_MODE,
    PortsOnly,
    Quiet,
    Watched,
    image,
    make,
    running,
    status,
    update,
)

RANGE = "the check value over the indexes 0x40 to 0x5b is wrong"


def spoil(ports: IoPorts) -> None:
    """What the issue's line of Python does to CMOS."""
    write_first_bank(ports, 0x45, 0x99)


def kinds(host: Any, **options: Any) -> list[str]:
    what = image(host._machine.config.model) if isinstance(host, VirtualHost) else image()
    return [each.kind for each in make_plan(host, what, Options(**options)).obstacles]


# -- check values ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["poweredge-2650", "precision-390"])
def test_a_wrong_check_value_is_an_obstacle_with_its_range(tmp_path: Path, model: str) -> None:
    with running(make(tmp_path, model)) as machine:
        host = VirtualHost(machine)
        spoil(machine.cmos)
        before = status(machine)
        plan = make_plan(host, image(model), Options())
        (obstacle,) = plan.obstacles
        assert (obstacle.kind, obstacle.exit_code) == ("cmos_not_believed", ExitCode.OBSTACLE)
        assert RANGE in obstacle.message
        assert "--mend-cmos" in obstacle.message
        with pytest.raises(ObstacleError, match=RANGE):
            flow.perform(host, plan, Quiet())
        assert status(machine) == before


def test_a_check_value_that_went_wrong_after_the_plan_is_seen_before_anything_is_staged(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        plan = make_plan(host, image(), Options())
        spoil(machine.cmos)
        before = status(machine)
        with pytest.raises(ObstacleError, match=RANGE):
            flow.perform(host, plan, Quiet())
        assert status(machine) == before


def test_a_check_value_that_goes_wrong_while_it_is_staged_is_seen_after_arming(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:

        def at_the_end(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "write" and arguments[0] == REBOOT_MODE:
                spoil(machine.cmos)

        with pytest.raises(UpdateFailedError, match=f"would ignore its token: in CMOS {RANGE}"):
            update(Watched(VirtualHost(machine), at_the_end), image())
        now = read_status(VirtualHost(machine))
        assert (now.is_armed, now.staged_size_bytes, now.restart_mode) == (False, 0, "cold")


def test_a_wrong_check_value_is_mended_where_that_is_asked_for_and_the_bios_takes_the_update(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        spoil(machine.cmos)
        plan = make_plan(host, image(), Options(mend_cmos=True))
        assert plan.obstacles == ()
        assert any(RANGE in note for note in plan.notes)
        flow.perform(host, plan, Quiet())
        assert read_status(host).next_restart is NextRestart.UPDATES
        assert read_first_bank(machine.cmos, 0x45) == 0x99
        assert machine.restart().version_after == "2.3.0"


class Deaf:
    """CMOS of which one byte keeps its value."""

    def __init__(self, ports: IoPorts, index: int) -> None:
        self._ports, self._deaf = ports, index
        self._index = 0

    def out8(self, port: int, value: int) -> None:
        if port == 0x70:
            self._index = value
        elif self._index == self._deaf:
            return
        self._ports.out8(port, value)

    def in8(self, port: int) -> int:
        return self._ports.in8(port)


class Disturbed:
    """CMOS of which one read, or some in a row, bring another byte: the kernel's clock came in
    between."""

    def __init__(self, ports: IoPorts, number: int, times: int = 1) -> None:
        self._ports, self._left, self._times = ports, number, times

    def out8(self, port: int, value: int) -> None:
        self._ports.out8(port, value)

    def in8(self, port: int) -> int:
        self._left -= 1
        return self._ports.in8(port) ^ (0x5A if -self._times < self._left <= 0 else 0)


@pytest.mark.parametrize("number", [2, 10, 29, 30, 31])
def test_a_byte_that_was_read_wrong_once_is_no_wrong_check_value(
    tmp_path: Path, number: int
) -> None:
    with running(make(tmp_path)) as machine:
        disturbed = Disturbed(machine.cmos, number)
        host = PortsOnly(VirtualHost(machine), disturbed)
        assert make_plan(host, image(), Options()).obstacles == ()
        assert disturbed._left < 0


@pytest.mark.parametrize("number", [11, 29])
def test_nor_is_one_that_was_read_wrong_twice_in_the_same_way(tmp_path: Path, number: int) -> None:
    """Two reads that agree are taken for the byte; CMOS has to look wrong several times."""
    with running(make(tmp_path)) as machine:
        disturbed = Disturbed(machine.cmos, number, times=2)
        host = PortsOnly(VirtualHost(machine), disturbed)
        switch = activation_for(host, read_target(host))
        disturbed._left = number
        assert arming_checks.wrong_checks(switch) == ""
        assert disturbed._left < 0


def test_a_mended_check_value_is_put_back_when_the_update_fails(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        spoil(machine.cmos)
        before = status(machine)
        host = PortsOnly(VirtualHost(machine), Deaf(machine.cmos, 0x78))
        with pytest.raises(UpdateFailedError, match=r"token does not stay set$"):
            update(host, image(), mend_cmos=True)
        assert status(machine) == before


def test_where_nothing_is_wrong_there_is_nothing_to_mend(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        plan = make_plan(host, image(), Options(mend_cmos=True))
        assert not any("--mend-cmos" in note for note in plan.notes)
        before = (machine.directory / "cmos").read_bytes()
        undone: list[str] = []
        arming_checks.repair_checks(
            activation_for(host, plan.target), lambda what, _: undone.append(what)
        )
        assert undone == []
        flow.perform(host, plan, Quiet())
        cancel(host)
        assert (machine.directory / "cmos").read_bytes() == before


def test_a_token_behind_the_smi_is_in_no_cmos(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600")) as machine:
        spoil(machine.cmos)
        host = VirtualHost(machine)
        update(host, image("precision-t7600"), mend_cmos=True)
        assert read_status(host).next_restart is NextRestart.UPDATES
        assert machine.restart().version_after == "A02"


def test_the_bios_drops_what_it_does_not_believe_at_the_next_start(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        update(VirtualHost(machine), image())
        spoil(machine.cmos)
        report = machine.restart()
        assert not report.attempted
        assert RANGE in report.reason
        now = read_status(VirtualHost(machine))
        assert (now.is_armed, now.cmos_doubt) == (False, "")
        update(VirtualHost(machine), image())
        assert machine.restart().version_after == "2.3.0"


# -- the next restart -----------------------------------------------------------------------


def test_status_says_what_the_next_restart_will_do(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)

        def next_restart() -> NextRestart:
            return read_status(host).next_restart

        assert next_restart() is NextRestart.CHANGES_NOTHING
        update(host, image())
        assert next_restart() is NextRestart.UPDATES
        host.write(REBOOT_MODE, b"cold")
        assert next_restart() is NextRestart.CLEARS_MEMORY
        assert machine.restart().completion_code is CompletionCode.IMAGE_NOT_FOUND
        update(host, image())
        cancel(host)
        activation_for(host, read_target(host)).arm()
        assert next_restart() is NextRestart.FINDS_NOTHING
        spoil(machine.cmos)
        assert next_restart() is NextRestart.IGNORES_TOKEN
        assert not machine.restart().attempted
        activation_for(host, read_target(host)).arm()
        assert next_restart() is NextRestart.FINDS_NOTHING
        assert machine.restart().completion_code is CompletionCode.IMAGE_NOT_FOUND


@pytest.mark.parametrize("path", [KEXEC_LOADED, NEXT_ROOT])
def test_status_says_that_the_next_restart_skips_the_bios(tmp_path: Path, path: str) -> None:
    """systemd runs, and a kernel is loaded for kexec, or a root for a soft reboot is there."""

    class Detouring(VirtualHost):
        def exists(self, wanted: str) -> bool:
            return wanted in (path, SYSTEMD_RUNS) or super().exists(wanted)

        def chunks(self, wanted: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
            if wanted == path:
                return iter([b"1\n"])
            return super().chunks(wanted, size_bytes, offset)

    with running(make(tmp_path)) as machine:
        assert read_status(Detouring(machine)).next_restart is NextRestart.CHANGES_NOTHING
        update(VirtualHost(machine), image())
        now = read_status(Detouring(machine))
        assert now.next_restart is NextRestart.SKIPS_BIOS
        assert re.search("a plain systemctl reboot .*: restart by SYSTEMCTL_SKIP_AUTO", now.detour)


def test_a_token_that_can_not_be_read_leaves_the_next_restart_unknown(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600")) as machine:
        assert read_status(VirtualHost(machine)).next_restart is NextRestart.UNKNOWN


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 called m, with BIOS A05."""
    assert rbu("machine", "new", "m", "--ram", "256M").code == 0
    return rbu


def poke(act: Callable[[IoPorts], None]) -> None:
    with open_machine("m") as machine:
        act(machine.ports)


def arm_with_nothing_staged() -> None:
    with open_machine("m") as machine:
        host = VirtualHost(machine)
        cancel(host)
        activation_for(host, read_target(host)).arm()


@pytest.mark.parametrize(
    ("step", "word", "says"),
    [
        (lambda rbu: None, "updates", "yes: the next restart updates the BIOS"),
        (lambda rbu: poke(spoil), "ignores_token", "the BIOS will ignore it"),
        (
            lambda rbu: arm_with_nothing_staged(),
            "finds_nothing",
            "yes, but nothing is staged: the next restart finds no image (0x000d), or one that",
        ),
        (lambda rbu: rbu("cancel", "-m", "m"), "changes_nothing", "armed:        no"),
    ],
)
def test_status_says_armed_only_with_what_comes_of_it(
    demo: Cli, step: Callable[[Cli], object], word: str, says: str
) -> None:
    assert demo("update", demo.image(), "-m", "m").code == 0
    step(demo)
    assert demo.json("status", "-m", "m")["next_restart"] == word
    assert says in demo("status", "-m", "m").out


def test_the_issues_machine_is_not_armed_in_vain(demo: Cli) -> None:
    poke(spoil)
    document = demo.json("update", demo.image(), "-m", "m", "--reboot", code=4)
    assert (document["changed"], document["plan"]["obstacles"][0]["kind"]) == (
        False,
        "cmos_not_believed",
    )
    now = demo.json("status", "-m", "m")
    assert (now["is_armed"], now["next_restart"]) == (False, "changes_nothing")
    assert RANGE in now["cmos_doubt"]
    done = demo.json("update", demo.image(), "-m", "m", "--reboot", "--mend-cmos")
    assert done["result"]["version_after"] == "A06"
    assert demo.json("status", "-m", "m")["cmos_doubt"] is None


def test_a_restart_in_which_cmos_was_not_believed_ends_with_1_and_why(
    demo: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = VirtualMachine.restart

    def spoiled(machine: VirtualMachine, *, cold: bool | None) -> PostReport:
        spoil(machine.cmos)
        return restart(machine, cold=cold)

    monkeypatch.setattr(VirtualMachine, "restart", spoiled)
    document = demo.json("update", demo.image(), "-m", "m", "--reboot", code=1)
    assert (document["restarted"], document["is_armed"]) == (True, False)
    message = document["error"]["message"]
    assert message.startswith("the restart brought no update: in CMOS the check value")
    assert RANGE in message
    assert message.endswith("A05 runs")
    assert RANGE in document["result"]["reason"]


def test_a_restart_that_found_none_armed_ends_with_1(
    demo: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = VirtualMachine.restart

    def disarmed(machine: VirtualMachine, *, cold: bool | None) -> PostReport:
        host = VirtualHost(machine)
        activation_for(host, read_target(host)).disarm()
        return restart(machine, cold=cold)

    monkeypatch.setattr(VirtualMachine, "restart", disarmed)
    ended = demo("update", demo.image(), "-m", "m", "--reboot")
    assert ended.code == 1
    says = "rbu: the restart brought no update: the BIOS found none armed; A05 runs\n"
    assert ended.err == says
    assert "none was armed" in ended.out


@pytest.mark.parametrize(
    ("post", "says"),
    [
        (PostReport("A05", "A06", CompletionCode.COMPLETED), None),
        (PostReport("A05", "a06", CompletionCode.COMPLETED), None),
        (
            PostReport("A05", "A05", CompletionCode.COMPLETED),
            "the BIOS says completed, but A05 runs, not A06",
        ),
        (PostReport("A05", "A05", CompletionCode.NO_BATTERY), "did not install the update"),
        (PostReport("A05", "A05"), "the BIOS found none armed; A05 runs"),
    ],
)
def test_a_restart_is_a_success_with_a_completed_update_of_the_version_that_was_wanted(
    post: PostReport, says: str | None
) -> None:
    failure = update_failure(post, BiosVersion.parse("A06"))
    if says is None:
        assert failure is None
    else:
        assert says in str(failure)


# -- the way to the token, and what is said of it ------------------------------------------


def rows(host: Any, what: Any = None, **options: Any) -> dict[str, tuple[Verdict, str]]:
    """What a plan says of arming: by the check's name, its verdict, and what was found."""
    plan = make_plan(host, what or image(), Options(**options))
    of_arming = [check for check in plan.checks if check.question is Question.ARMING]
    return {check.name: (check.verdict, check.found) for check in of_arming}


def test_a_plan_says_that_the_token_is_there_how_it_is_reached_and_that_a_bios_believes_it(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        said = rows(host)
        assert said["cmos_way"] == (
            Verdict.FINE,
            f"CMOS is reached through {NVMEM}, which keeps the kernel's clock driver out",
        )
        assert said["cmos"] == (
            Verdict.FINE,
            "the check values over the indexes 0x40 to 0x5b of CMOS are right",
        )
        assert said["token"] == (
            Verdict.FINE,
            f"the activation token can be read through {NVMEM}, and is clear",
        )
        spoil(machine.cmos)
        assert rows(host)["cmos"][0] is Verdict.IN_THE_WAY
        assert rows(host, mend_cmos=True)["cmos"][0] is Verdict.HANDLED


def test_a_plan_says_why_only_ports_lead_to_cmos(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        verdict, found = rows(PortsOnly(VirtualHost(machine), machine.cmos))["cmos_way"]
        assert verdict is Verdict.HANDLED
        assert found == (
            "CMOS is reached through /dev/port only, where the kernel's clock driver can come in "
            f"between ({NVMEM}: No such file or directory; "
            "/dev/nvram: No such file or directory (modprobe nvram))"
        )


def test_a_token_of_the_calling_interface_has_no_cmos(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600")) as machine:
        host = VirtualHost(machine)
        host.load_module("dcdbas", {})
        said = rows(host, image("precision-t7600"))
        assert not {"cmos", "cmos_way"} & set(said)
        assert "through /sys/devices/platform/dcdbas/smi_request" in said["token"][1]


def test_status_update_and_cancel_say_the_way_to_the_token(demo: Cli) -> None:
    def way(*words: str | Path) -> Any:
        return demo.json(*words, "-m", "m")["token_way"]

    assert way("status") == NVMEM
    assert f"the token is read through {NVMEM}" in demo("status", "-m", "m").out
    assert way("update", demo.image("A06")) == NVMEM
    assert demo.json("history", "-m", "m")["updates"][-1]["outcome"] == "armed"
    assert way("cancel") == NVMEM


def test_status_says_why_the_token_can_not_be_read(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        now = read_status(PortsOnly(VirtualHost(machine), None))
        assert (now.is_armed, now.token_way) == (None, "")
        assert "/dev/port: No such file or directory" in now.token_problem
    with running(make(tmp_path, "precision-t7600", name="smi")) as machine:
        now = read_status(VirtualHost(machine))
        assert (now.is_armed, now.token_way) == (None, "")
        assert now.token_problem == "the dcdbas module is not loaded (modprobe dcdbas)"


# -- ports that nobody answers --------------------------------------------------------------


class Floating:
    """Ports with nothing behind them."""

    def out8(self, port: int, value: int) -> None:
        pass

    def in8(self, port: int) -> int:
        return 0xFF


def test_ports_that_nobody_answers_are_an_obstacle_of_their_own_and_not_an_armed_update(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = PortsOnly(VirtualHost(machine), Floating())
        target = read_target(host)
        plan = make_plan(host, image(), Options())
        (obstacle,) = plan.obstacles
        assert obstacle.kind == "ports_do_not_answer"
        assert "ports 0x70 and 0x71 read as all ones" in obstacle.message
        assert read_armed(host, target) is None
        now = read_status(host)
        assert (now.next_restart, now.is_armed) == (NextRestart.UNKNOWN, None)
        assert "does not respond" in now.cmos_doubt
        with pytest.raises(NoAnswerError, match="read as all ones"):
            cancel(host)
        with pytest.raises(ObstacleError, match="read as all ones"):
            flow.perform(host, plan, Quiet())


def test_a_byte_of_ones_alone_is_an_armed_token(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        write_first_bank(machine.cmos, 0x78, 0xFF)
        assert kinds(VirtualHost(machine)) == ["armed_already"]


# -- standard output ------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--json",), ("--json", "--reboot")])
def test_an_update_whose_output_can_not_be_written_leaves_the_machine_as_it_was(
    demo: Cli, words: tuple[str, ...]
) -> None:
    path, before = demo.image(), demo.json("status", "-m", "m")
    with Path("/dev/full").open("wb") as full:
        command = [*RBU, "update", str(path), "-m", "m", *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert b"output can't be written: No space left on device" in ended.stderr
    assert demo.json("status", "-m", "m") == before
    assert demo.json("history", "-m", "m")["updates"] == []


def test_the_document_of_an_update_is_the_only_thing_on_standard_output(demo: Cli) -> None:
    ended = demo("update", demo.image(), "-m", "m", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.document["is_armed"] is True
