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
import json
import operator
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrbu.bios.faults import parse_fault
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import MachineError, OpenRbuError, UsageError
from openrbu.formats.hdr import MAX_REVISION
from openrbu.formats.smbios import Tables
from openrbu.memory.physical import pc_regions
from openrbu.system.lockfile import LockFile
from openrbu.system.signals import signals_held

FORMAT = 2
"""The layout of a machine's directory; a reader refuses newer ones, and takes older ones. 2: rule
set and hardware revision; NVRAM notes that a result is being recorded."""

MAX_ENTRY_DELAY_S = 3600.0

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

_OWNER_BYTES = 32
"""What a lock file has: a process's number, `serving` where it serves the machine to others, and
blanks. It never grows, so a full disk is no reason for it to fail."""

_SERVING = "serving"


class InUseError(MachineError):
    """Another process has the machine: `owner`, None while it has not said so yet.

    `is_served`: it lets other programs use the machine through its socket.
    """

    def __init__(self, name: str, owner: str | None, *, is_served: bool) -> None:
        self.owner, self.is_served = owner, is_served
        process = f"by process {owner or 'unknown'}"
        text = f"in use {process}: wait for it, or end it"
        if is_served:
            text = f"served {process} (rbu mount or rbu run): unmount it, or end that program"
        super().__init__(f"machine {name!r} is {text}")


@dataclass(frozen=True, slots=True)
class XenConfig:
    """A machine that runs Xen. Its own Linux is the guest dom0, which starts with `dom0_bytes` of
    memory and may have up to `dom0_max_bytes`, and whose balloon driver follows `profile`.

    `takes_memory`: the RAM of a guest is taken from this computer when the guest gets it, and not
    only when it is written to.
    """

    dom0_bytes: int
    dom0_max_bytes: int
    profile: str
    takes_memory: bool = False


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What a machine is. `faults` are labels of `bios.faults`; sizes in bytes. `tables_crc32` is
    over its SMBIOS entry point and table, which may be odd, but must not change. Its kernel takes
    `entry_delay_s` seconds to make a firmware entry. `xen` is None where Linux runs on the machine
    itself. `bios_rules` names what its BIOS does (`bios.rules`), which takes images for
    `hardware_revision`; machines made before openrbu 0.2 say neither."""

    model: str
    ram_bytes: int
    tables_crc32: int
    profile: str
    created_at: str
    made_by: str
    faults: tuple[str, ...] = ()
    entry_delay_s: float = 0.0
    xen: XenConfig | None = None
    bios_rules: str = "published"
    hardware_revision: int = 0
    format: int = FORMAT


HOME_VARIABLE = "OPENRBU_HOME"


def state_home() -> Path:
    """Where openrbu keeps its things: `$OPENRBU_HOME`, else the platform's user state directory."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return Path(platformdirs.user_state_dir("openrbu"))


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


def load_config(directory: Path) -> MachineConfig:
    """What the machine in `directory` is.

    :raise MachineError: when that can't be read, or is from a newer openrbu; or when one of the
        machine's files is of a kind that nobody could open without waiting.
    """
    path = directory / "machine.json"
    with disk_errors(directory):
        try:
            _check_kinds(directory)
            return _parse_config(json.loads(path.read_bytes()), directory.name)
        except FileNotFoundError:
            raise MachineError(
                f"machine {directory.name!r} has no machine.json: its making was cut short, or it "
                f"was damaged; remove it: rbu machine rm {directory.name}"
            ) from None
        except (ValueError, LookupError, TypeError, RecursionError, UsageError):
            raise MachineError(f"{path} is damaged") from None


def _check_kinds(directory: Path) -> None:
    """See that what is in a machine's directory can be opened: a FIFO would wait for a writer.

    :raise MachineError: when something is there that is no file.
    """
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may have been removed just now
            kind = stat.S_IFMT(path.stat().st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFSOCK):
                raise MachineError(f"{path} is neither a file nor a directory: remove it")


