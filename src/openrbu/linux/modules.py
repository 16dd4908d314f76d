"""Whether a Linux has a kernel module, and would load it: what modprobe(8) and the kernel look at.

Sources: modprobe(8), modprobe.d(5), the kernel's documents of `modules_disabled` and of module
signatures; seen on 6.1.192: the directory and its files `modules.dep` and `modules.builtin`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from openrbu.errors import DamagedInputError
from openrbu.hosts.base import Host, read_file
from openrbu.linux.files import COMMAND_LINE, RELEASE, names_in, number_of, text_of

MODULES_DISABLED = "/proc/sys/kernel/modules_disabled"
SIGNATURES_ENFORCED = "/sys/module/module/parameters/sig_enforce"

CONFIGURATION = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
"""Of files of the same name, that in the first of these directories counts."""

_SIGNATURE_MARK = b"~Module signature appended~\n"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a kernel. `is_present`: it is loaded, or built in. `release`: the kernel's; None
    where it is not shown.

    `directory`: the one of this kernel's modules; None where there is none. `file`: the path of the
    module's file, by `modules.dep`; None where that does not list it. `has_file`: it is there.
    `is_signed`: a signature is appended to it; None where that can't be known.

    `modules_disabled`: the kernel loads no more modules until the next restart. `needs_signature`:
    it loads signed ones only. `install`: the command of modprobe's configuration that is run in
    place of loading; empty: none. `is_blacklisted`: the kernel's command line forbids it
    (`module_blacklist=`). A line `blacklist` of modprobe's configuration does not count: a module
    can still be loaded by its name.
    """

    is_present: bool
    is_built_in: bool
    release: str | None
    directory: str | None
    file: str | None
    has_file: bool
    is_signed: bool | None
    modules_disabled: bool
    needs_signature: bool
    install: str
    is_blacklisted: bool


def read_module(host: Host, name: str) -> Module:
    """What there is of the module `name`. The signature is looked at where it counts only, under
    lockdown or where signatures are enforced: see `is_signed`."""
    release = text_of(host, RELEASE)
    directory = _directory(host, release)
    listed = "" if directory is None else _listed(host, f"{directory}/modules.dep", name)
    built_in = "" if directory is None else _listed(host, f"{directory}/modules.builtin", name)
    file = f"{directory}/{listed}" if listed else None
    has_file = file is not None and host.exists(file)
    is_present = host.exists(f"/sys/module/{name}")
    return Module(
        is_present=is_present or bool(built_in),
        is_built_in=bool(built_in),
        release=release,
        directory=directory,
        file=file,
        has_file=has_file,
        is_signed=_is_signed(host, file) if file is not None and has_file else None,
        modules_disabled=number_of(host, MODULES_DISABLED) == 1,
        needs_signature=text_of(host, SIGNATURES_ENFORCED) == "Y",
        install="" if is_present else _install_command(host, name),
        is_blacklisted=name in _blacklist(host),
    )


def lack_of(module: Module) -> tuple[str, str] | None:
    """Why there is no such module, and what to do; None: there is one, or it can't be known."""
    if module.release is None:
        return None
    if module.directory is None:
        where = f"/lib/modules/{module.release}"
        return (
            f"there is no directory of modules for the running kernel ({where})",
            "restart with the kernel that is installed, or install this one's modules",
        )
    if module.file is None:
        return (
            f"the running kernel {module.release} has no such module",
            "install the package with its further modules, or use a kernel that has it",
        )
    if not module.has_file:
        return f"its file {module.file} is missing", "install the kernel's modules once more"
    return None


