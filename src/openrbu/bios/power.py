"""Power that can fail: each write to non-volatile memory asks the power rail first.

A machine has to start after a power cut at any point. A test tries all points: the rail fails at
operation 1, 2, 3 … until a run is completed.
"""

from __future__ import annotations

from typing import NoReturn

from openrbu.bios.faults import POWER_CUT
from openrbu.errors import PowerCutError
from openrbu.faults import Faults


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


def flash_rail(rail: PowerRail, faults: Faults) -> PowerRail:
    """The power rail of the flash: one of its own where a fault cuts it."""
    return PowerRail(faults[POWER_CUT]) if POWER_CUT in faults else rail
