"""POST: what the machine's BIOS does with a staged update when it starts.

The BIOS trusts nothing that the driver or the tool says. It looks at memory, at CMOS and at its own
NVRAM only. What it takes out of memory is its rule set's matter (`bios.rules`). Most clear the
activation token first (docs/reference/bios-rules.md, B1):

1. finish what a power cut interrupted: say whether the programming got through;
2. the activation token; without it, boot and change nothing (CMOS with a wrong check value is not
   believed: the token is cleared then, and the check value made right);
3. record 0x000D: what stands if the power fails from here on until the programming begins, because
   the staged update is gone then (without it, the result of an earlier update would stand);
4. clear the token, before anything in memory is looked at, so that a bad image can't loop;
5. search and check, as the rule set does;
6. program the flash, block by block;
7. record completion code, date and time.

A rule set that clears the token last leaves out 3 and 4, and ends with

7. record code, date and time in NVRAM, and in the same write that the end is not done yet;
8. record the result in CMOS, where the rule set does that, and clear the token;
9. note in NVRAM that the end is done.

If the power fails before 7, the next start finds the token still set and searches again, or finds
that a programming was under way and goes on at 7; after 7 it goes on at 8. So a finished update is
never taken for one that was not found, and none is tried for ever.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from openrbu.bios.cmos_result import CmosResult
from openrbu.bios.flash import Flash, FlashError
from openrbu.bios.nvram import NvramFile
from openrbu.bios.post_report import PostReport
from openrbu.bios.rules import PUBLISHED, Find, Identity, RejectedError, RuleSet, TokenCleared
from openrbu.formats import dell
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image
from openrbu.formats.smbios import Tables
from openrbu.memory.physical import PhysicalMemory
from openrbu.memory.scan import search
from openrbu.ports import IoPorts


class Switch(Protocol):
    """The activation token, wherever it is kept."""

    @property
    def is_armed(self) -> bool: ...

    def disarm(self) -> None: ...

    def drop_unbelieved(self) -> str:
        """Have no update wanted where its settings can't be believed. Why; empty: they can."""


@dataclass(frozen=True, slots=True)
class Board:
    """What a BIOS has to work with. `switch` is None where the machine has no RBU tokens.

    `revision` is the hardware's. `cmos_result` is None where the result stands in NVRAM alone.
    """

    memory: PhysicalMemory
    flash: Flash
    nvram: NvramFile
    switch: Switch | None
    system_id: int | None
    knows_packets: bool
    rules: RuleSet = PUBLISHED
    revision: int = 0
    cmos_result: CmosResult | None = None

    @classmethod
    def of(
        cls,
        tables: Tables,
        memory: PhysicalMemory,
        flash: Flash,
        nvram: NvramFile,
        switch: Switch | None,
        *,
        rules: RuleSet = PUBLISHED,
        revision: int = 0,
        ports: IoPorts | None = None,
    ) -> Board:
        """The board of the machine that left the factory with these SMBIOS tables.

        `ports` lead to its CMOS: rule sets that record the result there need them.
        """
        rbu = dell.RbuInformation.of(tables)
        return cls(
            memory,
            flash,
            nvram,
            switch,
            dell.system_id(tables),
            knows_packets=rbu is not None and rbu.packet_supported,
            rules=rules,
            revision=revision,
            cmos_result=None if ports is None else CmosResult(ports, tables),
        )

    @property
    def identity(self) -> Identity:
        """What the rule set has to know of this machine."""
        return Identity(
            system_id=self.system_id,
            flash_size_bytes=self.flash.size_bytes,
            revision=self.revision,
            knows_packets=self.knows_packets,
            password_crc=self.nvram.contents.admin_password_crc,
        )