def refusal_of(module: Module, lockdown: str | None) -> tuple[str, str] | None:
    """Why the kernel or modprobe would refuse to load it, and what to do; None: they would not."""
    if module.modules_disabled:
        return (
            "the kernel loads no more modules until the next restart (kernel.modules_disabled)",
            "restart, and load dell_rbu before that is set",
        )
    if module.is_blacklisted:
        return "the kernel's command line forbids it (module_blacklist)", "restart without that"
    if module.install:
        return (
            f"modprobe's configuration runs a command in place of it ({module.install})",
            "remove that line `install dell_rbu` below /etc/modprobe.d",
        )
    if module.is_signed is False and wants_signature(module, lockdown):
        return (
            f"this kernel loads signed modules only, and {module.file} is not signed",
            "use the distribution's own module, or sign it",
        )
    return None


def wants_signature(module: Module, lockdown: str | None) -> bool:
    """Whether this kernel loads signed modules only."""
    return module.needs_signature or lockdown not in (None, "none")


def _directory(host: Host, release: str | None) -> str | None:
    """The directory in which modprobe looks."""
    if release is None:
        return None
    directory = f"/lib/modules/{release}"
    return directory if host.exists(directory) else None


def _listed(host: Host, path: str, name: str) -> str:
    """A module's path in a list of modules; empty: it is not listed."""
    for line in (text_of(host, path) or "").splitlines():
        if name not in _module_name(line):  # most lines: the list has thousands
            continue
        file = line.partition(":")[0].strip()
        if _module_name(PurePosixPath(file).name.partition(".ko")[0]) == name:
            return file
    return ""


def _module_name(text: str) -> str:
    """In the names of modules `-` and `_` are the same."""
    return text.replace("-", "_")


def _is_signed(host: Host, file: str) -> bool | None:
    with contextlib.suppress(OSError, EOFError, DamagedInputError):
        return _unpacked(host, file).endswith(_SIGNATURE_MARK)
    return None


def _unpacked(host: Host, file: str) -> bytes:
    """A module's file, unpacked by the end of its name. (Python 3.11 can't read `.zst`.)

    :raise OSError | EOFError | DamagedInputError: when it can't be read or unpacked.
    """
    kind = PurePosixPath(file).suffix
    if kind == ".ko":
        return read_file(host, file)
    if kind == ".gz":
        import gzip  # noqa: PLC0415  (start-up time)
        import zlib  # noqa: PLC0415  (start-up time)

        try:
            return gzip.decompress(read_file(host, file))
        except zlib.error as error:
            raise DamagedInputError(f"{file}: {error}") from None
    if kind == ".xz":
        import lzma  # noqa: PLC0415  (start-up time)

        try:
            return lzma.decompress(read_file(host, file))
        except lzma.LZMAError as error:
            raise DamagedInputError(f"{file}: {error}") from None
    raise DamagedInputError(f"{file}: an unknown kind of file")


def _install_command(host: Host, name: str) -> str:
    """The command of the first `install` line for the module."""
    for line in _configuration(host):
        words = line.split(None, 2)
        if len(words) > 2 and words[0] == "install" and _module_name(words[1]) == name:
            return words[2]
    return ""


def options_of(host: Host, name: str) -> list[str]:
    """The parameters that modprobe's configuration gives a module, in lines `options`."""
    options: list[str] = []
    for line in _configuration(host):
        words = line.split()
        if len(words) > 2 and words[0] == "options" and _module_name(words[1]) == name:
            options += words[2:]
    return options


def _configuration(host: Host) -> Iterator[str]:
    """The lines of modprobe's configuration, without comments."""
    paths: dict[str, str] = {}
    for directory in CONFIGURATION:
        for each in names_in(host, directory):
            if each.endswith(".conf"):
                paths.setdefault(each, f"{directory}/{each}")
    for _, path in sorted(paths.items()):
        text = re.sub(r"\\\n", "", text_of(host, path) or "")
        yield from (line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _blacklist(host: Host) -> set[str]:
    """The modules that the kernel's command line forbids."""
    words = (text_of(host, COMMAND_LINE) or "").split()
    lists = (word.partition("=")[2] for word in words if word.startswith("module_blacklist="))
    return {_module_name(name) for each in lists for name in each.split(",")}
