"""Power that can fail: every operation on something non-volatile asks the rail first.

The machine comes up from any point at which the power failed. To try them all, a test lets the
rail fail at operation 1, 2, 3 … until a run gets through.
"""

from __future__ import annotations

from typing import NoReturn

from openrbu.errors import PowerCutError


class PowerRail:
    """Counts operations; the power fails during operation number `cut_at` (1 is the first)."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at = cut_at
        self.operations = 0

    def operation(self) -> bool:
        """Begin an operation. True: the power fails in it; do half of it, then call `fail`."""
        self.operations += 1
        return self.operations == self.cut_at

    def fail(self) -> NoReturn:
        """:raise PowerCutError: always."""
        raise PowerCutError(f"the power failed at operation {self.operations}")
