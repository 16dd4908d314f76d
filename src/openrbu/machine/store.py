"""The directories of virtual machines, and the lock that gives one process at a time a machine.

::

    $OPENRBU_HOME/machines/NAME/
        machine.json        what it is: made once, never changed
        smbios_entry_point  its SMBIOS tables as they left the factory
        DMI
        cmos, flash, nvram.json  see `machine.shared_flash` for the flash
        ram                 a sparse file, or a link to one
        xen/                on a Xen host: its guests, see `machine.xen_host`
        state.*             the saved state of the running kernel: see `machine.state`
        journal.jsonl       the updates that were tried on it
        kernel.log          what its kernel said: see `machine.kernel_log`
        lock                locked by the process that has the machine
        socket              of the process that serves the machine to other processes
        summary             what a list shows of it: see `machine.summary_file`

`machine.json` is written last when a machine is made: a directory without it is not a machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import MachineError, OpenRbuError, UsageError
from openrbu.machine import summary_file
from openrbu.system.home import HOME_VARIABLE, state_home
from openrbu.system.lockfile import TakenError, looked_at, owned

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space, or switch the machine off, and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EROFS: "its file system is read-only",
    errno.EFBIG: "its file system, or the limit of this process (ulimit -f), allows no such size",
    errno.ENOMEM: "its RAM is more than a process may map here: make a machine with less",
    errno.EMFILE: "this process has too many files open (ulimit -n)",
    errno.EIO: "the disk reports an input/output error",
}

_ANOTHER_HOME = f"{HOME_VARIABLE}=DIR names another directory for machines"

_SERVING = "serving"


class InUseError(MachineError):
    """Another process has the machine. `owner`: its PID, or None when it has not written it yet.

    `is_served`: that process lets other programs use the machine through its socket.
    """

    kind = "in_use"

    def __init__(self, name: str, owner: str | None, *, is_served: bool) -> None:
        self.owner, self.is_served = owner, is_served
        process = owner or "unknown"
        text = f"is in use by process {process}: wait for it, or end it"
        if is_served:
            way = "(rbu mount or rbu run): unmount it, or end that program"
            text = f"is served by process {process} {way}"
        super().__init__(f"machine {name!r} {text}")


def machine_directory(name: str) -> Path:
    """The directory of the machine `name`, which need not exist.

    :raise UsageError: when `name` can't be a machine's name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be a machine's name: letters, digits, '.', '_' and '-', at most 64"
        )
    return state_home() / "machines" / name


def existing_directory(name: str) -> Path:
    """The directory of the machine `name`.

    :raise UsageError: as `machine_directory`.
    :raise MachineError: when there is no such machine, or as `check_owner`.
    """
    directory = machine_directory(name)
    with disk_errors(directory):
        if not directory.is_dir():
            raise missing(name)
    check_owner(directory)
    return directory


def missing(name: str) -> MachineError:
    """The error for a machine that does not exist."""
    return MachineError(f"there is no machine {name!r}; make one: rbu machine new {name}")


def check_owner(directory: Path) -> None:
    """Check that a machine's directory, and the two directories above it, belong to this user or to
    root. A directory that does not exist is not checked.

    A machine's files are opened, made and removed by name. Another user who could replace them by
    links would make this user write to the targets of the links.

    :raise MachineError: when one of the directories, or a link in its place, is another user's.
    """
    machines = directory.parent
    for path in (machines.parent, machines, directory):
        for stat in (path.lstat, path.stat):
            with disk_errors(directory), contextlib.suppress(FileNotFoundError):
                if (owner := stat().st_uid) not in (os.geteuid(), 0):
                    raise _not_ours(directory, path, owner)


def _not_ours(directory: Path, path: Path, uid: int) -> MachineError:
    from openrbu.system.denied import user_name  # noqa: PLC0415  (start-up time)

    owner, me = user_name(uid), user_name(os.geteuid())
    return MachineError(
        f"machine {directory.name!r} ({directory}): permission denied: {path} belongs to {owner}, "
        f"and this is {me}; {_ANOTHER_HOME}"
    )


def machine_names() -> list[str]:
    """The names of all machines, sorted.

    :raise MachineError: when the directory of machines can't be read.
    """
    machines = state_home() / "machines"
    try:
        with os.scandir(machines) as entries:
            names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        return sorted(name for name in names if is_machine(machines / name))
    except FileNotFoundError:
        return []
    except OSError as error:
        why = _why(error, machines)
        raise MachineError(f"the machines in {machines} can't be listed: {why}") from None


def is_machine(directory: Path) -> bool:
    """Whether there is a machine in a directory, as far as can be seen."""
    if not _NAME.fullmatch(directory.name):  # a machine that is being made
        return False
    try:
        (directory / "machine.json").lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # another user's; the error comes when it is opened
        return True
    return True


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn an OSError of the disk in the block into a `MachineError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OpenRbuError):  # an error of the machine's own kernel
            raise
        text = _DISK_ERRORS.get(error.errno or 0)
        if text is None and isinstance(error, PermissionError):
            place = error.filename2 or error.filename  # of a renaming, where to
            text = _why(error, Path(place or directory))
        text = text or f"{error.filename}: {error.strerror}"
        raise MachineError(f"machine {directory.name!r} ({directory}): {text}") from None


@contextlib.contextmanager
def home_errors(directory: Path) -> Iterator[None]:
    """Turn the OSError of a directory for machines that can't be made, in the block, into a
    `MachineError` that names the variable. What `disk_errors` tells is left to that."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
            raise
        in_place = next((each for each in (directory, *directory.parents) if each.exists()), None)
        is_other = in_place is not None and not in_place.is_dir()
        why = f"{in_place} is not a directory" if is_other else error.strerror
        raise MachineError(
            f"the directory for machines {directory} can't be made: {why}; {_ANOTHER_HOME}"
        ) from None


def _why(error: OSError, path: Path) -> str:
    """Why the disk refuses a path, and what to do."""
    from openrbu.system.denied import why_refused  # noqa: PLC0415  (start-up time)

    return f"{why_refused(error, path)}; {_ANOTHER_HOME}"


@contextlib.contextmanager
def locked(directory: Path, *, serving: bool = False) -> Iterator[None]:
    """Lock a machine for this process in the block. `serving`: this process is going to serve it to
    other programs.

    :raise InUseError: when another process has it.
    :raise MachineError: for an error of the disk.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(directory):
            try:
                stack.enter_context(owned(directory / "lock", _SERVING if serving else ""))
            except TakenError as taken:
                raise _in_use(directory, taken) from None
            summary_file.make_void(directory)
        yield


@contextlib.contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Keep other processes from having a machine in the block, in a directory that may not be
    written.

    :raise InUseError: when another process has it.
    :raise MachineError: for an error of the disk.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(directory), contextlib.suppress(FileNotFoundError):
            try:
                stack.enter_context(looked_at(directory / "lock"))
            except TakenError as taken:
                raise _in_use(directory, taken) from None
        yield


def _in_use(directory: Path, taken: TakenError) -> InUseError:
    is_served = taken.role == _SERVING
    return InUseError(directory.name, taken.owner, is_served=is_served)
