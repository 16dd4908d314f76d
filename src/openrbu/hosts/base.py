"""Where an update runs: files, physical memory, modules, a restart.

The application knows a machine only through this interface. Paths are absolute, as a program on
that machine sees them (`/sys/class/firmware/dell_rbu/loading`). No code of `update/` asks what kind
of host it has. It asks for what it needs, and gets `None` where the host does not have that.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openrbu.buffers import Buffer
from openrbu.memory.physical import ReadableMemory, Region

if TYPE_CHECKING:  # numpy takes longer to start than most commands
    from openrbu.memory.frames import Frames
    from openrbu.own_driver.obstacles import Obstacle

ENTRY_POINT = "/sys/firmware/dmi/tables/smbios_entry_point"
DMI_TABLE = "/sys/firmware/dmi/tables/DMI"
"""Where the kernel shows the SMBIOS tables."""

EFI_VARIABLES = "/sys/firmware/efi/efivars"
"""Where the kernel shows the variables of UEFI firmware."""


class OwnRbu(Protocol):
    """openrbu's own `dell_rbu`, which a host uses where its kernel has none."""

    @property
    def largest_block_bytes(self) -> int:
        """The size of the largest contiguous block that there may be for an image or a packet."""

    @property
    def is_kept(self) -> bool:
        """Whether an operator started it, and will stop it; if not, an update did."""

    @property
    def memory_bytes(self) -> int:
        """The size of the memory that it has now, without huge pages that have moved."""

    @property
    def cannot_flush(self) -> str:
        """Why what is staged can't be written from the processor's caches to memory; empty: it
        can."""

    @property
    def staged_regions(self) -> tuple[Region, ...]:
        """Where in physical memory it says that the staged bytes are."""

    def moved(self) -> tuple[Region, ...]:
        """The parts of these that are somewhere else now: their addresses are read again.

        :raise OSError: when they can't be read.
        """

    def obstacles(self, needed_bytes: int) -> tuple[Obstacle, ...]:
        """What keeps it from having so much memory, beside what it has; the most important
        first."""

    def reserve(self, size_bytes: int, *, block_bytes: int) -> None:
        """Have so much memory below 4 GiB for what will be staged, in blocks of that size.

        :raise OSError: ENOMEM when it is not to be had; the text says how much was got.
        """


class Host(Protocol):
    """A machine as the application sees it."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def journal_path(self) -> Path:
        """The file of this machine's journal."""

    @property
    def lasting_journal_path(self) -> Path:
        """`journal_path`; or the file that it is a copy of, which this user may not write."""

    @property
    def older_journal_paths(self) -> tuple[Path, ...]:
        """Files in which an older openrbu may have kept this machine's journal, and which this user
        may trust. The journal takes them over when it is begun."""

    def lock_files(self) -> AbstractContextManager[tuple[int, ...]]:
        """Open the files that a process locks (flock(2)) while it updates this machine, for the
        block; their descriptors. They are the same ones for all processes that could update it.
        None are opened where this user may not update it.

        :raise OSError: when they can't be opened.
        """

    @property
    def physical_memory(self) -> ReadableMemory | None:
        """Physical memory as the BIOS sees it; None where the host does not show it."""

    @property
    def frame_table(self) -> Frames | None:
        """The machine frame of each page frame of this host's kernel, where the kernel runs on a
        hypervisor and the host shows that; else None."""

    @property
    def own_rbu(self) -> OwnRbu | None:
        """openrbu's own `dell_rbu`, where this host uses that: its files are among the host's once
        `load_module` has started it. None: the kernel's driver is used."""

    @property
    def offers_own_rbu(self) -> bool:
        """Whether openrbu's own `dell_rbu` could be used here, where it is asked for."""

    def hardware_revision(self, system_id: int | None) -> int | None:
        """The hardware revision (0 to 7) that the BIOS looks for in an image's system list; None
        where it is not known. `system_id` is the one in SMBIOS; None: there is none."""

    def now(self) -> dt.datetime:
        """The time, with its zone."""

    def sleep(self, seconds: float) -> None:
        """Wait, before it is checked again whether something has happened."""

    def exists(self, path: str) -> bool:
        """Whether this path exists, links followed."""

    def names(self, path: str) -> list[str]:
        """The names in a directory, in no order.

        :raise OSError: the kernel's error.
        """

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        """A file from `offset` to its end, read in sequence, at most `size_bytes` at a time.

        :raise OSError: the kernel's error.
        """

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        """Write all of `data` at `offset`, in several writes where one takes only a part.

        :raise OSError: the kernel's error.
        """

    def make_file(self, path: str) -> None:
        """Make an empty file that only root can use, and the directory that it is in where that is
        missing.

        :raise FileExistsError: when there is something at this path.
        :raise OSError: the kernel's error.
        """

    def remove_file(self, path: str) -> None:
        """Remove a file. What it contained may stay in free memory.

        :raise OSError: the kernel's error.
        """

    def kernel_path(self, path: str) -> str:
        """A path under which the machine's kernel itself finds this directory. The kernel searches
        where its first process does, which may have another root than this program."""

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a file (flock(2)) in the block: an advisory lock, which programs take before they
        use the file.

        :raise ObstacleError: when another program has it locked for `path_locks.TIMEOUT_S`.
        """

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """Load a kernel module.

        :raise ObstacleError: when it can't be loaded; the text says why.
        """

    def unload_module(self, name: str) -> None:
        """Unload a kernel module.

        :raise OSError: the kernel's error, on a virtual machine.
        :raise ObstacleError: when rmmod(8) fails; the text is its error.
        """

    def module_is_loaded(self, name: str) -> bool:
        """Whether a kernel module is loaded or built in."""

    def clear_free_memory(self, size_bytes: int) -> None:
        """Take so much memory as a program and give it back, which clears it. On a virtual machine,
        whose memory no program takes, nothing happens. Where there is not as much, the kernel may
        end programs: ask before how much there is."""

    def restart(self) -> None:
        """Restart the machine in the way that `/sys/kernel/reboot/mode` says.

        :raise ObstacleError: when it can't be restarted; the text says why.
        """


def read_file(host: Host, path: str) -> bytes:
    """A whole file.

    :raise OSError: the kernel's error.
    """
    return b"".join(host.chunks(path, 1 << 16))


def read_text(host: Host, path: str) -> str:
    """A whole file as text, without blanks at its ends.

    :raise OSError: the kernel's error.
    """
    return read_file(host, path).decode("latin-1").strip()
