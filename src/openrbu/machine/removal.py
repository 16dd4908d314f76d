"""Removes a virtual machine, and switches one off whose saved state can't be used."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from openrbu.machine.config import load_config
from openrbu.machine.dom0 import XEN
from openrbu.machine.ram import remove_ram
from openrbu.machine.shared_flash import leaving
from openrbu.machine.state import StateFile
from openrbu.machine.store import disk_errors
from openrbu.machine.turns import locked_in_turn
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.system.kept_files import is_odd, remove_whatever
from openrbu.system.signals import signals_deferred
from openrbu.xen.hypervisor import Hypervisor


def remove_machine(directory: Path) -> None:
    """Remove a machine with all its files. The caller has its lock.

    :raise MachineError: for an error of the disk, or when a process does not end its hypercall.
    """
    with disk_errors(directory), signals_deferred():
        remove_whatever(directory / "machine.json")
        Hypervisor.remove(directory / XEN)  # after this, processes that have it open can't use it
        remove_ram(directory)
        with leaving(directory, directory.parent):
            shutil.rmtree(directory)


def remove_odd_lock(directory: Path) -> None:
    """Remove what is in place of a machine's lock, where it is not a file, so that no process can
    have it.

    :raise MachineError: for an error of the disk.
    """
    with disk_errors(directory):
        if is_odd(directory / "lock"):
            remove_whatever(directory / "lock")


def discard_state(directory: Path) -> None:
    """Switch a machine off that can't be continued: its RAM is missing, or its saved state is not
    understood.

    :raise MachineError: when another process has it, its machine.json can't be read, or for an
        error of the disk.
    """
    with locked_in_turn(directory), disk_errors(directory), signals_deferred():
        config = load_config(directory)
        state = StateFile.of_machine(directory)
        state.discard()
        if config.xen is not None:
            Hypervisor.remove(directory / XEN)
        ram = directory / "ram"
        if ram.exists():
            with contextlib.closing(RamFile(ram, pc_regions(config.ram_bytes))) as memory:
                memory.clear()
        state.delete()
