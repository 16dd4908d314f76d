"""What a Linux says of its next restart, and of how this boot began.

Only what its files say; what that means for an update is `update.restart`'s matter.
Facts: docs/reference/linux-files.md, L7 and L12.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from openrbu.formats.fadt import ResetRegister, parse_reset_register
from openrbu.formats.reboot_words import RebootWords, parse_reboot_words
from openrbu.hosts.base import EFI_VARIABLES, Host, read_file
from openrbu.hosts.restart_command import SYSTEMD_RUNS
from openrbu.linux.files import COMMAND_LINE, names_in, text_if_there, text_of

REBOOT = "/sys/kernel/reboot"
REBOOT_MODE = f"{REBOOT}/mode"
REBOOT_TYPE = f"{REBOOT}/type"
REBOOT_FORCE = f"{REBOOT}/force"
REBOOT_CPU = f"{REBOOT}/cpu"
KEXEC_LOADED = "/sys/kernel/kexec_loaded"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOT_LOADER_TYPE = "/proc/sys/kernel/bootloader_type"
FADT = "/sys/firmware/acpi/tables/FACP"
NEXT_ROOT = "/run/nextroot"
WATCHDOG = "/sys/class/watchdog/watchdog0"

OVERWRITE_REQUEST = (
    f"{EFI_VARIABLES}/MemoryOverwriteRequestControl-e20939be-32d4-41be-a150-897f85d49829"
)
OVERWRITE_LOCK = (
    f"{EFI_VARIABLES}/MemoryOverwriteRequestControlLock-bb983ccf-151d-40e1-a07b-4a17be168292"
)
_VARIABLE_BYTES = 5
"""Four bytes of attributes, and the value."""

_UNITS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Of unit files of the same name, that in the first of these directories counts."""

_REBOOT_TARGET = "reboot.target"
_KEXEC_UNITS = {"kexec.target", "systemd-kexec.service"}
_NEEDS_UNITS = re.compile(
    r"^\s*(?:Requires|Requisite|BindsTo|Wants|Upholds)\s*=(.*)$", re.MULTILINE
)

_KEXEC_DEFAULTS = "/etc/default/kexec"
_LOAD_KEXEC = "LOAD_KEXEC="

_KEXEC_LOADER = 0xD
"""The boot loader's number that kexec gives to the kernel it starts."""


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """The files of `/sys/kernel/reboot`, as text; None: this kernel does not have that one."""

    mode: str | None
    type: str | None
    force: str | None
    cpu: str | None


@dataclass(frozen=True, slots=True)
class Kexec:
    """Whether a restart would start another kernel in place of the BIOS, or the same one go on.

    `is_loaded`: a kernel is loaded for that; None: this kernel does not say. `reboot_unit`: the
    file that makes systemd's reboot.target one that starts another kernel; empty: none does.
    `loads_at_shutdown`: the scripts of kexec-tools load one when the machine shuts down.
    `has_next_root`: systemd would restart user space alone.
    """

    is_loaded: bool | None
    reboot_unit: str
    loads_at_shutdown: bool
    has_next_root: bool


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot of the machine. `loader_type`: the number of the boot loader, None where the kernel
    does not say."""

    id: str | None
    loader_type: int | None

    @property
    def is_by_kexec(self) -> bool | None:
        """Whether another kernel started this one, without the BIOS; None: it is not known."""
        return None if self.loader_type is None else self.loader_type >> 4 == _KEXEC_LOADER


@dataclass(frozen=True, slots=True)
class OverwriteRequest:
    """The firmware's variable MemoryOverwriteRequestControl: with bit 0 the firmware clears memory
    at the next restart, a warm one too. `data`: four bytes of attributes, and the value.
    `is_locked`: the firmware does not let it be changed."""

    data: bytes
    is_locked: bool

    @property
    def is_set(self) -> bool:
        return bool(self.data[-1] & 1)

    @property
    def cleared(self) -> bytes:
        """What to write, so that memory is kept."""
        return self.data[:-1] + bytes([self.data[-1] & ~1])


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The first watchdog. `state`: "active" or "inactive"; None where the kernel does not say."""

    state: str | None
    identity: str | None


def read_restart_settings(host: Host) -> RestartSettings:
    """The files of `/sys/kernel/reboot`."""
    return RestartSettings(
        *(text_if_there(host, f"{REBOOT}/{x}") for x in ("mode", "type", "force", "cpu"))
    )


