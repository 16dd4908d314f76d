"""I/O ports, and CMOS behind them, whose bytes are reached by an index.

The same interface serves the BIOS, the tool on a virtual machine, and the tool on a real one
through `/dev/port`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

PC_PORTS = ((0x70, 0x71), (0x72, 0x73))
"""Index port and data port of the two banks of CMOS that every PC has."""

PC_BANKS = {data_port: index_port for index_port, data_port in PC_PORTS}

BANK_BYTES = 256


class IoPorts(Protocol):
    """Port I/O, a byte at a time."""

    def out8(self, port: int, value: int) -> None: ...

    def in8(self, port: int) -> int: ...


class CmosPorts(IoPorts, Protocol):
    """Ports with CMOS behind some of them; an index port reads back what was written to it."""

    @property
    def banks(self) -> Mapping[int, int]:
        """The index port of each data port."""


class OwnPorts:
    """A machine's ports for one program of several.

    To reach a byte of CMOS takes two accesses, its index and then the byte. Another program's
    access in between would send the second one astray. So the index that a program selects here is
    its own, put in place for each access to the byte and taken away after it. `lock` is held in
    every call.
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
        """One's own index in the place of the one that is there, where the port is a bank's."""
        index_port = self._cmos.banks.get(data_port)
        if index_port is None:
            yield
            return
        before = self._cmos.in8(index_port)
        self._cmos.out8(index_port, self._index[index_port])
        yield
        self._cmos.out8(index_port, before)
