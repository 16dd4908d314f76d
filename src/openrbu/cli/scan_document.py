"""What a search found, as the JSON document of `rbu scan` (schemas/scan.json)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from openrbu.cli.images import header_document
from openrbu.cli.show import hex_address
from openrbu.memory.physical import Region

if TYPE_CHECKING:
    from openrbu.bios.findings import Findings, JoinedImage
    from openrbu.bios.verdicts import RuleVerdict
    from openrbu.memory.mending import Flip, Mending
    from openrbu.memory.search_result import FoundHeader, FoundImage, FoundSet, SearchResult

MAX_LISTED = 1000
"""How many missing packets, extents and the like a list has; a count beside it has all."""

MAX_PLACES = 100_000
"""How many packets are listed for all sets together."""

STATE_NAMES = {"data_changed": "overwritten", "header_changed": "header_changed"}
"""Names of the states of an image without an intact one behind its header; others are `cut`."""


def findings_document(findings: Findings) -> dict[str, Any]:
    """All keys but those that say what was searched."""
    seen = findings.result
    room = iter(range(MAX_PLACES))
    return {
        "knows_holders": findings.free_pages is not None,
        "packet_sets": [_set_document(findings, each, room) for each in seen.packet_sets],
        "damaged_packet_count": seen.damaged_count,
        "damaged_packets": [_damaged_document(findings, each) for each in findings.mendings],
        "images": [_image_document(findings, each) for each in seen.images],
        "bare_headers": [_bare_document(findings, each) for each in bare_headers(seen)],
        "rule_sets": [_verdict_document(each) for each in findings.verdicts],
        "reject_count": seen.reject_count,
        "rejects": [
            {"address": hex_address(each.address), "why": each.why} for each in seen.rejects
        ],
    }


def bare_headers(seen: SearchResult) -> list[FoundHeader]:
    """The headers without a whole image after them."""
    whole = {each.address for each in seen.images}
    return [each for each in seen.headers if each.address not in whole]


def places_of(found: FoundSet) -> Iterator[tuple[int, int, int]]:
    """Number, address and size of each packet of a set, by number, copies by address."""
    for number, places in found.places.items():
        for address in places:
            yield number, address, found.size_of(number)


def _set_document(findings: Findings, found: FoundSet, room: Iterator[int]) -> dict[str, Any]:
    header, joined = found.image_header, findings.joined[found.set_id]
    return {
        "set_id": f"{found.set_id:#010x}",
        "packet_count": found.total,
        "is_complete": found.is_complete,
        "missing_count": len(found.missing),
        "missing": list(found.missing[:MAX_LISTED]),
        "conflicts": list(found.conflicts),
        "packet_size_bytes": found.packet_size_bytes,
        "packet_0_size_bytes": found.packet_0_size_bytes or None,
        "header_size_bytes": found.header_size_bytes,
        "has_password": found.password.present,
        "lowest": hex_address(found.lowest),
        "highest": hex_address(found.highest),
        **_extents_document(found.all_extents),
        **_holders(findings, places_of(found)),
        "copy_count": found.place_count - len(found.places),
        "place_count": found.place_count,
        "places": [
            {
                "number": number,
                "address": hex_address(address),
                "holder": _holder(findings, address, size),
            }
            for (number, address, size), _ in zip(places_of(found), room, strict=False)
        ],
        "differing_count": len(found.differing),
        "differing": [
            {
                "number": each.number,
                "address": hex_address(each.address),
                "lowest": hex_address(each.lowest),
            }
            for each in found.differing[:MAX_LISTED]
        ],
        "image": None if header is None else header_document(header),
        "joined": _joined_document(joined),
    }


def _extents_document(extents: Sequence[Region]) -> dict[str, Any]:
    return {
        "extent_count": len(extents),
        "extents": [
            {"start": hex_address(each.start), "end": hex_address(each.end)}
            for each in extents[:MAX_LISTED]
        ],
    }


def _holders(findings: Findings, places: Iterable[tuple[int, int, int]]) -> dict[str, Any]:
    """How many packets are held, and how many are leftovers; None where it is not known."""
    if findings.free_pages is None:
        return {"held_count": None, "leftover_count": None}
    names = [_holder(findings, address, size) for _, address, size in places]
    return {"held_count": names.count("held"), "leftover_count": names.count("leftover")}


def _holder(findings: Findings, address: int, size_bytes: int) -> str | None:
    holder = findings.holder_of(address, size_bytes)
    return None if holder is None else holder.value


def _joined_document(joined: JoinedImage) -> dict[str, Any]:
    is_joined = joined.state is not None
    return {
        "state": None if joined.state is None else joined.state.value,
        "damage": joined.damage,
        "size_bytes": joined.size_bytes if is_joined else None,
        "flash_size_bytes": joined.flash_size_bytes if is_joined else None,
        "data_check_word": f"{joined.data_word:#010x}" if is_joined else None,
        "whole_check_word": f"{joined.whole_word:#010x}" if is_joined else None,
        "sha256": joined.sha256 or None,
    }


def _damaged_document(findings: Findings, mending: Mending) -> dict[str, Any]:
    packet = mending.packet
    header, address = packet.header, packet.address
    return {
        "address": hex_address(address),
        "set_id": f"{header.set_id:#010x}",
        "number": header.number,
        "packet_count": header.total,
        "size_bytes": header.size_bytes,
        "word_sum": f"{packet.word_sum:#06x}",
        "holder": _holder(findings, address, header.size_bytes),
        "single_bit": {
            "is_checked": mending.is_checked,
            "candidate_count": mending.candidate_count,
            "candidates": [_flip_document(address, each) for each in mending.candidates],
            "flip": None if mending.flip is None else _flip_document(address, mending.flip),
            "decided_by": mending.decided_by or None,
        },
    }


def _flip_document(address: int, flip: Flip) -> dict[str, Any]:
    return {
        "offset": flip.offset,
        "address": hex_address(address + flip.offset),
        "mask": f"{flip.mask:#04x}",
    }


def _image_document(findings: Findings, found: FoundImage) -> dict[str, Any]:
    return {
        "address": hex_address(found.address),
        "end": hex_address(found.address + found.size_bytes),
        "size_bytes": found.size_bytes,
        "data_check_word": f"{found.data_word:#010x}",
        "whole_check_word": f"{found.whole_word:#010x}",
        "holder": _holder(findings, found.address, found.size_bytes),
        **header_document(found.header),
    }


def _bare_document(findings: Findings, found: FoundHeader) -> dict[str, Any]:
    size = found.size_bytes or found.header.size_bytes
    return {
        "address": hex_address(found.address),
        "state": STATE_NAMES.get(found.state.value, "cut"),
        "size_bytes": found.size_bytes or None,
        "is_checked": not found.is_limited,
        "holder": _holder(findings, found.address, size),
        **header_document(found.header),
    }


def _verdict_document(verdict: RuleVerdict) -> dict[str, Any]:
    machine = verdict.identity
    return {
        "rules": verdict.rules,
        "system_id": f"{machine.system_id or 0:#06x}",
        "revision": machine.revision,
        "flash_size_bytes": machine.flash_size_bytes,
        "has_password": machine.password_crc is not None,
        "takes": None
        if verdict.header is None
        else {
            "mode": verdict.mode,
            "version": verdict.header.version.text,
            "copies": verdict.copies,
            **_extents_document(verdict.extents),
        },
        "why": verdict.why or None,
    }
