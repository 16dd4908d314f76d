"""The kinds of memory that the driver can have, and which one it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from openrbu.errors import ObstacleError
from openrbu.own_driver import crash_region, obstacles, pmem_region
from openrbu.own_driver.crash_region import CrashRegionBackend
from openrbu.own_driver.huge_pages import HugePageBackend
from openrbu.own_driver.obstacles import Obstacle
from openrbu.own_driver.own_memory import (
    Backend,
    CrashRegionRecord,
    Note,
    OwnMemory,
    OwnMemoryRecord,
)
from openrbu.own_driver.pmem_region import PmemBackend
from openrbu.units import human_size

MemoryKind = Literal["huge_pages", "crash_region", "pmem"]
"""Each kind, as `OwnMemory.kind` names it."""


class AnyBackend:
    """Makes memory of one kind, and opens that of any. `root`: the directory of `/proc`, `/sys` and
    `/dev`."""

    def __init__(self, kind: MemoryKind = "huge_pages", root: Path = Path("/")) -> None:
        self._kind = kind
        self._backends: dict[str, Backend] = {
            "huge_pages": HugePageBackend(root),
            "crash_region": CrashRegionBackend(root),
            "pmem": PmemBackend(root),
        }

    def new(self, note: Note) -> OwnMemory:
        """A memory without any pages yet.

        :raise ObstacleError: when this computer has no such memory.
        """
        return self._backends[self._kind].new(note)

    def open(self, record: OwnMemoryRecord, note: Note) -> OwnMemory:
        """The memory of a record, with what is in it, of whatever kind it is.

        :raise DamagedInputError: when the record says what can't be.
        :raise OSError: the kernel's error.
        """
        return self._backends[record.kind].open(record, note)


def default_backend(root: Path = Path("/")) -> Backend:
    """Huge pages, the only kind that needs no restart to be prepared; memory of another kind that
    the driver has already is opened as what it is. `root`: see `AnyBackend`."""
    return AnyBackend(root=root)


def obstacles_to(
    kind: MemoryKind, root: Path = Path("/"), *, needed_bytes: int = 0
) -> tuple[Obstacle, ...]:
    """What keeps a process from having so much memory of this kind, as far as files say it."""
    if kind == "huge_pages":
        return obstacles.obstacles(root, needed_bytes=needed_bytes)
    if kind == "crash_region":
        return tuple(crash_region.obstacles(root))
    return tuple(pmem_region.obstacles(root))


def refuse_obstacles(kind: MemoryKind = "huge_pages", root: Path = Path("/")) -> None:
    """Refuse to start the driver where it can't have memory of this kind at all.

    :raise ObstacleError: for the most important obstacle.
    """
    for each in obstacles_to(kind, root):
        raise ObstacleError(f"openrbu's own driver can't be started: {each}")


def obstacles_to_more(
    memory: OwnMemory | None, root: Path = Path("/"), *, needed_bytes: int
) -> tuple[Obstacle, ...]:
    """What keeps a driver that has this memory (None: none yet) from having so much in all."""
    had_bytes = 0 if memory is None else sum(each.size_bytes for each in memory.memory.regions)
    if memory is not None and had_bytes >= needed_bytes:
        of_kind = obstacles_to("huge_pages", root) if memory.kind == "huge_pages" else ()
        return tuple(each for each in of_kind if each.name == "hidden_addresses")
    if memory is None or memory.kind == "huge_pages":
        return obstacles_to("huge_pages", root, needed_bytes=max(0, needed_bytes - had_bytes))
    text = f"the memory of openrbu's own driver ({memory.kind}) has only {human_size(had_bytes)}"
    remedy = "rbu driver stop, and start Linux with more for it, or use huge pages"
    return (Obstacle("too_little_memory", text, remedy),)


def lost_by(record: OwnMemoryRecord, root: Path = Path("/")) -> str:
    """What is lost by using this memory, and what brings it back; empty: nothing."""
    return crash_region.lost_by(record, root) if isinstance(record, CrashRegionRecord) else ""
