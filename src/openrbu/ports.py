"""I/O ports, and CMOS, whose bytes are accessed through an index port and a data port.

The BIOS, the tool on a virtual machine, and the tool on a real machine (through `/dev/port`) use
the same interface.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

PC_PORTS = ((0x70, 0x71), (0x72, 0x73))
"""The index port and the data port of each of the two banks of CMOS that every PC has."""

PC_BANKS = {data_port: index_port for index_port, data_port in PC_PORTS}

BANK_BYTES = 256


class IoPorts(Protocol):
    """Port I/O, a byte at a time."""

    def out8(self, port: int, value: int) -> None: ...

    def in8(self, port: int) -> int: ...


class CmosPorts(IoPorts, Protocol):
    """Ports of which some lead to CMOS. An index port reads as the index that was written to it."""

    @property
    def banks(self) -> Mapping[int, int]:
        """The index port of each data port."""


class OwnPorts:
    """A machine's ports for one of several programs.

    A byte of CMOS needs two accesses: its index, then the byte. If another program selected an
    index in between, the second access would be to a wrong byte. So each program has its own index
    here, which is set for each access to a byte and reset after it. Every call acquires `lock`.
    """

    def __init__(self, cmos: CmosPorts, lock: AbstractContextManager[object]) -> None:
        self._cmos, self._lock = cmos, lock
        with lock:
            self._index = {port: cmos.in8(port) for port in cmos.banks.values()}

    def out8(self, port: int, value: int) -> None:
        with self._lock:
            if port in self._index:
                self._index[port] = value & 0xFF
                return
            with self._selected(port):
                self._cmos.out8(port, value)

    def in8(self, port: int) -> int:
        with self._lock:
            if port in self._index:
                return self._index[port]
            with self._selected(port):
                return self._cmos.in8(port)

    @contextlib.contextmanager
    def _selected(self, data_port: int) -> Iterator[None]:
        """Select this program's index for the block, if `data_port` is a bank's."""
        index_port = self._cmos.banks.get(data_port)
        if index_port is None:
            yield
            return
        before = self._cmos.in8(index_port)
        self._cmos.out8(index_port, self._index[index_port])
        yield
        self._cmos.out8(index_port, before)
