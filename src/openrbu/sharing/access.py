"""Access to a machine: opened in this process, or through the process that serves it.

The process that gets a machine's lock has the machine. Where another process has the lock and
serves the machine, this module connects to that process; where it does not, that process is a
command, which is waited for (`machine.turns`). No other module knows which of the two it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from openrbu.machine.base import Machine
from openrbu.machine.store import existing_directory
from openrbu.machine.turns import enter_in_turn
from openrbu.machine.virtual import VirtualMachine
from openrbu.system.fuse_mounts import remove_dead_mounts
from openrbu.system.signals import signals_deferred
from openrbu.system.waiting import Deadline


def open_machine(
    name: str, *, serve: bool = False, reading: bool = False, within: Deadline | None = None
) -> AbstractContextManager[Machine]:
    """The virtual machine `name`, until the end of the block. With `serve` other programs can use
    it meanwhile. `reading`: it is only looked at, so that this also works where its directory may
    not be written. `within`: how long to wait for a command that has it, `turns.turn()` in most
    cases; not with `serve`.

    :raise MachineError: when there is no such machine; when the block is entered, as
        `open_or_connect`.
    """
    directory = existing_directory(name)
    if reading:
        return open_for_reading(directory, within=within)
    return serve_or_connect(directory) if serve else open_or_connect(directory, within=within)


@contextlib.contextmanager
def open_or_connect(directory: Path, *, within: Deadline | None = None) -> Iterator[Machine]:
    """The machine in `directory`, until the end of the block. `within`: as `open_machine`.

    :raise MachineError: when another process has the machine all the time and does not serve it, or
        when the machine's files can't be used.
    """
    with contextlib.ExitStack() as stack:
        yield _enter(stack, directory, lambda: _owned(directory), within)


@contextlib.contextmanager
def open_for_reading(directory: Path, *, within: Deadline | None = None) -> Iterator[Machine]:
    """The machine in `directory`, to be looked at until the end of the block. `within`: as
    `open_machine`.

    :raise MachineError: as `open_or_connect`.
    """
    if _may_be_written(directory):
        own: Callable[[Path], AbstractContextManager[Machine]] = _owned
    else:
        from openrbu.machine.reading import looked_at  # noqa: PLC0415  (start-up time)

        own = looked_at
    with contextlib.ExitStack() as stack:
        yield _enter(stack, directory, lambda: own(directory), within)


def _may_be_written(directory: Path) -> bool:
    """Whether this user can open the machine in a directory in the usual way, as far as modes and
    mounts say that."""
    lock = directory / "lock"
    paths = [directory, *([lock] if os.path.lexists(lock) else [])]
    return all(os.access(path, os.W_OK, effective_ids=True) for path in paths)


@contextlib.contextmanager
def serve_or_connect(
    directory: Path, *, waiting: Callable[[int], None] = lambda programs: None
) -> Iterator[Machine]:
    """The machine in `directory`, served to other programs until the end of the block: by this
    process, or by one that serves it already.

    At the end of the block this process waits until no other program uses the machine; programs
    that come meanwhile are served too. `waiting` is called with the number of these programs, first
    when the wait begins and then at each change. An exception that is raised meanwhile (Ctrl-C)
    ends the wait and closes their connections.

    :raise MachineError: as `open_or_connect`.
    """
    with contextlib.ExitStack() as stack:
        yield _enter(stack, directory, lambda: _served(directory, waiting))


@contextlib.contextmanager
def _owned(directory: Path, *, serving: bool = False) -> Iterator[VirtualMachine]:
    """:raise InUseError: when another process has it."""
    with VirtualMachine(directory, serving=serving) as machine:
        remove_dead_mounts_of(directory)
        yield machine


@contextlib.contextmanager
def _served(directory: Path, waiting: Callable[[int], None]) -> Iterator[Machine]:
    """:raise InUseError: when another process has it."""
    from openrbu.sharing.service import Service  # noqa: PLC0415  (start-up time)

    with _owned(directory, serving=True) as machine:
        service = Service(machine)
        service.start()
        try:
            yield machine
        finally:
            try:
                service.wait_until_unused(waiting)
                with signals_deferred():
                    service.stop_accepting()
                service.wait_until_unused(waiting)  # for programs that came at the last moment
            finally:
                with signals_deferred():
                    service.stop_accepting()
                    service.stop()


def _enter(
    stack: contextlib.ExitStack,
    directory: Path,
    own: Callable[[], AbstractContextManager[Machine]],
    within: Deadline | None = None,
) -> Machine:
    """Open the machine with `own`, or connect to the process that serves it, whichever works.

    :raise MachineError: when neither works.
    """

    def connect() -> Machine | None:
        from openrbu.sharing.remote import (  # noqa: PLC0415  (start-up time)
            NotServedError,
            RemoteMachine,
        )

        with contextlib.suppress(NotServedError):
            return stack.enter_context(contextlib.closing(RemoteMachine(directory)))
        return None

    return enter_in_turn(stack, directory, own, connect=connect, within=within)


def remove_dead_mounts_of(directory: Path) -> None:
    """Remove the mounts of a machine whose server was killed. The caller has the machine's lock."""
    remove_dead_mounts(str(directory))
