"""A machine's files together with this computer's: what a program under `rbu run` sees.

Theory of operation. Every path under `/sys` and `/proc` is of one of three kinds, and its kind does
not change while the program runs:

- A *merged* directory (`MERGED`) shows the names of both.
- A path in `MACHINE_ONLY`, and all below it, is the virtual machine's, even where the machine does
  not have it: when the machine has no `dell_rbu`, a program must not find this computer's and write
  to it by mistake.
- Any other name that this computer has in a merged directory is a *placeholder*: a directory or a
  file on which the real one is bound (`openrbu.run.namespace`), or a copy of a real link.

The names of this computer are read once. A placeholder must not change, because Linux removes a
mount when the name that it is mounted on changes.

With `later`, a name that comes to a merged directory of this computer while the program runs is
shown, too: as a link into `REAL_SYS`, a directory on which the real `/sys` is bound.

Processes start and end, so they can't be bound. In `/proc` they are links into `PROCESSES`, a
directory on which the real `/proc` is bound. That directory is not listed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat
from openrbu.errors import KernelError
from openrbu.hosts.own_driver import REAL_SYS
from openrbu.run.shown_files import PROC_FILES, XEN

if TYPE_CHECKING:
    from openrbu.kernel.files import File, Files
    from openrbu.run.kernel_messages import KernelMessages

MERGED = frozenset(
    (
        "/proc",
        "/sys",
        "/sys/bus",
        "/sys/bus/platform",
        "/sys/bus/platform/devices",
        "/sys/bus/platform/drivers",
        "/sys/class",
        "/sys/devices",
        "/sys/devices/platform",
        "/sys/devices/system",
        "/sys/devices/virtual",
        "/sys/kernel",
        "/sys/kernel/mm",
        "/sys/module",
    )
)
"""Directories that show the entries of the virtual machine and of this computer."""

MACHINE_ONLY = frozenset(
    (
        *PROC_FILES,
        XEN,
        "/sys/bus/nvmem",  # among others of this computer: its CMOS
        "/sys/bus/platform/devices/dcdbas",
        "/sys/bus/platform/devices/dell_rbu",
        "/sys/bus/platform/drivers/dcdbas",
        "/sys/bus/platform/drivers/dell_rbu",
        "/sys/bus/xen_memory",
        "/sys/class/dmi",
        "/sys/class/firmware",
        "/sys/devices/platform/dcdbas",
        "/sys/devices/platform/dell_rbu",
        "/sys/devices/system/memory",
        "/sys/devices/system/node",  # the nodes of this computer's memory
        "/sys/devices/system/xen_memory",  # a target set there must not be this computer's
        "/sys/devices/virtual/dmi",
        "/sys/firmware",  # of this computer: its ACPI, its EFI variables
        "/sys/hypervisor",
        "/sys/kernel/kexec_loaded",
        "/sys/kernel/mm/hugepages",  # a number set there takes this computer's memory
        "/sys/kernel/security",
        "/sys/kernel/reboot",  # a mode set there must not be this computer's
        "/sys/module/dcdbas",
        "/sys/module/dell_rbu",
        "/sys/module/firmware_class",  # where this computer's kernel searches for firmware
        "/sys/power",  # what is written there puts this computer to sleep
        # Of this computer: a plan would speak of them.
        "/sys/bus/acpi",
        "/sys/bus/memory",
        "/sys/class/block",
        "/sys/class/power_supply",
        "/sys/class/rtc",
        "/sys/class/tpm",
        "/sys/class/tpmrm",
        "/sys/class/watchdog",
        # What other drivers show of the firmware of a real Dell, and let be changed in it.
        "/sys/bus/platform/devices/dell-smbios.0",
        "/sys/class/firmware-attributes",
        "/sys/devices/platform/dell-smbios.0",
        "/sys/devices/virtual/firmware-attributes",
    )
)
"""Paths, with all below them, at which a program finds the virtual machine's entries or none."""


@dataclass(frozen=True, slots=True)
class Places:
    """Which kind each path is of: the directories that are merged, and the paths, with all below
    them, that are not this computer's. Every directory above a merged one is merged."""

    merged: frozenset[str]
    served: frozenset[str]


OF_MACHINE = Places(MERGED, MACHINE_ONLY)

