"""What a search found, for people: tables with at most 10 rows of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from openrbu.bios.findings import Findings, Holder
from openrbu.cli.images import systems_text
from openrbu.cli.scan_document import bare_headers, places_of
from openrbu.cli.show import Block, Cell, StyledText, Table, bad, caution, good
from openrbu.formats.image_check import ImageState
from openrbu.formats.packet import set_id_text
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.bios.findings import JoinedImage
    from openrbu.bios.verdicts import RuleVerdict
    from openrbu.formats.hdr import Header
    from openrbu.memory.mending import Flip, Mending
    from openrbu.memory.search_result import FoundHeader, FoundSet

MAX_SHOWN = 10
"""How many of each kind are listed for people; JSON has more."""

_Item = TypeVar("_Item")


def findings_blocks(findings: Findings, *, any_alignment: bool) -> list[Block]:
    """The tables for everything that was found, or a line that says that nothing was, at pages or
    at any byte."""
    blocks = [
        *_set_blocks(findings),
        *_damaged_blocks(findings),
        *_image_blocks(findings),
        *_bare_blocks(findings),
        *_verdict_blocks(findings),
    ]
    if not blocks:
        where = "in this memory" if any_alignment else "at a page of this memory"
        blocks.append(f"nothing that looks like an update begins {where}")
    return [*blocks, *_reject_lines(findings)]


def _shown(items: Sequence[_Item]) -> Sequence[_Item]:
    return items[:MAX_SHOWN]


def _more(items: Sequence[object], count: int | None = None) -> list[Block]:
    """A line about the items that are not shown; `count`: of all of them."""
    rest = (len(items) if count is None else count) - len(_shown(items))
    return [f"  … and {rest} more"] if rest else []


def _set_blocks(findings: Findings) -> Iterator[Block]:
    sets = findings.result.packet_sets
    if not sets:
        return
    names = ("set", "packets", "missing", "copies", "packet size", "lowest", "highest", "holds")
    rows = [_set_row(findings, each) for each in _shown(sets)]
    columns = (*names, "joined", *_holder_column(findings))
    yield Table("Packet sets", columns, rows)
    yield from _more(sets)
    conflicts = [text for each in sets for text in each.conflicts]
    yield from (bad(f"conflict: {text}") for text in _shown(conflicts))
    yield from _more(conflicts)


def _holder_column(findings: Findings) -> tuple[str, ...]:
    return () if findings.free_pages is None else ("held",)


def _holder_cell(findings: Findings, address: int, size_bytes: int) -> tuple[Cell, ...]:
    """A cell for `_holder_column`: whether somebody has these bytes until the restart."""
    holder = findings.holder_of(address, size_bytes)
    if holder is None:
        return ()
    return (good("yes"),) if holder is Holder.HELD else (caution("no: a leftover copy"),)


def _set_row(findings: Findings, found: FoundSet) -> tuple[Cell, ...]:
    missing: Cell = good("none")
    if found.missing:
        first = ", ".join(map(str, _shown(found.missing)))
        more = ", …" if len(found.missing) > MAX_SHOWN else ""
        missing = bad(f"{len(found.missing)}: {first}{more}")
    copies = found.place_count - len(found.places)
    return (
        set_id_text(found.set_id),
        f"{len(found.places)}/{found.total}",
        missing,
        str(copies) if copies else "none",
        human_size(found.packet_size_bytes),
        f"{found.lowest:#x}",
        f"{found.highest:#x}",
        "?" if found.image_header is None else " for ".join(_header_cells(found.image_header)),
        _joined_cell(found, findings.joined[found.set_id]),
        *_held_of_set(findings, found),
    )


def _joined_cell(found: FoundSet, joined: JoinedImage) -> Cell:
    if not found.is_usable:
        return bad("no: packets are missing" if found.missing else "no: a conflict")
    if joined.damage is not None:
        return bad(joined.damage)
    return good(f"a whole image, {human_size(joined.size_bytes)}")


def _held_of_set(findings: Findings, found: FoundSet) -> tuple[Cell, ...]:
    """How many of a set's numbers have a packet that is held."""
    if findings.free_pages is None:
        return ()
    held = {
        number
        for number, address, size in places_of(found)
        if findings.holder_of(address, size) is Holder.HELD
    }
    text = f"{len(held)}/{found.total}"
    return (good(text) if len(held) == found.total else caution(text),)


