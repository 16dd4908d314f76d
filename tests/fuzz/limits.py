"""What one input may take."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_SECONDS = 1.0
"""Of the processor's time: what else runs on the computer does not count."""

LIMIT_BYTES = 1 << 30
"""All memory of the process. A larger request fails with MemoryError, which is a fault."""

HANG_SECONDS = 20
"""By the clock: an input that waits for something, or never ends."""


class TooSlowError(Exception):
    """An input took longer than `LIMIT_SECONDS`."""


def limited(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, with the limit of time.

    :raise TooSlowError: when an input takes longer.
    """

    def run(data: bytes) -> None:
        start = time.process_time()
        target(data)
        taken = time.process_time() - start
        if taken > LIMIT_SECONDS:
            raise TooSlowError(f"{taken:.1f} s for {len(data)} bytes")

    return run
