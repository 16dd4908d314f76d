"""A machine's files with those of this computer beside them: what a program under `rbu run` sees.

Theory of operation. Every path under `/sys` and `/proc` is one of three things, and which one never
changes while the view is there:

- A *merged* directory (`MERGED`) shows the names of both.
- What is in `OURS`, and all below it, is the virtual machine's alone, there or not: where it has no
  `dell_rbu`, one of this computer must not show through and be written to by mistake.
- Any other name that this computer has in a merged directory is a *placeholder*: a directory or a
  file that the real one is bound on (`openrbu.fuse.namespace`), or a link as the real one is.

The names of this computer are taken once. A placeholder has to stay as it is: Linux drops what is
mounted on a name that changes.

Processes come and go, so nothing can be bound on them: in `/proc` they are links into `PROCESSES`,
a directory that the real `/proc` is bound on. It is not listed.
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
from typing import TYPE_CHECKING

from openrbu.drivers.sysfs import ROOT, Caller, Stat
from openrbu.errors import KernelError

if TYPE_CHECKING:
    from openrbu.kernel.files import File, Files

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
        "/sys/module",
    )
)
"""Directories that show what the virtual machine has, and what this computer has."""

OURS = frozenset(
    (
        "/proc/buddyinfo",
        "/proc/kpageflags",
        "/proc/modules",
        "/proc/xen",
        "/sys/bus/platform/devices/dcdbas",
        "/sys/bus/platform/devices/dell_rbu",
        "/sys/bus/platform/drivers/dcdbas",
        "/sys/bus/platform/drivers/dell_rbu",
        "/sys/bus/xen_memory",
        "/sys/class/dmi",
        "/sys/class/firmware",
        "/sys/devices/platform/dcdbas",
        "/sys/devices/platform/dell_rbu",
        "/sys/devices/system/xen_memory",  # a target set there must not be this computer's
        "/sys/devices/virtual/dmi",
        "/sys/firmware",  # of this computer: its ACPI, its EFI variables
        "/sys/hypervisor",
        "/sys/kernel/reboot",  # a mode set there must not be this computer's
        "/sys/module/dcdbas",
        "/sys/module/dell_rbu",
        "/sys/power",  # what is written there puts this computer to sleep
        # What other drivers show of the firmware of a real Dell, and let be changed in it.
        "/sys/bus/platform/devices/dell-smbios.0",
        "/sys/class/firmware-attributes",
        "/sys/devices/platform/dell-smbios.0",
        "/sys/devices/virtual/firmware-attributes",
    )
)
"""What this computer's own entries never show through."""

REFUSED = "/refused"
"""A file that nobody can open (EPERM). It is not listed; it is there to be bound on others."""

PROCESSES = "/proc/.processes"
"""A directory, there to have the real `/proc` bound on it."""

LINKS_TO_SELF = ("self", "thread-self")

_LINKS_OF_MERGED = 1
"""What overlayfs, too, shows of a directory whose entries come from two places."""

_FIRST_INODE = 1 << 32
"""Far above those that a machine's files have."""

_FIRST_PROCESS_INODE = 1 << 33


@dataclass(frozen=True, slots=True)
class Real:
    """An entry of this computer in a merged directory. `target`: where a link leads."""

    stat: Stat
    target: str = ""

    @property
    def kind(self) -> int:
        """The type's bits of its mode."""
        return stat.S_IFMT(self.stat.mode)


def real_entries(root: Path = Path("/")) -> dict[str, Real]:
    """What this computer has in the merged directories now, by its path, `OURS` and processes left
    out.

    `root` is where its `/sys` and `/proc` are found.

    :raise OSError: when that can't be read.
    """
    found: dict[str, Real] = {}
    for directory in sorted(MERGED):
        above = root / directory[1:]
        with contextlib.suppress(FileNotFoundError), os.scandir(above) as entries:
            found.setdefault(directory, _real(above, _FIRST_INODE + len(found)))
            for entry in entries:
                path = f"{directory}/{entry.name}"
                if path in OURS or _process_name(path):
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    found[path] = _real(entry, _FIRST_INODE + len(found))
    return found


def _real(entry: os.DirEntry[str] | Path, inode: int) -> Real:
    seen = entry.stat(follow_symlinks=False)
    mode, target = seen.st_mode, ""
    if stat.S_ISLNK(mode):
        target = str(Path(entry).readlink())
    elif not stat.S_ISDIR(mode):
        mode = stat.S_IFREG | stat.S_IMODE(mode)
    return Real(Stat(mode, _LINKS_OF_MERGED, 0, inode, seen.st_mtime), target)


def _processes(proc: Path) -> list[str]:
    """The names of processes, in the order that the real `/proc` has: ps(1) shows them in that."""
    return [name for name in os.listdir(proc) if _process_name(f"/proc/{name}")]  # noqa: PTH208


def _process_name(path: str) -> str:
    """The name in `/proc` of one process, where that is what `path` is; or ''."""
    directory, _, name = path.rpartition("/")
    is_one = name in LINKS_TO_SELF or (name.isascii() and name.isdecimal())
    return name if is_one and directory == "/proc" else ""


class Overlay:
    """`files`, with `real` in the merged directories: a `Files` as well. Any thread may call.

    `proc` has the processes of this computer.
    """

    def __init__(
        self, files: Files, real: Mapping[str, Real], *, proc: Path = Path("/proc")
    ) -> None:
        self._files, self._real, self._proc = files, real, proc
        self._names: dict[str, list[str]] = defaultdict(list)
        for path in real:
            directory, _, name = path.rpartition("/")
            self._names[directory].append(name)

    def stat(self, path: str) -> Stat:
        if path == REFUSED:
            return Stat(stat.S_IFREG, 1, 0, _FIRST_INODE - 1, 0.0)
        if path == PROCESSES:
            return Stat(stat.S_IFDIR | 0o555, _LINKS_OF_MERGED, 0, _FIRST_INODE - 2, 0.0)
        real = self._real_at(path)
        return self._files.stat(path) if real is None else real.stat

    def list(self, path: str) -> list[str]:
        if path not in MERGED:
            return self._files.list(path)
        names = set(self._names.get(path, ()))
        try:
            names.update(self._files.list(path))
        except OSError as error:
            if error.errno != errno.ENOENT or not names:  # ENOENT: it has none, or is off
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
        if path == REFUSED or self._real_at(path) is not None:
            raise KernelError(errno.EPERM, path)
        return self._files.open(path, reading=reading, writing=writing, caller=caller)

    def _real_at(self, path: str) -> Real | None:
        """The entry of this computer at a path, where it is none of the machine's.

        :raise OSError: when it is a process that is not there.
        """
        name = _process_name(path)
        if not name:
            return self._real.get(path)
        seen = (self._proc / name).lstat()
        inode = _FIRST_PROCESS_INODE + seen.st_ino
        what = Stat(stat.S_IFLNK | 0o777, _LINKS_OF_MERGED, 0, inode, seen.st_mtime)
        return Real(what, f"{PROCESSES.rpartition('/')[2]}/{name}")
