"""What a BIOS did at a start: what a machine tells of, and what goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import Region


@dataclass(frozen=True, slots=True)
class PostReport:
    """What one start did. `completion_code` is None when no update was tried or finished; `reason`
    says then why none was armed, where the BIOS did not believe the token."""

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
