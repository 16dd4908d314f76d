"""CMOS behind its I/O ports, kept in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError
from openrbu.ports import BANK_BYTES, PC_BANKS, PC_PORTS
from openrbu.system.kept_files import OddFileError, read_kept

CMOS_FILE_BYTES = BANK_BYTES * (max(index_port for index_port, _ in PC_PORTS) + 1)
"""The size of a file with a PC's two banks. Index i of the bank with index port p is at offset
256·p + i."""


def cmos_file_bytes(banks: Mapping[int, int]) -> int:
    """The size of a file with these banks."""
    return BANK_BYTES * (max(banks.values()) + 1)


class CmosFile:
    """A machine's CMOS, saved in a file. After a power cut each byte is old or new.

    `banks` has the index port of each data port. A file with only a PC's two banks (machines made
    before openrbu 0.2 have such files) reads as zeros in the other banks. It grows when one of them
    is written.

    :raise MachineError: when the file is missing or has another size.
    """

    def __init__(
        self, path: Path, rail: PowerRail | None = None, *, banks: Mapping[int, int] = PC_BANKS
    ) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        self.banks: Mapping[int, int] = dict(banks)
        self._index = dict.fromkeys(self.banks.values(), 0)
        self._size_bytes = cmos_file_bytes(self.banks)
        try:
            data = read_kept(path)
        except FileNotFoundError:
            raise MachineError(f"the CMOS file {path} is missing") from None
        except OddFileError as error:
            raise MachineError(f"the CMOS file {path} is damaged: {error.strerror}") from None
        if len(data) not in (CMOS_FILE_BYTES, self._size_bytes):
            raise MachineError(
                f"the CMOS file {path} has {len(data)} bytes, not {self._size_bytes}"
            )
        self._bytes = bytearray(data.ljust(self._size_bytes, b"\0"))

    def out8(self, port: int, value: int) -> None:
        """Write a port: an index port selects an index, a data port stores a byte there."""
        if port in self._index:
            self._index[port] = value & 0xFF
        elif port in self.banks:
            self._store(self._offset(port), value & 0xFF)

    def in8(self, port: int) -> int:
        """Read a port. A port without a device floats high and reads as 0xFF."""
        if port in self._index:
            return self._index[port]
        return self._bytes[self._offset(port)] if port in self.banks else 0xFF

    def _offset(self, data_port: int) -> int:
        """The offset in the file of the byte that the data port's bank has selected."""
        index_port = self.banks[data_port]
        return BANK_BYTES * index_port + self._index[index_port]

    def _store(self, offset: int, value: int) -> None:
        if self._bytes[offset] == value:
            return
        if self._rail.operation():
            self._rail.fail()
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < self._size_bytes:
                os.posix_fallocate(fd, 0, self._size_bytes)
            os.pwrite(fd, bytes([value]), offset)
        finally:
            os.close(fd)
        self._bytes[offset] = value
