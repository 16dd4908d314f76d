"""The memory of the computer that this process runs on, as far as its kernel shows it.

`/proc/kcore` shows all RAM to root, unless the kernel is locked down or was built without it.
`/dev/mem` shows RAM above 1 MiB only where the kernel was built without `STRICT_DEVMEM`
(docs/reference/linux-files.md, L6).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.formats.lockdown import LOCKDOWN, lockdown_in
from openrbu.memory.file_of_ram import FileOfRam
from openrbu.memory.kcore import (
    has_pseudo_physical_addresses,
    look_at_kcore,
    read_persistent_memory,
    read_system_ram,
)
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import MIB, PAGE_SIZE, PhysAddr, human_size

_DEV_MEM = "dev/mem"
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class LiveMemory:
    """The memory, the file through which it is seen, and what can't be seen of it, each in one
    line."""

    memory: ReadableMemory
    source: str
    notes: tuple[str, ...] = ()


def open_live_memory(root: Path = Path("/")) -> LiveMemory:
    """The memory of the machine whose `/proc`, `/sys` and `/dev` are below `root`.

    :raise ObstacleError: when nothing of it can be seen. The text says why.
    """
    seen = look_at_kcore(root)
    if seen.memory is not None:
        notes = (*_missing_notes(seen.missing), *_pmem_notes(root))
        return LiveMemory(seen.memory, "/proc/kcore", notes)
    through_mem, why_not = _open_dev_mem(root)
    if through_mem is None:
        why = "; ".join(filter(None, (seen.why, why_not, _reason(root))))
        raise ObstacleError(f"the memory of this computer can't be seen: {why}")
    below = Region(PhysAddr(0), PhysAddr(MIB))
    why = f"memory is read through /dev/mem, because /proc/kcore can't be read ({seen.why})"
    notes = (why, *_missing_notes((below,)), *_pmem_notes(root))
    return LiveMemory(through_mem, "/dev/mem", notes)


def _missing_notes(missing: tuple[Region, ...]) -> tuple[str, ...]:
    """What is not seen, in one line."""
    if not missing:
        return ()
    size = human_size(sum(part.size_bytes for part in missing))
    named = [f"{part.start:#x}-{part.end:#x}" for part in missing[:_MAX_NAMED]]
    more = f" and {len(missing) - _MAX_NAMED} more parts" if len(missing) > _MAX_NAMED else ""
    return (f"{size} of the memory can't be seen: {', '.join(named)}{more}",)


def _pmem_notes(root: Path) -> tuple[str, ...]:
    """What of RAM is a device of persistent memory, which neither file shows."""
    return tuple(
        f"{human_size(part.size_bytes)} of persistent memory at {part.start:#x}-{part.end:#x} "
        "can't be seen: search its device as a raw dump (rbu scan --offset "
        f"{part.start:#x} /dev/pmem0)"
        for part in read_persistent_memory(root)
    )


def _reason(root: Path) -> str:
    """What keeps this process from the memory of the machine, as far as it is known."""
    if os.geteuid():
        return "only root can read memory"
    try:
        level = lockdown_in((root / LOCKDOWN.lstrip("/")).read_text())
    except OSError:
        level = None
    if level in ("integrity", "confidentiality"):
        return f"the kernel is locked down ({level})"
    return ""


def _open_dev_mem(root: Path) -> tuple[DevMem | None, str]:
    """RAM above 1 MiB through `/dev/mem`; or why it can't be read."""
    if has_pseudo_physical_addresses(root):
        return None, ""
    try:
        high = [region.clip(MIB, region.end) for region in read_system_ram(root)]
        regions = tuple(region for region in high if region is not None)
        fd = os.open(root / _DEV_MEM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return None, f"{error.filename}: {error.strerror}"
    memory = DevMem(fd, regions)
    try:
        for region in regions:  # the kernel decides for each page, alike for all RAM
            memory.read(region.start, PAGE_SIZE)
    except OSError as error:
        return None, f"/{_DEV_MEM}: {error.strerror}"
    return (memory, "") if regions else (None, "")


class DevMem(FileOfRam):
    """RAM through `/dev/mem`, where the byte at physical address A is at offset A."""

    def __init__(self, fd: int, regions: tuple[Region, ...]) -> None:
        super().__init__(fd, regions, 0, f"/{_DEV_MEM}")
