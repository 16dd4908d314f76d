"""Restart: choose the kind that keeps RAM. A cold one clears RAM, and the staged image with it.

Two things decide: the *mode* (warm or cold), and the *way* in which the kernel resets the machine,
its type. Most ways do what the mode says. The way by ACPI, which is a PC's first, writes the value
that the firmware names; where that brings a power cycle, another way is chosen.

Facts: docs/reference/linux-files.md, L7 and L12.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host
from openrbu.hosts.restart_command import restart_command
from openrbu.linux.files import text_if_there
from openrbu.linux.reboot import (
    BOOT_ID,
    NEXT_ROOT,
    OVERWRITE_REQUEST,
    REBOOT_MODE,
    REBOOT_TYPE,
    Kexec,
    OverwriteRequest,
    RestartSettings,
    read_overwrite_request,
    read_reboot_words,
    read_reset_register,
    read_restart_settings,
    runs_systemd,
)
from openrbu.update.target import is_on_xen

WARM = "warm"
_COLD = "cold"
_ACPI = "acpi"
_BY_RESET_CONTROL = "pci"
"""The way that writes to the same register as the one by ACPI; what it writes follows the mode."""

_CYCLES_POWER = "the restart through ACPI goes with a power cycle here, which clears memory"

_ASKS = "the firmware is asked to clear memory at the restart (MemoryOverwriteRequestControl)"

ACCEPT_IT = "or accept that (--allow-any-restart)"


@dataclass(frozen=True, slots=True)
class Unchangeable:
    """A restart that loses memory, and that no file of the kernel changes: what it is, and what to
    do."""

    found: str
    advice: str

    @property
    def message(self) -> str:
        """Both, in one line."""
        return f"{self.found}: {self.advice}"


@dataclass(frozen=True, slots=True)
class NextKind:
    """The kind of the next restart, as things are. `files` has what can be changed.

    `mode` and `way`: by the files, else by the kernel's command line, else the kernel's own choice;
    None: it is not known. `acpi_cycles_power`: the firmware's reset value brings a power cycle.
    `overwrite`: what the firmware is asked to do to memory, where it has a variable for that.
    `is_forced`: the processors that don't reset the machine are not stopped; `cpu`: the number of
    the one that does. None: it is not known. `has_effect`: what Linux does counts; on Xen it does
    not.
    """

    files: RestartSettings
    mode: str | None
    way: str | None
    acpi_cycles_power: bool
    overwrite: OverwriteRequest | None = None
    is_forced: bool | None = None
    cpu: int | None = None
    has_effect: bool = True

    @property
    def loses_by_mode(self) -> bool:
        """Whether the mode is known, and is not warm."""
        return self.mode not in (None, WARM)

    @property
    def loses_by_way(self) -> bool:
        """Whether the restart is known to go with a power cycle."""
        return self.way == _ACPI and self.acpi_cycles_power

    @property
    def problem(self) -> str:
        """Why the next restart may clear memory, and what to do; empty: it keeps it, as far as is
        known."""
        if not self.has_effect:
            return self._overwriting
        if self.loses_by_mode and self.files.mode is not None:
            return (
                f"the next restart is {self.mode}, which may clear memory; choose a warm one: "
                f"echo {WARM} > {REBOOT_MODE}"
            )
        if self.loses_by_mode:
            return self.unchangeable_mode.message
        if self.loses_by_way and self.files.type is not None:
            return f"{_CYCLES_POWER}: echo {_BY_RESET_CONTROL} > {REBOOT_TYPE}"
        if self.loses_by_way:
            return self.unchangeable_way.message
        return self._overwriting

    @property
    def _overwriting(self) -> str:
        return f"{_ASKS}: cancel, and update again" if self.is_overwritten else ""

    @property
    def is_overwritten(self) -> bool:
        """Whether the firmware is asked to clear memory, however the machine restarts."""
        return self.overwrite is not None and self.overwrite.is_set

    @property
    def unchangeable_mode(self) -> Unchangeable:
        """What to say of a mode that is not warm, and that no file changes."""
        return Unchangeable(
            f"this kernel has no {REBOOT_MODE}, and restarts {self.mode}, which clears memory",
            "start Linux with reboot=w on its command line",
        )

    @property
    def unchangeable_way(self) -> Unchangeable:
        """The same of a way that brings a power cycle."""
        return Unchangeable(_CYCLES_POWER, "start Linux with reboot=w,p on its command line")


def next_kind(host: Host) -> NextKind:
    """The kind of the next restart.

    :raise OSError: what the kernel returns.
    :raise ObstacleError: as `is_on_xen`.
    """
    files, request = read_restart_settings(host), read_overwrite_request(host)
    if is_on_xen(host):  # Xen restarts the machine, and what Linux would do has no effect
        return NextKind(
            files, files.mode, None, acpi_cycles_power=False, overwrite=request, has_effect=False
        )
    words = read_reboot_words(host)
    register = read_reset_register(host)
    mode, way = files.mode, files.type
    is_forced = {"0": False, "1": True}.get(files.force or "")
    cpu = int(files.cpu) if files.cpu is not None and files.cpu.isdecimal() else None
    if words is not None:
        mode = mode or words.mode or _COLD
        way = way or words.type or (None if register is None else _ACPI)
        is_forced = words.force if files.force is None else is_forced
        cpu = words.cpu if files.cpu is None else cpu
    cycles_power = register is not None and register.cycles_power
    return NextKind(files, mode, way, cycles_power, request, is_forced, cpu)


@dataclass(frozen=True, slots=True)
class Detour:
    """What a restart would start in place of the BIOS: `found` says it, `advice` what to do.
    `is_avoidable`: a restart by `safe_command`, as `--reboot` does it, runs the BIOS all the same.
    `is_kexec`: it is another kernel; if not, it is user space alone."""

    found: str
    advice: str
    is_avoidable: bool = False
    is_kexec: bool = True

    @property
    def message(self) -> str:
        return f"{self.found}: {self.advice}"


def detours(host: Host, kexec: Kexec) -> Iterator[Detour]:
    """What keeps a restart from running the BIOS, as things are."""
    has_systemd = runs_systemd(host)
    so = f"restart by {safe_command(host)}"
    if kexec.reboot_unit:
        found = f"systemd restarts by kexec, and the BIOS does not run ({kexec.reboot_unit})"
        yield Detour(found, "put systemd's own reboot.target back")
    elif kexec.loads_at_shutdown:
        found = "kexec-tools starts another kernel at a restart, and the BIOS does not run"
        yield Detour(found, "LOAD_KEXEC=false in /etc/default/kexec, and in /etc/default/kexec.d")
    elif kexec.is_loaded and not has_systemd:
        found = "a kernel is loaded for kexec: the BIOS may not run at a restart"
        yield Detour(found, "unload it (kexec -u)")
    elif kexec.is_loaded:
        found = "a kernel is loaded for kexec, and a plain systemctl reboot starts it"
        yield Detour(found, so, is_avoidable=True)
    if kexec.has_next_root and has_systemd:
        found = f"{NEXT_ROOT} is there, and a plain systemctl reboot restarts user space only"
        yield Detour(found, so, is_avoidable=True, is_kexec=False)


def safe_command(host: Host) -> str:
    """The command, for a shell, that restarts this machine with its BIOS."""
    return restart_command(runs_systemd=runs_systemd(host)).text


def boot_id(host: Host) -> str | None:
    """The ID of this boot of the machine; None where the kernel does not say."""
    return text_if_there(host, BOOT_ID)


def restart_mode(host: Host) -> str | None:
    """The mode of the next restart; None where nothing says."""
    return next_kind(host).mode


def choose_warm(
    host: Host, before_change: Callable[[str, str], None], *, allow_any: bool = False
) -> None:
    """Make the next restart one that keeps memory, where that can be chosen. Before a file is
    changed, `before_change` is called with its path and what it will contain. `allow_any`: go on
    where it can't be chosen.

    :raise ObstacleError: when the restart may clear memory.
    """
    kind = next_kind(host)
    if kind.loses_by_mode and kind.files.mode is not None:
        before_change(REBOOT_MODE, WARM)
        host.write(REBOOT_MODE, WARM.encode())
        if read_restart_settings(host).mode != WARM and not allow_any:
            raise ObstacleError(
                f"the kernel keeps a {kind.mode} restart, which may clear memory: boot with "
                f"reboot=w, {ACCEPT_IT}"
            )
    elif kind.loses_by_mode and not allow_any:
        raise ObstacleError(f"{kind.unchangeable_mode.message}, {ACCEPT_IT}")
    if kind.loses_by_way and kind.files.type is not None:
        before_change(REBOOT_TYPE, _BY_RESET_CONTROL)
        host.write(REBOOT_TYPE, f"{_BY_RESET_CONTROL}\n".encode())
    if next_kind(host).loses_by_way and not allow_any:
        raise ObstacleError(f"{kind.unchangeable_way.message}, {ACCEPT_IT}")
    if kind.overwrite is not None and kind.overwrite.is_set:
        _have_memory_kept(host, kind.overwrite, before_change, allow_any=allow_any)


def _have_memory_kept(
    host: Host,
    request: OverwriteRequest,
    before_change: Callable[[str, str], None],
    *,
    allow_any: bool,
) -> None:
    """Ask the firmware not to clear memory at the restart.

    :raise ObstacleError: when it does not take that.
    """
    before_change(OVERWRITE_REQUEST, request.cleared.decode("latin-1"))
    with contextlib.suppress(OSError):  # it is locked, or efivarfs is read-only
        host.write(OVERWRITE_REQUEST, request.cleared)
    now = read_overwrite_request(host)
    if now is not None and now.is_set and not allow_any:
        raise ObstacleError(f"{_ASKS}, and keeps it so: see its setup, {ACCEPT_IT}")
