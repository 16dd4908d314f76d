"""A tool that is killed before step number N.

The steps are what changes something: each write to a file or a module, each line of the journal,
and what follows a line. Between two of them only reading is left, so to
be killed there is the same as to be killed before the later one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from openrbu.hosts.base import Host
from openrbu.update.journal import Journal
from rigs.machines import Watched, in_child, kill_self

_READING = {
    "chunk",
    "chunks",
    "exists",
    "hardware_revision",
    "module_is_loaded",
    "names",
    "physical_memory",
}


class Steps:
    """Counts steps, and kills this process before step number `number`."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in _READING or (name == "write" and not arguments[1]):  # that only opens the file
            return
        self._left -= 1
        if not self._left:
            kill_self()


def step_through_the_journal(steps: Steps) -> None:
    """From now on, each line of a journal is a step of this process, and so is what follows it."""
    append = Journal.append

    def stepped(journal: Journal, *arguments: Any, **fields: Any) -> None:
        steps("line", ())
        append(journal, *arguments, **fields)
        steps("after the line", ())

    setattr(Journal, "append", stepped)  # noqa: B010  (of this process, which is killed)


def killed_at_step(
    number: int,
    open_host: Callable[[], AbstractContextManager[Host]],
    work: Callable[[Any], object],
) -> bool:
    """Do `work` on a host in a process that kills itself before step `number`. False: it was done
    before that. `open_host` opens the host in that process."""

    def stepped() -> None:
        steps = Steps(number)
        step_through_the_journal(steps)
        with open_host() as host:
            work(Watched(host, steps))

    code = in_child(stepped)
    assert code in (0, -signal.SIGKILL)
    return code != 0
