"""Runs a program that finds a virtual machine's files at their usual paths: `rbu run`.

Theory of operation. Three processes. The parent has the machine and serves its files from a thread.
Before it has any thread it forks the launcher (`openrbu.run.launcher`), and that forks the child,
which becomes the program (`openrbu.run.child`)::

    child                                       parent
    enters its namespaces                       opens the machine
    opens /dev/fuse, mounts it on /sys
    sends the descriptor            ── fd ──▶   serves it
                                    ◀─ "go" ──
    mounts the files at their paths
    guards this computer
    sends the filter's listener     ── fd ──▶   answers the calls that it tells of
    execs                           ── EOF ─▶   waits for the program's end

When something goes wrong in the child, it sends a message with the error in place of what the
parent waits for. When the parent ends, the machine has a power cut, and the child is killed.

While the program runs, the terminal sends Ctrl-C and Ctrl-\\ to the program, and the parent ignores
them. The parent passes SIGTERM and SIGHUP on to the program.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from openrbu.errors import MachineError, ObstacleError
from openrbu.run import child as in_child
from openrbu.run.answers import Desk
from openrbu.run.launcher import Launcher
from openrbu.run.overlay import Overlay, RealEntry, real_entries
from openrbu.run.power import PowerAction, PowerSwitch, PowerWish
from openrbu.run.program import Program, Take
from openrbu.system.interrupts import EXIT_SIGNAL

if TYPE_CHECKING:
    from openrbu.machine.base import Machine
    from openrbu.run.supervisor import Supervisor
    from openrbu.run.trace import Trace
    from openrbu.update.restarted import Restarted


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended, and what it had the machine do.

    `status`: its exit status, or the negative number of the signal that ended it; 0 where it was
    ended by the restart that it asked for. `power`: what it asked for, and what was done; None:
    nothing. `restarted`: the result of a restart through the BIOS, and the machine's status then.
    """

    status: int
    power: PowerAction | None = None
    restarted: Restarted | None = None


