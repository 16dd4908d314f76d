"""Will the restart keep what is staged: its mode, the way of the reset, and that the BIOS runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.formats.reboot_words import TYPES
from openrbu.hosts.base import Host
from openrbu.linux.reboot import (
    KEXEC_LOADED,
    REBOOT_CPU,
    REBOOT_FORCE,
    REBOOT_TYPE,
    OverwriteRequest,
    Watchdog,
    read_kexec,
    read_overwrite_request,
    read_watchdog,
)
from openrbu.update.checks import memory
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.restart import (
    ACCEPT_IT,
    WARM,
    NextKind,
    Unchangeable,
    detours,
    next_kind,
    safe_command,
)

_EFI = "efi"

_check = partial(Check, Question.RESTART)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the next restart keeps memory, and runs the BIOS."""
    yield from reset_checks(seen)
    if (watchdog := read_watchdog(seen.host)) is not None:
        yield _watchdog(watchdog)
    yield from memory.restart_checks(seen)


def reset_checks(seen: Situation) -> Iterator[Check]:
    """How the machine is reset, and whether the BIOS runs then."""
    may_lose = Verdict.UNKNOWN if seen.options.allow_any_restart else Verdict.IN_THE_WAY
    if seen.on_xen:
        yield _check(
            "xen",
            "on Xen the kernel's reboot mode has no effect",
            Verdict.UNKNOWN,
            "start Xen with reboot=warm (xl info xen_commandline shows whether it was), or the "
            "restart clears memory and the update with it",
        )
    else:
        yield from _kind(seen.host, may_lose)
    if (request := read_overwrite_request(seen.host)) is not None:
        yield _overwrite(request, may_lose)
    yield from _kexec(seen.host, may_lose)


def _kind(host: Host, may_lose: Verdict) -> Iterator[Check]:
    try:
        kind = next_kind(host)
    except OSError as error:  # an update ends with it, before it changes anything
        text = f"the kind of the next restart can't be read: {error.strerror}"
        for name in ("restart_mode", "restart_type", "restart_force", "restart_cpu"):
            yield _check(name, text, Verdict.UNKNOWN)
        return
    yield _mode(kind, may_lose)
    if kind.way is not None:
        yield _way(kind, may_lose)
    if kind.is_forced is not None:
        yield _force(is_forced=kind.is_forced)
    if kind.cpu is not None:
        yield _cpu(kind.cpu)


def _force(*, is_forced: bool) -> Check:
    """Whether other processors go on while one resets the machine."""
    if not is_forced:
        text = "the other processors are stopped before the machine is reset"
        return _check("restart_force", text, Verdict.FINE)
    return _check(
        "restart_force",
        "the other processors are not stopped before the machine is reset, and may still write "
        "into memory",
        Verdict.UNKNOWN,
        f"have them stopped: echo 0 > {REBOOT_FORCE}",
    )


def _cpu(number: int) -> Check:
    """Which processor resets the machine."""
    if number == 0:
        text = "processor 0, with which the BIOS starts, resets the machine"
        return _check("restart_cpu", text, Verdict.FINE)
    return _check(
        "restart_cpu",
        f"processor {number} resets the machine, and not the first one, as BIOSes expect it",
        Verdict.UNKNOWN,
        f"choose that: echo 0 > {REBOOT_CPU}",
    )


def _mode(kind: NextKind, may_lose: Verdict) -> Check:
    if not kind.loses_by_mode:
        if kind.mode is None:
            text = "this kernel does not say whether the restart is warm or cold"
            return _check("restart_mode", text, Verdict.UNKNOWN)
        chosen = "" if kind.files.mode is not None else ", by the kernel's command line"
        return _check("restart_mode", f"the next restart is {WARM}{chosen}", Verdict.FINE)
    if kind.files.mode is not None:
        text = f"the next restart is {kind.mode}"
        return _check("restart_mode", text, Verdict.HANDLED, "the update makes it warm")
    return _lost("restart_mode", kind.unchangeable_mode, may_lose)


def _way(kind: NextKind, may_lose: Verdict) -> Check:
    if kind.way not in TYPES:
        word = "" if kind.way is None else f" ({kind.way[:40]!a})"
        text = f"the way in which the machine is reset can't be known{word}"
        return _check("restart_type", text, Verdict.UNKNOWN, f"choose it: echo pci > {REBOOT_TYPE}")
    if kind.way == _EFI:
        return _check(
            "restart_type",
            "the machine is reset through efi: by its firmware, which may clear memory",
            Verdict.UNKNOWN,
            f"choose another way: echo pci > {REBOOT_TYPE}",
        )
    if not kind.loses_by_way:
        return _check("restart_type", f"the machine is reset through {kind.way}", Verdict.FINE)
    if kind.files.type is not None:
        text = "the machine is reset through ACPI, with a power cycle, which clears memory"
        return _check("restart_type", text, Verdict.HANDLED, "the update chooses another way")
    return _lost("restart_type", kind.unchangeable_way, may_lose)


def _lost(name: str, why: Unchangeable, may_lose: Verdict) -> Check:
    advice = f"{why.advice}, {ACCEPT_IT}"
    return _check(name, why.found, may_lose, advice, obstacle="restart_is_cold")


def _overwrite(request: OverwriteRequest, may_lose: Verdict) -> Check:
    check = partial(_check, "memory_overwrite")
    if not request.is_set:
        return check("the firmware is not asked to clear memory", Verdict.FINE)
    found = "the firmware is asked to clear memory at a restart (MemoryOverwriteRequestControl)"
    if request.is_locked:
        found, advice = f"{found}, and has locked that", f"see its setup, {ACCEPT_IT}"
        return check(found, may_lose, advice, obstacle="restart_is_cold")
    return check(found, Verdict.HANDLED, "the update asks it to keep memory")


def _kexec(host: Host, may_lose: Verdict) -> Iterator[Check]:
    """Whether the BIOS runs at all at the restart."""
    kexec, soft_reboot = partial(_check, "kexec"), partial(_check, "soft_reboot")
    state = read_kexec(host)
    found = list(detours(host, state))
    for each in found:
        check = kexec if each.is_kexec else soft_reboot
        if each.is_avoidable:
            yield check(each.found, Verdict.HANDLED, _restart_so(host))
        else:
            advice = f"{each.advice}, {ACCEPT_IT}"
            yield check(each.found, may_lose, advice, obstacle="kexec_is_default")
    if any(each.is_kexec for each in found) or not host.exists(KEXEC_LOADED):
        return
    if state.is_loaded is False:
        yield kexec("no kernel is loaded for kexec", Verdict.FINE)
    else:
        text = f"whether a kernel is loaded for kexec can't be known ({KEXEC_LOADED})"
        yield kexec(text, Verdict.UNKNOWN, _restart_so(host))


def _restart_so(host: Host) -> str:
    return f"--reboot keeps it from that; without it: {safe_command(host)}"


def _watchdog(watchdog: Watchdog) -> Check:
    name = watchdog.identity or "watchdog0"
    if watchdog.state != "active":
        return _check("watchdog", f"the watchdog {name} is not active", Verdict.FINE)
    found = f"the watchdog {name} is active: if the shutdown hangs, it resets the machine"
    return _check("watchdog", found, Verdict.UNKNOWN, "that may clear memory")
