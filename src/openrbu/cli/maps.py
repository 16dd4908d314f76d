"""Maps of memory: the command machine map, and what scan --map shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.images import saved
from openrbu.cli.options import Force, MachineName
from openrbu.cli.show import Answer, Block, Picture, hex_address, width
from openrbu.errors import UsageError
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.maps.memory_map import MemoryMap

MAX_RANGES = 1000
"""How many ranges of each kind are listed in JSON."""


MapFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="Draw the map into a file (.svg, .png or .html)."),
]


def machine_map(name: MachineName, file: MapFile = None, *, force: Force = False) -> Answer:
    """Show what is where in a machine's memory: zones, free blocks, what is held, and findings.

    In FILE.html one can zoom from the whole memory to a page, and click a packet. See docs/scan.md.

    \b
    Example:  rbu machine map demo
              rbu machine map demo demo.html
    """
    if file is not None:
        from openrbu.maps.files import check_map_path

        check_map_path(file)
    with api.open_machine(name, reading=True) as machine:
        seen = api.scan(machine.memory)
        mapped = api.map_memory(machine.memory, seen, name=name, machine=machine)
        document, blocks = map_answer(mapped, file, force=force)
        return Answer({"name": name, **document}, blocks)


@dataclass(frozen=True, slots=True)
class MapAsked:
    """What `scan` is asked about a map: whether one is, the file for it (None: the terminal), and
    the memory (None: this computer's), which the words of the command name, too."""

    memory: str | None
    file: Path | None
    is_asked: bool
    force: bool

    @classmethod
    def of(cls, memory: str | None, file: Path | None, *, is_asked: bool, force: bool) -> MapAsked:
        """From the words MEMORY and FILE, which may come in any sequence: `--map FILE MEMORY`. One
        word alone is FILE where it is a name for one and there is no such file.

        :raise UsageError: when a file is named without --map, or can't be one.
        :raise ObstacleError: as `check_map_path`.
        """
        if file is not None and not is_asked:
            raise UsageError(f"{file}: one memory is searched; a file for a map goes with --map")
        if is_asked and memory is not None:
            from openrbu.maps.files import SUFFIXES, check_map_path

            first = Path(memory)
            if first.suffix.lower() in SUFFIXES and (file is not None or not first.exists()):
                memory, file = None if file is None else str(file), first
            if file is not None:
                check_map_path(file)
        return cls(memory, file, is_asked, force)


def map_answer(
    mapped: MemoryMap, file: Path | None, *, force: bool
) -> tuple[dict[str, Any], list[Block]]:
    """A map for `--json` and for people. `file`: where to write it; None: the terminal shows it."""
    if file is None:
        return {"map": {**map_document(mapped), "file": None}}, map_blocks(mapped)
    from openrbu.maps.files import map_file

    data = map_file(mapped, file)
    changed = save(file, data, force=force)
    document = {**map_document(mapped), "file": str(file)}
    return {"changed": changed, "map": document}, [saved(file, changed, human_size(len(data)))]


def map_blocks(mapped: MemoryMap) -> list[Block]:
    """A map for people, as wide as the terminal."""
    from openrbu.maps.strip import draw_strip

    return [Picture(draw_strip(mapped, width()))]


def map_document(mapped: MemoryMap) -> dict[str, Any]:
    """A map for `--json`: the ranges of each kind, and the zones."""
    return {
        "end": hex_address(mapped.end),
        "zones": [
            {
                "name": zone.name,
                "start": hex_address(zone.start),
                "end": hex_address(zone.end),
                "free_blocks": list(zone.free_counts) or None,
            }
            for zone in mapped.zones
        ],
        "kinds": {
            kind: {
                "size_bytes": ranges.size_bytes,
                "range_count": len(ranges),
                "ranges": [
                    {"start": hex_address(start), "end": hex_address(end)}
                    for start, end in zip(
                        ranges.starts[:MAX_RANGES].tolist(),
                        ranges.ends[:MAX_RANGES].tolist(),
                        strict=True,
                    )
                ],
            }
            for kind, ranges in mapped.ranges.items()
        },
        "notes": list(mapped.notes),
    }
