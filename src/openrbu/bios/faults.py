"""Faults of a machine's firmware and of its hardware, on purpose.

Each of `FLASH_FAULTS` causes one completion code of the RBU structure (SMBIOS type 0xDE), so that
each code can be produced.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.faults import FaultKind
from openrbu.formats.dell import CompletionCode


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashFault(FaultKind):
    """A broken part. `code`: what the BIOS records when it tries an update."""

    code: CompletionCode


FLASH_NOT_ACCESSIBLE = FlashFault(
    name="flash-not-accessible",
    does="The BIOS can't access its flash, and does not begin to write it.",
    code=CompletionCode.FLASH_NOT_ACCESSIBLE,
)
FLASH_NOT_READY = FlashFault(
    name="flash-not-ready",
    does="The flash does not become ready when the BIOS erases its first block.",
    code=CompletionCode.FLASH_NOT_READY,
)
PROGRAMMING_DISABLED = FlashFault(
    name="programming-disabled",
    does="A switch of the board disables writing to the flash.",
    code=CompletionCode.PROGRAMMING_DISABLED,
)
NO_BATTERY = FlashFault(
    name="no-battery",
    does="The machine has no battery, without which the BIOS does not write its flash.",
    code=CompletionCode.NO_BATTERY,
)
BATTERY_NOT_CHARGED = FlashFault(
    name="battery-not-charged",
    does="The battery has too little charge for the BIOS to write its flash.",
    code=CompletionCode.BATTERY_NOT_CHARGED,
)
NO_EXTERNAL_POWER = FlashFault(
    name="no-external-power",
    does="The machine runs on its battery, and the BIOS does not write its flash then.",
    code=CompletionCode.NO_EXTERNAL_POWER,
)
TWELVE_VOLTS_NOT_SET = FlashFault(
    name="12v-not-set",
    does="The 12 volts that programming the flash takes can't be switched on.",
    code=CompletionCode.TWELVE_VOLTS_NOT_SET,
)
TWELVE_VOLTS_NOT_REMOVED = FlashFault(
    name="12v-not-removed",
    does="The 12 volts can't be switched off after the programming; the new BIOS is in the flash.",
    code=CompletionCode.TWELVE_VOLTS_NOT_REMOVED,
)
ERASE_FAILS = FlashFault(
    name="erase-fails",
    does="The flash does not erase its first block.",
    code=CompletionCode.ERASE_FAILED,
)
FLASH_FAILS = FlashFault(
    name="flash-fails",
    does="The flash does not take the data of its first block.",
    code=CompletionCode.FLASH_FAILURE,
)
MISCOMPARE = FlashFault(
    name="miscompare",
    does="The flash has another byte than was written; the BIOS sees that when it compares.",
    code=CompletionCode.MISCOMPARE,
)

BEFORE_PROGRAMMING = (
    FLASH_NOT_ACCESSIBLE,
    PROGRAMMING_DISABLED,
    NO_BATTERY,
    BATTERY_NOT_CHARGED,
    NO_EXTERNAL_POWER,
    TWELVE_VOLTS_NOT_SET,
)
"""The faults that a BIOS finds before it writes to the flash."""

FLASH_FAULTS = (
    *BEFORE_PROGRAMMING,
    FLASH_NOT_READY,
    ERASE_FAILS,
    FLASH_FAILS,
    MISCOMPARE,
    TWELVE_VOLTS_NOT_REMOVED,
)

PASSWORD = FaultKind(
    "password",
    "The BIOS has the admin password openrbu; use --admin-password-file for another one.",
)

WRONG_CHECK_VALUES = FaultKind(
    "wrong-check-values",
    "The BIOS finds the check values of each image in memory wrong, although they are right.",
)
CMOS_CHECK_WRONG = FaultKind(
    "cmos-check-wrong",
    "The check values of CMOS are wrong after each start: a BIOS that finds them so takes no token "
    "for set.",
)
RESTART_CLEARS_MEMORY = FaultKind(
    "restart-clears-memory",
    "Each restart clears memory, a warm one too, before the BIOS searches it.",
)
PORTS_SILENT = FaultKind(
    "ports-dont-answer",
    "Programs read 0xFF from the ports of CMOS and write nothing there; the BIOS does not reply to "
    "SMI calls.",
)
TOKEN_DOES_NOT_STAY = FaultKind(
    "token-does-not-stay",
    "The BIOS clears the activation token as soon as a program has set it.",
)
TOKEN_LOST_AT_RESTART = FaultKind(
    "token-lost-at-restart",
    "The activation token is cleared at each restart, before the BIOS looks at it.",
)
POWER_CUT = FaultKind(
    "power-cut",
    "The power fails in the Nth operation of the flash (an erasure or a programming), each command "
    "counts anew; the machine is off then.",
    value="N",
    values=range(1, 1_000_001),
)

FAULTS: tuple[FaultKind, ...] = (
    *FLASH_FAULTS,
    PASSWORD,
    PORTS_SILENT,
    CMOS_CHECK_WRONG,
    TOKEN_DOES_NOT_STAY,
    TOKEN_LOST_AT_RESTART,
    RESTART_CLEARS_MEMORY,
    WRONG_CHECK_VALUES,
    POWER_CUT,
)
