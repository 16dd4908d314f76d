"""I/O ports as a machine's kernel and its programs reach them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

from openrbu.bios.cmos import CmosFile, IoPorts
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import BinaryAttribute

PORTS = 0x10000
"""How many I/O ports a PC has."""


def port_file(ports: IoPorts) -> BinaryAttribute:
    """`/dev/port`: the byte at offset P of the file is what is behind I/O port P.

    What is written behind the last port goes nowhere.
    """

    def read(offset: int, size_bytes: int) -> bytes:
        return bytes(ports.in8(port) for port in range(offset, min(offset + size_bytes, PORTS)))

    def write(offset: int, data: Buffer) -> None:
        for port, value in enumerate(data[: max(0, PORTS - offset)], offset):
            ports.out8(port, value)

    return BinaryAttribute(read, write, mode=0o660, rawio=True)


class OwnPorts:
    """A machine's ports for one program of several.

    To reach a byte of CMOS takes two accesses, its index and then the byte. Another program's
    access in between would send the second one astray. So the index that a program selects here is
    its own, put in place for each access to the byte and taken away after it. `lock` is held in
    every call.
    """

    def __init__(self, cmos: CmosFile, lock: AbstractContextManager[object]) -> None:
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
