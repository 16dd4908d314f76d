"""Huge pages as the driver's memory: files in a hugetlbfs mount.

A file of huge pages keeps them when the process ends, and the kernel does not swap or move them for
its own sake. The addresses are in `/proc/self/pagemap`. How pages are got where they are wanted is
`own_driver.taking`.

What a killed process leaves is found by the record, which is noted before the kernel is changed,
and by the names of the files (`page_file.NAME_PREFIX`).

Decision: docs/decisions/0037-huge-pages-as-memory.md.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from openrbu.errors import DamagedInputError, KernelError, ObstacleError
from openrbu.memory.physical import Region, joined
from openrbu.own_driver.blocks import FreeBlocks
from openrbu.own_driver.cache import flush_lines
from openrbu.own_driver.giving_back import clear_and_remove, give_back_of, left_in
from openrbu.own_driver.hugetlbfs import Mount, as_seen_here, find_mount, make_mount, own_mount
from openrbu.own_driver.mapped_memory import LOST, MappedMemory, Piece
from openrbu.own_driver.own_memory import (
    LARGEST_ORDER,
    HugePagesRecord,
    Note,
    OwnMemoryRecord,
    PageFile,
    PoolBefore,
)
from openrbu.own_driver.page_file import NAME_PREFIX, HugePageFile
from openrbu.own_driver.pools import HugePageKernel, LinuxHugePages, MappedPage, Pool
from openrbu.own_driver.taking import Need, Taking
from openrbu.units import GIB, HUGE_PAGE_BYTES, HUGE_PAGE_ORDER, PhysAddr, order_for

_MOST_AHEAD = 16
"""So many huge pages at most are taken at once for small blocks, as many as there are already."""


class HugePages:
    """An `OwnMemory` of huge pages of 2 MiB; `HugePageBackend` makes one."""

    kind = "huge_pages"
    largest_order = LARGEST_ORDER

    def __init__(self, backend: HugePageBackend, note: Note) -> None:
        self._note, self._root, self._kernel = note, backend.root, backend.kernel
        self._most_pages = backend.most_pages
        self._memory = MappedMemory(alignment_bytes=HUGE_PAGE_BYTES)
        self._free = FreeBlocks(alignment_bytes=HUGE_PAGE_BYTES)
        self._mount: Mount | None = None
        self._pools: tuple[PoolBefore, ...] = ()
        self._giants: tuple[Pool, ...] = ()
        self._planned: PageFile | None = None
        self._files: dict[str, HugePageFile] = {}
        self._pages: dict[PhysAddr, tuple[str, int]] = {}  # the file of each, and its number there

    # -- what there is ----------------------------------------------------------------------

    @property
    def memory(self) -> MappedMemory:
        return self._memory

    def moved(self) -> tuple[Region, ...]:
        there = [each for each in sorted(self._pages.items()) if each[1][0] in self._files]
        seen = self._kernel.addresses(
            MappedPage(name, number, self._memory.place_of(address))
            for address, (name, number) in there
        )
        in_place = {
            address
            for (address, (name, number)), now in zip(there, seen, strict=True)
            if address in (now, self._address_again(name, number) if now is None else None)
        }
        gone = sorted(self._pages.keys() - in_place)
        return joined((address, address + HUGE_PAGE_BYTES) for address in gone)

    def _address_again(self, name: str, number: int) -> PhysAddr | None:
        """The address of a page that this process has not used yet, or that can't be used."""
        return self._files[name].address_of(number, self._kernel)

    def flush(self, regions: Iterable[Region]) -> bool:
        parts = (
            part
            for each in regions
            for region in self._memory.regions
            if (part := region.clip(each.start, each.end)) is not None
        )
        return all(
            flush_lines(self._memory.place_of(each.start), each.size_bytes) for each in parts
        )

    def record(self) -> HugePagesRecord:
        pages: dict[str, list[tuple[int, int]]] = {}
        for address, (name, number) in sorted(self._pages.items()):
            pages.setdefault(name, []).append((number, address))
        files = [PageFile(name, HUGE_PAGE_BYTES, tuple(own)) for name, own in pages.items()]
        return HugePagesRecord(
            kind="huge_pages",
            directory="" if self._mount is None else self._mount.directory,
            is_our_mount=self._mount is not None and self._mount.is_ours,
            pools=self._pools,
            files=(*files, *([] if self._planned is None else [self._planned])),
            allocated=self._free.allocated_rows(),
        )

    # -- blocks -----------------------------------------------------------------------------

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        """Allocate a block: see `OwnMemory`.

        :raise KernelError: ENOMEM when there is none; what the kernel returned, when its huge pages
            can't be used.
        """
        self._leave_moved()
        with contextlib.suppress(KernelError):
            return self._free.allocate(order, below=below)
        if order > self.largest_order:
            raise KernelError(errno.ENOMEM, detail=f"no block is larger than order {LARGEST_ORDER}")
        need = Need(1, order, below).in_huge_pages()
        ahead = min(len(self._pages), _MOST_AHEAD)
        if order < need.order and ahead > 1:
            with contextlib.suppress(KernelError):
                self._grow(need._replace(blocks=ahead))
                return self._free.allocate(order, below=below)
        self._grow(need)
        return self._free.allocate(order, below=below)

    def free(self, address: PhysAddr, order: int) -> None:
        self._free.free(address, order)

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        """Have so much free: see `OwnMemory`.

        :raise KernelError: ENOMEM when that is not to be had; what the kernel returned, when its
            huge pages can't be used.
        """
        self._leave_moved()
        need = Need(-(-size_bytes // block_bytes), order_for(block_bytes), below)
        trial = self._free.copy()
        with contextlib.suppress(KernelError):
            for _ in range(need.blocks):
                trial.allocate(need.order, below=below)
            return
        self._grow(need)

    def _leave_moved(self) -> None:
        """Where nothing is handed out, have those pages no more that are somewhere else now, or
        whose file is gone: others are taken in their place.

        :raise KernelError: EIO when files of pages are gone, which the kernel gives to others, and
            something is handed out; else what the kernel returned.
        """
        if self._free.is_used:
            if any(name not in self._files for name, _ in self._pages.values()):
                raise KernelError(errno.EIO, detail="huge pages of it are gone: rbu driver stop")
            return
        try:
            gone = self.moved()
            if gone:
                self._leave(gone)
        except ObstacleError as obstacle:
            raise KernelError(errno.EPERM, detail=str(obstacle)) from obstacle

    def _leave(self, gone: tuple[Region, ...]) -> None:
        """Give the pages at these addresses back, wherever they are now; none is handed out."""
        kept = {
            address: place
            for address, place in self._pages.items()
            if not any(each.start <= address < each.end for each in gone)
        }
        left: dict[str, list[int]] = {}
        for address in self._pages.keys() - kept.keys():
            name, number = self._pages[address]
            left.setdefault(name, []).append(number)
        for name in left.keys() & self._files.keys():
            file = self._files[name]
            file.clear()
            if any(name == of for of, _ in kept.values()):
                file.give_back(left[name])
            else:
                del self._files[name]
                file.remove()
        self._have(kept)
        self._note(self.record())

    # -- taking and giving back -------------------------------------------------------------

    def _grow(self, need: Need) -> None:
        """Take pages for these blocks from the kernel.

        :raise KernelError: ENOMEM when there are not enough; else what the kernel returned.
        """
        try:
            pools = self._kernel.pools()
            if not pools:
                raise KernelError(errno.ENOMEM, detail="this kernel has no huge pages of 2 MiB")
            directory = self._directory()
            for path in [] if self._files else left_in(directory):
                clear_and_remove(path)  # its process was killed, and its record is gone
            self._giants = self._giants_for(need)
            self._pools = tuple(
                PoolBefore(pool.path, pool.asked) for pool in (*pools, *self._giants)
            )
            self._planned = PageFile(_fresh_name(directory), HUGE_PAGE_BYTES, ())
            with self._noted():
                file = HugePageFile.create(directory / self._planned.name)
                try:
                    if not self._kernel.has_huge_pages(file.fd):
                        raise ObstacleError(f"no hugetlbfs is mounted at {directory}")
                    self._adopt(file, self._taking(file, need).run(pools))
                except BaseException:
                    self._files.pop(file.name, None)
                    file.remove()
                    raise
        except KernelError:
            raise
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, error.filename, "huge pages") from error
        except ObstacleError as obstacle:
            raise KernelError(errno.EPERM, detail=str(obstacle)) from obstacle

    def _taking(self, file: HugePageFile, need: Need) -> Taking:
        return Taking(
            self._kernel,
            file,
            self._free,
            need,
            giants=self._giants,
            most_pages=self._most_pages,
        )

    def _giants_for(self, need: Need) -> tuple[Pool, ...]:
        """The pools of pages of 1 GiB that may be split for a block of several huge pages."""
        if need.order <= HUGE_PAGE_ORDER:
            return ()
        return tuple(pool for pool in self._kernel.pools(GIB) if self._kernel.can_split(pool))

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Note what is planned; in the block it is done. Then the numbers of the pools are put
        back, and what there is now is noted."""
        self._note(self.record())
        try:
            yield
        finally:
            self._planned = None
            self._put_back()
            self._note(self.record())

    def _put_back(self) -> None:
        for pool in self._pools:
            self._kernel.set_count(pool.path, pool.count)
        self._pools = ()

    def _adopt(self, file: HugePageFile, kept: dict[int, PhysAddr]) -> None:
        """Have these pages of a file, too."""
        self._files[file.name] = file
        pages = {address: (file.name, number) for number, address in kept.items()}
        self._map({**self._pages, **pages})
        self._pages.update(pages)
        for address in pages:
            self._free.add(Region(address, PhysAddr(address + HUGE_PAGE_BYTES)))

    def _map(self, pages: dict[PhysAddr, tuple[str, int]]) -> None:
        self._memory.have(
            Piece(address, HUGE_PAGE_BYTES, self._fd_of(name), number * HUGE_PAGE_BYTES)
            for address, (name, number) in pages.items()
        )

    def _have(self, pages: dict[PhysAddr, tuple[str, int]]) -> None:
        """Have these pages and no others, all of them free."""
        self._map(pages)
        self._pages = pages
        self._free = FreeBlocks(
            (Region(address, PhysAddr(address + HUGE_PAGE_BYTES)) for address in pages),
            alignment_bytes=HUGE_PAGE_BYTES,
        )

    def _fd_of(self, name: str) -> int:
        return self._files[name].fd if name in self._files else LOST

    def _directory(self) -> Path:
        """The directory for files of pages; it is mounted where there is none.

        :raise ObstacleError: when it can't be mounted.
        """
        if not self._files:
            self._mount = find_mount(self._root)
        if self._mount is None:
            self._mount = own_mount(self._root)
            try:
                self._note(self.record())
                make_mount(self._mount, self._root)
            except BaseException:
                self._mount = None
                raise
        return self._root / self._mount.directory.lstrip("/")

    def restore(self, record: HugePagesRecord) -> None:
        """Have what a record says; there is nothing yet.

        :raise DamagedInputError: when the record says what can't be.
        :raise OSError: the kernel's error.
        """
        directory = self._root
        if record.directory:
            found = Mount(record.directory, record.is_our_mount)
            self._mount = as_seen_here(found, self._root)
            directory /= self._mount.directory.lstrip("/")
        self._pools = record.pools
        pages: dict[PhysAddr, tuple[str, int]] = {}
        for each in record.files:
            if not each.pages:
                self._planned = each  # its process has no pages of it yet
                continue
            with contextlib.suppress(FileNotFoundError):
                self._files[each.name] = HugePageFile.open(directory / each.name)
            for number, address in each.pages:
                if each.page_bytes != HUGE_PAGE_BYTES or address % HUGE_PAGE_BYTES:
                    raise DamagedInputError(f"there is no page of {each.name} at {address:#x}")
                pages[PhysAddr(address)] = (each.name, number)
        self._have(pages)
        self._free.take_rows(record.allocated)

    def give_back(self) -> None:
        record = self.record()
        self._memory.forget()
        for file in self._files.values():
            file.close()
        give_back_of(record, self._root, self._kernel)
        self._files, self._pages, self._pools, self._mount = {}, {}, (), None
        self._planned = None
        self._free = FreeBlocks(alignment_bytes=HUGE_PAGE_BYTES)
        self._note(self.record())


class HugePageBackend:
    """Makes the driver's memory of huge pages.

    `root`: the directory of `/proc` and `/sys`, and of the mount's directory. `kernel`: where the
    pages come from. To get the right ones, no more than `most_pages` are taken at a time; None: as
    many as the machine can spare.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        kernel: HugePageKernel | None = None,
        *,
        most_pages: int | None = None,
    ) -> None:
        self.root, self.most_pages = root, most_pages
        self.kernel: HugePageKernel = LinuxHugePages(root) if kernel is None else kernel

    def new(self, note: Note) -> HugePages:
        """A memory that has no pages yet. Nothing is taken before `allocate` or `reserve`."""
        return HugePages(self, note)

    def open(self, record: OwnMemoryRecord, note: Note) -> HugePages:
        """Continue with what another process has left, or look at what it has. Nothing is changed:
        what a killed process was changing is undone by `give_back`. Pages whose file is gone have
        `moved`, and are zeros.

        :raise DamagedInputError: when the record says what can't be.
        :raise OSError: the kernel's error.
        """
        if not isinstance(record, HugePagesRecord):
            raise DamagedInputError(f"not the record of huge pages: {record.kind}")
        memory = HugePages(self, note)
        memory.restore(record)
        return memory


def _fresh_name(directory: Path) -> str:
    """A name for a file of pages that is not there yet."""
    number = 0
    while (directory / f"{NAME_PREFIX}{number}").exists():
        number += 1
    return f"{NAME_PREFIX}{number}"
