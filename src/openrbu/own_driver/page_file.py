"""A file of huge pages in a hugetlbfs mount: its pages stay until it is removed."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable
from pathlib import Path

from openrbu.own_driver.pools import HugePageKernel, MappedPage
from openrbu.system.fallocate import punch_hole, take_space
from openrbu.system.mapping import AddressSpace
from openrbu.units import HUGE_PAGE_BYTES, PhysAddr

NAME_PREFIX = "openrbu-driver-"
"""What the names of these files begin with, so that those of a killed process are found."""

_LOOK_BYTES = 1 << 16


class HugePageFile:
    """An open file of huge pages of 2 MiB. Page n of it is at offset n * 2 MiB.

    `count`: how many pages it has; some may have been given back since. It is closed when nobody
    uses this object any more.
    """

    def __init__(self, path: Path, fd: int, count: int) -> None:
        self._path, self.fd, self.count = path, fd, count
        self._close = weakref.finalize(self, os.close, fd)

    @classmethod
    def create(cls, path: Path) -> HugePageFile:
        """Make the file, without pages.

        :raise OSError: the kernel's error.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return cls(path, os.open(path, flags, 0o600), 0)

    @classmethod
    def open(cls, path: Path) -> HugePageFile:
        """Open a file that is there.

        :raise OSError: the kernel's error.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return cls(path, fd, os.fstat(fd).st_size // HUGE_PAGE_BYTES)

    @property
    def name(self) -> str:
        return self._path.name

    def extend(self, count: int) -> int:
        """Take up to `count` free pages of the pools into the file, cleared; how many it got.

        :raise OSError: when the kernel has no such call for this file system.
        """
        first = self.count
        os.ftruncate(self.fd, (first + count) * HUGE_PAGE_BYTES)
        for number in range(first, first + count):
            try:
                is_able = take_space(self.fd, number * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES)
            except OSError:  # no page is free, or none for this process
                break
            if not is_able:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(self._path))
            self.count += 1
        os.ftruncate(self.fd, self.count * HUGE_PAGE_BYTES)
        return self.count - first

    def addresses(self, kernel: HugePageKernel) -> list[PhysAddr | None]:
        """The physical address of each page, as long as none was given back; None for one that is
        not there.

        :raise ObstacleError: when the kernel does not tell them.
        :raise OSError: the kernel's error.
        """
        if not self.count:
            return []
        size_bytes = self.count * HUGE_PAGE_BYTES
        space = AddressSpace(size_bytes, alignment_bytes=HUGE_PAGE_BYTES)
        space.map_part(0, size_bytes, self.fd, 0)
        places = range(space.address, space.address + size_bytes, HUGE_PAGE_BYTES)
        try:
            return kernel.addresses(
                MappedPage(self.name, number, place) for number, place in enumerate(places)
            )
        finally:
            space.forget()

    def address_of(self, number: int, kernel: HugePageKernel) -> PhysAddr | None:
        """The physical address of a page that was not given back; None when it can't be used any
        more.

        :raise ObstacleError: when the kernel does not tell it.
        :raise OSError: the kernel's error.
        """
        space = AddressSpace(HUGE_PAGE_BYTES, alignment_bytes=HUGE_PAGE_BYTES)
        space.map_part(0, HUGE_PAGE_BYTES, self.fd, number * HUGE_PAGE_BYTES)
        try:
            return kernel.addresses([MappedPage(self.name, number, space.address)])[0]
        finally:
            space.forget()

    def give_back(self, numbers: Iterable[int]) -> None:
        """Give these pages back. What is in them stays in free memory.

        :raise OSError: the kernel's error.
        """
        for number in numbers:
            punch_hole(self.fd, number * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES)

    def clear(self) -> None:
        """Clear all pages that are not clear.

        :raise OSError: the kernel's error.
        """
        space = AddressSpace(HUGE_PAGE_BYTES, alignment_bytes=HUGE_PAGE_BYTES)
        zeros, clear_page = bytes(_LOOK_BYTES), bytes(HUGE_PAGE_BYTES)
        for start in range(0, self.count * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES):
            ends = range(start, start + HUGE_PAGE_BYTES, _LOOK_BYTES)
            if all(os.pread(self.fd, _LOOK_BYTES, each) == zeros for each in ends):
                continue  # clear, or given back: reading takes no page, mapping would
            space.map_part(0, HUGE_PAGE_BYTES, self.fd, start)
            space.view[:] = clear_page
        space.forget()

    def remove(self) -> None:
        """Remove the file, and close it: its pages go back to the kernel.

        :raise OSError: the kernel's error.
        """
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close it: the pages stay."""
        self._close()
        self.fd = -1
