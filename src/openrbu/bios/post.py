"""POST: what the machine's BIOS does with a staged update when it starts.

The BIOS does not rely on anything that the driver or the tool says. It reads only memory, CMOS and
its own NVRAM. What it takes from memory is decided by its rule set (`bios.rules`). Most rule sets
clear the activation token first (docs/reference/bios-rules.md, B1):

1. finish what a power cut interrupted: record whether the programming was completed;
2. check the activation token; if it is not set, boot and change nothing (if a check value of CMOS
   is wrong, clear the token and repair the check value);
3. record 0x000D. This is the result if the power fails between here and the programming, because
   the staged update is lost then (otherwise the result of an earlier update would stay);
4. clear the token before memory is searched, so that a bad image is not tried at each start;
5. search and check, as the rule set does;
6. program the flash, block by block;
7. record completion code, date and time.

With a rule set that clears the token last, steps 3 and 4 are left out, and the last steps are

7. record code, date and time in NVRAM, and in the same write that steps 8 and 9 are still to do;
8. record the result in CMOS, if the rule set does that, and clear the token;
9. record in NVRAM that all steps are done.

If the power fails before step 7, the next start finds the token still set and searches again, or
finds that a programming was interrupted and continues with step 7. After step 7 it continues with
step 8. So a completed update is never recorded as not found, and no update is tried for ever.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Protocol

from openrbu.bios.cmos_result import CmosResult
from openrbu.bios.flash import Flash, FlashError
from openrbu.bios.nvram import NvramFile
from openrbu.bios.post_report import BeforeStart, PostReport
from openrbu.bios.rules import (
    PUBLISHED,
    FoundUpdate,
    Identity,
    RejectedError,
    RuleSet,
    TokenCleared,
)
from openrbu.formats import dell
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image
from openrbu.formats.smbios import Tables
from openrbu.memory.held import HeldPages
from openrbu.memory.physical import PhysicalMemory
from openrbu.memory.scan import search
from openrbu.ports import IoPorts


class ActivationToken(Protocol):
    """The activation token, in CMOS or behind SMI calls."""

    @property
    def is_armed(self) -> bool: ...

    def disarm(self) -> None: ...

    def clear_if_check_is_wrong(self) -> str:
        """Clear the token if a check value over it is wrong. Returns the reason; empty if none."""


@dataclass(frozen=True, slots=True)
class Board:
    """The parts of a machine that its BIOS uses.

    `activation` is None if the machine has no RBU tokens. `revision` is the hardware's.
    `cmos_result` is None if the result is recorded only in NVRAM. `before`: None where
    that is not known. `misreads`: it finds the check values of each image wrong.
    """

    memory: PhysicalMemory
    flash: Flash
    nvram: NvramFile
    activation: ActivationToken | None
    system_id: int | None
    knows_packets: bool
    rules: RuleSet = PUBLISHED
    revision: int = 0
    cmos_result: CmosResult | None = None
    before: BeforeStart | None = None
    misreads: bool = False

    @classmethod
    def of(
        cls,
        tables: Tables,
        memory: PhysicalMemory,
        flash: Flash,
        nvram: NvramFile,
        activation: ActivationToken | None,
        *,
        rules: RuleSet = PUBLISHED,
        revision: int = 0,
        ports: IoPorts | None = None,
        misreads: bool = False,
        before: BeforeStart | None = None,
    ) -> Board:
        """The board of the machine that left the factory with these SMBIOS tables.

        `ports` are those of its CMOS; rule sets that record the result in CMOS need them.
        """
        rbu = dell.RbuInformation.of(tables)
        return cls(
            memory,
            flash,
            nvram,
            activation,
            dell.system_id(tables),
            knows_packets=rbu is not None and rbu.packet_supported,
            rules=rules,
            revision=revision,
            cmos_result=None if ports is None else CmosResult(ports, tables),
            misreads=misreads,
            before=before,
        )

    @property
    def identity(self) -> Identity:
        """What the rule set has to know about this machine."""
        return Identity(
            system_id=self.system_id,
            flash_size_bytes=self.flash.size_bytes,
            revision=self.revision,
            knows_packets=self.knows_packets,
            password_crc=self.nvram.contents.admin_password_crc,
        )


def post(board: Board, now: dt.datetime) -> PostReport:
    """Start the machine once; `now` is its clock.

    :raise PowerCutError: when the power fails; the next start continues.
    :raise MachineError: when the flash has no BIOS to start.
    """
    report, before = _post(board, now), board.before
    if before is None:
        return report
    held_bytes = sum(region.size_bytes for region in before.held)
    return replace(
        report,
        held_bytes=held_bytes,
        memory_was_kept=before.memory_was_kept,
        was_armed=before.was_armed,
    )


def _post(board: Board, now: dt.datetime) -> PostReport:
    """`post`, whose report says nothing of what was before."""
    before = board.flash.current.version
    report = _finish_interrupted(board, now)
    dropped = board.activation.clear_if_check_is_wrong() if board.activation else ""
    if board.activation is None or not board.activation.is_armed:
        return report or PostReport(before, before, reason=dropped)
    if board.rules.token_cleared is TokenCleared.FIRST:
        _record(board, CompletionCode.IMAGE_NOT_FOUND, now)
        board.activation.disarm()
    found: FoundUpdate | None = None
    is_held: bool | None = None
    code, reason = CompletionCode.COMPLETED, ""
    try:
        found = find_update(board)
        is_held = _is_held(board, found)
        _program(board, found.image, now)
    except (RejectedError, FlashError) as refusal:
        code, reason = refusal.code, str(refusal)
    _record_end(board, code, now)
    after = board.flash.current.version
    if found is None:
        return PostReport(before, after, code, reason)
    return PostReport(before, after, code, reason, found.mode, found.extents, found.copies, is_held)


def find_update(board: Board) -> FoundUpdate:
    """The update that this BIOS takes from memory.

    :raise RejectedError: when there is no update, or none that this machine takes.
    """
    try:
        found = board.rules.find_update(board.memory, board.identity)
    except RejectedError as refusal:
        raise RejectedError(refusal.code, f"{refusal}{_unread_packets_text(board)}") from None
    if board.misreads:
        raise RejectedError(
            CompletionCode.INCONSISTENT_IMAGE, "the check values of the image in memory are wrong"
        )
    return found


def _is_held(board: Board, found: FoundUpdate) -> bool | None:
    """Whether the BIOS would take this update also if all pages that no driver held at the restart
    had been overwritten. The copy that it took may be a freed one, such as the buffer in which the
    image was delivered, while a driver holds another one."""
    if board.before is None:
        return None
    held = HeldPages(board.before.held)
    if all(held.has_all(extent.start, extent.size_bytes) for extent in found.extents):
        return True
    memory = held.only(board.memory, image_bytes=found.image.size_bytes)
    try:
        return board.rules.find_update(memory, board.identity).has(found.image)
    except RejectedError:
        return False


def _unread_packets_text(board: Board) -> str:
    """A text about packets in memory that this BIOS does not read; empty if there are none."""
    if board.knows_packets and board.rules.knows_packets:
        return ""
    count = sum(len(each.places) for each in search(board.memory).packet_sets)
    if not count:
        return ""
    return (
        f"; memory has {count} RBU packets, which this BIOS does not read: stage the image in one "
        "piece"
    )


def _finish_interrupted(board: Board, now: dt.datetime) -> PostReport | None:
    """Finish an update that a power cut interrupted. None if there is none."""
    contents, current = board.nvram.contents, board.flash.current
    started_from = contents.flashing_from
    if started_from is not None:
        done = current.sequence > started_from
        code = CompletionCode.COMPLETED if done else CompletionCode.FLASH_FAILURE
        what = "was complete" if done else "was not complete: the machine still runs the old BIOS"
        reason = f"the power failed; the programming {what}"
        _record_end(board, code, now)
    elif contents.is_ending:
        code = CompletionCode(contents.completion_code)
        reason = "the power failed while the result was recorded"
        _record_end_in_cmos(board)
    else:
        return None
    return PostReport(current.version, current.version, code, reason)


def _program(board: Board, image: Image, now: dt.datetime) -> None:
    """Write the flash. An image has no release date, so today's date is written for it."""
    nvram = board.nvram
    nvram.contents.flashing_from = board.flash.current.sequence
    nvram.save()
    board.flash.install(
        image.flash_data, version=image.header.version.text, release_date=f"{now:%m/%d/%Y}"
    )