OF_OWN_DRIVER = Places(
    merged=frozenset(
        (
            "/sys",
            "/sys/bus",
            "/sys/bus/platform",
            "/sys/bus/platform/devices",
            "/sys/bus/platform/drivers",
            "/sys/class",
            "/sys/class/firmware",
            "/sys/devices",
            "/sys/devices/platform",
            "/sys/module",
        )
    ),
    served=frozenset(
        (
            "/sys/bus/platform/devices/dell_rbu",
            "/sys/bus/platform/drivers/dell_rbu",
            "/sys/class/firmware/dell_rbu",
            "/sys/devices/platform/dell_rbu",
            "/sys/module/dell_rbu",
        )
    ),
)
"""Openrbu's own driver on this computer: its files, and all else is this computer's."""

KMSG = "/dev/kmsg"
"""The log of the machine's kernel (`openrbu.run.kernel_messages`). It is not listed."""

REFUSED = "/refused"
"""A file that can't be opened (EPERM), to be bound on other files. It is not listed."""

PROCESSES = "/proc/.processes"
"""A directory on which the real `/proc` is bound."""

KMOD = "/sys/.kmod"
"""A directory for commands that load modules, in the same case. It is not listed either."""

COMMANDS = "/sys/.commands"
"""The file through which stand-ins for commands ask (`openrbu.run.answers`). It is not listed."""

LINKS_TO_SELF = ("self", "thread-self")

_LINKS_OF_MERGED = 1
"""The link count of a directory whose entries come from two directories, as in overlayfs."""

_FIRST_INODE = 1 << 32
"""Far above the inode numbers of a machine's files."""

_FIRST_PROCESS_INODE = 1 << 33
_FIRST_LATER_INODE = 1 << 34

_STAT_OF_KMSG = Stat(stat.S_IFREG | 0o644, 1, 0, _FIRST_INODE - 4, 0.0)

_STAT_OF_COMMANDS = Stat(stat.S_IFREG | 0o666, 1, 0, _FIRST_INODE - 3, 0.0)


@dataclass(frozen=True, slots=True)
class RealEntry:
    """An entry of this computer in a merged directory. `target`: of a symbolic link."""

    stat: Stat
    target: str = ""

    @property
    def kind(self) -> int:
        """The file type: `S_IFMT` of its mode."""
        return stat.S_IFMT(self.stat.mode)


def real_entries(root: Path = Path("/"), places: Places = OF_MACHINE) -> dict[str, RealEntry]:
    """This computer's entries in the merged directories now, by path, without those that are not
    its own in `places`, and without processes.

    `root` is the directory of its `/sys` and `/proc`.

    :raise OSError: when they can't be read.
    """
    found: dict[str, RealEntry] = {}
    for directory in sorted(places.merged):
        above = root / directory[1:]
        with contextlib.suppress(FileNotFoundError), os.scandir(above) as entries:
            found.setdefault(directory, _real(above, _FIRST_INODE + len(found)))
            for entry in entries:
                path = f"{directory}/{entry.name}"
                if path in places.served or _process_name(path):
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    found[path] = _real(entry, _FIRST_INODE + len(found))
    return found


def _real(entry: os.DirEntry[str] | Path, inode: int) -> RealEntry:
    seen = entry.stat(follow_symlinks=False)
    mode, target = seen.st_mode, ""
    if stat.S_ISLNK(mode):
        target = str(Path(entry).readlink())
    elif not stat.S_ISDIR(mode):
        mode = stat.S_IFREG | stat.S_IMODE(mode)
    return RealEntry(Stat(mode, _LINKS_OF_MERGED, 0, inode, seen.st_mtime), target)


def _processes(proc: Path) -> list[str]:
    """The names of processes, in the order of the real `/proc`, in which ps(1) shows them."""
    return [name for name in os.listdir(proc) if _process_name(f"/proc/{name}")]  # noqa: PTH208


def _process_name(path: str) -> str:
    """The name of a process in `/proc`, where `path` is one; else ''."""
    directory, _, name = path.rpartition("/")
    is_one = name in LINKS_TO_SELF or (name.isascii() and name.isdecimal())
    return name if is_one and directory == "/proc" else ""


class Desk(Protocol):
    """What answers the stand-ins for commands, which ask by the file `COMMANDS`."""

    def open(self, caller: Caller, what: Stat, /) -> File:
        """Open the file for one command of `caller`. `what` is what fstat(2) says of it."""


