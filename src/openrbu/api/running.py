"""Programs that find a machine's files at their true paths.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu import errors

if TYPE_CHECKING:
    from openrbu.run.programs import ProgramEnd


def run(
    name: str | None,
    command: Sequence[str],
    *,
    waiting: Callable[[int], None] | None = None,
    log: Callable[[str], None] | None = None,
    trace: Path | str | None = None,
) -> int:
    """Run a program that finds a virtual machine's files at their true paths. Returns its exit
    status, or the negative number of the signal that ended it; 0 where it was ended by the restart
    that it asked for.

    It is `run_all` with one program, which says what the parameters are and what is raised.
    """
    (end,) = run_all(name, [command], waiting=waiting, log=log, trace=trace)
    return end.status


def run_all(
    name: str | None,
    commands: Sequence[Sequence[str]],
    *,
    told: Callable[[ProgramEnd], None] | None = None,
    waiting: Callable[[int], None] | None = None,
    log: Callable[[str], None] | None = None,
    trace: Path | str | None = None,
) -> list[ProgramEnd]:
    """Run programs that find a virtual machine's files at their true paths, one after another.
    Returns how they ended. The first is under test, and the others run after the restart of the
    machine that the first one has asked for, by reboot(8) or another such command.

    Call it in the main thread of a process without other threads that has not opened the machine.
    `told` is called after each program, when the machine has done what that asked for. `waiting` is
    called with the number of programs that still use the machine after these have ended; `log` is
    called with a line for each unexpected error. `trace` is a file that gets what the programs
    do with the machine's files, for `read_trace`; a trace that is there is replaced.

    Without a name, one program runs on this computer, with the files of openrbu's own driver below
    the real `/sys`; its restart is the real one.

    :raise UsageError: when there is no command, or one is empty or one text (it is a list of
        words), in another thread than the main one, or when `trace` is a file with something else
        than a trace; without a name also for a trace and for a second program.
    :raise MachineError: when the machine is off, can't be restarted, or another process has opened
        it and does not serve it.
    :raise ObstacleError: when this computer does not allow it, the trace can't be written, or the
        first of several programs did not restart the machine.
    :raise CommandError: when there is no such program, or it can't be executed; it is an
        `ObstacleError` with the `status` that a shell would give, 127 or 126.
    """
    _check(commands)
    if name is None:
        return [_run_here(commands, told, log, trace)]
    from openrbu.machine.store import existing_directory
    from openrbu.run import programs

    def ignore(_: object) -> None: ...

    directory = existing_directory(name)
    log, waiting, told = log or ignore, waiting or ignore, told or ignore
    run_there = functools.partial(
        programs.run_all, directory, commands, told=told, waiting=waiting, log=log
    )
    if trace is None:
        return run_there()
    from openrbu.run.trace import Trace

    with contextlib.closing(Trace(Path(trace), log=log)) as traced:
        try:
            return run_there(trace=traced)
        except errors.CommandError as error:
            traced.program_ended(error.status)
            raise


def _run_here(
    commands: Sequence[Sequence[str]],
    told: Callable[[ProgramEnd], None] | None,
    log: Callable[[str], None] | None,
    trace: Path | str | None,
) -> ProgramEnd:
    """
    :raise OpenRbuError: as `run_all`.
    """
    if trace is not None or commands[1:]:
        raise errors.UsageError(
            "a trace, and programs after the restart, are for a virtual machine: name one"
        )
    from openrbu.own_driver.backends import default_backend
    from openrbu.run import this_computer
    from openrbu.run.programs import ProgramEnd

    status = this_computer.run(commands[0], default_backend, log=log or (lambda line: None))
    end = ProgramEnd(status)
    if told is not None:
        told(end)
    return end


def _check(commands: Sequence[Sequence[str]]) -> None:
    """
    :raise UsageError: as `run_all`.
    """
    for command in commands or [()]:
        if isinstance(command, str | bytes) or not command:
            raise errors.UsageError(
                f"{command!r} is not a command: give a list of a program and its arguments, such "
                "as ['dmidecode', '-t', 'bios']"
            )
    if threading.current_thread() is not threading.main_thread():
        raise errors.UsageError("call run in the main thread: it passes on signals")
