"""Commands that have one machine only for a moment wait for each other, and for nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.machine import factory, store, turns
from openrbu.machine.removal import remove_machine
from openrbu.machine.store import InUseError
from openrbu.machine.virtual import VirtualMachine
from openrbu.sharing import access
from openrbu.system.waiting import Deadline
from rigs.cli import RBU, Cli
from rigs.served import A_DAY_S
from rigs.xen import Clock

_HOLDER = """
import sys
from pathlib import Path
from openrbu.machine import store
with store.locked(Path(sys.argv[1]), serving=len(sys.argv) > 2):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def box(rbu: Cli) -> Path:
    """The directory of the machine `demo`, which is on."""
    assert rbu("machine", "new", "demo", "--ram", "64M").code == 0
    return store.machine_directory("demo")


@contextlib.contextmanager
def held(directory: Path, *role: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has a machine until it gets no more input, or until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(directory), *role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(60)


def turn(clock: Clock) -> Deadline:
    return Deadline("the test", turns.TIMEOUT_S, clock=clock)


# -- commands at the same time ----------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("status", "-m", "demo"), ("module", "load", "dcdbas", "-m", "demo"), ("machine", "list")],
    ids=lambda words: words[0],
)
def test_commands_at_the_same_time_are_all_done(box: Path, words: tuple[str, ...]) -> None:
    (box / "summary").unlink()
    with held(box) as holder:
        commands = [
            subprocess.Popen([*RBU, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for _ in range(4)
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):
            commands[0].wait(1.5)  # until they have met the holder, on most computers
        let_go(holder)
    for command in commands:
        out, _ = command.communicate(timeout=60)
        assert command.returncode == 0, out
        assert b"in use" not in out


# -- by a clock that only goes on when it is waited for ---------------------------------------


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all turns in this process."""
    clock = Clock()
    monkeypatch.setattr(turns, "turn", lambda: turn(clock))
    return clock


def after(clock: Clock, waits: int, act: Callable[[], object]) -> list[float]:
    """Act once, when there were so many waits. When each wait ended."""
    ends: list[float] = []

    def waited() -> None:
        ends.append(clock.now_s)
        if len(ends) == waits:
            act()

    clock.waited = waited
    return ends


def test_a_new_machine_that_another_command_has_at_once_is_made_and_on(
    rbu: Cli, ticks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = factory.make_machine
    with contextlib.ExitStack() as stack:

        def make_and_meet(name: str, spec: factory.MachineSpec) -> Path:
            directory = make(name, spec)
            holder = stack.enter_context(held(directory))
            after(ticks, 3, lambda: let_go(holder))
            return directory

        monkeypatch.setattr(factory, "make_machine", make_and_meet)
        assert rbu.json("machine", "new", "demo", "--ram", "64M")["is_on"] is True


def test_a_new_machine_that_another_command_has_switched_on_stays(
    rbu: Cli, ticks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = factory.make_machine

    def make_and_start(name: str, spec: factory.MachineSpec) -> Path:
        directory = make(name, spec)
        with VirtualMachine(directory) as machine:
            machine.power_on()
        return directory

    monkeypatch.setattr(factory, "make_machine", make_and_start)
    assert rbu.json("machine", "new", "demo", "--ram", "64M")["is_on"] is True


COMMANDS = (("status", "-m", "demo"), ("cancel", "-m", "demo"), ("machine", "rm", "-y", "demo"))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_command_that_does_not_end_is_named_after_some_seconds(
    rbu: Cli, box: Path, ticks: Clock, words: tuple[str, ...]
) -> None:
    ends = after(ticks, 0, lambda: None)
    began_s = ticks.now_s
    with held(box) as holder:
        line = rbu.fails(4, *words)
    process = f"process {holder.pid}"
    assert line == f"rbu: machine 'demo' is in use by {process}: wait for it, or end it\n"
    assert ends[-1] - began_s == pytest.approx(turns.TIMEOUT_S)
    assert 50 < len(ends) < 150  # it is not asked for all the time


def test_a_list_waits_once_for_all_machines(rbu: Cli, box: Path, ticks: Clock) -> None:
    rbu.json("machine", "new", "other", "--ram", "64M")
    began_s = ticks.now_s
    with held(box), held(store.machine_directory("other")):
        told = rbu.json("machine", "list")["machines"]
    assert ["in use by process" in each["problem"] for each in told] == [True, True]
    assert ticks.now_s - began_s == pytest.approx(turns.TIMEOUT_S)


def test_a_machine_that_is_served_can_not_be_removed_and_that_is_said_at_once(
    rbu: Cli, box: Path, ticks: Clock
) -> None:
    began_s = ticks.now_s
    with held(box, "serving") as holder:
        line = rbu.fails(4, "machine", "rm", "-y", "demo")
    assert f"is served by process {holder.pid} (rbu mount or rbu run)" in line
    assert ticks.now_s == began_s


def test_a_process_does_not_wait_for_itself(box: Path, ticks: Clock) -> None:
    began_s = ticks.now_s
    for opened in (access.open_or_connect, access.open_for_reading, turns.locked_in_turn):
        with (
            store.locked(box),
            pytest.raises(InUseError, match=f"in use by process {os.getpid()}"),
            opened(box),
        ):
            pass
    assert ticks.now_s == began_s


def test_a_machine_that_is_removed_meanwhile_is_not_there_any_more(
    rbu: Cli, box: Path, ticks: Clock
) -> None:
    with held(box) as holder:
        after(ticks, 3, lambda: remove_machine(box))
        line = rbu.fails(4, "status", "-m", "demo")
        let_go(holder)
    assert line == "rbu: there is no machine 'demo'; make one: rbu machine new demo\n"
    assert not box.exists()


def test_a_machine_that_is_being_removed_is_left_alone(rbu: Cli, box: Path, ticks: Clock) -> None:
    """Else a file that is made in its directory keeps that from being removed."""
    with held(box) as holder:

        def half_removed() -> None:
            (box / "machine.json").unlink()
            (box / "lock").unlink()

        after(ticks, 3, half_removed)
        assert "there is no machine 'demo'" in rbu.fails(4, "machine", "rm", "-y", "demo")
        let_go(holder)
    assert not (box / "lock").exists()


# -- who ends the wait ------------------------------------------------------------------------

INTERRUPTED = (
    *COMMANDS,
    ("machine", "list"),
    ("machine", "reboot", "demo"),
    ("mount", "-m", "demo"),
)


_TELLING = f"""
import sys
from openrbu.cli.main import entry
from openrbu.machine import turns
from openrbu.system.waiting import MonotonicClock
wait = MonotonicClock.wait
def told(clock, seconds):
    print("waits", flush=True)
    wait(clock, seconds)
MonotonicClock.wait = told
turns.TIMEOUT_S = {A_DAY_S}
sys.exit(entry())
"""
"""`rbu` that says when it waits, which it would do for a day."""


@pytest.mark.parametrize("words", INTERRUPTED, ids=" ".join)
def test_ctrl_c_ends_the_wait_at_once(box: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (box / "summary").unlink()
    if words[0] == "mount":
        (tmp_path / "mnt").mkdir()
        words = ("mount", str(tmp_path / "mnt"), *words[1:])
    with held(box):
        command = subprocess.Popen(
            [sys.executable, "-c", _TELLING, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert command.stdout is not None
        assert command.stdout.readline() == "waits\n"
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGINT
    assert "in use" not in err
    assert "Traceback" not in err
