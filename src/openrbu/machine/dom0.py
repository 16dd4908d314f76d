"""Xen on a virtual machine, and its first guest, dom0: the Linux that the machine's user sees."""

from __future__ import annotations

import contextlib
from pathlib import Path

from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import DamagedInputError, KernelError, MachineError
from openrbu.kernel.balloon import XenGuest
from openrbu.machine.config import XenConfig
from openrbu.memory.frames import Frames
from openrbu.memory.ram_file import RamFile
from openrbu.units import PAGE_SIZE
from openrbu.xen.arrays import HypercallError
from openrbu.xen.domain import Domain
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import DOM0, Hypervisor

XEN = "xen"
"""The subdirectory of a machine with the files of the hypervisor, while that runs."""


def read_frame_table(machine: Path) -> Frames | None:
    """The machine frame of each frame of dom0, or INVALID; None while Xen does not run. Any process
    may read this from the machine's directory."""
    with contextlib.suppress(MachineError), contextlib.ExitStack() as stack:
        hypervisor = stack.enter_context(contextlib.closing(Hypervisor.open(machine / XEN)))
        return hypervisor.domain(DOM0).table.copy()
    return None


class Dom0:
    """Xen on the machine in the directory `machine`, whose RAM is `ram`, and its first guest.

    :raise MachineError: when Xen's files are damaged.
    """

    def __init__(self, machine: Path, config: XenConfig, ram: RamFile) -> None:
        self._directory, self._config, self._ram = machine / XEN, config, ram
        self._hypervisor: Hypervisor | None = None

    def start(self) -> None:
        """Start Xen with cleared memory and dom0 as the only guest. The memory of dom0 is
        contiguous, and it has at most as many frames as the machine.

        :raise MachineError: when there is not enough memory.
        """
        self.stop()
        self._directory.mkdir(0o700)
        self._hypervisor = Hypervisor.create(
            self._directory,
            self._ram.regions,
            backing=self._ram,
            takes_memory=self._config.takes_memory,
        )
        pages, most = (
            size // PAGE_SIZE for size in (self._config.dom0_bytes, self._config.dom0_max_bytes)
        )
        most = min(most, max(pages, self._hypervisor.total_pages))
        try:
            self._hypervisor.create_domain(DOM0, pages=pages, max_pages=most)
        except KernelError as error:
            self.stop()
            raise MachineError(f"dom0 can't be started: {error.strerror}") from None

    def resume(self) -> None:
        """Open the files of the Xen that runs.

        :raise HypercallError: when another process does not end its hypercall.
        :raise DamagedInputError: when Xen does not run, or its files are damaged.
        """
        try:
            self._hypervisor = Hypervisor.open(self._directory, backing=self._ram)
            self._hypervisor.domain(DOM0)
        except HypercallError:
            raise
        except MachineError as error:
            raise DamagedInputError(str(error)) from None

    def stop(self) -> None:
        """End all guests, and Xen."""
        self.close()
        Hypervisor.remove(self._directory)

    @property
    def domain(self) -> Domain:
        """
        :raise MachineError: while Xen does not run.
        """
        if self._hypervisor is None:
            raise MachineError("Xen does not run on this machine now")
        return self._hypervisor.domain(DOM0)

    @property
    def guest(self) -> XenGuest:
        """What dom0's kernel needs as a guest of Xen."""
        return XenGuest(self.domain, balloon_profile(self._config.profile))

    @property
    def memory(self) -> GuestMemory:
        """dom0's physical memory."""
        return GuestMemory(self.domain, self._ram)

    def close(self) -> None:
        """Close Xen's files."""
        if self._hypervisor is not None:
            self._hypervisor.close()
            self._hypervisor = None
