"""How one packet is shown, field by field: `rbu packets --explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu import api
from openrbu.cli.images import header_document, systems_text
from openrbu.cli.show import Answer, Block, Cell, Facts, Table, bad, good
from openrbu.errors import DamagedInputError
from openrbu.formats.loading import naming_file
from openrbu.formats.packet_explained import is_packet_file
from openrbu.system.files import read_input

if TYPE_CHECKING:
    from openrbu.formats.packet_explained import FieldReading, PacketReading

_SHOWN_BYTES = 16
"""How many bytes of a packet's data are shown."""

_SHOWN_MISSING = 10
_MOST_MISSING = 1000
"""How many missing packets are listed, for people and in JSON; a count beside it has all."""


def file_of_packets(path: Path) -> bytes | None:
    """The bytes of a file of packets; None when the file is something else.

    :raise UsageError: when it can't be read.
    """
    data = read_input(path)
    return data if is_packet_file(data) else None


def explained(path: Path, data: bytes | memoryview, place: int | None) -> Answer:
    """The packet at this place of packets back to back; None: the first one, and whether all are a
    whole set. `path`: the file that they are from."""
    if place is None:
        return _set_explained(path, data)
    with naming_file(path):
        reading = api.explain_packet(data, place)
    problems = reading.problems
    error = None
    if problems:
        error = DamagedInputError(
            f"{path}: packet {place} at offset {reading.offset:#x}: {'; '.join(problems)}",
            offset=reading.offset,
        )
    return Answer(_document(path, reading), _blocks(path, reading), error)


def _set_explained(path: Path, data: bytes | memoryview) -> Answer:
    """The first packet, and the set."""
    from openrbu.formats.packet_explained import explain_set

    first = explained(path, data, 0)
    found = explain_set(data)
    document = {
        **first.document,
        "set": {
            "packet_count": found.total,
            "present_count": found.count,
            "missing_count": len(found.missing),
            "missing": list(found.missing[:_MOST_MISSING]),
            "is_whole": not found.problem,
            "problem": found.problem or None,
            "problem_offset_bytes": found.offset,
        },
    }
    error = first.error
    if error is None and found.problem:
        error = DamagedInputError(
            f"{path}: {found.count} of {found.total} packets are there: {found.problem}",
            offset=found.offset,
        )
    rows: list[tuple[str, Cell]] = [("packets", f"{found.count} of {found.total}")]
    if found.missing:
        shown = ", ".join(map(str, found.missing[:_SHOWN_MISSING]))
        more = ", ..." if len(found.missing) > _SHOWN_MISSING else ""
        rows.append(("missing", bad(f"{len(found.missing)}: {shown}{more}")))
    right = good("right: all are there, in sequence, and intact")
    rows.append(("the set", bad(f"wrong: {found.problem}") if found.problem else right))
    return Answer(document, [*first.blocks, Facts("The whole set", rows)], error)


def _document(path: Path, reading: PacketReading) -> dict[str, Any]:
    sums, password, header = reading.checksum, reading.password, reading.image_header
    return {
        "file": str(path),
        "packet": reading.place,
        "offset_bytes": reading.offset,
        "size_bytes": reading.size_bytes,
        "is_valid": not reading.problems,
        "problems": list(reading.problems),
        "fields": [_field_document(field) for field in reading.fields],
        "checksum": None
        if sums is None
        else {
            "header_sum": f"{sums.header_sum:#06x}",
            "data_sum": f"{sums.data_sum:#06x}",
            "checksum": f"{sums.checksum:#06x}",
            "total": f"{sums.total:#06x}",
            "right_checksum": f"{sums.right_checksum:#06x}",
        },
        "password_item": None
        if password is None
        else {
            "is_present": password.present,
            "crc": f"{password.crc:#010x}" if password.present else None,
            "fields": [_field_document(field) for field in reading.password_fields],
        },
        "data": {
            "size_bytes": len(reading.data),
            "starts_with": reading.data[:_SHOWN_BYTES].hex(),
            "image_offset_bytes": reading.image_offset,
            "zeros_at_its_end_bytes": _zeros_at_end(reading.data),
            "image": None if header is None else header_document(header),
        },
    }


