"""I/O ports, and CMOS, whose bytes are accessed through an index port and a data port.

`Cmos` is what tokens need: the bytes of one bank, whatever the way to them. The BIOS of a virtual
machine has ports (`PortCmos`); for a program on a Linux, see `linux.cmos`.
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

CLOCK_BYTES = 0x0E
"""The indexes below this are a PC's clock in the first bank, where a read may change registers."""

BANK_1_BYTES = 128
"""The size of a PC's first bank. Bit 7 of its index port is not part of the index: it masks the
NMI."""


class Cmos(Protocol):
    """The bytes of one bank of CMOS.

    Every call raises OSError when the kernel refuses the way to them.
    """

    @property
    def indexes(self) -> range:
        """The indexes of its settings, which may all be read. A clock's registers are not among
        them."""

    def read(self, index: int, count: int = 1) -> bytes:
        """The `count` bytes from `index` on."""

    def write(self, index: int, value: int) -> None:
        """Store a byte."""


class IoPorts(Protocol):
    """Port I/O, a byte at a time."""

    def out8(self, port: int, value: int) -> None: ...

    def in8(self, port: int) -> int: ...


class CmosPorts(IoPorts, Protocol):
    """Ports of which some lead to CMOS. An index port reads as the index that was written to it."""

    @property
    def banks(self) -> Mapping[int, int]:
        """The index port of each data port."""


def setting_indexes(index_port: int) -> range:
    """The indexes of the settings behind an index port."""
    end = BANK_1_BYTES if index_port == PC_PORTS[0][0] else BANK_BYTES
    return range(CLOCK_BYTES if index_port == PC_PORTS[0][0] else 0, end)


class PortCmos:
    """A bank behind a pair of ports, `pair`: the index port and the data port."""

    def __init__(self, ports: IoPorts, pair: tuple[int, int]) -> None:
        self._ports = ports
        self._index_port, self._data_port = pair
        self.indexes = setting_indexes(self._index_port)

    def read(self, index: int, count: int = 1) -> bytes:
        return bytes(self._byte(each) for each in range(index, index + count))

    def _byte(self, index: int) -> int:
        self._ports.out8(self._index_port, index)
        return self._ports.in8(self._data_port)

    def write(self, index: int, value: int) -> None:
        self._ports.out8(self._index_port, index)
        self._ports.out8(self._data_port, value)


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
