"""Commands on one machine take turns: the later one waits until the earlier one is done.

Theory of operation. A command has the lock of a machine for as long as it works on it, mostly a
fraction of a second, so one that comes meanwhile looks again and again whether the lock is free,
for `TIMEOUT_S`. Two are not waited for:

- A process that serves the machine, as `rbu run` and `rbu mount` do, has it for as long as its
  program runs. It is connected to, or the caller is refused at once.
- This process itself: it would wait for its own end of a block.

Commands that only look take turns, too. What they see first may have to be recorded, such as how
the last update ended, and the state of a machine is continued by one process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from openrbu.machine.store import InUseError, is_machine, locked, missing
from openrbu.system.waiting import Deadline

T = TypeVar("T")

TIMEOUT_S = 5.0
"""How long to wait for a command that has the machine, for a process that is about to serve it, and
for one that is about to close it."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.05


def turn() -> Deadline:
    """The time that a command waits for its turn, from now on."""
    return Deadline("the command that has the machine", TIMEOUT_S)


def enter_in_turn(
    stack: contextlib.ExitStack,
    directory: Path,
    own: Callable[[], AbstractContextManager[T]],
    *,
    connect: Callable[[], T | None] | None = None,
    within: Deadline | None = None,
) -> T:
    """Enter what `own` returns, which gets the lock of the machine in a directory, as soon as no
    other command has it.

    `connect`: how else to get at the machine, through a process that serves it; None from it: that
    process does not serve it now. `within`: how long to wait, `turn()` in most cases.

    :raise InUseError: when a process has the machine then, too; at once where it serves the machine
        and there is no `connect`, and where it is this process.
    :raise MachineError: when the machine is removed meanwhile.
    """
    deadline = turn() if within is None else within
    has_met = False
    for is_last in deadline.checks(_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S):
        if has_met:
            _check_is_there(directory)
        try:
            return stack.enter_context(own())
        except InUseError as in_use:
            if in_use.is_served or in_use.owner is None:
                found = None if connect is None else connect()
                if found is not None:
                    return found
                is_final = in_use.is_served and connect is None
            else:
                is_final = in_use.owner == str(os.getpid())
            if is_last or is_final:
                raise
            has_met = True
    raise deadline.error()


def _check_is_there(directory: Path) -> None:
    """Check that a machine that another process has had is not being removed by it.

    :raise MachineError: when it is.
    """
    if not is_machine(directory):
        raise missing(directory.name)


@contextlib.contextmanager
def locked_in_turn(directory: Path) -> Iterator[None]:
    """As `store.locked`, as soon as no other command has the machine.

    :raise InUseError: as `enter_in_turn`.
    :raise MachineError: for an error of the disk, or when the machine is removed meanwhile.
    """
    with contextlib.ExitStack() as stack:
        enter_in_turn(stack, directory, lambda: locked(directory))
        yield
