"""`/dev/port`: I/O ports as a file (docs/reference/linux-files.md, L9)."""

from __future__ import annotations

from collections.abc import Callable

from openrbu.buffers import Buffer
from openrbu.drivers import cmos_nvmem
from openrbu.drivers.sysfs import BinaryAttribute, SysfsTree
from openrbu.ports import IoPorts

PORTS = 0x10000
"""How many I/O ports a PC has."""


def add_port_files(
    sysfs: SysfsTree,
    dev: SysfsTree,
    ports: IoPorts,
    may_open: Callable[[], None] = lambda: None,
) -> None:
    """Show the ports in `/dev`, and the CMOS behind them in sysfs. `may_open`: of `/dev/port`."""
    file = port_file(ports)
    file.may_open = may_open
    dev.add("/port", file)
    sysfs.add(cmos_nvmem.PATH, cmos_nvmem.nvmem_file(ports))


def port_file(ports: IoPorts) -> BinaryAttribute:
    """The file `/dev/port`: its byte at offset P is I/O port P.

    Bytes written after the last port are ignored.
    """

    def read(offset: int, size_bytes: int) -> bytes:
        return bytes(ports.in8(port) for port in range(offset, min(offset + size_bytes, PORTS)))

    def write(offset: int, data: Buffer) -> None:
        for port, value in enumerate(data[: max(0, PORTS - offset)], offset):
            ports.out8(port, value)

    return BinaryAttribute(read, write, mode=0o660, rawio=True, is_of_hardware=True)
