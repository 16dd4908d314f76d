"""The pool of huge pages of a simulated kernel: `/proc/sys/vm/nr_hugepages`.

A number that is written is how many pages of 2 MiB the kernel keeps for programs. It takes them
from the highest zone first, as many as it gets, and shows how many those are; what is too much is
given back. No program here uses them: to hold memory is all that they are good for.

In a saved state the pool has no record of its own: the page allocator's has every block, and a
block of this order that no driver has is in the pool.

Facts: docs/reference/linux-files.md, L10.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from openrbu.drivers.numbers import strict_unsigned_any_base
from openrbu.drivers.sysfs import SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.memory.pages import PageSource
from openrbu.units import HUGE_PAGE_ORDER, PhysAddr

NR_HUGEPAGES = "/sys/vm/nr_hugepages"
"""In `/proc`."""

POOL = "/kernel/mm/hugepages/hugepages-2048kB"
"""In sysfs: the directory of the same pool."""


class HugePages:
    """The pool of huge pages; it is empty at first."""

    def __init__(self, pages: PageSource) -> None:
        self._pages = pages
        self._addresses: list[PhysAddr] = []

    def restore(self, addresses: Iterable[PhysAddr]) -> None:
        """Have these blocks in the pool, which are allocated."""
        self._addresses = list(addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def install(self, sys: SysfsTree, proc: SysfsTree) -> None:
        """Add the files."""
        proc.add(NR_HUGEPAGES, TextAttribute(self._show, self._store, size_bytes=0))
        sys.add(f"{POOL}/nr_hugepages", TextAttribute(self._show, self._store))
        sys.add(f"{POOL}/free_hugepages", TextAttribute(self._show, mode=0o444))

    def _show(self) -> str:
        return f"{len(self)}\n"

    def _store(self, text: bytes) -> None:
        """A write to the file: a number, and blanks before it; what is behind a blank is ignored.

        :raise KernelError: EINVAL when it is not a number of 64 bits.
        """
        words = text.split()
        number = strict_unsigned_any_base(words[0]) if words else len(self)
        if number is None or number >> 64:
            raise KernelError(errno.EINVAL, f"/proc{NR_HUGEPAGES}")
        self.resize(number)

    def resize(self, count: int) -> None:
        """Have `count` pages in the pool, or as many as there are."""
        while len(self) > count:
            self._pages.free(self._addresses.pop(), HUGE_PAGE_ORDER)
        try:
            while len(self) < count:
                self._addresses.append(self._pages.allocate(HUGE_PAGE_ORDER))
        except KernelError as error:
            if error.errno != errno.ENOMEM:
                raise
