"""Physical memory: search it, and open a dump of it.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import ObstacleError, UsageError
from openrbu.units import PhysAddr

if TYPE_CHECKING:
    from openrbu.memory.physical import ReadableMemory
    from openrbu.memory.search_result import SearchResult

StrPath = str | os.PathLike[str]

_KCORE = Path("/proc/kcore")


def scan(
    memory: ReadableMemory,
    *,
    start: int = 0,
    end: int | None = None,
    any_alignment: bool = False,
) -> SearchResult:
    """Find all packet sets and images in physical memory from address `start` to `end` (None: the
    end of memory), as a BIOS does: those that begin at the start of a page. With `any_alignment`
    they may begin at any byte. `memory` is a machine's (`Machine.memory`) or a dump's
    (`open_dump`).

    :raise UsageError: when `start` is negative, or after `end`.
    """
    from openrbu.memory.scan import search

    if start < 0 or (end is not None and end < start):
        wrong = f"from {start:#x}" + ("" if end is None else f" to {end:#x}")
        raise UsageError(f"memory can't be searched {wrong}: from 0 or more, and not backwards")
    last = memory.regions[-1].end if end is None else PhysAddr(end)
    return search(memory, PhysAddr(start), last, any_alignment=any_alignment)


@contextlib.contextmanager
def open_dump(path: StrPath, *, offset: int | None = None) -> Iterator[ReadableMemory]:
    """Open a file with a dump of RAM, `-` for standard input: raw, LiME or an ELF core, also as a
    gzip, xz, bzip2 or zstd stream. Addresses are physical ones. See docs/scan.md.

    `offset` is the physical address of the first byte of a raw dump; None: 0.

    :raise UsageError: when the file does not exist or can't be read, or has addresses of its own
        and `offset` is given.
    :raise DamagedInputError: when it is damaged, smaller than a page, or of another format.
    :raise ObstacleError: when the disk can't read it, or has no room for what is unpacked; when
        it is this computer's `/proc/kcore`, and the kernel does not show all of it.
    """
    from openrbu.dumps.opening import STANDARD_INPUT
    from openrbu.dumps.opening import open_dump as open_file

    if os.fspath(path) != STANDARD_INPUT and _is_kcore(path):
        if offset is not None:
            raise UsageError(f"{path} has addresses of its own: an offset is for raw dumps")
        yield _kcore()
        return
    with open_file(os.fspath(path), offset=offset) as memory:
        yield memory


def _is_kcore(path: StrPath) -> bool:
    """Whether a file is this computer's own memory, which must not be read like a file: some of
    its segments are registers of devices."""
    try:
        return Path(path).samefile(_KCORE)
    except OSError:
        return False


def _kcore() -> ReadableMemory:
    from openrbu.memory.kcore import open_kcore

    memory = open_kcore(Path("/"))
    if memory is None:
        raise ObstacleError(
            f"{_KCORE} does not show this computer's memory: root is needed, a kernel that is not "
            "locked down, and no Xen"
        )
    return memory
