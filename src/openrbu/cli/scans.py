"""The command scan, which searches memory for images and packets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.files import check_directory
from openrbu.cli.maps import MapAsked, MapFile, map_answer
from openrbu.cli.options import Force, complete_machines
from openrbu.cli.scan_memory import Searched, open_memory
from openrbu.cli.show import Answer, caution, hex_address
from openrbu.errors import OpenRbuError
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import BIOS_SEARCH_END, BIOS_SEARCH_START, PhysAddr

if TYPE_CHECKING:
    from openrbu.bios.findings import Findings
    from openrbu.dumps.dump_memory import DumpMemory


def scan(
    memory: Annotated[
        str | None,
        typer.Argument(
            metavar="[MEMORY]",
            help="A virtual machine's name, or a file with a dump of RAM: raw, LiME or an ELF "
            "core, also compressed; - for standard input. Without it: this computer's memory.",
            autocompletion=complete_machines,
        ),
    ] = None,
    map_file: MapFile = None,
    *,
    bios: Annotated[
        bool, typer.Option("--bios", help="Search only where a BIOS does: from 1 MiB to 4 GiB.")
    ] = False,
    extract: Annotated[
        str | None,
        typer.Option("--extract", metavar="DIR", help="Write what was found to files in DIR."),
    ] = None,
    any_alignment: Annotated[
        bool,
        typer.Option("--any-alignment", help="Find what begins at any byte, not only at a page's."),
    ] = False,
    as_map: Annotated[
        bool, typer.Option("--map", help="Show where everything is, as a map of the memory.")
    ] = False,
    force: Force = False,
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset",
            metavar="ADDR",
            help="The file is a raw dump, and its first byte was at this physical address.",
        ),
    ] = None,
) -> Answer:
    """Find packet sets and images in memory, as a BIOS does.

    --extract writes whole images, and the images of packet sets. Of a set that lacks packets it
    writes what is there, in a file that ends with .part, and beside it a map of the holes. No file
    is overwritten. About --map: docs/scan.md.

    For a file with the name of a machine, give a path: ./NAME.

    \b
    Example:  rbu scan
              rbu scan demo
              rbu scan ram.dump --map ram.html
    """
    asked = MapAsked.of(memory, map_file, is_asked=as_map, force=force)
    memory = asked.memory
    directory = _directory(extract)
    with open_memory(memory, offset) as searched:
        start, end = PhysAddr(0), searched.memory.regions[-1].end
        if bios:
            start, end = BIOS_SEARCH_START, BIOS_SEARCH_END
        part = Region(start, end)
        name = searched.source if memory is None else memory
        return _answer(searched, name, part, directory, asked, any_alignment=any_alignment)


def _directory(extract: str | None) -> Path | None:
    """The directory that --extract names."""
    if extract is None:
        return None
    directory = Path(extract)
    check_directory(directory)
    return directory


def _answer(
    searched: Searched,
    name: str,
    part: Region,
    directory: Path | None,
    asked: MapAsked,
    *,
    any_alignment: bool,
) -> Answer:
    """The answer about a part of a memory. `directory`: where to write what was found."""
    from openrbu.cli.scan_blocks import findings_blocks
    from openrbu.cli.scan_document import findings_document
    from openrbu.dumps.dump_memory import DumpMemory

    dump = searched.memory if isinstance(searched.memory, DumpMemory) else None
    memory, findings = _findings(searched, part, any_alignment)
    found = findings.result
    notes = [*searched.notes, *(dump.notes if dump else ())]
    if off_page := found.off_page_count:
        notes.append(f"{off_page} packets and headers begin off a page, where no BIOS finds them")
    notes += _off_page_notes(dump, part, findings) if dump and not any_alignment else ()
    document = {
        "memory": name,
        **({"format": dump.format} if dump else {}),
        "notes": notes,
        "searched": {"start": hex_address(part.start), "end": hex_address(part.end)},
        "any_alignment": any_alignment,
        "off_page_count": off_page,
        **findings_document(findings),
    }
    blocks = [*map(caution, notes), *findings_blocks(findings, any_alignment=any_alignment)]
    if asked.is_asked:
        titled = "standard input" if name == "-" else name
        mapped = api.map_memory(
            searched.memory, found, name=titled, machine=searched.machine, notes=tuple(notes)
        )
        try:
            more, blocks = map_answer(mapped, asked.file, force=asked.force)
        except OpenRbuError as error:  # what was found is shown all the same
            return Answer({**document, "extracted": None}, blocks, error)
        document |= more
    if directory is None:
        return Answer({**document, "extracted": None}, blocks)
    from openrbu.cli.scan_extract import Extraction

    try:
        stem = "stdin" if name == "-" else name  # no file begins like an option
        written = Extraction(memory, findings, directory, stem)
    except OpenRbuError as error:
        return Answer({**document, "extracted": None}, blocks, error)
    return Answer({**document, "extracted": written.document}, [*blocks, *written.blocks])


def _off_page_notes(dump: DumpMemory, part: Region, findings: Findings) -> list[str]:
    """A note about what begins off a page, where nothing was found in a raw dump: nothing says that
    such a dump begins at a page."""
    found = findings.result
    if not dump.is_raw or found.packet_sets or found.headers or found.damaged_count:
        return []
    from openrbu.memory.off_page import off_page_note

    note = off_page_note(dump, part)
    return [note] if note else []


def _findings(
    searched: Searched, part: Region, any_alignment: bool
) -> tuple[ReadableMemory, Findings]:
    """What is in a part of a memory; and the memory to read it from."""
    from openrbu.bios.findings import Findings
    from openrbu.memory.any_alignment import places_anywhere, places_at
    from openrbu.memory.narrowed import NarrowedMemory, possible_pages
    from openrbu.memory.search_result import NOTHING

    memory, bounds = searched.memory, (part.start, part.end)
    places = places_anywhere(memory, *bounds) if any_alignment else None
    pages = possible_pages(memory) if places is None else places.at_pages
    if not (pages or (places and places.is_somewhere)):  # the usual case: nothing more is loaded
        return memory, Findings(NOTHING, {}, (), ())
    from openrbu.bios.closer_look import look_closer
    from openrbu.memory.scan import search_places

    places = places_at(pages, *bounds) if places is None else places
    found = search_places(memory, *bounds, places, any_alignment=any_alignment)
    # the rule sets search only these pages
    narrowed = NarrowedMemory(memory, pages, stays=searched.machine is None)
    return narrowed, look_closer(narrowed, found, searched.read_free_pages)
