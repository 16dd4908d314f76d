"""Rule set `poweredge-2950`: what BIOS 0.2.8 (2005) of PowerEdge 2900, 2950, 1950 and 1900 does.

The code of that BIOS was run in an emulator, and the tests compare this rule set with it
(`tests/oracle`; docs/reference/bios-rules.md, B4):

1. It searches an image in one piece, page by page from the top of RAM below 4 GiB *down* to 64 KiB,
   without 640 KiB to 1 MiB. The top is rounded up to 64 MiB, the unit of CMOS index 0x2D. It takes
   the first candidate that passes and skips those that fail. The checks, in this sequence: `$RBU`
   and a header length of 84 (else it is not a candidate); the second check word; major version 2;
   the quick check from " Dell Inc." on; system ID and hardware revision in any of the 12 entries,
   for any `numSystems`; the first check word, over data of exactly this machine's flash size;
   features and version. A candidate that fails the last check *ends* the search. Features: the
   header's minor version is 1 or more, and `compatFlags` has each feature bit of the running BIOS;
   not checked if the running BIOS has none (0, or 0xFFFF). Version: after a first letter A or X,
   "00" or more follows; any other version passes.
2. If none passed, it collects packets (`collector`), and does the same search again: it finds the
   joined image.

The real code demands 1 MiB of data and, in it, a module `_RIB` of the vendor's (processors, board
revision), which invented data does not have: this is not checked here. Where the real code compares
the password of packet 0 was not found. Here it is compared before the second search, and a set with
a wrong password is refused. The activation bit is cleared at the end, together with the result
(read, not run): see `bios.cmos_result`.
"""

from __future__ import annotations

from typing import Any

from openrbu.bios.rules.collector import (
    JOINED_AT,
    NO_PACKETS,
    collect,
    rounded_top,
)
from openrbu.bios.rules.mono_search import (
    DATA_WORD,
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
from openrbu.bios.rules.scratch import HOLE, Scratch
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER_SIZE_BYTES
from openrbu.memory.physical import ReadableMemory
from openrbu.units import KIB, MIB, PhysAddr

START = PhysAddr(64 * KIB)

TEXT = "quick check text"
SYSTEM = "system ID and revision"
FEATURES = "features and version (ends the search)"

_TEXT_START = 14
_TEXT = b" Dell Inc.".ljust(26)
_NO_FEATURES = (0, 0xFFFF)


def trace(memory: ReadableMemory, machine: Identity) -> Trace:
    """The steps of this BIOS's searches in a memory."""
    return _run(Scratch(memory), machine)


def find_update(memory: ReadableMemory, machine: Identity) -> FoundUpdate:
    """The update that this BIOS takes from a memory.

    :raise RejectedError: when it takes none.
    """
    scratch = Scratch(memory)
    happened = _run(scratch, machine)
    at = happened.accepted
    if at is None:
        raise _refusal(happened)
    packets = happened.packets
    if packets is None or at != JOINED_AT:
        return found_update(scratch, at, machine, "mono")
    if packets.password_crc != machine.password_crc:
        raise RejectedError(
            CompletionCode.INCONSISTENT_IMAGE, "packet 0 does not carry this machine's password"
        )
    return found_update(scratch, at, machine, "packet", packets.extents)


def _run(scratch: Scratch, machine: Identity) -> Trace:
    first = _search(scratch, machine)
    if first.accepted is not None or not machine.knows_packets:
        return Trace(first)
    packets = collect(scratch)
    if not packets.is_complete:
        return Trace(first, packets)
    return Trace(first, packets, _search(scratch, machine))


def _search(scratch: Scratch, machine: Identity) -> MonoSearch:
    """The search for an image in one piece."""
    pages = pages_with_images(scratch, START, rounded_top(scratch))
    candidates = [
        page
        for page in reversed(pages)
        if not HOLE.start <= page < HOLE.end and scratch.read(page + 4, 1)[0] == HEADER_SIZE_BYTES
    ]
    return search_candidates(scratch, machine, candidates, _first_failure, ends_search=FEATURES)


def _first_failure(candidate: CandidateImage, machine: Identity) -> str | None:
    """The name of the first check that a candidate fails, None if it passes all."""
    header = candidate.fields
    checks = (
        (WHOLE_WORD, lambda: candidate.whole_word_is_right),
        (MAJOR, lambda: header["header_major_ver"] == 2),
        (TEXT, lambda: header["quick_check"][_TEXT_START:] == _TEXT),
        (SYSTEM, lambda: machine.system_word in header["system_id_list"]),
        (DATA_WORD, lambda: candidate.data_word_is_right),
        (FEATURES, lambda: _has_features(header, machine) and _has_version(header)),
    )
    return next((name for name, passes in checks if not passes()), None)


def _has_features(header: dict[str, Any], machine: Identity) -> bool:
    wanted = machine.features
    if wanted in _NO_FEATURES:
        return True
    return header["header_minor_ver"] >= 1 and not wanted & ~header["compat_flags"]


def _has_version(header: dict[str, Any]) -> bool:
    version: bytes = header["bios_version"]
    return version[:1] not in (b"A", b"X") or version[1:] >= b"00"


def _refusal(happened: Trace) -> RejectedError:
    """The code to record, and why nothing was taken.

    The result is 2 ("failed a check") if a failed check ended the search, or if the real BIOS would
    not stop; else 3 ("not found").
    """
    last = happened.first if happened.second is None else happened.second
    reasons = []
    packets = happened.packets
    if packets is not None and packets.reason not in ("", NO_PACKETS):
        reasons.append(f"packets: {packets.reason}")
    if last.unchecked or last.candidates:
        joined_at = None if happened.second is None else JOINED_AT
        reasons.append(why_none_taken(last, joined_at))
    is_failure = last.is_cut_short or (packets is not None and packets.leaves_ram)
    code = CompletionCode.INCONSISTENT_IMAGE if is_failure else CompletionCode.IMAGE_NOT_FOUND
    return RejectedError(code, "; ".join(reasons) or "nothing in memory looks like an update")


RULES = RuleSet(
    name="poweredge-2950",
    summary=(
        "PowerEdge 2900/2950/1950/1900 BIOS 0.2.8: one piece from the top down, then packets, "
        "also above 4 GiB"
    ),
    token_cleared=TokenCleared.LAST,
    records_in_cmos=True,
    knows_packets=True,
    searches_above_4_gib=True,
    real_data_bytes=1 * MIB,
    searched="pages from 64 KiB to 4 GiB",
    find_update=find_update,
)