def read_reboot_words(host: Host) -> RebootWords | None:
    """The words `reboot=` of the kernel's command line; None where that can't be read."""
    line = text_if_there(host, COMMAND_LINE)
    return None if line is None else parse_reboot_words(line)


def read_kexec(host: Host) -> Kexec:
    """What would start another kernel at the restart."""
    return Kexec(
        is_loaded={"0": False, "1": True}.get(text_of(host, KEXEC_LOADED) or ""),
        reboot_unit=next(_kexec_units(host), ""),
        loads_at_shutdown=_loads_at_shutdown(host),
        has_next_root=host.exists(NEXT_ROOT),
    )


def _kexec_units(host: Host) -> Iterator[str]:
    """The files by which a restart through systemd is one by kexec: reboot.target itself, its
    drop-ins, and the directories of what it needs. Source: systemd.unit(5)."""
    targets = (f"{directory}/{_REBOOT_TARGET}" for directory in _UNITS)
    counting = [next((path for path in targets if host.exists(path)), "")]
    drop_ins: dict[str, str] = {}
    for directory in _UNITS:
        for name in names_in(host, f"{directory}/{_REBOOT_TARGET}.d"):
            if name.endswith(".conf"):
                drop_ins.setdefault(name, f"{directory}/{_REBOOT_TARGET}.d/{name}")
    for path in (*filter(None, counting), *drop_ins.values()):
        text = (text_of(host, path) or "").replace("\\\n", " ")
        if any(not _KEXEC_UNITS.isdisjoint(each.split()) for each in _NEEDS_UNITS.findall(text)):
            yield path
    for directory in _UNITS:
        for needs in ("requires", "wants"):
            linked = f"{directory}/{_REBOOT_TARGET}.{needs}"
            yield from (f"{linked}/{x}" for x in names_in(host, linked) if x in _KEXEC_UNITS)


def _loads_at_shutdown(host: Host) -> bool:
    """Whether kexec-tools is told to load a kernel. Its scripts run these files in a shell, one
    after the other: the last assignment counts."""
    more = f"{_KEXEC_DEFAULTS}.d"
    value = ""
    for path in (_KEXEC_DEFAULTS, *(f"{more}/{name}" for name in names_in(host, more))):
        for word in _shell_words(text_of(host, path) or ""):
            if word.startswith(_LOAD_KEXEC):
                value = word.removeprefix(_LOAD_KEXEC)
    return value == "true"


def _shell_words(text: str) -> Iterator[str]:
    """The words of a shell script, without quotes and comments; to the first quote that has no
    end."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    with contextlib.suppress(ValueError):
        yield from lexer


def read_reset_register(host: Host) -> ResetRegister | None:
    """The reset register that the firmware names; None: none, or this user can't read it."""
    try:
        return parse_reset_register(read_file(host, FADT)) if host.exists(FADT) else None
    except (FileNotFoundError, PermissionError):
        return None


def read_boot(host: Host) -> Boot:
    """Which boot this is."""
    number = text_if_there(host, BOOT_LOADER_TYPE) or ""
    return Boot(text_if_there(host, BOOT_ID), int(number) if number.isdecimal() else None)


def read_overwrite_request(host: Host) -> OverwriteRequest | None:
    """Whether the firmware is asked to clear memory; None: it has no such variable, or this user
    can't read it."""
    try:
        data = read_file(host, OVERWRITE_REQUEST) if host.exists(OVERWRITE_REQUEST) else b""
        lock = read_file(host, OVERWRITE_LOCK) if host.exists(OVERWRITE_LOCK) else b""
    except OSError:
        return None
    if len(data) != _VARIABLE_BYTES:
        return None
    return OverwriteRequest(data, len(lock) >= _VARIABLE_BYTES and bool(lock[-1]))


def read_watchdog(host: Host) -> Watchdog | None:
    """The first watchdog; None: there is none."""
    if not host.exists(WATCHDOG):
        return None
    return Watchdog(text_of(host, f"{WATCHDOG}/state"), text_of(host, f"{WATCHDOG}/identity"))


def runs_systemd(host: Host) -> bool:
    """Whether systemd is the init system."""
    return host.exists(SYSTEMD_RUNS)
