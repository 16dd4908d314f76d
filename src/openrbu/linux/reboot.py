"""What a Linux says of its next restart, and of how this boot began.

Only what its files say; what that means for an update is `update.restart`'s matter.
Facts: docs/reference/linux-files.md, L7 and L12.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.formats.fadt import ResetRegister, parse_reset_register
from openrbu.formats.reboot_words import RebootWords, parse_reboot_words
from openrbu.hosts.base import EFI_VARIABLES, Host, read_file
from openrbu.hosts.restart_command import SYSTEMD_RUNS
from openrbu.linux.files import COMMAND_LINE, text_if_there

REBOOT = "/sys/kernel/reboot"
REBOOT_MODE = f"{REBOOT}/mode"
REBOOT_TYPE = f"{REBOOT}/type"
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

_REBOOT_TARGETS = ("/etc/systemd/system/reboot.target", "/run/systemd/system/reboot.target")
_KEXEC_SERVICE = "systemd-kexec.service"
_KEXEC_DEFAULTS = "/etc/default/kexec"

_KEXEC_LOADER = 0xD
"""The boot loader's number that kexec gives to the kernel it starts."""


@dataclass(frozen=True, slots=True)
class RestartFiles:
    """The files of `/sys/kernel/reboot`, as text; None: this kernel does not have that one."""

    mode: str | None
    type: str | None
    force: str | None
    cpu: str | None


@dataclass(frozen=True, slots=True)
class Kexec:
    """Whether a restart would start another kernel in place of the BIOS, or the same one go on.

    `is_loaded`: a kernel is loaded for that; None: this kernel does not say. `is_reboot_target`:
    systemd's reboot.target is kexec.target here. `loads_at_shutdown`: the scripts of kexec-tools
    load one when the machine shuts down. `has_next_root`: systemd would restart user space alone.
    """

    is_loaded: bool | None
    is_reboot_target: bool
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


def read_restart_files(host: Host) -> RestartFiles:
    """The files of `/sys/kernel/reboot`."""
    return RestartFiles(
        *(text_if_there(host, f"{REBOOT}/{x}") for x in ("mode", "type", "force", "cpu"))
    )


def read_reboot_words(host: Host) -> RebootWords | None:
    """The words `reboot=` of the kernel's command line; None where that can't be read."""
    line = text_if_there(host, COMMAND_LINE)
    return None if line is None else parse_reboot_words(line)


def read_kexec(host: Host) -> Kexec:
    """What would start another kernel at the restart."""
    loaded = text_if_there(host, KEXEC_LOADED)
    defaults = text_if_there(host, _KEXEC_DEFAULTS) or ""
    settings = [line.strip().replace('"', "") for line in defaults.splitlines()]
    targets = [text_if_there(host, path) or "" for path in _REBOOT_TARGETS]
    return Kexec(
        is_loaded=None if loaded is None else loaded != "0",
        is_reboot_target=any(_KEXEC_SERVICE in each for each in targets),
        loads_at_shutdown="LOAD_KEXEC=true" in settings,
        has_next_root=host.exists(NEXT_ROOT),
    )


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
    return Watchdog(
        text_if_there(host, f"{WATCHDOG}/state"), text_if_there(host, f"{WATCHDOG}/identity")
    )


def runs_systemd(host: Host) -> bool:
    """Whether systemd is the init system."""
    return host.exists(SYSTEMD_RUNS)
