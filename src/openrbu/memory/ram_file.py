"""RAM as a sparse file.

A `RamFile` is *mapped* for reading, so that a view costs nothing and a search runs at memory speed.
It is *written* with `pwrite`, so that a full disk is ENOSPC from a system call instead of a SIGBUS;
the page cache makes both the same bytes. Pages that were never written are holes in the file. On
tmpfs, to read a hole through the mapping takes a page (and is a SIGBUS if none is left). So a
search views only what is `populated`, and `read` makes a system call. If another process makes
holes at the same time, as a balloon does, that is not enough: such RAM should not be mapped.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from openrbu.buffers import Buffer
from openrbu.errors import AddressError, MachineError, UsageError
from openrbu.memory.frames import Frames, frame_runs
from openrbu.memory.physical import Region
from openrbu.system.fallocate import extents, punch_hole, take_space
from openrbu.units import MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr

_ZEROS = bytes(4 * MIB)

_NO_MEMORY = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)


class RamFile:
    """RAM as a sparse file: the byte at physical address A is the file's byte A, unless `offsets`
    says where in the file each region begins (in the same sequence).

    `is_mapped`: whether a view is the bytes themselves; if not, it is a copy.

    :raise MachineError: when the file is missing, or is shorter than the RAM.
    """

    def __init__(
        self,
        path: Path,
        regions: tuple[Region, ...],
        *,
        writable: bool = True,
        is_mapped: bool = True,
        offsets: Sequence[int] | None = None,
    ) -> None:
        self._path = path
        self._regions = regions
        starts = [region.start for region in regions] if offsets is None else offsets
        self._shifts = [
            region.start - offset for region, offset in zip(regions, starts, strict=True)
        ]
        self._span_bytes = regions[-1].end - self._shifts[-1]
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MachineError(f"the RAM file {path} is missing") from None
        try:
            actual = os.fstat(self._fd).st_size
            if actual == 0 and writable:  # a process was killed inside `clear`
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
        self._close_file = weakref.finalize(self, os.close, self._fd)  # also where nobody closes it
        self._close_file.atexit = False

    @classmethod
    def create(cls, path: Path, regions: tuple[Region, ...]) -> RamFile:
        """Make the file, all of it a hole, and open it. An existing file is emptied first."""
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
        offset = self._offset(address, size_bytes)
        data = os.pread(self._fd, size_bytes, offset)
        while len(data) < size_bytes:  # a system call moves no more than 2 GiB
            more = os.pread(self._fd, size_bytes - len(data), offset + len(data))
            if not more:
                raise MachineError(f"the RAM file {self._path} was cut while in use")
            data += more
        return data

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self.read(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        if self._view is None:
            return memoryview(self.read(address, size_bytes))
        offset = self._offset(address, size_bytes)
        return self._view[offset : offset + size_bytes]

    def write(self, address: PhysAddr, data: Buffer) -> None:
        self._write_at(self._offset(address, len(data)), data)

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        """Clear bytes. Holes stay holes."""
        offset = self._offset(address, size_bytes)
        zeros = memoryview(_ZEROS)
        for start, end in extents(self._fd, offset, offset + size_bytes):
            for position in range(start, end, len(_ZEROS)):
                chunk = min(len(_ZEROS), end - position)
                self._write_at(position, zeros[:chunk])

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        self._check_open()
        for region, shift in zip(self._regions, self._shifts, strict=True):
            part = region.clip(start, end)
            if part is None:
                continue
            position: int = part.start  # a block of the file system may be smaller than a page
            for in_file in extents(self._fd, part.start - shift, part.end - shift):
                low, high = (each + shift for each in in_file)
                page_start = max(low - low % PAGE_SIZE, position)
                position = min(-(-high // PAGE_SIZE) * PAGE_SIZE, part.end)
                if page_start < position:
                    yield Region(PhysAddr(page_start), PhysAddr(position))

    def clear(self) -> None:
        """Do what a power cycle does: set every byte to 0, and free the disk space.

        The file keeps its size: another process that reads it through a mapping would get a SIGBUS
        otherwise. Only if the file system can't make holes, the file is truncated and extended. A
        process that is killed between the two leaves an empty file; the next open repairs that.
        """
        if punch_hole(self._fd, 0, self._span_bytes):
            return
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._span_bytes)

    def commit(self, frames: Frames) -> int:
        """Allocate disk space for pages now, in this sequence. Returns for how many it was enough.

        On tmpfs and in a memfd the space is memory of this computer. The bytes in the pages stay.
        No space is taken for pages that are not counted. (A later write to a counted page can't
        fail with ENOSPC.)

        :raise MachineError: when the file system can't do that.
        :raise OSError: when it fails for another reason than a full disk.
        """
        done = 0
        for first, count in frame_runs(frames):
            part = self._commit_run(first, count)
            done += part
            if part < count:
                break
        return done

    def _commit_run(self, first: int, count: int) -> int:
        """`commit` for adjacent pages."""
        offset = self._offset(first << PAGE_SHIFT, count << PAGE_SHIFT)
        done, step = 0, count
        while step and done < count:  # halve the step until it fits
            step = min(step, count - done)
            start, size_bytes = offset + (done << PAGE_SHIFT), step << PAGE_SHIFT
            try:
                is_able = take_space(self._fd, start, size_bytes)
            except OSError as error:
                if error.errno not in _NO_MEMORY:
                    raise
                punch_hole(self._fd, start, size_bytes)  # free what it allocated before it failed
                step //= 2
                continue
            if not is_able:
                raise MachineError(
                    f"the file system of the RAM file {self._path} can't allocate space ahead: put "
                    "the file on a tmpfs"
                )
            done += step
        return done

    def release(self, frames: Frames) -> None:
        """Free the disk space of pages. Their bytes are 0 then.

        :raise OSError: when the file system refuses.
        """
        for first, count in frame_runs(frames):
            self.discard(first, count)

    def discard(self, first: int, count: int) -> None:
        """`release` for the `count` pages from page `first` on.

        :raise OSError: when the file system refuses.
        """
        start, size_bytes = PhysAddr(first << PAGE_SHIFT), count << PAGE_SHIFT
        if not punch_hole(self._fd, self._offset(start, size_bytes), size_bytes):
            self.zero(start, size_bytes)

    def close(self) -> None:
        """Close the file. The mapping stays while a view of it is in use."""
        if self._fd < 0:
            return
        if self._map is not None and self._view is not None:
            self._view.release()
            with contextlib.suppress(BufferError):  # a view is still in use
                self._map.close()
        self._close_file()
        self._fd = -1  # another file may get the old number: it must not be used again

    def _check_open(self) -> None:
        if self._fd < 0:
            raise UsageError(
                f"the memory in {self._path} is closed: use it within the block that opened it"
            )

    def _offset(self, address: int, size_bytes: int) -> int:
        """Where in the file the bytes at `address` are.

        :raise AddressError: when they are not all in one region.
        """
        self._check_open()
        for region, shift in zip(self._regions, self._shifts, strict=True):
            if region.start <= address and address + size_bytes <= region.end:
                return address - shift
        raise AddressError(address, size_bytes)

    def _write_at(self, offset: int, data: Buffer) -> None:
        done = os.pwrite(self._fd, data, offset)
        while done < len(data):  # a disk that gets full writes a part, then returns an error
            done += os.pwrite(self._fd, memoryview(data)[done:], offset + done)
