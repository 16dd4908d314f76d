"""A virtual machine as commands use it, be it in this process or in another one that serves it."""

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
from openrbu.memory.physical import PhysicalMemory
from openrbu.ports import IoPorts


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """The status of a machine at one moment.

    `lost_power`: it is off because a process that ran it died. `modules`: the names of the loaded
    kernel modules, sorted; empty while it is off. `reboot_mode`: the kernel's kind of restart
    (`kernel.kernel.REBOOT_MODES`); None while it is off.
    """

    tables: Tables
    is_on: bool
    lost_power: bool
    is_armed: bool
    flash_size_bytes: int
    modules: tuple[str, ...]
    reboot_mode: str | None


class Machine(Protocol):
    """A virtual machine. Any thread may call; each call is done whole before another one is.

    Every call raises MachineError when the machine's directory or its state does not allow it, or
    the process that has the machine has ended; and OSError when the disk under it refuses.
    """

    @property
    def name(self) -> str: ...

    @property
    def directory(self) -> Path: ...

    @property
    def config(self) -> MachineConfig:
        """What it is."""

    @property
    def is_on(self) -> bool: ...

    @property
    def last_post(self) -> PostReport | None:
        """What the last start did that was asked for here."""

    def status(self) -> MachineStatus:
        """Its status now."""

    def check_connection(self) -> None:
        """See that it can be reached, without asking it for anything.

        :raise MachineError: when the process that has it has ended.
        """

    # -- power ------------------------------------------------------------------------------

    def power_on(self) -> PostReport:
        """Start with empty RAM.

        :raise MachineError: when it is on already, or its flash holds no BIOS.
        """

    def restart(self, *, cold: bool | None = None) -> PostReport:
        """Restart, or start a machine that is off; `cold` clears RAM. None: what the kernel's
        reboot mode says.

        :raise MachineError: when its flash holds no BIOS, or there is no room on the disk.
        """

    def power_off(self) -> None:
        """Switch off; RAM is lost."""

    # -- hardware ---------------------------------------------------------------------------

    @property
    def ram(self) -> PhysicalMemory:
        """Its RAM, to be looked at."""

    @property
    def frame_table(self) -> Frames | None:
        """Where in RAM each page frame of the kernel that runs on it is, where that is a guest of
        Xen; None: at its own number."""

    @property
    def ports(self) -> IoPorts:
        """Its I/O ports, with an index register of one's own: see `ports.OwnPorts`.

        :raise MachineError: when the machine is off.
        """

    # -- the kernel that runs on it ---------------------------------------------------------

    @property
    def files(self) -> Files:
        """All its files; none while it is off."""

    def exists(self, path: str) -> bool:
        """Whether `path` leads to anything, links followed.

        :raise MachineError: when the machine is off.
        """

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File:
        """Open a file as root.

        :raise OSError: as the machine's kernel answers.
        :raise MachineError: when the machine is off.
        """

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules that are loaded, sorted.

        :raise MachineError: when the machine is off.
        """

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """`modprobe`.

        :raise OSError: as the machine's kernel answers.
        :raise UsageError: for a module or a parameter that does not exist.
        :raise MachineError: when the machine is off.
        """

    def unload_module(self, name: str) -> None:
        """`rmmod`.

        :raise OSError: as the machine's kernel answers.
        :raise MachineError: when the machine is off.
        """

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a path in the block: other programs that lock it wait until then.

        :raise ObstacleError: when another program has it locked for `path_locks.TIMEOUT_S`.
        """
