"""modprobe, insmod, rmmod and lsmod on a virtual machine.

Messages and exit statuses are those of kmod 30, seen by running it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Mapping, Sequence

from openrbu.errors import UsageError
from openrbu.kernel.module_parameters import KNOWN_PARAMETERS
from openrbu.run.said import Command, ModuleHost, Said, UnknownOptionError, failed

FILES = {
    "dell_rbu": "kernel/drivers/platform/x86/dell/dell_rbu.ko",
    "dcdbas": "kernel/drivers/platform/x86/dell/dcdbas.ko",
}
"""Where the modules are in the directory of modules, on Linux 6.1."""

_SHORT = "arRibfDcnC:d:S:sqvVhw:"
_LONG = (
    "all", "remove", "remove-dependencies", "remove-holders", "resolve-alias", "first-time",
    "ignore-install", "ignore-remove", "use-blacklist", "force", "force-modversion",
    "force-vermagic", "show-depends", "showconfig", "show-config", "dry-run", "show", "config=",
    "dirname=", "set-version=", "syslog", "quiet", "verbose", "version", "help", "wait=",
)  # fmt: skip

_REFUSED = os.strerror(errno.EPERM)


def modprobe(command: Command) -> Said:
    """modprobe(8)."""
    try:
        options, words = command.options(_SHORT, _LONG)
    except UnknownOptionError as error:
        return failed(str(error))
    given = {name for name, _ in options}
    if given & {"-V", "--version"}:
        return Said(out=("kmod version 30", "+ZSTD +XZ -ZLIB +LIBCRYPTO -EXPERIMENTAL"))
    if not words:
        return failed("modprobe: ERROR: missing parameters. See -h.")
    if given & {"-r", "--remove"}:
        return _all([_removed(command, module_name(word), given) for word in words])
    if given & {"-a", "--all"}:
        return _all([_inserted(command, word, (), given) for word in words])
    return _inserted(command, words[0], words[1:], given)


def insmod(command: Command) -> Said:
    """insmod(8). The module is that of the machine's kernel with the name of the file; the file
    itself is not read, and need not exist."""
    words = [word for word in command.words if word not in ("-f", "-s", "-v")]
    if not words:
        return failed("insmod: ERROR: missing filename.")
    path, name = words[0], module_name(words[0])
    problem = ""
    if _is_loaded(command.machine, name) or _is_built_in(command.machine, name):
        problem = os.strerror(errno.EEXIST)
    elif not _is_module(command, name):
        problem = f"the machine {command.machine.name} has no module {name}"
    else:
        problem = _insert(command, name, words[1:])
    if problem:
        return failed(f"insmod: ERROR: could not insert module {path}: {problem}")
    return Said()


def rmmod(command: Command) -> Said:
    """rmmod(8)."""
    try:
        _, words = command.options("fhsvVw", ("force", "syslog", "verbose", "version", "wait"))
    except UnknownOptionError as error:
        return failed(str(error))
    if not words:
        return failed("rmmod: ERROR: missing module name.")
    problems = []
    for name in map(module_name, words):
        if _is_built_in(command.machine, name):
            problems.append(f"rmmod: ERROR: Module {name} is builtin.")
        elif not _is_loaded(command.machine, name):
            problems.append(f"rmmod: ERROR: Module {name} is not currently loaded")
        elif problem := _remove(command, name):
            busy = problem == os.strerror(errno.EBUSY)
            why = (
                f"Module {name} is in use" if busy else f"could not remove module {name}: {problem}"
            )
            problems.append(f"rmmod: ERROR: {why}")
    return failed(*problems) if problems else Said()


def lsmod(command: Command) -> Said:
    """lsmod(8), a table of `/proc/modules`."""
    if command.words:
        return failed("Usage: lsmod")
    table = ["Module                  Size  Used by"]
    for line in _proc_modules(command.machine):
        name, size, count, users, *_ = line.split()
        users = users.strip("-,")
        table.append(f"{name:<19} {size:>8}  {count} {users}".rstrip())
    return Said(out=tuple(table))


def module_name(word: str) -> str:
    """The name of the module that a word of a command line means: a name, or a path."""
    return posixpath.basename(word).partition(".")[0].replace("-", "_")


def _inserted(command: Command, word: str, parameters: Sequence[str], given: set[str]) -> Said:
    """One module of `modprobe`."""
    machine, name = command.machine, module_name(word)
    first_time = "--first-time" in given
    if not _is_module(command, name):
        if _is_built_in(machine, name):
            return _already(name) if first_time else Said()
        kind = "WARNING" if given & {"-a", "--all"} else "FATAL"
        text = f"modprobe: {kind}: Module {word} not found in directory {_directory()}"
        return Said(1) if given & {"-q", "--quiet"} else failed(text)
    resolves = bool(given & {"-R", "--resolve-alias"})
    if _is_loaded(machine, name) and not resolves:
        return _already(name) if first_time else Said()
    parameters = [*_configured(name), *parameters]
    line = " ".join(["insmod", f"{_directory()}/{FILES[name]}", *parameters])
    shows = given & {"-v", "--verbose", "-D", "--show-depends"}
    out = (name,) if resolves else (f"{line} ",) if shows else ()
    if resolves or given & {"-n", "--dry-run", "--show", "-D", "--show-depends"}:
        return Said(out=out)
    if problem := _insert(command, name, parameters):
        return Said(1, out, (f"modprobe: ERROR: could not insert '{name}': {problem}",))
    return Said(out=out)


def _configured(name: str) -> list[str]:
    """The parameters in this computer's configuration of modprobe, as the program has it."""
    from openrbu.hosts.linux import LinuxHost  # noqa: PLC0415  (start-up time)
    from openrbu.linux.modules import options_of  # noqa: PLC0415  (start-up time)

    return options_of(LinuxHost(), name)