def _field_document(field: FieldReading) -> dict[str, Any]:
    return {
        "name": field.name,
        "offset_bytes": field.offset,
        "bytes": field.raw.hex(),
        "value": field.value,
        "meaning": field.meaning or None,
        "rules": [
            {"rule": rule.asks, "holds": rule.holds, "problem": None if rule.holds else rule.says}
            for rule in field.rules
        ],
    }


def _blocks(path: Path, reading: PacketReading) -> list[Block]:
    title = f"{path}: packet {reading.place} at offset {reading.offset:#x}"
    rows = [_row(field) for field in (*reading.fields, *reading.password_fields)]
    names = ("at", "bytes", "field", "value", "rules")
    return [
        Table(title, names, rows),
        Facts("Checksum: all 16-bit words add up to 0", _sum_rows(reading)),
        Facts("Data", _data_rows(reading)),
    ]


def _row(field: FieldReading) -> tuple[Cell, ...]:
    value = str(field.value)
    if field.value > 0xFFFF or field.name == "pktChksum":
        value = f"{field.value:#x}"
    return (
        f"{field.offset:#04x}",
        field.raw.hex(" "),
        field.name,
        f"{value}: {field.meaning}" if field.meaning else value,
        _rules_cell(field),
    )


def _rules_cell(field: FieldReading) -> Cell:
    broken = [rule.says for rule in field.rules if not rule.holds]
    if broken:
        return bad(f"wrong: {'; '.join(broken)}")
    if field.rules:
        return good(f"right: {'; '.join(rule.asks for rule in field.rules)}")
    return ""


def _sum_rows(reading: PacketReading) -> list[tuple[str, Cell]]:
    sums = reading.checksum
    if sums is None:
        return [("sum", bad("none: the packet is cut short"))]
    total: Cell = good(f"{sums.total:#06x}: right")
    if sums.total:
        total = bad(
            f"{sums.total:#06x}: wrong; with these bytes pktChksum is {sums.right_checksum:#06x}"
        )
    whole = sums.header_sum + sums.data_sum + sums.checksum
    return [
        ("bytes 0x00 to 0x1d", f"  {sums.header_sum:#06x}"),
        (f"bytes 0x20 to {reading.size_bytes - 1:#x}", f"+ {sums.data_sum:#06x}"),
        ("pktChksum", f"+ {sums.checksum:#06x}"),
        ("sum", f"= {whole:#x}"),
        ("sum modulo 0x10000", total),
    ]


def _data_rows(reading: PacketReading) -> list[tuple[str, Cell]]:
    data, password = reading.data, reading.password
    first = data[:_SHOWN_BYTES]
    more = " ..." if len(data) > len(first) else ""
    rows: list[tuple[str, Cell]] = [
        ("the packet is at", f"offset {reading.offset:#x}, {reading.size_bytes} bytes"),
        ("its data", f"{len(data)} bytes"),
        ("begins with", first.hex(" ") + more if first else "nothing"),
        ("as text", "".join(chr(c) if 0x20 <= c < 0x7F else "." for c in first)),
    ]
    if password is not None:
        given = f"yes: its CRC-32 is {password.crc:#010x}" if password.present else "no"
        rows.append(("a password", given))
    elif reading.image_offset is not None:
        at = reading.image_offset
        rows.append(("is of the image", f"bytes {at:#x} to {at + max(len(data) - 1, 0):#x}"))
    if reading.image_header is not None:
        header = reading.image_header
        rows.append(("the image", f"{header.version} for {systems_text(header)}"))
    if zeros := _zeros_at_end(data):
        rows.append(("zeros at its end", f"{zeros} bytes"))
    return rows


def _zeros_at_end(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\0"))
