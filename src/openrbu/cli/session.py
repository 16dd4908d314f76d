"""Where a command works: on a virtual machine, or on the machine that it runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openrbu.hosts.base import Host
    from openrbu.machine.base import Machine
    from openrbu.update.target import Target


@dataclass(frozen=True, slots=True)
class Session:
    """A host to work on; `machine` is the virtual machine behind it, where it is one."""

    host: Host
    machine: Machine | None = None

    @property
    def option(self) -> str:
        """What a command line needs to come to the same host again."""
        return "" if self.machine is None else f" --machine {self.machine.name}"


@contextlib.contextmanager
def open_machine(name: str) -> Iterator[Machine]:
    """The virtual machine of that name, until the end of the block.

    :raise MachineError: when there is none, or another process has it that does not serve it.
    """
    from openrbu.machine.store import existing_directory
    from openrbu.sharing.reach import reach

    with reach(existing_directory(name)) as machine:
        yield machine


@contextlib.contextmanager
def open_session(name: str | None) -> Iterator[Session]:
    """The virtual machine of that name; without one, the machine that this runs on.

    :raise MachineError: as `open_machine`.
    """
    if name is None:
        from openrbu.hosts.linux import LinuxHost

        yield Session(LinuxHost())
        return
    from openrbu.hosts.virtual import VirtualHost

    with open_machine(name) as machine:
        yield Session(VirtualHost(machine), machine)


def machine_document(session: Session, target: Target) -> dict[str, Any]:
    """Which machine it is."""
    system_id = target.system_id
    return {
        "name": session.machine.name if session.machine is not None else None,
        "vendor": target.system.vendor,
        "product": target.system.product,
        "system_id": None if system_id is None else f"{system_id:#06x}",
        "system_name": system_name(system_id),
        "hardware_revision": target.hardware_revision,
    }


def machine_title(session: Session, target: Target) -> str:
    """Which machine it is, for people. The name of its ID where it calls itself something else."""
    system_id = target.system_id
    identity = "no system ID" if system_id is None else f"system {system_id:#06x}"
    known = system_name(system_id)
    if known and known.casefold() != target.system.product.casefold():
        identity += f" ({known})"
    name = session.host.name if session.machine is None else session.machine.name
    return f"{name}: {target.title}, {identity}"


def system_name(system_id: int | None) -> str | None:
    """The product that a system ID is known to be of; None: not known."""
    if system_id is None:
        return None
    from openrbu.formats.systems import known_system

    return known_system(system_id).name or None
