"""Where virtual machines are kept: a directory each, one owner at a time.

::

    $OPENRBU_HOME/machines/NAME/
        machine.json        what it is: made once, never changed
        smbios_entry_point  its SMBIOS tables as they left the factory
        DMI
        cmos, flash, nvram.json
        ram                 a sparse file, or a link to one
        xen/                where it runs Xen: its guests, see `machine.xen_host`
        state.*             the running kernel, put away: see `machine.state`
        journal.jsonl       what updates were tried here
        lock                held by the process that has the machine
        socket              there the process that serves the machine to others can be reached

`machine.json` is written last when a machine is made: a directory without it is no machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import MachineError, OpenRbuError, UsageError
from openrbu.system.home import state_home
from openrbu.system.lockfile import TakenError, owned

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space, or switch the machine off, and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EROFS: "its file system is read-only",
    errno.EACCES: "permission denied: it, or its directory, belongs to another user",
    errno.EPERM: "permission denied: it, or its directory, belongs to another user",
    errno.EFBIG: "its file system can't hold so large a file",
    errno.ENOMEM: "its RAM is more than a process may map here: make one with less",
    errno.EMFILE: "this process may have no more files open (ulimit -n)",
    errno.EIO: "the disk reports an input/output error",
}

_SERVING = "serving"


class InUseError(MachineError):
    """Another process has the machine: `owner`, None while it has not said so yet.

    `is_served`: it lets other programs use the machine through its socket.
    """

    kind = "in_use"

    def __init__(self, name: str, owner: str | None, *, is_served: bool) -> None:
        self.owner, self.is_served = owner, is_served
        process = f"by process {owner or 'unknown'}"
        text = f"in use {process}: wait for it, or end it"
        if is_served:
            text = f"served {process} (rbu mount or rbu run): unmount it, or end that program"
        super().__init__(f"machine {name!r} is {text}")


def machine_directory(name: str) -> Path:
    """The directory of the machine called `name`, there or not.

    :raise UsageError: when it can't be a name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be a machine's name: letters, digits, '.', '_' and '-', at most 64"
        )
    return state_home() / "machines" / name


def existing_directory(name: str) -> Path:
    """The directory of the machine called `name`.

    :raise MachineError: when there is no such machine.
    """
    directory = machine_directory(name)
    with disk_errors(directory):
        if not directory.is_dir():
            raise MachineError(f"there is no machine {name!r}; make one: rbu machine new {name}")
    check_owner(directory)
    return directory


def check_owner(directory: Path) -> None:
    """See that a machine, and what it is in, is this user's. (What is missing is nobody's.)

    A machine's files are opened, made and removed by name. Whoever could put links in their places
    would have this user write where they lead.

    :raise MachineError: when another user has one of the directories, or has put a link there.
    """
    machines = directory.parent
    for path in (machines.parent, machines, directory):
        for look in (path.lstat, path.stat):
            with disk_errors(directory), contextlib.suppress(FileNotFoundError):
                if look().st_uid not in (os.geteuid(), 0):
                    raise PermissionError(errno.EACCES, None)


def machine_names() -> list[str]:
    """The machines that there are, sorted."""
    machines = state_home() / "machines"
    with disk_errors(machines):
        if not machines.is_dir():
            return []
        return sorted(entry.name for entry in machines.iterdir() if _is_machine(entry))


def _is_machine(directory: Path) -> bool:
    if not _NAME.fullmatch(directory.name):  # one that is being made
        return False
    try:
        return (directory / "machine.json").exists()
    except PermissionError:  # another user's: opening it says so
        return True


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """What the disk under a machine refuses, as a `MachineError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OpenRbuError):  # what the machine's own kernel answered
            raise
        text = _DISK_ERRORS.get(error.errno or 0) or f"{error.filename}: {error.strerror}"
        raise MachineError(f"machine {directory.name!r} ({directory}): {text}") from None


@contextlib.contextmanager
def locked(directory: Path, *, serving: bool = False) -> Iterator[None]:
    """Lock a machine for this process, which means to serve it to others or not.

    :raise InUseError: when another process has it; the message says which.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(directory):
            try:
                stack.enter_context(owned(directory / "lock", _SERVING if serving else ""))
            except TakenError as taken:
                is_served = taken.role == _SERVING
                raise InUseError(directory.name, taken.owner, is_served=is_served) from None
        yield
