"""Physical memory: search it, and open a dump of it.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import UsageError
from openrbu.units import PhysAddr

if TYPE_CHECKING:
    from openrbu.memory.physical import ReadableMemory
    from openrbu.memory.search_result import SearchResult

StrPath = str | os.PathLike[str]


def scan(memory: ReadableMemory, *, start: int = 0, end: int | None = None) -> SearchResult:
    """Find all packet sets and images in physical memory from address `start` to `end` (None: the
    end of memory), as a BIOS does. `memory` is a machine's (`Machine.memory`) or a dump's
    (`open_dump`).

    :raise UsageError: when `start` is negative, or after `end`.
    """
    from openrbu.memory.scan import search

    if start < 0 or (end is not None and end < start):
        wrong = f"from {start:#x}" + ("" if end is None else f" to {end:#x}")
        raise UsageError(f"memory can't be searched {wrong}: from 0 or more, and not backwards")
    last = memory.regions[-1].end if end is None else PhysAddr(end)
    return search(memory, PhysAddr(start), last)


@contextlib.contextmanager
def open_dump(path: StrPath) -> Iterator[ReadableMemory]:
    """Open a file with a dump of RAM; offsets in the file are physical addresses.

    :raise UsageError: when the file does not exist or can't be read.
    :raise DamagedInputError: when it is smaller than a page.
    """
    from openrbu.memory.dump import open_dump as open_file

    with open_file(Path(path)) as memory:
        yield memory
