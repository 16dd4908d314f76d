"""What a BIOS did at a start: a machine's report, which is also sent between processes."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region


@dataclass(frozen=True, slots=True)
class BeforeStart:
    """What was there when the machine was restarted, for the report alone: a BIOS does not know it.
    `held`: the pages in which a driver held an update. `memory_was_kept`: the restart did not
    clear memory. `was_armed`: the token was set then, before any fault of the machine."""

    held: tuple[Region, ...]
    memory_was_kept: bool
    was_armed: bool


@dataclass(frozen=True, slots=True)
class PostReport:
    """What the BIOS did at one start.

    `completion_code` is None when no update was tried or finished. `reason` then says why the BIOS
    cleared the token, if it did. `mode`, `extents` and `copies`: as in `FoundUpdate`, of the update
    that it took. `found_in_held_memory`: whether the BIOS takes that update also when only those
    pages are searched that a driver held at the restart; if not, it was luck that nobody had
    overwritten it. None where nothing was taken, or where it is not known what was held.
    `held_bytes`: the size of these pages. `memory_was_kept`: the restart did not clear memory.
    `was_armed`: the token was set when the machine was restarted; the BIOS may have found it
    cleared. These three are None where that is not known.
    """

    version_before: str
    version_after: str
    completion_code: CompletionCode | None = None
    reason: str = ""
    mode: str | None = None
    extents: tuple[Region, ...] = ()
    copies: int = 0
    found_in_held_memory: bool | None = None
    held_bytes: int | None = None
    memory_was_kept: bool | None = None
    was_armed: bool | None = None

    @property
    def attempted(self) -> bool:
        return self.completion_code is not None
