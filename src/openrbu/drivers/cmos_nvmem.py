"""The kernel's nvmem file of CMOS (docs/reference/linux-files.md, L11)."""

from __future__ import annotations

import errno

from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import BinaryAttribute
from openrbu.errors import KernelError
from openrbu.ports import BANK_1_BYTES, BANK_BYTES, CLOCK_BYTES, PC_PORTS, IoPorts

PATH = "/bus/nvmem/devices/cmos_nvram0/nvmem"
"""In sysfs."""

SIZE_BYTES = BANK_BYTES - CLOCK_BYTES


def nvmem_file(ports: IoPorts) -> BinaryAttribute:
    """The file: its byte at offset I − 14 is the one at index I, of the first bank up to 127, then
    of the second. The index that a program has selected stays selected. Bytes written behind the
    last one are ignored; EFBIG when no others are there.
    """

    def pair(index: int) -> tuple[int, int]:
        return PC_PORTS[0] if index < BANK_1_BYTES else PC_PORTS[1]

    def read(offset: int, size_bytes: int) -> bytes:
        return bytes(map(at, range(offset, offset + size_bytes)))

    def at(offset: int) -> int:
        index_port, data_port = pair(offset + CLOCK_BYTES)
        selected = ports.in8(index_port)
        ports.out8(index_port, offset + CLOCK_BYTES)
        value = ports.in8(data_port)
        ports.out8(index_port, selected)
        return value

    def write(offset: int, data: Buffer) -> None:
        taken = data[: max(0, SIZE_BYTES - offset)]
        if not taken:
            raise KernelError(errno.EFBIG, PATH)
        for index, value in enumerate(taken, offset + CLOCK_BYTES):
            index_port, data_port = pair(index)
            selected = ports.in8(index_port)
            ports.out8(index_port, index)
            ports.out8(data_port, value)
            ports.out8(index_port, selected)

    return BinaryAttribute(read, write, mode=0o644, size_bytes=SIZE_BYTES, is_of_hardware=True)
