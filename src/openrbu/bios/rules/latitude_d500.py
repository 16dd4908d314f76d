"""Rule set `latitude-d500`: what BIOS A10 of a Latitude D500 does.

The code of that BIOS was run in an emulator, and the tests compare this rule set with it
(`tests/oracle`; docs/reference/bios-rules.md, B4). It searches page by page from 1 MiB *up* to the
end of RAM below 4 GiB. It takes the first candidate that passes and skips those that fail. The
checks, in this sequence: `$RBU` (else it is not a candidate); a header length of 84; major version
1; system ID and hardware revision in the *first* entry of the list, for any `numSystems`; the
second check word; the first check word, over data of exactly this machine's flash size. Text,
version and minor version are not checked. It does not know packets.

It takes a dock's firmware, too, and does not check the systems of it: "D-DOCK RBU UPDATE" and a
zero byte at offset 0x64, and at 0x6094 the check word over all bytes before. A virtual machine has
no dock, so its BIOS refuses such firmware.

Read in the code, not run: the activation bit is cleared first; battery and mains power are
required; the code that writes the flash is in the new image.
"""

from __future__ import annotations

import dataclasses

from openrbu.bios.rules.mono_search import (
    DATA_WORD,
    LENGTH,
    MAJOR,
    WHOLE_WORD,
    CandidateImage,
    found_update,
    pages_with_images,
    search_candidates,
    why_none_taken,
)
from openrbu.bios.rules.ruleset import (
    FoundUpdate,
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
"""How many bytes a dock's check word is over; it follows them."""


def trace(memory: ReadableMemory, machine: Identity) -> Trace:
    """The steps of this BIOS's search in a memory."""
    return Trace(_search(Scratch(memory), machine))


def find_update(memory: ReadableMemory, machine: Identity) -> FoundUpdate:
    """The update that this BIOS takes from a memory.

    :raise RejectedError: when it takes none, or a dock's firmware.
    """
    scratch = Scratch(memory)
    search = _search(scratch, machine)
    if search.accepted is None:
        raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, why_none_taken(search))
    if search.is_dock:
        raise RejectedError(
            CompletionCode.INCONSISTENT_IMAGE,
            f"the firmware of a dock is at {search.accepted:#x}, which the real BIOS takes; this "
            "machine has no dock",
        )
    return found_update(scratch, search.accepted, machine, "mono")


def _search(scratch: Scratch, machine: Identity) -> MonoSearch:
    pages = pages_with_images(scratch, START, scratch.low_top)
    search = search_candidates(scratch, machine, pages, _first_failure)
    if search.accepted is None:
        return search
    is_dock = _is_dock(CandidateImage(scratch, search.accepted, machine))
    return dataclasses.replace(search, is_dock=is_dock)


def _first_failure(candidate: CandidateImage, machine: Identity) -> str | None:
    """The name of the first check that a candidate fails, None if it passes all."""
    header = candidate.fields
    if header["header_length"] != HEADER_SIZE_BYTES:
        return LENGTH
    if header["header_major_ver"] != 1:
        return MAJOR
    if _is_dock(candidate):
        return None
    if header["system_id_list"][0] != machine.system_word:
        return SYSTEM
    if not candidate.whole_word_is_right:
        return WHOLE_WORD
    return None if candidate.data_word_is_right else DATA_WORD


def _is_dock(candidate: CandidateImage) -> bool:
    if candidate.bytes_at(DOCK_TEXT_OFFSET, len(DOCK_TEXT)) != DOCK_TEXT:
        return False
    word = int.from_bytes(candidate.bytes_at(DOCK_BYTES, 4), "little")
    return word == register(candidate.bytes_at(0, DOCK_BYTES))


RULES = RuleSet(
    name="latitude-d500",
    summary="Latitude D500 BIOS A10: one piece, from 1 MiB up, old-style images, no packets",
    token_cleared=TokenCleared.FIRST,
    records_in_cmos=False,
    knows_packets=False,
    searches_above_4_gib=False,
    real_data_bytes=1 * MIB,
    searched="pages from 1 MiB to 4 GiB",
    find_update=find_update,
)
