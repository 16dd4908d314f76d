"""A virtual machine as commands use it, in this process or in another process that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from openrbu.bios.post_report import PostReport
from openrbu.formats.smbios import Tables
from openrbu.kernel.files import File, Files
from openrbu.machine.config import MachineConfig
from openrbu.memory.frames import Frames
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.ports import IoPorts


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """The status of a machine at one moment.

    `lost_power`: it is off because a process that ran it died. `modules`: the names of the loaded
    kernel modules, sorted; empty while it is off. `reboot_mode`: the kernel's kind of restart
    (`kernel.restart_files.REBOOT_MODES`); None while it is off.
    """

    tables: Tables
    is_on: bool
    lost_power: bool
    is_armed: bool
    flash_size_bytes: int
    modules: tuple[str, ...]
    reboot_mode: str | None


class Machine(Protocol):
    """A virtual machine. Any thread may call; calls are done one after another.

    Every call raises MachineError when the machine's files or its status do not allow it, or when
    the process that has the machine has ended; and OSError for an error of the disk.
    """

    @property
    def name(self) -> str: ...

    @property
    def directory(self) -> Path: ...

    @property
    def original(self) -> Path:
        """`directory`; or the one that it is a copy of, see `machine.reading`."""

    @property
    def config(self) -> MachineConfig:
        """What it is: the content of its `machine.json`."""

    @property
    def is_on(self) -> bool: ...

    @property
    def last_post(self) -> PostReport | None:
        """What the BIOS did at the last start that was requested through this object."""

    def status(self) -> MachineStatus:
        """Its status now."""

    def check_connection(self) -> None:
        """Check that the process that has it still runs, without a request to it.

        :raise MachineError: when the process that has it has ended.
        """

    # -- power ------------------------------------------------------------------------------

    def power_on(self) -> PostReport:
        """Start with empty RAM; what the BIOS did.

        :raise MachineError: when it is on already, or its flash contains no BIOS.
        """

    def restart(self, *, cold: bool | None = None) -> PostReport:
        """Restart, or start a machine that is off; what the BIOS did. `cold` clears RAM; None: the
        kernel's reboot mode decides.

        :raise MachineError: when its flash contains no BIOS, or the disk is full.
        """

    def kexec(self) -> None:
        """Start Linux once more without the BIOS, as kexec does: RAM keeps what it has, and all of
        it is free memory then.

        :raise MachineError: when it is off, or runs Xen.
        """

    def load_kexec(self, *, is_loaded: bool) -> None:
        """Load a kernel for `kexec`, as `kexec -l` does; or unload it.

        :raise MachineError: when it is off, or runs Xen.
        """

    def power_off(self) -> None:
        """Switch off; RAM is lost."""

    # -- hardware ---------------------------------------------------------------------------

    @property
    def ram(self) -> PhysicalMemory:
        """Its RAM, for reading."""

    @property
    def frame_table(self) -> Frames | None:
        """The machine frame of each page frame of its kernel, where that is a guest of Xen; None
        where the two are the same."""

    @property
    def held_regions(self) -> tuple[Region, ...]:
        """Where its driver holds pages for the BIOS, in machine frames; nowhere while it is off."""

    @property
    def ports(self) -> IoPorts:
        """Its I/O ports, with an index register for this user alone: see `ports.OwnPorts`.

        :raise MachineError: when the machine is off.
        """

    # -- the kernel that runs on it ---------------------------------------------------------

    @property
    def files(self) -> Files:
        """All its files. It has none while it is off."""

    def exists(self, path: str) -> bool:
        """Whether `path` exists, links followed.

        :raise MachineError: when the machine is off.
        """

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File:
        """Open a file as root.

        :raise OSError: the error of the machine's kernel.
        :raise MachineError: when the machine is off.
        """

    def make_file(self, path: str) -> None:
        """Make an empty file below `kernel.plain_files.DIRECTORIES`.

        :raise OSError: the error of the machine's kernel.
        :raise MachineError: when the machine is off.
        """

    def remove_file(self, path: str) -> None:
        """Remove such a file.

        :raise OSError: the error of the machine's kernel.
        :raise MachineError: when the machine is off.
        """

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules that are loaded, sorted.

        :raise MachineError: when the machine is off.
        """

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """modprobe(8).

        :raise OSError: the error of the machine's kernel.
        :raise UsageError: for a module or a parameter that does not exist.
        :raise MachineError: when the machine is off.
        """

    def unload_module(self, name: str) -> None:
        """rmmod(8).

        :raise OSError: the error of the machine's kernel.
        :raise MachineError: when the machine is off.
        """

    def use_root(self, root: int | None) -> None:
        """Have its kernel look for firmware files below a directory of this computer, too, until
        this process closes the machine; None: no longer.

        `root`: a descriptor of the directory, which can be closed then.

        :raise OSError: when the process that has the machine may not use it.
        """

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a path in the block: other programs that lock it wait until then.

        :raise ObstacleError: when another program has it locked for `path_locks.TIMEOUT_S`.
        """
