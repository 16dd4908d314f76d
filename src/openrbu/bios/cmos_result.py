"""The result of an update as a PowerEdge 2950's BIOS records it in CMOS.

Read in that BIOS's code, not run (docs/reference/bios-rules.md, B6): bits 5:4 of index 0x78 are 0
when an update was completed, 2 when it failed a check or the programming, 3 when none was found;
they are written together with the cleared activation bit (bit 6). A date is written to indexes 0x50
to 0x53. What each of these four bytes means is not known: here they are year, month, day and hour,
BCD, as in the RBU structure of SMBIOS.
"""

from __future__ import annotations

import datetime as dt
from typing import TypeGuard

from openrbu.cmos import read_first_bank, write_check_value, write_first_bank
from openrbu.formats import dell
from openrbu.formats.dell import CompletionCode
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import IndexedIoToken, all_tokens, checked_ranges, tokens_for_update
from openrbu.ports import PC_PORTS, IoPorts, PortCmos

RESULT_INDEX = 0x78
RESULT_SHIFT = 4
RESULT_MASK = 0x30
DATE_INDEX = 0x50
DATE_BYTES = 4

DONE, FAILED, NOT_FOUND = 0, 2, 3


def result_of(code: CompletionCode) -> int:
    """The two bits for a completion code."""
    if code is CompletionCode.COMPLETED:
        return DONE
    return NOT_FOUND if code is CompletionCode.IMAGE_NOT_FOUND else FAILED


class CmosResult:
    """Writes the result, and updates every check value over a range with one of its bytes."""

    def __init__(self, ports: IoPorts, tables: Tables) -> None:
        self._ports, self._bank = ports, PortCmos(ports, PC_PORTS[0])
        self._system_id = dell.system_id(tables)
        pair = tokens_for_update(tables)
        self._cancel = None if pair is None else pair.cancel
        self._checked = _checked_over_the_result(tables)

    def write(self, code: CompletionCode, when: dt.datetime) -> None:
        """Record a result, and clear the activation bit if it is in the same byte.

        :raise PowerCutError: when the power fails. Some bytes are old then, others new.
        """
        value = read_first_bank(self._ports, RESULT_INDEX) & ~RESULT_MASK
        value |= result_of(code) << RESULT_SHIFT
        if _is_first_bank(self._cancel) and self._cancel.location == RESULT_INDEX:
            value = self._cancel.apply(value)
        write_first_bank(self._ports, RESULT_INDEX, value)
        date = (when.year % 100, when.month, when.day, when.hour)
        for offset, number in enumerate(date):
            write_first_bank(self._ports, DATE_INDEX + offset, number // 10 << 4 | number % 10)
        for token in self._checked:
            write_check_value(self._bank, token, self._system_id)


def _is_first_bank(token: object) -> TypeGuard[IndexedIoToken]:
    return isinstance(token, IndexedIoToken) and token.index_port == PC_PORTS[0][0]


def _checked_over_the_result(tables: Tables) -> list[IndexedIoToken]:
    """For each checked range that one of the written bytes is in, a token that stands for it."""
    tokens = [token for token in all_tokens(tables) if _is_first_bank(token)]
    sound = [token for token in tokens if token.check.is_sound]
    written = (RESULT_INDEX, *range(DATE_INDEX, DATE_INDEX + DATE_BYTES))
    return [
        token
        for token in checked_ranges(sound)
        if any(token.check.first <= index <= token.check.last for index in written)
    ]
