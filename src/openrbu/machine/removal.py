"""How a virtual machine is removed, with all that it has; and how one is switched off that can't go
on from its state."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from openrbu.machine.config import load_config
from openrbu.machine.dom0 import XEN
from openrbu.machine.state import StateFile
from openrbu.machine.store import disk_errors, locked
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.system.signals import signals_deferred
from openrbu.xen.hypervisor import Hypervisor


def remove_machine(directory: Path) -> None:
    """Remove a machine and all that it has. The caller holds its lock.

    :raise MachineError: when the disk refuses, or a process stays inside of a hypercall.
    """
    with disk_errors(directory), signals_deferred():
        (directory / "machine.json").unlink(missing_ok=True)
        Hypervisor.remove(directory / XEN)  # processes that have it open can do no harm then
        remove_ram(directory)
        shutil.rmtree(directory)


def remove_ram(directory: Path) -> None:
    """Remove a machine's RAM that is kept elsewhere: `ram` is a link to it then.

    :raise OSError: when that is not allowed.
    """
    ram = directory / "ram"
    if ram.is_symlink():
        ram.readlink().unlink(missing_ok=True)


def discard_state(directory: Path) -> None:
    """Switch a machine off that can't go on: its RAM is gone, or its state is not understood.

    :raise MachineError: when another process has it, its machine.json can't be read, or the disk
        refuses.
    """
    with locked(directory), disk_errors(directory), signals_deferred():
        config = load_config(directory)
        state = StateFile.of_machine(directory)
        state.lose()
        if config.xen is not None:
            Hypervisor.remove(directory / XEN)
        ram = directory / "ram"
        if ram.exists():
            with contextlib.closing(RamFile(ram, pc_regions(config.ram_bytes))) as memory:
                memory.clear()
        state.drop()
