"""What a kernel says of its huge pages, and how their number is changed.

Each node has a pool of each size; a machine of one node has the same numbers under
`/sys/kernel/mm/hugepages`. A pool's number can be put back while files have its pages: those are
*surplus* then, and go back to the kernel when the file that has them is removed, whatever
`nr_overcommit_hugepages` says. So a number is changed only as long as pages are taken. Facts:
docs/reference/linux-files.md, L10 and L17.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

from openrbu.errors import DamagedInputError
from openrbu.formats.buddyinfo import ZoneFree, parse_buddyinfo
from openrbu.formats.meminfo import meminfo_bytes
from openrbu.own_driver.pagemap import PAGEMAP, addresses_in
from openrbu.system.libc import HUGETLBFS, file_system_type
from openrbu.units import HUGE_PAGE_BYTES, KIB, PhysAddr

MACHINE_POOLS = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"

_NODE = re.compile(r"node(?P<node>[0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Pool:
    """The huge pages of `page_bytes` of one node; of the machine, where `node` is None.

    `path`: the file with the number, which can be changed. `count` pages are in the pool. `surplus`
    of them are above the number that was asked for, because they are in use.
    """

    path: str
    node: int | None
    page_bytes: int
    count: int
    surplus: int

    @property
    def asked(self) -> int:
        """The number that was asked for: what is written to put it back."""
        return self.count - self.surplus


class MappedPage(NamedTuple):
    """Page `number` of the file `name`, which this process has mapped at its address `place`."""

    name: str
    number: int
    place: int


class HugePageKernel(Protocol):
    """The kernel that huge pages come from."""

    def pools(self, page_bytes: int = HUGE_PAGE_BYTES) -> tuple[Pool, ...]:
        """The pools of pages of this size, one for each node; empty: this kernel has none.

        :raise OSError: the kernel's error.
        """

    def set_count(self, path: str, count: int) -> int:
        """Ask for so many pages in the pool of this file; how many it has now. They may be fewer,
        and more where they are in use.

        :raise OSError: the kernel's error.
        """

    def can_split(self, pool: Pool) -> bool:
        """Whether the kernel can split free pages of this pool into pages of 2 MiB."""

    def split(self, pool: Pool) -> None:
        """Split a free page of this pool; its parts are in the pool of 2 MiB of the same node.

        :raise OSError: the kernel's error.
        """

    def zones(self) -> tuple[ZoneFree, ...]:
        """The free memory of each zone; empty where this user can't read it."""

    def available_bytes(self) -> int | None:
        """How much programs can have before the kernel runs out; None where it does not say."""

    def compact(self) -> None:
        """Have the kernel join free memory into larger blocks, where it can."""

    def has_huge_pages(self, fd: int) -> bool:
        """Whether an open file is one of huge pages.

        :raise OSError: the kernel's error.
        """

    def addresses(self, pages: Iterable[MappedPage]) -> list[PhysAddr | None]:
        """The physical addresses of these pages; None for one that is not there.

        :raise ObstacleError: when the kernel does not tell them.
        :raise OSError: the kernel's error.
        """


class LinuxHugePages:
    """The kernel of this computer; with another `root` than `/`, a tree of its files."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def pools(self, page_bytes: int = HUGE_PAGE_BYTES) -> tuple[Pool, ...]:
        kind = f"hugepages-{page_bytes // KIB}kB"
        found = []
        nodes = self._root / NODES.lstrip("/")
        for each in sorted(nodes.iterdir()) if nodes.is_dir() else []:
            match = _NODE.fullmatch(each.name)
            if match is not None and (each / "hugepages" / kind).is_dir():
                found.append((f"{NODES}/{each.name}/hugepages/{kind}", int(match["node"])))
        if found:
            return tuple(self._pool(path, node, page_bytes) for path, node in sorted(found))
        path = f"{MACHINE_POOLS}/{kind}"
        return (self._pool(path, None, page_bytes),) if self._path(path).is_dir() else ()

    def set_count(self, path: str, count: int) -> int:
        with self._path(path).open("wb", buffering=0) as file:
            file.write(f"{count}\n".encode())
        return self._number(path)

    def can_split(self, pool: Pool) -> bool:
        return self._path(_split_file(pool)).exists()

    def split(self, pool: Pool) -> None:
        with self._path(_split_file(pool)).open("wb", buffering=0) as file:
            file.write(b"1\n")

    def zones(self) -> tuple[ZoneFree, ...]:
        try:
            return tuple(parse_buddyinfo(self._path("/proc/buddyinfo").read_text()))
        except (OSError, DamagedInputError):
            return ()

    def available_bytes(self) -> int | None:
        try:
            return meminfo_bytes(self._path("/proc/meminfo").read_text(), "MemAvailable")
        except OSError:
            return None

    def compact(self) -> None:
        with contextlib.suppress(OSError):  # a kernel that does not compact has no such file
            self._path("/proc/sys/vm/compact_memory").write_bytes(b"1\n")

    def has_huge_pages(self, fd: int) -> bool:
        return file_system_type(fd) == HUGETLBFS

    def addresses(self, pages: Iterable[MappedPage]) -> list[PhysAddr | None]:
        return addresses_in(self._path(PAGEMAP), (page.place for page in pages))

    def _pool(self, directory: str, node: int | None, page_bytes: int) -> Pool:
        path = f"{directory}/nr_hugepages"
        surplus = self._number(f"{directory}/surplus_hugepages")
        return Pool(path, node, page_bytes, self._number(path), surplus)

    def _number(self, path: str) -> int:
        text = self._path(path).read_text().strip()
        return int(text) if text.isdecimal() else 0

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _split_file(pool: Pool) -> str:
    """The file that splits pages of a pool, on kernels from 5.16 on."""
    return str(PurePath(pool.path).with_name("demote"))


def zones_of(zones: Iterable[ZoneFree], node: int | None) -> Sequence[ZoneFree]:
    """The zones of a node; all for None."""
    return [zone for zone in zones if node in (None, zone.node)]
