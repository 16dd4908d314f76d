"""What a BIOS did at a start: a machine's report, which is also sent between processes."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region


@dataclass(frozen=True, slots=True)
class PostReport:
    """What the BIOS did at one start.

    `completion_code` is None when no update was tried or finished. `reason` then says why the BIOS
    cleared the token, if it did. `mode`, `extents` and `copies`: as in `FoundUpdate`, of the update
    that it took. `found_in_held_memory`: whether the BIOS takes that update also when only those
    pages are searched that a driver held at the restart; if not, it was luck that nobody had
    overwritten it. None where nothing was taken, or where it is not known what was held.
    """

    version_before: str
    version_after: str
    completion_code: CompletionCode | None = None
    reason: str = ""
    mode: str | None = None
    extents: tuple[Region, ...] = ()
    copies: int = 0
    found_in_held_memory: bool | None = None

    @property
    def attempted(self) -> bool:
        return self.completion_code is not None