def _parse_config(document: dict[str, Any], name: str) -> MachineConfig:
    """What a `machine.json` says.

    :raise MachineError: when it is from a newer openrbu. Whatever else is raised: it is damaged.
    """
    if document["format"] > FORMAT:
        raise MachineError(
            f"machine {name!r} was made by a newer openrbu (format {document['format']}; this one "
            f"knows {FORMAT}): update openrbu"
        )
    xen = document.get("xen")
    read = {"faults": tuple(document["faults"]), "xen": None if xen is None else XenConfig(**xen)}
    config = MachineConfig(**document | read)
    pc_regions(operator.index(config.ram_bytes))
    if config.xen is not None:
        balloon_profile(config.xen.profile)
        operator.index(config.xen.dom0_bytes + config.xen.dom0_max_bytes)
    profile(config.profile)
    for label in config.faults:
        parse_fault(label)
    check_entry_delay(config.entry_delay_s)
    check_bios(config.bios_rules, config.hardware_revision)
    return config


def check_bios(rules: str, revision: int) -> None:
    """See that a machine's BIOS can be like this.

    :raise UsageError: when there is no such rule set, or a header has no room for the revision.
    """
    from openrbu.bios.rules import rule_set  # noqa: PLC0415  (start-up time)

    rule_set(rules)
    if not 0 <= operator.index(revision) <= MAX_REVISION:
        raise UsageError(f"a hardware revision is from 0 to {MAX_REVISION}, not {revision}")


def check_entry_delay(seconds: float) -> None:
    """See that it can be one.

    :raise UsageError: when it is negative, or longer than anybody would wait.
    """
    if not 0 <= seconds <= MAX_ENTRY_DELAY_S:
        raise UsageError(
            f"a firmware entry comes after 0 to {MAX_ENTRY_DELAY_S:.0f} seconds, not {seconds}"
        )


def save_config(directory: Path, config: MachineConfig) -> None:
    """Make the directory a machine."""
    replace_file(directory / "machine.json", json.dumps(asdict(config), indent=2) + "\n")


def remove(directory: Path) -> None:
    """Remove a machine and all that it has. The caller holds its lock.

    :raise MachineError: when the disk refuses, or a process stays inside of a hypercall.
    """
    from openrbu.machine.dom0 import XEN  # noqa: PLC0415  (these import this module)
    from openrbu.xen.hypervisor import Hypervisor  # noqa: PLC0415

    with disk_errors(directory), signals_held():
        (directory / "machine.json").unlink(missing_ok=True)
        Hypervisor.remove(directory / XEN)  # processes that have it open can do no harm then
        remove_ram(directory)
        shutil.rmtree(directory)


def remove_ram(directory: Path) -> None:
    """Remove a machine's RAM that is kept elsewhere: `ram` is a link to it then.

    :raise OSError: when that is not allowed.
    """
    ram = directory / "ram"
    if ram.is_symlink():
        ram.readlink().unlink(missing_ok=True)


def fresh_directory(parent: Path, prefix: str) -> Path:
    """A directory of this process's own, in `parent`: its name begins with `prefix`, the process ID
    follows. What a process that was killed has left of such directories goes.

    :raise OSError: when it can't be made.
    """
    for left in parent.glob(f"{prefix}*-*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def replace_file(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(text)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def make_room(directory: Path, size_bytes: int) -> None:
    """See that this much can be written to the disk, before something begins that needs it.

    :raise OSError: when it can't.
    """
    path = directory / "room"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)
        path.unlink()


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
    """Hold a machine for this process, which means to serve it to others or not.

    :raise InUseError: when another process has it; the message says which.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(directory):
            lock = stack.enter_context(LockFile(directory / "lock", create=True))
            if not lock.take():
                owner, _, does = lock.read().partition(" ")
                raise InUseError(directory.name, owner or None, is_served=does == _SERVING)
            text = f"{os.getpid()} {_SERVING}" if serving else f"{os.getpid()}"
            lock.write(text.ljust(_OWNER_BYTES))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the next owner is not to be taken for this one
                lock.write("")


def read_tables(directory: Path, config: MachineConfig) -> Tables:
    """The SMBIOS tables that a machine was made with.

    :raise MachineError: when they are not there, or damaged.
    """
    try:
        names = ("smbios_entry_point", "DMI")
        entry_point, table = [(directory / name).read_bytes() for name in names]
    except FileNotFoundError as error:
        text = f"machine {directory.name!r} has lost its file {error.filename}"
        raise MachineError(text) from None
    if zlib.crc32(entry_point + table) != config.tables_crc32:
        raise MachineError(
            f"machine {directory.name!r} has damaged SMBIOS tables: they are not those it was made "
            "with"
        )
    return Tables.parse(entry_point, table)
