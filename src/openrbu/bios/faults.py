"""Faults that a machine can have on purpose, so that each completion code can be produced.

Each fault causes one completion code of the RBU structure (SMBIOS type 0xDE).
"""

from __future__ import annotations

from enum import Enum

from openrbu.errors import UsageError
from openrbu.formats.dell import CompletionCode


class Fault(Enum):
    """A broken part: its name on the command line, and the completion code that it causes."""

    FLASH_NOT_ACCESSIBLE = ("flash-not-accessible", CompletionCode.FLASH_NOT_ACCESSIBLE)
    FLASH_NOT_READY = ("flash-not-ready", CompletionCode.FLASH_NOT_READY)
    PROGRAMMING_DISABLED = ("programming-disabled", CompletionCode.PROGRAMMING_DISABLED)
    NO_BATTERY = ("no-battery", CompletionCode.NO_BATTERY)
    BATTERY_NOT_CHARGED = ("battery-not-charged", CompletionCode.BATTERY_NOT_CHARGED)
    NO_EXTERNAL_POWER = ("no-external-power", CompletionCode.NO_EXTERNAL_POWER)
    TWELVE_VOLTS_NOT_SET = ("12v-not-set", CompletionCode.TWELVE_VOLTS_NOT_SET)
    TWELVE_VOLTS_NOT_REMOVED = ("12v-not-removed", CompletionCode.TWELVE_VOLTS_NOT_REMOVED)
    ERASE_FAILS = ("erase-fails", CompletionCode.ERASE_FAILED)
    FLASH_FAILS = ("flash-fails", CompletionCode.FLASH_FAILURE)
    MISCOMPARE = ("miscompare", CompletionCode.MISCOMPARE)

    def __init__(self, label: str, code: CompletionCode) -> None:
        self.label = label
        self.code = code


BEFORE_PROGRAMMING = (
    Fault.FLASH_NOT_ACCESSIBLE,
    Fault.PROGRAMMING_DISABLED,
    Fault.NO_BATTERY,
    Fault.BATTERY_NOT_CHARGED,
    Fault.NO_EXTERNAL_POWER,
    Fault.TWELVE_VOLTS_NOT_SET,
)
"""The faults that a BIOS finds before it writes to the flash."""


def parse_fault(label: str) -> Fault:
    """The fault with this name.

    :raise UsageError: when there is none; the message names them all.
    """
    for fault in Fault:
        if fault.label == label:
            return fault
    names = ", ".join(fault.label for fault in Fault)
    raise UsageError(f"no fault is called {label!r}; there are: {names}")
