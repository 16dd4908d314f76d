"""Rule set `latitude-d500`: what BIOS A10 of a Latitude D500 does.

Its own code was run, and is what this is held against (`tests/oracle`;
docs/reference/bios-rules.md, B4): page by page from 1 MiB *up* to the end of RAM below 4 GiB, the
first that passes is taken, one that fails is passed over. The checks, in order: `$RBU` (else it is
no candidate); a header length of 84; major version 1; system ID and hardware revision in the
*first* entry of the list, whatever `numSystems` says; the second check word; the first, over
exactly this machine's data. Neither text nor version nor minor version counts, and it knows no
packets.

A dock's firmware is taken too, without a look at its systems: "D-DOCK RBU UPDATE" and a zero byte
at offset 0x64, and at 0x6094 the check word over all before it. A virtual machine has no dock, so
that our BIOS refuses it.

Read, not run: the activation bit is cleared first; battery and mains are wanted; the code that
flashes is the new image's own.
"""

from __future__ import annotations

import dataclasses

from openrbu.bios.rules.pieces import (
    DATA_WORD,
    LENGTH,
    MAJOR,
    WHOLE_WORD,
    FoundPiece,
    found_piece,
    look,
    pages_with_images,
    why_no_piece,
)
from openrbu.bios.rules.ruleset import (
    Find,
    Identity,
    MonoSearch,
    RejectedError,
    RuleSet,
    TokenCleared,
    Trace,
)
from openrbu.bios.rules.scratch import Scratch
from openrbu.formats.check_words import register
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER_SIZE_BYTES
from openrbu.memory.physical import ReadableMemory
from openrbu.units import MIB, PhysAddr

START = PhysAddr(1 * MIB)

SYSTEM = "system ID and revision (first of the list)"

DOCK_TEXT = b"D-DOCK RBU UPDATE\0"
DOCK_TEXT_OFFSET = 0x64
DOCK_BYTES = 0x6094
"""What a dock's check word is over; it stands behind."""


def trace(memory: ReadableMemory, machine: Identity) -> Trace:
    """All that this BIOS does with a memory, step by step."""
    return Trace(_search(Scratch(memory), machine))


def find(memory: ReadableMemory, machine: Identity) -> Find:
    """The update that this BIOS takes out of a memory.

    :raise RejectedError: when it takes none, or a dock's firmware.
    """
    scratch = Scratch(memory)
    search = _search(scratch, machine)
    if search.accepted is None:
        raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, why_no_piece(search))
    if search.is_dock:
        raise RejectedError(
            CompletionCode.INCONSISTENT_IMAGE,
            f"the firmware of a dock is at {search.accepted:#x}, which the real BIOS takes; this "
            "machine has no dock",
        )
    return found_piece(scratch, search.accepted, machine, "mono")


def _search(scratch: Scratch, machine: Identity) -> MonoSearch:
    pages = pages_with_images(scratch, START, scratch.low_top)
    search = look(scratch, machine, pages, _first_failure)
    if search.accepted is None:
        return search
    is_dock = _is_dock(FoundPiece(scratch, search.accepted, machine))
    return dataclasses.replace(search, is_dock=is_dock)


def _first_failure(piece: FoundPiece, machine: Identity) -> str | None:
    """The first check that a candidate fails."""
    header = piece.fields
    if header["header_length"] != HEADER_SIZE_BYTES:
        return LENGTH
    if header["header_major_ver"] != 1:
        return MAJOR
    if _is_dock(piece):
        return None
    if header["system_id_list"][0] != machine.system_word:
        return SYSTEM
    if not piece.whole_word_is_right:
        return WHOLE_WORD
    return None if piece.data_word_is_right else DATA_WORD


def _is_dock(piece: FoundPiece) -> bool:
    if piece.bytes_at(DOCK_TEXT_OFFSET, len(DOCK_TEXT)) != DOCK_TEXT:
        return False
    word = int.from_bytes(piece.bytes_at(DOCK_BYTES, 4), "little")
    return word == register(piece.bytes_at(0, DOCK_BYTES))


RULES = RuleSet(
    name="latitude-d500",
    summary="Latitude D500 BIOS A10: one piece, from 1 MiB up, old-style images, no packets",
    token_cleared=TokenCleared.FIRST,
    records_in_cmos=False,
    knows_packets=False,
    looks_above_4_gib=False,
    real_data_bytes=1 * MIB,
    find=find,
)
