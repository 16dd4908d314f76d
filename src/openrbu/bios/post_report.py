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
    that it took.
    """

    version_before: str
    version_after: str
    completion_code: CompletionCode | None = None
    reason: str = ""
    mode: str | None = None
    extents: tuple[Region, ...] = ()
    copies: int = 0

    @property
    def attempted(self) -> bool:
        return self.completion_code is not None