def run_all(
    directory: Path,
    commands: Sequence[Sequence[str]],
    *,
    told: Callable[[ProgramEnd], None] = lambda ended: None,
    waiting: Callable[[int], None] = lambda programs: None,
    log: Callable[[str], None] = lambda line: None,
    trace: Trace | None = None,
) -> list[ProgramEnd]:
    """Run programs with the files of the machine in `directory`, each after the one before; how
    they ended.

    The first is a program under test. The others are for the machine after its restart: where the
    first one did not restart it, they don't run.

    Call it in the main thread, and in a process without other threads. When the programs have ended
    and others use the machine through this process, it waits for them: see
    `access.serve_or_connect`, which gets `waiting`. `told` is called when a program has ended, and
    the machine has done what that asked for. `log` gets a line for each defect. `trace` is told
    what the programs do with the machine's files, and of its restart.

    :raise MachineError: when the machine is off, can't be opened, or can't be restarted.
    :raise ObstacleError: when this computer does not allow to run a program in this way; when there
        are programs for the time after the restart, and the first one did not restart the machine.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    if not Path("/proc/self").exists():
        raise ObstacleError("/proc is not mounted here: mount -t proc proc /proc")
    real = real_entries()

    def become(number: int, channel: socket.socket, parent: int) -> NoReturn:
        prepare = functools.partial(in_child.prepare, directory, real)
        in_child.become(prepare, commands[number], channel, parent)

    with contextlib.closing(Launcher(become)) as launcher:
        child = Program(launcher, 0, commands[0])  # it makes its namespaces meanwhile
        # After the fork, because numpy starts threads when it is imported.
        from openrbu.sharing.access import serve_or_connect  # noqa: PLC0415  (threads)

        with (
            contextlib.closing(child),
            serve_or_connect(directory, waiting=waiting) as machine,
        ):
            done = [_run_one(machine, child, real, log, trace)]
            told(done[0])
            if commands[1:] and done[0].power not in (PowerAction.RESTART, PowerAction.KEXEC):
                raise ObstacleError(_not_restarted(done[0].power))
            for number, command in enumerate(commands[1:], start=1):
                child = Program(launcher, number, command)
                done.append(_run_one(machine, child, real, log, trace))
                told(done[-1])
            return done


def _not_restarted(power: PowerAction | None) -> str:
    did = "did not restart the machine"
    if power is not None:
        did = "switched the machine off"
    return f"the program {did}: nothing can run after the restart"


def _run_one(
    machine: Machine,
    child: Program,
    real: Mapping[str, RealEntry],
    log: Callable[[str], None],
    trace: Trace | None = None,
) -> ProgramEnd:
    """Run the program that `child` becomes, and have the machine do what it asks for.

    :raise OpenRbuError: as `run_all`.
    """
    from openrbu.fuse.callers import CallerMap  # noqa: PLC0415  (threads)
    from openrbu.fuse.filesystem import caller_pid  # noqa: PLC0415  (threads)
    from openrbu.fuse.session import FuseSession  # noqa: PLC0415  (threads)
    from openrbu.run.kernel_calls import KernelCalls  # noqa: PLC0415  (start-up time)
    from openrbu.run.kernel_messages import KernelMessages  # noqa: PLC0415  (start-up time)
    from openrbu.run.port_calls import PortCalls  # noqa: PLC0415  (start-up time)
    from openrbu.run.supervisor import Supervisor  # noqa: PLC0415  (start-up time)

    with contextlib.closing(PowerSwitch()) as switch:
        with contextlib.closing(child):
            _check_is_on(machine)
            desk, messages = Desk(machine, switch), KernelMessages(machine)
            overlay = Overlay(machine.files, real, desk=desk, messages=messages)
            session = FuseSession(
                overlay if trace is None else trace.begin(machine, overlay, child, caller_pid),
                child.device(),
                CallerMap(),
                log=log,
                path_lock=machine.path_lock,
                on_ioctl=None if trace is None else trace.ioctl,
            )
            told = None if trace is None else trace.port
            user_namespace: list[int] = []
            ports = PortCalls(machine, lambda: user_namespace[0], log, told)
            handlers = KernelCalls(machine, switch, os.geteuid()).handlers
            handlers |= {"iopl": ports.iopl, "ioperm": ports.ioperm}
            supervisor = Supervisor(handlers, log)
            try:
                session.start()
                with child.signals(), _root_given(machine, log) as give_root:
                    take = _taking(supervisor, user_namespace.append, give_root)
                    status = _result(child, switch, take)
            finally:
                supervisor.close()
                ports.close()
                session.stop()
        if trace is not None:
            trace.program_ended(status)
        end = _act(machine, switch.wish, status)
        if trace is not None and end.power is not None:
            post = None if end.restarted is None else end.restarted.post
            trace.restart(end.power.value, post)
        return end


def _taking(
    supervisor: Supervisor, tell: Callable[[int], None], give_root: Callable[[int], None]
) -> Take:
    """What takes the child's messages: `supervisor` is told of the program's notified calls, `tell`
    of the inode of its user namespace, and `give_root` gets a descriptor of the root that it begins
    with."""

    def take(message: bytes, fds: list[int]) -> bool:
        if message == in_child.ROOT:
            give_root(fds[0])
        elif fds:
            tell(int(message.removeprefix(in_child.LISTENER)))
            supervisor.listen(fds[0])
        elif message.startswith(in_child.NO_LISTENER):
            supervisor.hears_nothing(message.removeprefix(in_child.NO_LISTENER).decode())
        else:
            return False
        return True

    return take


def _result(child: Program, switch: PowerSwitch, take: Take) -> int:
    """Wait for the end of the program; its status, as in `ProgramEnd`. What it asks `switch` for
    ends it, and all programs that it has started.

    :raise CommandError | ObstacleError: as `Program.result`.
    """
    status = child.result(take, switch.wake_up)
    wish = switch.wish
    if wish is None:
        assert status is not None
        return status
    status = child.end_all(at_once=wish.at_once)
    return status if wish.is_scheduled else _as_it_ended_itself(status)


def _check_is_on(machine: Machine) -> None:
    """
    :raise MachineError: when the machine is off.
    """
    machine.open("/proc/sys/kernel/random/boot_id", reading=True).close()


@contextlib.contextmanager
def _root_given(machine: Machine, log: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """What takes a descriptor of a directory: in this block the machine's kernel looks for firmware
    files below it, as a real one does below the root of its first process."""

    def give(root: int) -> None:
        try:
            machine.use_root(root)
        except OSError as error:
            log(
                "the process that has the machine can't see this program's files "
                f"({error.strerror}): an image can't be given as a file"
            )
        finally:
            os.close(root)

    try:
        yield give
    finally:
        with contextlib.suppress(MachineError):  # the process that has it has ended
            machine.use_root(None)


def _act(machine: Machine, wish: PowerWish | None, status: int) -> ProgramEnd:
    """Have the machine do what the program with that status asked for.

    :raise MachineError: when it can't.
    """
    if wish is None:
        return ProgramEnd(status)
    if wish.action is PowerAction.KEXEC:
        machine.kexec()
        return ProgramEnd(status, wish.action)
    if wish.action is not PowerAction.RESTART:
        machine.power_off()
        return ProgramEnd(status, wish.action)
    from openrbu.hosts.virtual import VirtualHost  # noqa: PLC0415  (start-up time)
    from openrbu.update.restarted import restart  # noqa: PLC0415  (start-up time)

    return ProgramEnd(status, wish.action, restart(VirtualHost(machine), machine))


def _as_it_ended_itself(status: int) -> int:
    """The status of a program that was ended by a restart: 0 where a signal of the restart ended
    it, or where it says so, as programs that handle SIGTERM do."""
    ending = (signal.SIGTERM, signal.SIGKILL)
    by_signal = [-signum for signum in ending] + [EXIT_SIGNAL + signum for signum in ending]
    return 0 if status in by_signal else status
