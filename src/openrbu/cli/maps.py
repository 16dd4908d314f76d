"""Maps of memory: the command machine map, and what scan --map shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openrbu import api
from openrbu.cli.options import MachineName
from openrbu.cli.show import Answer, Block, Picture, hex_address, width

if TYPE_CHECKING:
    from openrbu.maps.memory_map import MemoryMap

MAX_RANGES = 1000
"""How many ranges of each kind are listed in JSON."""


def machine_map(name: MachineName) -> Answer:
    """Show what is where in a machine's memory: zones, free blocks, what is held, and findings.

    \b
    Example:  rbu machine map demo
    """
    with api.open_machine(name) as machine:
        seen = api.scan(machine.memory)
        mapped = api.map_memory(machine.memory, seen, name=name, machine=machine)
        return Answer({"name": name, "map": map_document(mapped)}, map_blocks(mapped))


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