def _record_end(board: Board, code: CompletionCode, now: dt.datetime) -> None:
    """Record the result of an update. The token is cleared after this, or was before."""
    board.nvram.contents.is_ending = board.rules.token_cleared is TokenCleared.LAST
    _record(board, code, now)
    if board.nvram.contents.is_ending:
        _record_end_in_cmos(board)


def _record_end_in_cmos(board: Board) -> None:
    """Record the result in CMOS, too, if the rule set does that, and clear the token."""
    contents = board.nvram.contents
    if board.rules.records_in_cmos and board.cmos_result is not None:
        assert contents.completed_at is not None
        when = dt.datetime.fromisoformat(contents.completed_at)
        board.cmos_result.write(CompletionCode(contents.completion_code), when)
    if board.activation is not None:
        board.activation.disarm()
    contents.is_ending = False
    board.nvram.save()


def _record(board: Board, code: CompletionCode, now: dt.datetime) -> None:
    """Record completion code and time, and that no programming is in progress, in one write. The
    record in the tables has no zone: the time is UTC, as in a computer's clock under Linux."""
    contents = board.nvram.contents
    contents.completion_code = int(code)
    contents.completed_at = now.astimezone(dt.UTC).replace(second=0, microsecond=0).isoformat()
    contents.flashing_from = None
    board.nvram.save()
