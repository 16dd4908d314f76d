"""I/O ports as a machine's kernel and its programs reach them."""

from __future__ import annotations

from contextlib import AbstractContextManager

from openrbu.bios.cmos import INDEX_PORTS, IoPorts
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

    def __init__(self, ports: IoPorts, lock: AbstractContextManager[object]) -> None:
        self._ports, self._lock = ports, lock
        with lock:
            self._index = {port: ports.in8(port) for port in INDEX_PORTS}

    def out8(self, port: int, value: int) -> None:
        with self._lock:
            if port in self._index:
                self._index[port] = value & 0xFF
                return
            before = self._select(port - 1)
            self._ports.out8(port, value)
            self._put_back(port - 1, before)

    def in8(self, port: int) -> int:
        with self._lock:
            if port in self._index:
                return self._index[port]
            before = self._select(port - 1)
            value = self._ports.in8(port)
            self._put_back(port - 1, before)
            return value

    def _select(self, index_port: int) -> int | None:
        """Put one's own index in place; the one that was there."""
        if index_port not in self._index:
            return None
        before = self._ports.in8(index_port)
        self._ports.out8(index_port, self._index[index_port])
        return before

    def _put_back(self, index_port: int, before: int | None) -> None:
        if before is not None:
            self._ports.out8(index_port, before)
