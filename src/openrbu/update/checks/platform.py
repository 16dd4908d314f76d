"""What else matters around the machine: its power, Secure Boot and lockdown, and encrypted disks
that a new BIOS may leave locked.

Facts: docs/reference/platform.md, V3 to V6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from openrbu.formats.dell import CompletionCode
from openrbu.linux.facts import SECURITYFS
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

if TYPE_CHECKING:
    from openrbu.linux.encrypted_disks import EncryptedDisk
    from openrbu.linux.power import Supply

_check = partial(Check, Question.REST)

_LEAST_PERCENT = 10
"""Below this BIOSes and the vendors' tools refuse to flash."""

_RECOVERY = "have a recovery key or a passphrase of each at hand before the restart"


def checks(seen: Situation) -> Iterator[Check]:
    """What around the machine matters for an update."""
    yield from power_checks(seen)
    yield from _secure_boot(seen)
    yield from _lockdown(seen)
    yield from _disks(seen)


# -- power ----------------------------------------------------------------------------------


def power_checks(seen: Situation) -> Iterator[Check]:
    """Whether the machine has power enough to be flashed."""
    supplies = seen.linux.supplies
    if supplies is None:
        return
    batteries = [each for each in supplies if each.is_battery]
    yield _mains(supplies, [each for each in batteries if each.is_present])
    if batteries:
        yield _battery(batteries)


def _mains(supplies: Sequence[Supply], batteries: Sequence[Supply]) -> Check:
    """Whether power comes from outside, and not from a battery or a UPS that runs empty."""
    failing = [each.name for each in supplies if each.kind == "UPS" and each.is_discharging]
    if failing:
        return _check(
            "mains",
            f"the UPS {failing[0]} runs on its battery: mains power has failed",
            Verdict.IN_THE_WAY,
            "wait until it is back",
            obstacle="no_mains_power",
        )
    others = [each for each in supplies if not each.is_battery and each.is_online is not None]
    online = [each.name for each in others if each.is_online]
    if online:
        text = f"mains power is connected ({', '.join(online)})"
        return _check("mains", text, Verdict.FINE)
    off = [each.name for each in others if each.kind != "USB"]  # a port may be without a charger
    if batteries and (off or any(each.is_discharging for each in batteries)):
        return _check(
            "mains",
            "this machine runs on its battery",
            Verdict.IN_THE_WAY,
            f"connect it to mains power: BIOSes refuse to flash without it "
            f"({CompletionCode.NO_EXTERNAL_POWER:#06x})",
            obstacle="no_mains_power",
        )
    if off:
        text = f"{off[0]} says that mains power is off, and there is no battery"
        return _check("mains", text, Verdict.UNKNOWN, "check that its plug is connected")
    if silent := [each.name for each in supplies if each.kind == "Mains"]:
        text = f"whether mains power is connected can't be known ({silent[0]})"
        return _check("mains", text, Verdict.UNKNOWN, "check that its plug is connected")
    return _check("mains", "the kernel shows no supply that could be off", Verdict.FINE)


def _battery(batteries: Sequence[Supply]) -> Check:
    """Whether a battery could carry the machine through a failure of mains power. The fullest of
    several counts."""
    present = [each for each in batteries if each.is_present]
    if not present:
        return _check(
            "battery",
            "the battery is taken out",
            Verdict.UNKNOWN,
            f"some BIOSes refuse to flash without it ({CompletionCode.NO_BATTERY:#06x})",
        )
    levels = {each.name: each.percent for each in present if each.percent is not None}
    if not levels:
        text = f"the level of the battery {present[0].name} is not known"
        return _check("battery", text, Verdict.UNKNOWN, f"it needs {_LEAST_PERCENT} %")
    name = max(levels, key=lambda each: levels[each])
    text = f"the battery {name} has {levels[name]} %"
    if levels[name] >= _LEAST_PERCENT:
        return _check("battery", text, Verdict.FINE)
    return _check(
        "battery",
        text,
        Verdict.IN_THE_WAY,
        f"charge it to {_LEAST_PERCENT} % or more: below that BIOSes refuse to flash "
        f"({CompletionCode.BATTERY_NOT_CHARGED:#06x})",
        obstacle="battery_too_low",
    )


