"""Where an update runs: files, ports, physical memory, modules, a restart.

The application knows a machine only through this interface. Paths are absolute, as a program on
that machine sees them (`/sys/class/firmware/dell_rbu/loading`). No code of `update/` asks what kind
of host it has; it asks for what it needs, and some hosts have not got it (`None`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openrbu.buffers import Buffer
from openrbu.memory.physical import ReadableMemory
from openrbu.ports import IoPorts

if TYPE_CHECKING:  # numpy takes longer to start than most commands
    from openrbu.memory.frames import Frames

ENTRY_POINT = "/sys/firmware/dmi/tables/smbios_entry_point"
DMI_TABLE = "/sys/firmware/dmi/tables/DMI"
"""Where the kernel shows the SMBIOS tables."""


class Host(Protocol):
    """A machine as the application sees it."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    @property
    def journal_path(self) -> Path:
        """The file that the journal of this machine is kept in."""

    @property
    def ports(self) -> IoPorts | None:
        """Port I/O, where the host lets a program do that."""

    @property
    def physical_memory(self) -> ReadableMemory | None:
        """Physical memory as the BIOS has it, where the host lets it be seen."""

    @property
    def frame_table(self) -> Frames | None:
        """The machine frame in which each page frame of this host's kernel lies, where they differ
        because there is a hypervisor below it, and the host lets that be seen."""

    def hardware_revision(self, system_id: int | None) -> int | None:
        """The hardware revision (0 to 7) that the BIOS compares an image's system list with, where
        that can be known. `system_id` is what SMBIOS says; None: nothing."""

    def now(self) -> dt.datetime:
        """The time, with its zone."""

    def pause(self, seconds: float) -> None:
        """Wait, when something was asked for and is not there yet."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        """A file from `offset` to its end, read in order, at most `size_bytes` at a time.

        :raise OSError: as the kernel answers.
        """

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        """Write all of `data` at `offset`. Where the file takes only a part, the rest follows.

        :raise OSError: as the kernel answers.
        """

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a file (`lockf`) in the block: an advisory lock, which programs take before they use
        the file."""

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """Load a kernel module.

        :raise ObstacleError: when it can't be loaded, and why.
        """

    def unload_module(self, name: str) -> None:
        """Unload a kernel module.

        :raise OSError: as the kernel answers.
        :raise ObstacleError: where a program does it, and says why it can't.
        """

    def module_is_loaded(self, name: str) -> bool:
        """Whether a kernel module is there, built in or loaded."""

    def restart(self) -> None:
        """Restart the machine in the way that `/sys/kernel/reboot/mode` says.

        :raise ObstacleError: when that is not allowed.
        """


def read_file(host: Host, path: str) -> bytes:
    """A whole file.

    :raise OSError: as the kernel answers.
    """
    return b"".join(host.chunks(path, 1 << 16))


def read_text(host: Host, path: str) -> str:
    """A whole file as text, blanks around it removed.

    :raise OSError: as the kernel answers.
    """
    return read_file(host, path).decode("latin-1").strip()
