"""The kernel's nvmem file of CMOS (docs/reference/linux-files.md, L11)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

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

    def read(offset: int, size_bytes: int) -> bytes:
        first, end = offset + CLOCK_BYTES, offset + CLOCK_BYTES + size_bytes
        split = min(max(first, BANK_1_BYTES), end)
        return bank(0, range(first, split)) + bank(1, range(split, end))

    def bank(number: int, indexes: range) -> bytes:
        found = bytearray()
        with selecting(number) as (index_port, data_port):
            for index in indexes:
                ports.out8(index_port, index)
                found.append(ports.in8(data_port))
        return bytes(found)

    def write(offset: int, data: Buffer) -> None:
        taken = data[: max(0, SIZE_BYTES - offset)]
        if not taken:
            raise KernelError(errno.EFBIG, PATH)
        for index, value in enumerate(taken, offset + CLOCK_BYTES):
            with selecting(int(index >= BANK_1_BYTES)) as (index_port, data_port):
                ports.out8(index_port, index)
                ports.out8(data_port, value)

    @contextlib.contextmanager
    def selecting(number: int) -> Iterator[tuple[int, int]]:
        index_port, data_port = PC_PORTS[number]
        selected = ports.in8(index_port)
        yield index_port, data_port
        ports.out8(index_port, selected)

    return BinaryAttribute(read, write, mode=0o644, size_bytes=SIZE_BYTES, is_of_hardware=True)
