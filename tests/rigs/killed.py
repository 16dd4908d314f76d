"""A tool that is killed before step number N.

The steps are what changes something: each write to a file, to a module or to a port of CMOS's data,
each line of the journal, and what follows a line. Between two of them only reading is left, so to
be killed there is the same as to be killed before the later one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from openrbu.hosts.base import Host
from openrbu.ports import IoPorts
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
        if name in _READING:
            return
        self._left -= 1
        if not self._left:
            kill_self()


class SteppedPorts:
    """Ports of which each access is a step."""

    def __init__(self, ports: IoPorts, steps: Steps) -> None:
        self._ports, self._steps = ports, steps

    def out8(self, port: int, value: int) -> None:
        if port & 1:  # the even one beside it selects a byte
            self._steps("out8", (port, value))
        self._ports.out8(port, value)

    def in8(self, port: int) -> int:
        return self._ports.in8(port)


class SteppedHost(Watched):
    """A host of which each call is a step."""

    def __init__(self, host: Any, steps: Steps) -> None:
        super().__init__(host, steps)
        self._steps = steps

    @property
    def ports(self) -> IoPorts | None:
        ports: IoPorts | None = self._host.ports
        return None if ports is None else SteppedPorts(ports, self._steps)


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
            work(SteppedHost(host, steps))

    code = in_child(stepped)
    assert code in (0, -signal.SIGKILL)
    return code != 0