def _already(name: str) -> Said:
    return failed(f"modprobe: ERROR: could not insert '{name}': Module already in kernel")


def _removed(command: Command, name: str, given: set[str]) -> Said:
    """One module of `modprobe -r`."""
    out = (f"rmmod {name}",) if given & {"-v", "--verbose"} else ()
    error = _why_it_stays(command, name, given)
    is_loaded = _is_loaded(command.machine, name)
    if not error and is_loaded and not given & {"-n", "--dry-run", "--show"}:
        problem = _remove(command, name)
        if problem == os.strerror(errno.EBUSY):
            error = f"FATAL: Module {name} is in use."
        elif problem:
            error = f"ERROR: could not remove '{name}': {problem}"
    shown = out if is_loaded else ()
    return Said(1, shown, (f"modprobe: {error}",)) if error else Said(out=shown)


def _why_it_stays(command: Command, name: str, given: set[str]) -> str:
    """The error of `modprobe -r` for a module that can't be loaded now, or ''."""
    if _is_built_in(command.machine, name):
        return f"FATAL: Module {name} is builtin."
    if not _is_module(command, name):
        return f"FATAL: Module {name} not found."
    if not _is_loaded(command.machine, name) and "--first-time" in given:
        return f"FATAL: Module {name} is not in kernel."
    return ""


def _all(said: Sequence[Said]) -> Said:
    """What several modules brought, together."""
    return Said(
        max(each.status for each in said),
        tuple(line for each in said for line in each.out),
        tuple(line for each in said for line in each.errors),
    )


def _insert(command: Command, name: str, words: Sequence[str]) -> str:
    """Load a module; the text of the error, or ''."""
    if not command.is_root:
        return _REFUSED
    try:
        command.machine.load_module(name, known_parameters(name, words))
    except UsageError:  # an address that is none
        return os.strerror(errno.EINVAL)
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    return ""


def _remove(command: Command, name: str) -> str:
    """Unload a module; the text of the error, or ''."""
    if not command.is_root:
        return _REFUSED
    try:
        command.machine.unload_module(name)
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    return ""


def known_parameters(name: str, words: Sequence[str]) -> Mapping[str, str]:
    """Those that the module has: Linux ignores others, and says so in its log only."""
    pairs = (word.partition("=") for word in words)
    return {key: value for key, _, value in pairs if key in KNOWN_PARAMETERS.get(name, ())}


def _is_module(command: Command, name: str) -> bool:
    """Whether the machine's kernel has it as a module, loaded or not."""
    is_known = name in KNOWN_PARAMETERS and name not in command.lacks
    return is_known and not _is_built_in(command.machine, name)


def _is_built_in(machine: ModuleHost, name: str) -> bool:
    """Whether it is part of the machine's kernel."""
    is_there = name in machine.modules or machine.exists(f"/sys/module/{name}")
    return is_there and not _is_loaded(machine, name)


def _is_loaded(machine: ModuleHost, name: str) -> bool:
    return any(line.split()[0] == name for line in _proc_modules(machine))


def _proc_modules(machine: ModuleHost) -> list[str]:
    """The lines of `/proc/modules`, proc(5): one for each module that is loaded."""
    with contextlib.closing(machine.open("/proc/modules", reading=True)) as file:
        return file.read(0, 1 << 16).decode().splitlines()


def _directory() -> str:
    return f"/lib/modules/{os.uname().release}"