class Overlay:
    """`files` together with the entries `real` in the merged directories, as `kernel.files.Files`.
    Any thread may call.

    `places`: which directories are merged. `proc` is the directory with the processes of this
    computer. `later` is its `/sys`, where names are looked up that were not there when `real` was
    made; None: they are not shown. `desk`: answers the stand-ins for
    commands; None: there are none. `messages`: what is at `KMSG`; None: nothing.
    """

    def __init__(
        self,
        files: Files,
        real: Mapping[str, RealEntry],
        *,
        places: Places = OF_MACHINE,
        proc: Path = Path("/proc"),
        later: Path | None = None,
        desk: Desk | None = None,
        messages: KernelMessages | None = None,
    ) -> None:
        self._files, self._real, self._proc, self._desk = files, real, proc, desk
        self._places, self._messages, self._later = places, messages, later
        self._names: dict[str, list[str]] = defaultdict(list)
        for path in real:
            directory, _, name = path.rpartition("/")
            self._names[directory].append(name)

    def is_machines(self, path: str) -> bool:
        """Whether a path is the machine's, or nobody's: no placeholder, and no process. `REFUSED`
        counts as the machine's: it stands for what the machine does not have."""
        return path not in self._real and path != PROCESSES and not _process_name(path)

    def stat(self, path: str) -> Stat:
        if path == REFUSED:
            return Stat(stat.S_IFREG, 1, 0, _FIRST_INODE - 1, 0.0)
        if path == COMMANDS and self._desk is not None:
            return _STAT_OF_COMMANDS
        if path == KMSG and self._messages is not None:
            return _STAT_OF_KMSG
        if path == PROCESSES or (path in (REAL_SYS, KMOD) and self._later is not None):
            return Stat(stat.S_IFDIR | 0o555, _LINKS_OF_MERGED, 0, _FIRST_INODE - 2, 0.0)
        real = self._real_at(path)
        return self._files.stat(path) if real is None else real.stat

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        if path in (REFUSED, PROCESSES) or self._real_at(path) is not None:
            raise KernelError(errno.EPERM, path)
        self._files.change(path, wanted, caller)

    def list(self, path: str) -> list[str]:
        if path not in self._places.merged:
            return self._files.list(path)
        names = {*self._names.get(path, ()), *self._later_names(path)}
        try:
            names.update(self._files.list(path))
        except OSError as error:
            if error.errno != errno.ENOENT or not names:  # the machine has none, or is off
                raise
        return sorted(names) + (_processes(self._proc) if path == "/proc" else [])

    def readlink(self, path: str) -> str:
        real = self._real_at(path)
        if real is None:
            return self._files.readlink(path)
        if real.kind != stat.S_IFLNK:
            raise KernelError(errno.EINVAL, path)
        return real.target

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        if path == COMMANDS and self._desk is not None:
            return self._desk.open(caller, _STAT_OF_COMMANDS)
        if path == KMSG and self._messages is not None:
            return self._messages.open(caller, _STAT_OF_KMSG, writing=writing)
        if path == REFUSED or self._real_at(path) is not None:
            raise KernelError(errno.EPERM, path)
        return self._files.open(path, reading=reading, writing=writing, caller=caller)

    def _real_at(self, path: str) -> RealEntry | None:
        """This computer's entry at a path; None where the path is the machine's.

        :raise OSError: when it is the name of a process that does not run.
        """
        name = _process_name(path)
        if not name:
            return self._real.get(path) or self._later_entry(path)
        seen = (self._proc / name).lstat()
        inode = _FIRST_PROCESS_INODE + seen.st_ino
        what = Stat(stat.S_IFLNK | 0o777, _LINKS_OF_MERGED, 0, inode, seen.st_mtime)
        return RealEntry(what, f"{PROCESSES.rpartition('/')[2]}/{name}")

    def _later_names(self, directory: str) -> set[str]:
        """The names that a merged directory of this computer has now, and that can be shown."""
        if self._later is None or directory == "/proc":
            return set()
        with contextlib.suppress(OSError):
            names = os.listdir(self._later / _below_sys(directory))  # noqa: PTH208
            return {name for name in names if f"{directory}/{name}" not in self._places.served}
        return set()

    def _later_entry(self, path: str) -> RealEntry | None:
        """A link to this computer's entry, where it came after `real` was made; a copy of it where
        it is a link."""
        directory = path.rpartition("/")[0]
        if (
            self._later is None
            or directory not in self._places.merged
            or path in self._places.served
        ):
            return None
        inner = _below_sys(path)
        with contextlib.suppress(OSError):
            seen = (self._later / inner).lstat()
            target = f"{REAL_SYS}/{inner}"
            if stat.S_ISLNK(seen.st_mode):
                target = str((self._later / inner).readlink())
            inode = _FIRST_LATER_INODE + seen.st_ino
            mode = stat.S_IFLNK | 0o777
            return RealEntry(Stat(mode, _LINKS_OF_MERGED, 0, inode, seen.st_mtime), target)
        return None


def _below_sys(path: str) -> str:
    return path.removeprefix("/sys").lstrip("/")
