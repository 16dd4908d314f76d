"""The machine to work on: a virtual machine, or the computer that this runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.hosts.base import Host
    from openrbu.machine.base import Machine


@dataclass(frozen=True, slots=True)
class Session:
    """A host to work on. `machine` is its virtual machine; None when the host is this computer."""

    host: Host
    machine: Machine | None = None


@contextlib.contextmanager
def open_machine(name: str, *, serve: bool = False) -> Iterator[Machine]:
    """The virtual machine `name`, until the end of the block. With `serve` other programs can use
    it meanwhile.

    :raise MachineError: when there is no such machine, or another process has it and does not
        serve it.
    """
    from openrbu.machine.store import existing_directory  # noqa: PLC0415  (start-up time)
    from openrbu.sharing import access  # noqa: PLC0415  (start-up time)

    with (access.serve_or_connect if serve else access.open_or_connect)(
        existing_directory(name)
    ) as machine:
        yield machine


@contextlib.contextmanager
def open_session(name: str | None, *, serve: bool = False) -> Iterator[Session]:
    """The virtual machine `name`; None: the computer that this runs on.

    :raise MachineError: as `open_machine`.
    """
    if name is None:
        from openrbu.hosts.linux import LinuxHost  # noqa: PLC0415  (start-up time)

        yield Session(LinuxHost())
        return
    from openrbu.hosts.virtual import VirtualHost  # noqa: PLC0415  (start-up time)

    with open_machine(name, serve=serve) as machine:
        yield Session(VirtualHost(machine), machine)