def post(board: Board, now: dt.datetime) -> PostReport:
    """Start the machine once; `now` is its clock.

    :raise PowerCutError: when the power fails; the next start goes on from there.
    :raise MachineError: when the flash holds no BIOS to start.
    """
    before = board.flash.current.version
    report = _finish_interrupted(board, now)
    dropped = board.switch.drop_unbelieved() if board.switch else ""
    if board.switch is None or not board.switch.is_armed:
        return report or PostReport(before, before, reason=dropped)
    if board.rules.token_cleared is TokenCleared.FIRST:
        _record(board, CompletionCode.IMAGE_NOT_FOUND, now)
        board.switch.disarm()
    found: Find | None = None
    code, reason = CompletionCode.COMPLETED, ""
    try:
        found = find_update(board)
        _program(board, found.image, now)
    except (RejectedError, FlashError) as refusal:
        code, reason = refusal.code, str(refusal)
    _end(board, code, now)
    after = board.flash.current.version
    if found is None:
        return PostReport(before, after, code, reason)
    return PostReport(before, after, code, reason, found.mode, found.extents, found.copies)


def find_update(board: Board) -> Find:
    """What this BIOS takes out of memory.

    :raise RejectedError: when there is no update, or not one that this machine takes.
    """
    try:
        return board.rules.find(board.memory, board.identity)
    except RejectedError as refusal:
        raise RejectedError(refusal.code, f"{refusal}{_packets_for_nobody(board)}") from None


def _packets_for_nobody(board: Board) -> str:
    """What to say where packets are in memory and this BIOS does not look for any."""
    if board.knows_packets and board.rules.knows_packets:
        return ""
    count = sum(len(each.places) for each in search(board.memory).packet_sets)
    if not count:
        return ""
    return f"; {count} RBU packets are, and this BIOS takes none: stage the image in one piece"


def _finish_interrupted(board: Board, now: dt.datetime) -> PostReport | None:
    """After a power cut during programming, or before the end was done: say what became of it."""
    contents, current = board.nvram.contents, board.flash.current
    started_from = contents.flashing_from
    if started_from is not None:
        done = current.sequence > started_from
        code = CompletionCode.COMPLETED if done else CompletionCode.FLASH_FAILURE
        what = "was complete" if done else "was not complete: the old BIOS is still in force"
        reason = f"the power failed; the programming {what}"
        _end(board, code, now)
    elif contents.is_ending:
        code = CompletionCode(contents.completion_code)
        reason = "the power failed while the result was recorded"
        _end_in_cmos(board)
    else:
        return None
    return PostReport(current.version, current.version, code, reason)


def _program(board: Board, image: Image, now: dt.datetime) -> None:
    """Write the flash. The header carries no release date; the day of the flash stands for it."""
    nvram = board.nvram
    nvram.contents.flashing_from = board.flash.current.sequence
    nvram.save()
    board.flash.install(
        image.flash_data, version=image.header.version.text, release_date=f"{now:%m/%d/%Y}"
    )


def _end(board: Board, code: CompletionCode, now: dt.datetime) -> None:
    """Record what became of an update; the token is cleared then, whenever that is done."""
    board.nvram.contents.is_ending = board.rules.token_cleared is TokenCleared.LAST
    _record(board, code, now)
    if board.nvram.contents.is_ending:
        _end_in_cmos(board)


def _end_in_cmos(board: Board) -> None:
    """Put the result that NVRAM has in CMOS too, where it belongs there, and clear the token."""
    contents = board.nvram.contents
    if board.rules.records_in_cmos and board.cmos_result is not None:
        assert contents.completed_at is not None
        when = dt.datetime.fromisoformat(contents.completed_at)
        board.cmos_result.write(CompletionCode(contents.completion_code), when)
    if board.switch is not None:
        board.switch.disarm()
    contents.is_ending = False
    board.nvram.save()


def _record(board: Board, code: CompletionCode, now: dt.datetime) -> None:
    """Completion code and time, and that no programming is under way: one write."""
    contents = board.nvram.contents
    contents.completion_code = int(code)
    contents.completed_at = now.replace(second=0, microsecond=0).isoformat()
    contents.flashing_from = None
    board.nvram.save()
