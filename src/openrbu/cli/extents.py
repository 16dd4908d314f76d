"""Extents of physical memory, as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from openrbu.cli.show import hex_address

if TYPE_CHECKING:
    from openrbu.memory.physical import Region

MAX_EXTENTS = 16
"""How many extents are listed; packets may have thousands."""


def extents_document(extents: Sequence[Region]) -> dict[str, Any]:
    """Extents of physical memory for `--json`: how many there are, and the first ones."""
    return {
        "extent_count": len(extents),
        "extents": [
            {"start": hex_address(each.start), "end": hex_address(each.end)}
            for each in extents[:MAX_EXTENTS]
        ],
    }


def extents_words(extents: Sequence[Region]) -> str:
    """Where extents are, on a line."""
    first = extents[0]
    if len(extents) == 1:
        return f"{first.start:#x} to {first.end:#x}"
    last = extents[-1]
    return f"{len(extents)} extents between {first.start:#x} and {last.end:#x}"
