"""RAM as a sparse file.

A `RamFile` is *mapped* for viewing, so that a view costs nothing and a search runs at memory
speed, and *written* with `pwrite`: the page cache makes both the same bytes, and a full disk is
then ENOSPC from a system call instead of a SIGBUS. Pages never written are holes in the file.
On tmpfs, looking at a hole through the mapping takes a page (and is a SIGBUS when there is none
left), so a search views what is `populated`, and `read` makes a system call. Where others make
holes meanwhile, as balloons do, that is not enough: such RAM is better not mapped at all.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from openrbu.buffers import Buffer
from openrbu.errors import AddressError, MachineError
from openrbu.memory.frames import Frames, frame_runs
from openrbu.memory.physical import Region
from openrbu.system.fallocate import punch_hole, take_space
from openrbu.units import MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr

_ZEROS = bytes(4 * MIB)

_NO_MEMORY = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)


class RamFile:
    """RAM as a sparse file: the byte at physical address A is the file's byte A.

    With `is_mapped` False a view is a copy.

    :raise MachineError: when the file is not there, or is shorter than the RAM.
    """

    def __init__(
        self,
        path: Path,
        regions: tuple[Region, ...],
        *,
        writable: bool = True,
        is_mapped: bool = True,
    ) -> None:
        self._path = path
        self._regions = regions
        self._span_bytes = regions[-1].end
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MachineError(f"the RAM file {path} is missing") from None
        try:
            actual = os.fstat(self._fd).st_size
            if actual == 0 and writable:  # the process ended inside of `clear`
                os.ftruncate(self._fd, self._span_bytes)
                actual = self._span_bytes
            if actual < self._span_bytes:
                raise MachineError(
                    f"the RAM file {path} has {actual} bytes, not {self._span_bytes}: it was cut"
                )
            self._map = None
            if is_mapped:
                self._map = mmap.mmap(self._fd, self._span_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        except BaseException:
            os.close(self._fd)
            raise
        self._view = None if self._map is None else memoryview(self._map)

    @classmethod
    def create(cls, path: Path, regions: tuple[Region, ...]) -> RamFile:
        """Make the file, all holes, and open it. One that is there is emptied first."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, regions[-1].end)
        finally:
            os.close(fd)
        return cls(path, regions)

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._regions

    @property
    def is_mapped(self) -> bool:
        return self._map is not None

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        self._check(address, size_bytes)
        data = os.pread(self._fd, size_bytes, address)
        while len(data) < size_bytes:  # a system call moves no more than 2 GiB
            more = os.pread(self._fd, size_bytes - len(data), address + len(data))
            if not more:
                raise MachineError(f"the RAM file {self._path} was cut while in use")
            data += more
        return data

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self.read(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        if self._view is None:
            return memoryview(self.read(address, size_bytes))
        self._check(address, size_bytes)
        return self._view[address : address + size_bytes]

    def write(self, address: PhysAddr, data: Buffer) -> None:
        self._check(address, len(data))
        done = os.pwrite(self._fd, data, address)
        while done < len(data):  # a disk that fills up takes a part first, then says so
            done += os.pwrite(self._fd, memoryview(data)[done:], address + done)

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        """Clear bytes. Holes stay holes."""
        self._check(address, size_bytes)
        zeros = memoryview(_ZEROS)
        for start, end in self._extents(address, address + size_bytes):
            for position in range(start, end, len(_ZEROS)):
                chunk = min(len(_ZEROS), end - position)
                self.write(PhysAddr(position), zeros[:chunk])

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        for region in self._regions:
            part = region.clip(start, end)
            if part is None:
                continue
            position: int = part.start  # blocks of a file system may be smaller than a page
            for low, high in self._extents(part.start, part.end):
                page_start = max(low - low % PAGE_SIZE, position)
                position = min(-(-high // PAGE_SIZE) * PAGE_SIZE, part.end)
                if page_start < position:
                    yield Region(PhysAddr(page_start), PhysAddr(position))

    def clear(self) -> None:
        """What a power cycle does: every byte is 0 again, and the disk space is given back.

        The file keeps its size, or another process that looks at it through a mapping would get a
        SIGBUS. Only where the file system can't make holes it is cut and made long again: a process
        that is killed there leaves an empty file, which opening it again makes whole.
        """
        if punch_hole(self._fd, 0, self._span_bytes):
            return
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._span_bytes)

    def commit(self, frames: Frames) -> int:
        """Take memory for pages now, in this order; for how many there was some.

        On tmpfs and in a memfd that is memory of this computer. What they hold stays; nothing is
        taken beyond those that are counted. (A write to one of them can't be ENOSPC then.)

        :raise MachineError: when the file system can't do that.
        :raise OSError: when it refuses for another reason than being full.
        """
        done = 0
        for first, count in frame_runs(frames):
            self._check(first << PAGE_SHIFT, count << PAGE_SHIFT)
            part = self._commit_run(first, count)
            done += part
            if part < count:
                break
        return done

    def _commit_run(self, first: int, count: int) -> int:
        """As many of `count` pages as there is memory for."""
        done, step = 0, count
        while step and done < count:  # halving finds how many there are
            step = min(step, count - done)
            start, size_bytes = (first + done) << PAGE_SHIFT, step << PAGE_SHIFT
            try:
                is_able = take_space(self._fd, start, size_bytes)
            except OSError as error:
                if error.errno not in _NO_MEMORY:
                    raise
                punch_hole(self._fd, start, size_bytes)  # what it took before it ran out
                step //= 2
                continue
            if not is_able:
                raise MachineError(
                    f"the file system of the RAM file {self._path} can't take memory ahead: put it "
                    "on a tmpfs"
                )
            done += step
        return done

    def release(self, frames: Frames) -> None:
        """Give the memory of pages back. They hold zeros then.

        :raise OSError: when the disk refuses.
        """
        for first, count in frame_runs(frames):
            self.discard(first, count)

    def discard(self, first: int, count: int) -> None:
        """The same for the `count` pages from page `first` on.

        :raise OSError: when the disk refuses.
        """
        start, size_bytes = PhysAddr(first << PAGE_SHIFT), count << PAGE_SHIFT
        self._check(start, size_bytes)
        if not punch_hole(self._fd, start, size_bytes):
            self.zero(start, size_bytes)

    def close(self) -> None:
        """Let go of the file. Views that are still held keep the mapping, not the file."""
        if self._fd < 0:
            return
        if self._map is not None and self._view is not None:
            self._view.release()
            with contextlib.suppress(BufferError):  # a view still held keeps the mapping
                self._map.close()
        os.close(self._fd)
        self._fd = -1  # a number that the next file opened may get: never use it again

    def _check(self, address: int, size_bytes: int) -> None:
        for region in self._regions:
            if region.start <= address and address + size_bytes <= region.end:
                return
        raise AddressError(address, size_bytes)

    def _extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What is not a hole in the file, as (start, end), clipped."""
        position = start
        while position < end:
            try:
                data = os.lseek(self._fd, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole behind here
                    raise
                return
            if data >= end:
                return
            hole = os.lseek(self._fd, data, os.SEEK_HOLE)
            yield data, min(hole, end)
            position = hole
