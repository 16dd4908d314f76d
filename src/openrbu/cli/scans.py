"""The command scan, which searches memory for images and packets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrbu import api
from openrbu.cli.images import header_document, systems_text
from openrbu.cli.options import complete_machines
from openrbu.cli.show import Answer, Block, Cell, Table, bad, caution, good, hex_address
from openrbu.errors import UsageError
from openrbu.units import BIOS_SEARCH_END, BIOS_SEARCH_START, PhysAddr, human_size

if TYPE_CHECKING:
    from openrbu.api import ReadableMemory
    from openrbu.formats.hdr import Header
    from openrbu.memory.scan import FoundHeader, FoundSet, SearchResult

MAX_SHOWN = 10
"""How many missing packets, rejects and the like are listed for people; JSON has more."""

MAX_LISTED = 1000


def scan(
    memory: Annotated[
        str,
        typer.Argument(
            metavar="MEMORY",
            help="A virtual machine's name, or a file with a dump of RAM from address 0 on.",
            autocompletion=complete_machines,
        ),
    ],
    *,
    bios: Annotated[
        bool, typer.Option("--bios", help="Search only where a BIOS does: from 1 MiB to 4 GiB.")
    ] = False,
) -> Answer:
    """Find packet sets and images in memory, as a BIOS does.

    For a file with the name of a machine, give a path: ./NAME.

    \b
    Example:  rbu scan demo
    """
    with _open_memory(memory) as physical:
        start, end = PhysAddr(0), physical.regions[-1].end
        if bios:
            start, end = BIOS_SEARCH_START, BIOS_SEARCH_END
        seen = api.scan(physical, start=start, end=end)
        document = {
            "memory": memory,
            "searched": {"start": hex_address(start), "end": hex_address(end)},
            **_result_document(seen),
        }
        return Answer(document, _blocks(seen))


@contextlib.contextmanager
def _open_memory(memory: str) -> Iterator[ReadableMemory]:
    """A machine's RAM, or a file as RAM.

    :raise UsageError: when it is neither.
    :raise DamagedInputError: when the file is smaller than a page.
    """
    if "/" not in memory and _is_machine(memory):
        with api.open_machine(memory) as machine:
            yield machine.memory
        return
    path = Path(memory)
    with contextlib.suppress(PermissionError):  # opening it says that
        if not path.exists():
            raise UsageError(f"{memory} is neither a machine nor a file")
    with api.open_dump(path) as ram:
        yield ram


def _is_machine(name: str) -> bool:
    """Whether there is such a machine, or may be: where this user can't see whether, opening it
    says so."""
    from openrbu.system.home import state_home

    try:
        return (state_home() / "machines" / name).is_dir()
    except PermissionError:
        return not Path(name).exists()


def _result_document(seen: SearchResult) -> dict[str, Any]:
    from openrbu.formats.image_check import ImageState

    return {
        "packet_sets": [
            {
                "set_id": f"{found.set_id:#010x}",
                "packet_count": found.total,
                "is_complete": found.is_complete,
                "missing_count": len(found.missing),
                "missing": list(found.missing[:MAX_LISTED]),
                "conflicts": list(found.conflicts),
                "packet_size_bytes": found.packet_size_bytes,
                "has_password": found.password.present,
                "lowest": hex_address(found.lowest),
                "highest": hex_address(found.highest),
                "extent_count": found.extent_count,
                "image": None
                if found.image_header is None
                else header_document(found.image_header),
            }
            for found in seen.packet_sets
        ],
        "images": [
            {
                "address": hex_address(each.address),
                "size_bytes": each.size_bytes,
                "data_check_word": f"{each.data_word:#010x}",
                **header_document(each.header),
            }
            for each in seen.images
        ],
        "bare_headers": [
            {
                "address": hex_address(each.address),
                "state": "cut" if each.state is ImageState.CUT else "overwritten",
                "size_bytes": each.size_bytes or None,
                **header_document(each.header),
            }
            for each in _bare_headers(seen)
        ],
        "reject_count": seen.reject_count,
        "rejects": [
            {"address": hex_address(each.address), "why": each.why} for each in seen.rejects
        ],
    }


def _blocks(seen: SearchResult) -> list[Block]:
    blocks: list[Block] = []
    if seen.packet_sets:
        names = ("set", "packets", "missing", "packet size", "lowest", "highest", "holds")
        rows = [_set_row(each) for each in seen.packet_sets]
        blocks.append(Table("Packet sets", names, rows))
        blocks += [bad(f"conflict: {text}") for each in seen.packet_sets for text in each.conflicts]
    if seen.images:
        blocks.append(
            Table(
                "Whole images",
                ("whole image at", "version", "for systems", "size"),
                [
                    (f"{each.address:#x}", *_header_cells(each.header), human_size(each.size_bytes))
                    for each in seen.images
                ],
            )
        )
    bare = _bare_headers(seen)
    if bare:
        blocks.append(
            Table(
                "Headers without a whole image",
                ("bare header at", "version", "for systems", "behind it"),
                [
                    (f"{each.address:#x}", *_header_cells(each.header), _body_text(each))
                    for each in bare
                ],
            )
        )
    if not blocks:
        blocks.append("this memory contains nothing that looks like an update")
    return blocks + _reject_lines(seen)


def _bare_headers(seen: SearchResult) -> list[FoundHeader]:
    """The headers without a whole image after them."""
    whole = {each.address for each in seen.images}
    return [each for each in seen.headers if each.address not in whole]


def _body_text(found: FoundHeader) -> Cell:
    if found.size_bytes:
        return bad(f"an image of {human_size(found.size_bytes)}, overwritten")
    return bad("cut, or not in one piece")


def _reject_lines(seen: SearchResult) -> list[Block]:
    if not seen.reject_count:
        return []
    lines: list[Block] = [
        caution(f"pages that only look like a packet or an image: {seen.reject_count}"),
        *(f"  {each.address:#x}  {each.why}" for each in seen.rejects[:MAX_SHOWN]),
    ]
    if seen.reject_count > MAX_SHOWN:
        lines.append(f"  … and {seen.reject_count - MAX_SHOWN} more")
    return lines


def _header_cells(header: Header) -> tuple[str, str]:
    return str(header.version), systems_text(header)


def _set_row(found: FoundSet) -> tuple[Cell, ...]:
    from openrbu.formats.packet import set_id_text

    missing: Cell = good("none")
    if found.missing:
        first = ", ".join(map(str, found.missing[:MAX_SHOWN]))
        more = ", …" if len(found.missing) > MAX_SHOWN else ""
        missing = bad(f"{len(found.missing)}: {first}{more}")
    return (
        set_id_text(found.set_id),
        f"{len(found.places)}/{found.total}",
        missing,
        human_size(found.packet_size_bytes),
        f"{found.lowest:#x}",
        f"{found.highest:#x}",
        "?" if found.image_header is None else " for ".join(_header_cells(found.image_header)),
    )
