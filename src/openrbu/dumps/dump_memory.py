"""A dump as memory: bytes at physical addresses, wherever the file has them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

from openrbu.dumps.dump_file import DumpFile
from openrbu.dumps.kinds import Format
from openrbu.dumps.pieces import Piece, read_pieces
from openrbu.errors import AddressError, DamagedInputError
from openrbu.memory.physical import Region
from openrbu.memory.windows import COPIED_BYTES, VIEWED_BYTES, Window
from openrbu.units import KIB, PAGE_SIZE, PhysAddr

_FEW_BYTES = 64 * KIB
"""To read these takes less time than to map them."""


class DumpMemory:
    """The memory in a dump, as a `ReadableMemory`. It can only be read.

    `pieces` ascend and do not overlap. `format` names the dump's format. `notes` are texts for
    people, each of one line: what is odd about the dump.

    A region may begin or end inside of a page. Nothing of the file stays mapped: what is mapped
    counts as memory of this process, and a file that is cut meanwhile would end it.
    """

    is_mapped = False

    def __init__(
        self, file: DumpFile, pieces: list[Piece], format_name: str, notes: tuple[str, ...] = ()
    ) -> None:
        self._file, self._pieces = file, pieces
        self._starts = [piece.start for piece in pieces]
        self.format, self.notes = format_name, notes

    @property
    def is_raw(self) -> bool:
        """Whether the dump has no addresses of its own."""
        return self.format.split()[0] == Format.RAW.value

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Where there is memory: what is adjacent is one region, wherever the file has it."""
        found: list[Region] = []
        start = end = -1
        for piece in self._pieces:
            if piece.start != end:
                if end >= 0:
                    found.append(Region(PhysAddr(start), PhysAddr(end)))
                start = piece.start
            end = piece.end
        return (*found, Region(PhysAddr(start), PhysAddr(end)))

    @cached_property
    def _region_ends(self) -> list[int]:
        return [region.end for region in self.regions]

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        end = address + size_bytes
        piece = self._pieces[self._last_from(address)]
        if piece.start <= address and end <= piece.end and piece.offset is not None:  # usually
            data = self._file.read(piece.offset + address - piece.start, size_bytes)
            if len(data) == size_bytes:
                return data
        number = self._number(address, end)
        data = read_pieces(self._pieces, number, address, end, self._file.read)
        if len(data) < size_bytes:
            raise DamagedInputError(f"{self._file.name} was cut while it was read")
        return data

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        buffer[:] = self.read(address, len(buffer))

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return memoryview(self.read(address, size_bytes))

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """From and to whole pages, as far as there is memory: holes of the file, and what it does
        not have of its memory, are left out."""
        first = bisect_right(self._region_ends, start)
        for number in range(first, len(self.regions)):
            part = self.regions[number].clip(start, end)
            if part is None:
                return
            low = high = part.start  # of the run so far; a block of a disk may be less than a page
            for begin, stop in self._written(part):
                page = PhysAddr(max(begin // PAGE_SIZE * PAGE_SIZE, part.start))
                if page > high:
                    if low < high:
                        yield Region(low, high)
                    low = page
                high = PhysAddr(min(-(-stop // PAGE_SIZE) * PAGE_SIZE, part.end))
            if low < high:
                yield Region(low, high)

    def windows(self, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
        """See `openrbu.memory.windows`: a part of the file is mapped as long as it is looked at."""
        with self._file.kept():
            for run in self.populated(start, end):
                low = run.start
                while low < run.end:
                    window = self._window(low, run.end - low)
                    low = PhysAddr(low + len(window))
                    yield PhysAddr(low - len(window)), window

    def close(self) -> None:
        self._file.close()

    def _window(self, address: PhysAddr, most_bytes: int) -> memoryview:
        """The bytes at an address: to the end of a page, or `most_bytes`, all of which there are.
        They are mapped as far as one piece has them, or else copied."""
        piece = self._pieces[self._last_from(address)]
        size = min(most_bytes, VIEWED_BYTES, piece.end - address)
        if size < most_bytes:
            size -= (address + size) % PAGE_SIZE
        if size > _FEW_BYTES and piece.offset is not None:
            mapped = self._file.mapped(piece.offset + address - piece.start, size)
            if mapped is not None:
                return mapped
        size = min(most_bytes, COPIED_BYTES)
        return self.view(address, size if size == most_bytes else size - address % PAGE_SIZE)

    def _written(self, part: Region) -> Iterator[tuple[int, int]]:
        """What the file has of `part`, as (start, end), ascending."""
        for number in range(self._last_from(part.start), len(self._pieces)):
            piece = self._pieces[number]
            if piece.start >= part.end:
                return
            if piece.offset is not None:
                low, high = max(piece.start, part.start), min(piece.end, part.end)
                shift = piece.start - piece.offset
                for first, last in self._file.written(low - shift, high - shift):
                    yield first + shift, last + shift

    def _last_from(self, address: int) -> int:
        """The number of the last piece that begins at or below an address; -1: there is none."""
        return bisect_right(self._starts, address) - 1

    def _number(self, start: int, end: int) -> int:
        """The number of the piece that `start` is in.

        :raise AddressError: when not all of [start, end) is memory.
        """
        number = self._last_from(start)
        position, at = start, number
        while number >= 0 and at < len(self._pieces):
            piece = self._pieces[at]
            if not piece.start <= position < piece.end and position < end:
                break
            position = piece.end
            if end <= position:
                return number
            at += 1
        raise AddressError(start, end - start)
