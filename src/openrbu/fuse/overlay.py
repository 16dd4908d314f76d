"""A machine's files with those of this computer beside them: what a program under `rbu run` sees.

Theory of operation. Every path under `/sys` is one of three things, and which one never changes
while the view is there:

- A *merged* directory (`MERGED`) shows the names of both.
- What is in `OURS`, and all below it, is the virtual machine's alone, there or not: where it has no
  `dell_rbu`, one of this computer must not show through and be written to by mistake.
- Any other name that this computer has in a merged directory is a *placeholder*: a directory or a
  file that the real one is bound on (`openrbu.fuse.namespace`), or a link as the real one is.

The names of this computer are taken once. A placeholder has to stay as it is: Linux drops what is
mounted on a name that changes.
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
    from openrbu.machine.files import File, Files

MERGED = frozenset(
    (
        "/sys",
        "/sys/bus",
        "/sys/bus/platform",
        "/sys/bus/platform/devices",
        "/sys/bus/platform/drivers",
        "/sys/class",
        "/sys/devices",
        "/sys/devices/platform",
        "/sys/devices/virtual",
        "/sys/kernel",
        "/sys/module",
    )
)
"""Directories that show what the virtual machine has, and what this computer has."""

OURS = frozenset(
    (
        "/sys/bus/platform/devices/dcdbas",
        "/sys/bus/platform/devices/dell_rbu",
        "/sys/bus/platform/drivers/dcdbas",
        "/sys/bus/platform/drivers/dell_rbu",
        "/sys/class/dmi",
        "/sys/class/firmware",
        "/sys/devices/platform/dcdbas",
        "/sys/devices/platform/dell_rbu",
        "/sys/devices/virtual/dmi",
        "/sys/firmware",  # of this computer: its ACPI, its EFI variables
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

_LINKS_OF_MERGED = 1
"""What overlayfs, too, shows of a directory whose entries come from two places."""

_FIRST_INODE = 1 << 32
"""Far above those that a machine's files have."""


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
    """What this computer has in the merged directories now, by its path, `OURS` left out.

    `root` is where its `/sys` is found.

    :raise OSError: when that can't be read.
    """
    found: dict[str, Real] = {}
    for directory in sorted(MERGED):
        with contextlib.suppress(FileNotFoundError), os.scandir(root / directory[1:]) as entries:
            for entry in entries:
                path = f"{directory}/{entry.name}"
                if path in OURS:
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    found[path] = _real(entry, _FIRST_INODE + len(found))
    return found


def _real(entry: os.DirEntry[str], inode: int) -> Real:
    seen = entry.stat(follow_symlinks=False)
    mode, target = seen.st_mode, ""
    if stat.S_ISLNK(mode):
        target = str(Path(entry).readlink())
    elif not stat.S_ISDIR(mode):
        mode = stat.S_IFREG | stat.S_IMODE(mode)
    return Real(Stat(mode, _LINKS_OF_MERGED, 0, inode, seen.st_mtime), target)


class Overlay:
    """`files`, with `real` in the merged directories: a `Files` as well. Any thread may call."""

    def __init__(self, files: Files, real: Mapping[str, Real]) -> None:
        self._files, self._real = files, real
        self._names: dict[str, list[str]] = defaultdict(list)
        for path in real:
            directory, _, name = path.rpartition("/")
            self._names[directory].append(name)

    def stat(self, path: str) -> Stat:
        if path == REFUSED:
            return Stat(stat.S_IFREG, 1, 0, _FIRST_INODE - 1, 0.0)
        real = self._real.get(path)
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
        return sorted(names)

    def readlink(self, path: str) -> str:
        real = self._real.get(path)
        if real is None:
            return self._files.readlink(path)
        if real.kind != stat.S_IFLNK:
            raise KernelError(errno.EINVAL, path)
        return real.target

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        if path == REFUSED or path in self._real:
            raise KernelError(errno.EPERM, path)
        return self._files.open(path, reading=reading, writing=writing, caller=caller)
