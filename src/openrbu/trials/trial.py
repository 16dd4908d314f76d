"""One trial: a machine is made, the tool runs on it, the machine restarts, and it is looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from openrbu.bios.post_report import PostReport
from openrbu.drivers.dell_rbu import NAME as DRIVER
from openrbu.errors import ObstacleError, PowerFailedError
from openrbu.formats.dell import BiosInformation
from openrbu.formats.version import BiosVersion
from openrbu.kernel.kernel import Kernel
from openrbu.machine.factory import make_machine
from openrbu.machine.kernel_log import read_log
from openrbu.machine.virtual import VirtualMachine
from openrbu.run import programs
from openrbu.run.power import PowerAction, has_kexec
from openrbu.run.programs import ProgramEnd
from openrbu.system.home import HOME_VARIABLE
from openrbu.system.processes import end_descendants
from openrbu.trials.deadline import Deadline
from openrbu.trials.records import Order, TrialResult
from openrbu.trials.trial_files import HOME, MACHINE, OUTPUT
from openrbu.trials.verdicts import Seen, judge

_SAID_BYTES = 4096
_SAID_LINES = 5


def perform(order: Order, directory: Path, deadline: Deadline) -> TrialResult:
    """Do a trial in `directory`, where the output of this process is the file `OUTPUT`.

    :raise UsageError: when the combination is none that a machine can be.
    :raise ObstacleError: when this computer does not allow it.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    machine = _make(order, directory / HOME)
    with VirtualMachine(machine) as opened:
        opened.power_on()
        version_before = _version(opened)
    began = time.monotonic()
    end = _run(machine, order, deadline)
    seconds = time.monotonic() - began
    end_descendants()  # a restart ends what the tool has left
    kernel_said = _last_of_log(machine)
    # A tool that has restarted the machine had not hung: what is left of it was killed.
    has_timed_out = deadline.has_passed and end.power is None
    seen = _look(machine, version_before, end, has_timed_out=has_timed_out)
    judgement = judge(seen, BiosVersion.parse(order.version), strict=order.strict)
    last = next((post for post in reversed(seen.posts) if post.attempted), None)
    code = None if last is None else last.completion_code
    return TrialResult(
        combination=order.combination,
        verdict=judgement.verdict.value,
        why=judgement.why,
        exit_status=end.status,
        version_before=version_before,
        version_after=seen.version_after,
        completion_code=None if code is None else int(code),
        found_in_held_memory=None if last is None else last.found_in_held_memory,
        restarted_itself=end.power is PowerAction.RESTART,
        tool_said=_last_lines(directory / OUTPUT),
        kernel_said=kernel_said,
        seconds=round(seconds, 3),
    )


def _run(machine: Path, order: Order, deadline: Deadline) -> ProgramEnd:
    """Run the tool, until the deadline at most.

    :raise GivenUpError: when the trial is given up.
    :raise ObstacleError: when this computer does not allow it.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    try:
        with deadline.running(order.timeout_s):
            (end,) = programs.run_all(machine, [order.command])
    except PowerFailedError:  # in the tool's own restart
        end = ProgramEnd(0)
    except ObstacleError:
        deadline.check()
        if not deadline.has_passed:
            raise
        end = ProgramEnd(-signal.SIGKILL)  # it was killed before it had begun
    deadline.check()
    return end


def _make(order: Order, home: Path) -> Path:
    before = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(home)
    try:
        return make_machine(MACHINE, order.combination.spec)
    finally:  # the tool finds the home that it would find without us
        del os.environ[HOME_VARIABLE]
        if before is not None:
            os.environ[HOME_VARIABLE] = before


def _look(directory: Path, version_before: str, end: ProgramEnd, *, has_timed_out: bool) -> Seen:
    """Look at the machine, restart it, and look again. It is not restarted when it has crashed,
    when its tool had not ended, and when the tool has restarted it, with the BIOS or without."""
    posts = [] if end.restarted is None else [end.restarted.post]
    with VirtualMachine(directory) as machine:
        was_armed, was_loading = machine.is_armed, _is_loading(machine.kernel)
        was_off, has_crashed = not machine.is_on, _has_crashed(machine)
    has_restarted = end.power in (PowerAction.RESTART, PowerAction.KEXEC)
    if not (has_timed_out or has_crashed or has_restarted):
        posts += _restarted(directory)
    with VirtualMachine(directory) as machine:
        return Seen(
            version_before=version_before,
            version_after=_version(machine),
            was_armed=was_armed,
            was_loading=was_loading,
            was_off=was_off,
            is_armed=machine.is_armed,
            has_crashed=has_crashed,
            has_timed_out=has_timed_out,
            posts=tuple(posts),
        )


def _restarted(directory: Path) -> list[PostReport]:
    """Restart a machine as its user would; what its BIOS did, nothing where another kernel is
    started by kexec. Where the power fails meanwhile, it is switched on again."""
    while True:  # at the second start the BIOS does not begin again
        with contextlib.suppress(PowerFailedError), VirtualMachine(directory) as machine:
            if machine.is_on and has_kexec(machine):
                machine.kexec()
                return []
            return [machine.restart()]


def _version(machine: VirtualMachine) -> str:
    return BiosInformation.of(machine.tables).version


def _is_loading(kernel: Kernel | None) -> bool:
    """Whether a load into the driver has begun and not ended."""
    if kernel is None:
        return False
    request = kernel.firmware.snapshot().requests.get(DRIVER)
    return request is not None and request.is_loading


def _has_crashed(machine: VirtualMachine) -> bool:
    return machine.kernel is not None and machine.kernel.is_dead


def _last_of_log(machine: Path) -> str:
    """What the machine's kernel said last; empty: nothing."""
    return next((line.text for line in reversed(read_log(machine)) if line.event == "line"), "")


def _last_lines(path: Path) -> tuple[str, ...]:
    """The last lines of a file that are not empty."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SAID_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return tuple([line for line in lines if line.strip()][-_SAID_LINES:])
