"""Maps of physical memory.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.api.machines import Machine
    from openrbu.maps.memory_map import MemoryMap
    from openrbu.memory.physical import ReadableMemory
    from openrbu.memory.search_result import SearchResult


def map_memory(
    memory: ReadableMemory,
    seen: SearchResult,
    *,
    name: str = "memory",
    machine: Machine | None = None,
    notes: tuple[str, ...] = (),
) -> MemoryMap:
    """Make the map of a memory in which `scan` has found `seen`. With the machine whose memory it
    is, the map tells who uses each page, too. `name` is its title; `notes` are shown below it.

    :raise MachineError: when the machine is off.
    """
    from openrbu.maps.survey import make_map
    from openrbu.maps.usage import usage_of

    usage = held = None
    if machine is not None:
        usage = usage_of(machine.host, memory.regions)
        held = None if machine.virtual is None else machine.virtual.held_regions
    return make_map(name, memory, seen, usage=usage, held=held, notes=notes)
