"""Free memory of this computer, as far as an ordinary process reaches it."""

from __future__ import annotations

import contextlib
import mmap

from openrbu.units import PAGE_SIZE, pages_for


def take_and_free(size_bytes: int) -> None:
    """Take so much memory and free it again: the kernel clears each page when it gives it to a
    process. In single pages, because no huge page has those that lie about. Where there is not as
    much, the kernel may end programs, this one among them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = max(pages_for(size_bytes), 1)
    with contextlib.suppress(OSError), mmap.mmap(-1, pages * PAGE_SIZE, flags) as memory:
        with contextlib.suppress(OSError):  # EINVAL: this kernel has no huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[::PAGE_SIZE] = bytes(pages)