def _damaged_blocks(findings: Findings) -> Iterator[Block]:
    if not findings.mendings:
        return
    names = ("damaged packet at", "set", "number", "words sum to", "one flipped bit")
    rows = [
        (
            f"{each.packet.address:#x}",
            set_id_text(each.packet.header.set_id),
            f"{each.packet.header.number} of {each.packet.header.total}",
            f"{each.packet.word_sum:#06x}",
            _mending_cell(each),
            *_holder_cell(findings, each.packet.address, each.packet.header.size_bytes),
        )
        for each in _shown(findings.mendings)
    ]
    yield Table("Packets with a wrong checksum", (*names, *_holder_column(findings)), rows)
    yield from _more(findings.mendings, findings.result.damaged_count)


def _mending_cell(mending: Mending) -> Cell:
    """Which flipped bit would explain the checksum."""
    at = mending.packet.address
    if not mending.is_checked:
        return caution("not looked for: too many")
    if mending.flip is not None:
        by = {"copy": ", by a copy", "image": ", by the image's check words"}
        return good(_flip_text(at, mending.flip) + by.get(mending.decided_by, ""))
    if not mending.candidate_count:
        return bad("no: more was changed")
    first = mending.candidates[0]
    return caution(f"one of {mending.candidate_count}, such as {_flip_text(at, first)}")


def _flip_text(address: int, flip: Flip) -> str:
    return f"{flip.mask:#04x} of the byte at {address + flip.offset:#x}"


def _image_blocks(findings: Findings) -> Iterator[Block]:
    images = findings.result.images
    if not images:
        return
    names = ("whole image at", "version", "for systems", "size", "check words")
    rows = [
        (
            f"{each.address:#x}",
            *_header_cells(each.header),
            human_size(each.size_bytes),
            f"{each.data_word:#010x} {each.whole_word:#010x}",
            *_holder_cell(findings, each.address, each.size_bytes),
        )
        for each in _shown(images)
    ]
    yield Table("Whole images", (*names, *_holder_column(findings)), rows)
    yield from _more(images)


def _bare_blocks(findings: Findings) -> Iterator[Block]:
    bare = bare_headers(findings.result)
    if not bare:
        return
    names = ("bare header at", "version", "for systems", "behind it")
    rows = [
        (
            f"{each.address:#x}",
            *_header_cells(each.header),
            _body_cell(each),
            *_holder_cell(findings, each.address, each.size_bytes or each.header.size_bytes),
        )
        for each in _shown(bare)
    ]
    title = "Headers without a whole image"
    yield Table(title, (*names, *_holder_column(findings)), rows)
    yield from _more(bare)


def _body_cell(found: FoundHeader) -> Cell:
    size = human_size(found.size_bytes)
    if found.state is ImageState.HEADER_CHANGED:
        return bad(f"an image of {size}, only its header was changed")
    if found.size_bytes:
        return bad(f"an image of {size}, overwritten")
    if found.is_limited:
        return caution("not known: there are too many headers to check all of them to the end")
    return bad("cut, or not in one piece")


def _verdict_blocks(findings: Findings) -> Iterator[Block]:
    if not findings.verdicts:
        return
    rows = [
        (
            each.rules,
            f"{each.identity.system_id or 0:#06x}, {human_size(each.identity.flash_size_bytes)}",
            _taken_cell(each),
        )
        for each in _shown(findings.verdicts)
    ]
    columns = ("rules", "machine: system, flash", "takes")
    yield Table("What a BIOS would take", columns, rows)
    yield from _more(findings.verdicts)


def _taken_cell(verdict: RuleVerdict) -> StyledText:
    if verdict.header is None:
        return bad(f"nothing: {verdict.why}")
    kind = "in packets" if verdict.mode == "packet" else "in one piece"
    return good(f"{verdict.header.version}, {kind}, from {verdict.extents[0].start:#x}")


def _reject_lines(findings: Findings) -> list[Block]:
    """The rejects that no table above has."""
    seen = findings.result
    bare = bare_headers(seen)
    told = {each.address for each in bare} | {each.address for each in seen.damaged}
    rejects = [each for each in seen.rejects if each.address not in told]
    count = seen.reject_count - len(bare) - seen.damaged_count
    if count <= 0:
        return []
    lines: list[Block] = [
        caution(f"pages that only look like a packet or an image: {count}"),
        *(f"  {each.address:#x}  {each.why}" for each in _shown(rejects)),
    ]
    return lines + _more(rejects, count)


def _header_cells(header: Header) -> tuple[str, str]:
    return str(header.version), systems_text(header)
