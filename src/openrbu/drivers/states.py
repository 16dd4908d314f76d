"""The saved state of each driver: `snapshot` returns one of these records, `restore` takes it.

The contents of memory are not in it: they stay in memory, at the same addresses. A change here
changes the format of a machine's state: see docs/state.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from openrbu.typed_json import Natural

BlockRows: TypeAlias = tuple[tuple[Natural, Natural, Natural, Natural], ...]
"""Page blocks in sequence: `[address, order, size in bytes, count]` for adjacent equal ones."""

FrameRuns: TypeAlias = tuple[tuple[Natural, Natural, int], ...]
"""Page frame numbers in sequence: `[first, count, step]`."""


@dataclass(frozen=True, slots=True)
class FirmwareImageState:
    """An image that is being loaded."""

    size_bytes: Natural
    blocks: BlockRows


@dataclass(frozen=True, slots=True)
class FirmwareRequestState:
    """A driver's request. `due_at`: when its entry appears, in seconds; None: the entry exists."""

    is_loading: bool
    due_at: float | None
    image: FirmwareImageState


@dataclass(frozen=True, slots=True)
class FirmwareState:
    """The firmware class. `search_path`: the directory in which the kernel searches first; empty:
    none. `switches`: those in `/proc/sys/kernel/firmware_config`. `requests`: by the driver's
    name."""

    timeout_s: Natural
    search_path: str
    switches: dict[str, bool]
    requests: dict[str, FirmwareRequestState]


@dataclass(frozen=True, slots=True)
class DellRbuState:
    """`dell_rbu`. `staged`: the packets, or (`is_mono`) the one block of an image in one piece."""

    module: Literal["dell_rbu"]
    image_type: str
    packet_size_bytes: Natural
    allocation_floor: Natural
    staged: BlockRows
    is_mono: bool
    cursor: Natural
    has_entry: bool


@dataclass(frozen=True, slots=True)
class DcdbasState:
    """`dcdbas`. `buffer`: `[address, order, size in bytes]`; None if there is none yet."""

    module: Literal["dcdbas"]
    buffer: tuple[Natural, Natural, Natural] | None
    host_controls: dict[str, Natural]


ModuleState: TypeAlias = DellRbuState | DcdbasState


@dataclass(frozen=True, slots=True)
class XenBalloonState:
    """The Xen balloon driver. `frames`: those in the balloon; the last one is returned first."""

    current_pages: Natural
    target_pages: Natural
    frames: FrameRuns
    hard_limit_pages: Natural | None
    retry_count: Natural
    schedule_delay_s: Natural
    max_retry_count: Natural
    max_schedule_delay_s: Natural
    scrub_pages: bool
    due_s: float | Literal["at once"] | None
