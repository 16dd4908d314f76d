"""`/dev/mem` of a simulated kernel: the first MiB of physical memory, for reading.

Linux shows programs the first page, what is not RAM below 1 MiB, and zeros in place of the RAM
there. What reaches above 1 MiB is refused where there is RAM, and is no address where there is none
(CONFIG_STRICT_DEVMEM; docs/reference/linux-files.md, L16). This file takes no write, which a real
one does below 1 MiB: nothing here is changed by writing there.
"""

from __future__ import annotations

import errno
from typing import NoReturn

from openrbu.bios.rom import ROM
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import BinaryAttribute
from openrbu.errors import AddressError, KernelError
from openrbu.kernel.lockdown import Lockdown
from openrbu.memory.physical import PhysicalMemory
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr

_SIZE_BYTES = 4 * GIB
"""What stat(2) shows of a file that is a character device on Linux. On a mount nothing can be read
or mapped behind it."""


_ZEROS = bytes(ROM.start - PAGE_SIZE)
"""What lies between the first page and the ROM. All kernels share it: a machine that restarts often
would keep a MiB for each kernel that Python has not collected yet."""


def dev_mem(memory: PhysicalMemory, rom: bytes, lockdown: Lockdown) -> BinaryAttribute:
    """The file. `rom`: the bytes of `bios.rom.ROM`."""

    def read(offset: int, size_bytes: int) -> bytes:
        end = offset + size_bytes
        if end > MIB:
            is_ram = any(each.clip(max(offset, MIB), end) for each in memory.regions)
            raise KernelError(errno.EPERM if is_ram or offset < MIB else errno.EFAULT, "/dev/mem")
        shown = _ZEROS + rom
        if offset >= PAGE_SIZE:
            return shown[offset - PAGE_SIZE : end - PAGE_SIZE]
        try:
            first = memory.read(PhysAddr(0), PAGE_SIZE)
        except AddressError:  # a guest of Xen has given the page away
            first = bytes(PAGE_SIZE)
        return (first + shown)[offset:end]

    def write(_offset: int, _data: Buffer) -> NoReturn:
        raise KernelError(errno.EPERM, "/dev/mem")

    file = BinaryAttribute(read, write, mode=0o600, size_bytes=_SIZE_BYTES, is_limited=False)
    file.may_open = lockdown.closes("/dev/mem", "integrity")
    return file
