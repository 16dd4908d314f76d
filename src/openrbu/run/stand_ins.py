"""Puts stand-ins at the places of commands that would load modules or restart this computer.

Each is a small script, which asks the process that serves the machine (`openrbu.run.answers`). The
scripts lie over the directories of commands as the upper layer of a read-only overlay: it costs one
mount, and hides a real command whether it is a file, a link or not there. Where Linux refuses an
overlay (it does on some file systems), a tmpfs takes its place in which all else is bound.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType

from openrbu.run import namespace
from openrbu.run.overlay import COMMANDS
from openrbu.system.libc import call

_BIN, _SBIN = "/usr/bin", "/usr/sbin"

HOMES: Mapping[str, str] = MappingProxyType(
    {
        "halt": _SBIN,
        "init": _SBIN,
        "insmod": _SBIN,
        "kexec": _SBIN,
        "lsmod": _SBIN,
        "modprobe": _SBIN,
        "poweroff": _SBIN,
        "reboot": _SBIN,
        "rmmod": _SBIN,
        "shutdown": _SBIN,
        "systemctl": _BIN,
        "telinit": _SBIN,
    }
)
"""The commands, and the directory in which each has a stand-in although this computer has none."""

DIRECTORIES = ("/bin", "/sbin", _BIN, _SBIN, "/usr/local/bin", "/usr/local/sbin")

_SAME = MappingProxyType({_BIN: "/bin", _SBIN: "/sbin"})
"""Where these two are one directory on most computers, and two on others."""

_ASKING = """\
exec 3<>{commands} || exit 1
printf '%s\\0' "$0" {name} "$@" >&3
answer=$(command -p cat <&3) || exit 1
exec 3<&-
eval "$answer"
"""


def install() -> None:
    """Put them over the directories of commands in this process's mount namespace.

    :raise OSError: the kernel's error.
    """
    here = namespace.working_directory()
    for directory, names in _places().items():
        cover(directory, {name: f"#!/bin/sh\n{asking(COMMANDS, name)}" for name in names})
    namespace.enter_again(here, *DIRECTORIES)


def asking(commands: str, name: str) -> str:
    """What a stand-in for the command `name` has in it: lines of sh(1), after which nothing is
    executed. `commands`: the file through which it asks."""
    return _ASKING.format(commands=commands, name=name)


def find_commands_of_root(environment: MutableMapping[str, str]) -> None:
    """Have root's directories in `PATH`, where they are not: the program is root on the machine,
    and users of this computer may have a `PATH` without them."""
    path = environment.get("PATH", os.defpath)
    missing = [each for each in ("/usr/sbin", "/sbin") if each not in path.split(os.pathsep)]
    environment["PATH"] = os.pathsep.join([path, *missing])


def _places() -> dict[str, list[str]]:
    """The names to have in each directory. Directories are real ones, without links."""
    places: dict[str, list[str]] = {}
    for directory in DIRECTORIES:
        real = os.path.realpath(directory)
        if real in places or not Path(real).is_dir():
            continue
        same = [each for each in DIRECTORIES if os.path.realpath(each) == real]
        homes = {each for home in same for each in (home, _of_usr(home))}
        names = [
            name
            for name, home in HOMES.items()
            if home in homes or os.path.lexists(os.path.join(real, name))  # noqa: PTH118
        ]
        if names:
            places[real] = names
    return places


def _of_usr(directory: str) -> str:
    """`/sbin` is a home of what has its home in `/usr/sbin`, too."""
    return next((each for each, short in _SAME.items() if short == directory), directory)


def cover(directory: str, files: Mapping[str, str]) -> None:
    """Have these files in a directory, together with all else that is there: text by path. All can
    be executed.

    :raise OSError: the kernel's error.
    """
    with namespace.pinned(directory) as real:
        namespace.mount_tmpfs(directory)
        for name, text in files.items():
            file = Path(directory, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        if not _has_mounts(directory):
            with namespace.pinned(directory) as top, contextlib.suppress(OSError):
                layers = f"lowerdir={top}:{real}"
                call("mount", b"none", os.fsencode(directory), b"overlay", 0, layers.encode())
                return
        namespace.mirror(real, directory, without={name.partition("/")[0] for name in files})


def _has_mounts(directory: str) -> bool:
    """Whether something is mounted below a directory: an overlay would not show that."""
    below = f" {directory}/".encode()
    return any(below in line for line in _mounts())


def _mounts() -> Iterator[bytes]:
    yield from Path("/proc/self/mountinfo").read_bytes().splitlines()
