"""What openrbu's own driver has, as a whole: memory, and what is staged in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openrbu.memory.physical import Region
from openrbu.own_driver.backends import lost_by
from openrbu.own_driver.driver import OwnDriver


@dataclass(frozen=True, slots=True)
class OwnDriverStatus:
    """The status of openrbu's own `dell_rbu`.

    `memory`: how its memory is had (`huge_pages`, …). `regions`: where that is; `staged_regions`:
    where the staged bytes are, and `moved` those parts that are somewhere else by now (of its huge
    pages, where nothing is staged). `is_kept`:
    an operator started it, who will stop it; if not, an update did. `is_flushed`: what is staged
    was written from the processor's caches to memory; only the restart shows whether it stays.
    `loses`: what staging in this memory costs, such as kdump's kernel, and what brings it back;
    empty: nothing.
    """

    memory: str
    regions: tuple[Region, ...]
    image_type: str
    packet_size_bytes: int
    staged_size_bytes: int
    staged_regions: tuple[Region, ...]
    moved: tuple[Region, ...]
    is_kept: bool
    is_flushed: bool
    loses: str

    @property
    def size_bytes(self) -> int:
        """The size of its memory."""
        return sum(region.size_bytes for region in self.regions)


def status_of(driver: OwnDriver, root: Path = Path("/")) -> OwnDriverStatus | None:
    """The status of a driver of the computer whose files are below `root`; None: it is not loaded.

    :raise OSError: when the addresses of its pages can't be read again.
    """
    if driver.memory is None:
        return None
    return OwnDriverStatus(
        memory=driver.memory.kind,
        regions=driver.regions,
        image_type=driver.image_type,
        packet_size_bytes=driver.packet_size_bytes,
        staged_size_bytes=driver.staged_size_bytes,
        staged_regions=driver.staged_regions,
        moved=driver.moved() if driver.staged_regions else driver.lost(),
        is_kept=driver.is_kept,
        is_flushed=driver.is_flushed,
        loses=lost_by(driver.memory.record(), root),
    )
