"""The command scan, which searches memory for images and packets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openrbu import api
from openrbu.cli.maps import MapAsked, MapFile, map_answer
from openrbu.cli.options import Force, complete_machines, hex_number_of
from openrbu.cli.show import Answer, caution, hex_address
from openrbu.errors import UsageError
from openrbu.memory.narrowed import NarrowedMemory
from openrbu.memory.physical import Region
from openrbu.units import BIOS_SEARCH_END, BIOS_SEARCH_START, PhysAddr

if TYPE_CHECKING:
    from openrbu.api import Machine, ReadableMemory
    from openrbu.bios.findings import ReadFreePages


def scan(
    memory: Annotated[
        str,
        typer.Argument(
            metavar="MEMORY",
            help="A virtual machine's name, or a file with a dump of RAM: raw, LiME or an ELF "
            "core, also compressed; - for standard input.",
            autocompletion=complete_machines,
        ),
    ],
    map_file: MapFile = None,
    *,
    bios: Annotated[
        bool, typer.Option("--bios", help="Search only where a BIOS does: from 1 MiB to 4 GiB.")
    ] = False,
    extract: Annotated[
        Path | None,
        typer.Option("--extract", metavar="DIR", help="Write what was found to files in DIR."),
    ] = None,
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
    Example:  rbu scan demo
              rbu scan ram.dump --map ram.svg
    """
    asked = MapAsked.of(memory, map_file, is_asked=as_map, force=force)
    memory = asked.memory
    with _open_memory(memory, offset) as searched:
        start, end = PhysAddr(0), searched.memory.regions[-1].end
        if bios:
            start, end = BIOS_SEARCH_START, BIOS_SEARCH_END
        return _answer(searched, memory, Region(start, end), extract, asked)


def _answer(
    searched: _Searched, name: str, part: Region, directory: Path | None, asked: MapAsked
) -> Answer:
    """The answer about a part of a memory. `directory`: where to write what was found."""
    from openrbu.bios.findings import look_closer
    from openrbu.cli.scan_blocks import findings_blocks
    from openrbu.cli.scan_document import findings_document
    from openrbu.dumps.dump_memory import DumpMemory

    dump = searched.memory if isinstance(searched.memory, DumpMemory) else None
    notes = dump.notes if dump else ()
    narrowed = NarrowedMemory.of(searched.memory)  # all that follows searches only these pages
    found = api.scan(narrowed, start=part.start, end=part.end)
    findings = look_closer(narrowed, found, searched.read_free_pages)
    document = {
        "memory": name,
        **({"format": dump.format} if dump else {}),
        "notes": list(notes),
        "searched": {"start": hex_address(part.start), "end": hex_address(part.end)},
        **findings_document(findings),
    }
    blocks = [*map(caution, notes), *findings_blocks(findings)]
    if asked.is_asked:
        mapped = api.map_memory(searched.memory, found, name=name, machine=searched.machine)
        more, blocks = map_answer(mapped, asked.file, force=asked.force)
        document |= more
    if directory is None:
        return Answer({**document, "extracted": None}, blocks)
    from openrbu.cli.scan_extract import Extraction

    written = Extraction(narrowed, findings, directory, name)
    return Answer({**document, "extracted": written.document}, [*blocks, *written.blocks])


@dataclass(frozen=True, slots=True)
class _Searched:
    """A memory, what says which of its pages are free (None: nothing does), and the machine whose
    memory it is (None: it is a dump)."""

    memory: ReadableMemory
    read_free_pages: ReadFreePages | None = None
    machine: Machine | None = None


@contextlib.contextmanager
def _open_memory(memory: str, offset: str | None) -> Iterator[_Searched]:
    """A machine's RAM, or a file as RAM; `-` is standard input.

    Raises what `api.open_dump` raises, and a UsageError when it is neither.
    """
    from openrbu.update.verify import read_free_pages

    start = None if offset is None else _address_of(offset)
    if memory == "-":
        with api.open_dump(memory, offset=start) as ram:
            yield _Searched(ram)
        return
    if "/" not in memory and _is_machine(memory):
        if start is not None:
            raise UsageError(f"--offset is for a file: {memory} is a virtual machine")
        with api.open_machine(memory) as machine:
            physical = machine.memory
            yield _Searched(physical, partial(read_free_pages, machine.host), machine)
        return
    path = Path(memory)
    with contextlib.suppress(PermissionError):  # opening it says that
        if not path.exists():
            raise UsageError(f"{memory} is neither a machine nor a file")
    with api.open_dump(path, offset=start) as ram:
        yield _Searched(ram)


def _address_of(text: str) -> int:
    """The number in `0x…`, or in decimal digits."""
    if text.isdecimal():
        return int(text[:32])
    return hex_number_of(text, "--offset")


def _is_machine(name: str) -> bool:
    """Whether there is such a machine, or may be: where this user can't see whether, opening it
    says so."""
    from openrbu.system.home import state_home

    try:
        return (state_home() / "machines" / name).is_dir()
    except PermissionError:
        return not Path(name).exists()
