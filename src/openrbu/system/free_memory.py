"""Free memory of this computer, as far as an ordinary process reaches it."""

from __future__ import annotations

import contextlib
import mmap


def take_and_free(size_bytes: int) -> None:
    """Take so much memory and free it again: the kernel clears each page when it gives it to a
    process. Nothing happens where there is not as much."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with contextlib.suppress(OSError), mmap.mmap(-1, max(size_bytes, 1), flags):
        pass