# -- Secure Boot and lockdown ---------------------------------------------------------------


def _secure_boot(seen: Situation) -> Iterator[Check]:
    efi = seen.linux.efi
    if efi is None:
        return
    if efi.is_secure_boot is None:
        text = "whether Secure Boot is on can't be read here"
        yield _check("secure_boot", text, Verdict.UNKNOWN, "the driver question says what follows")
    elif efi.is_secure_boot:
        yield _check(
            "secure_boot",
            "Secure Boot is on: the kernel takes signed modules only",
            Verdict.UNKNOWN,
            "a new BIOS may change its keys, or switch it off: look into its setup afterwards",
        )
    else:
        yield _check("secure_boot", "Secure Boot is off", Verdict.FINE)


def _lockdown(seen: Situation) -> Iterator[Check]:
    level, is_hidden = seen.linux.lockdown, seen.linux.hides_lockdown
    if level is None and is_hidden:
        secure = seen.linux.efi is not None and seen.linux.efi.is_secure_boot
        why = ", and Secure Boot is on, with which many kernels are" if secure else ""
        yield _check(
            "lockdown",
            f"whether the kernel is locked down can't be known: securityfs is not mounted{why}",
            Verdict.UNKNOWN,
            f"mount it: mount -t securityfs securityfs {SECURITYFS}",
        )
    if level is None:
        return
    if level == "none":
        yield _check("lockdown", "the kernel is not locked down", Verdict.FINE)
        return
    by_words = ", by its command line" if is_hidden else ""
    text = f"the kernel is locked down ({level}{by_words})"
    if level == "confidentiality":
        yield _check(
            "lockdown",
            f"{text}: physical memory can't be read",
            Verdict.UNKNOWN,
            "only the driver's read-back is compared",
        )
    else:
        yield _check(
            "lockdown",
            f"{text}: no port I/O",
            Verdict.HANDLED,
            "the token is set through the kernel's own files, and memory stays readable",
        )


# -- encrypted disks ------------------------------------------------------------------------


def _disks(seen: Situation) -> Iterator[Check]:
    """Disks that a TPM unlocks: it measures the BIOS, and gives no key to one that it does not
    know."""
    tpm = seen.linux.tpm
    if tpm is None:
        return
    disks = seen.linux.encrypted_disks
    bound = [_disk_text(each) for each in disks if each.uses_tpm]
    yield _check("tpm", *_bound_by_tpm(tpm, bound))
    doubtful = [each for each in disks if not each.uses_tpm and _may_use_tpm(each)]
    if doubtful:
        yield _check(
            "encrypted_disks",
            f"whether the {tpm} unlocks {', '.join(map(_disk_text, doubtful))} can't be seen here",
            Verdict.UNKNOWN,
            f"{_RECOVERY}{_bitlocker_advice(doubtful)}",
        )


def _bound_by_tpm(tpm: str, bound: Sequence[str]) -> tuple[str, Verdict, str]:
    if not bound:
        return f"{tpm}; no disk is seen that it unlocks", Verdict.FINE, ""
    return (
        f"the {tpm} unlocks {', '.join(bound)}, and a new BIOS changes what it measures (PCR 0)",
        Verdict.UNKNOWN,
        _RECOVERY,
    )


def _may_use_tpm(disk: EncryptedDisk) -> bool:
    """Whether a TPM may unlock it without a sign of it: Clevis keeps its own place on LUKS1."""
    return disk.kind in ("BitLocker", "LUKS1") or not disk.is_readable


def _disk_text(disk: EncryptedDisk) -> str:
    return f"{disk.device} ({', '.join([disk.kind, *disk.tokens])})"


def _bitlocker_advice(disks: Sequence[EncryptedDisk]) -> str:
    is_there = any(each.kind == "BitLocker" for each in disks)
    return ", and suspend BitLocker in Windows" if is_there else ""
