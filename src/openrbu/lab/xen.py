"""A lab's machine with Xen: the hypervisor starts first, and the kernel is its dom0.

QEMU starts the hypervisor by the Multiboot entry. The kernel and its initial RAM file system are
the hypervisor's modules: `-initrd "FILE WORDS,FILE"`, where a comma in WORDS is written twice.

Xen itself resets the machine, and its own command line says whether that is a warm restart
(measured on 4.17: `reboot=warm` leaves 0x1234 at 0x472, whatever dom0 has written to
`/sys/kernel/reboot/mode`; without it the word is 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import UsageError
from openrbu.lab.scratch import fd_path
from openrbu.units import GIB, MIB, exact_size

MIN_RAM_BYTES = 640 * MIB
DEFAULT_RAM_BYTES = 1 * GIB

# `smap=off`: dom0 crashes at its first instructions with QEMU's emulation of SMAP.
_XEN_LINE = "console=com1 com1=115200,8n1 dom0_mem={dom0}M,max:{dom0_max}M reboot=warm smap=off"


@dataclass(frozen=True, slots=True)
class XenBoot:
    """How a machine starts as a Xen host.

    `hypervisor` is an ELF file. dom0 starts with `dom0_bytes` of the machine's RAM, and can balloon
    up to `dom0_max_bytes` as far as there is RAM. Both are whole MiB.
    """

    hypervisor: Path
    dom0_bytes: int
    dom0_max_bytes: int

    @classmethod
    def of(cls, hypervisor: Path, ram_bytes: int) -> XenBoot:
        """Half of the machine's RAM for dom0, and up to three quarters of it.

        :raise UsageError: as `check_ram`.
        """
        check_ram(ram_bytes)
        mib = ram_bytes // MIB
        return cls(hypervisor, mib // 2 * MIB, mib * 3 // 4 * MIB)

    def arguments(self, kernel: int, initramfs: int, kernel_line: str) -> list[str]:
        """QEMU's arguments. `kernel` and `initramfs` are descriptors, because QEMU would end a path
        at a blank in it."""
        words = kernel_line.replace(",", ",,")
        line = _XEN_LINE.format(dom0=self.dom0_bytes // MIB, dom0_max=self.dom0_max_bytes // MIB)
        modules = f"{fd_path(kernel)} {words},{fd_path(initramfs)}"
        return ["-kernel", str(self.hypervisor), "-initrd", modules, "-append", line]


def check_ram(ram_bytes: int) -> None:
    """:raise UsageError: when a machine with `ram_bytes` is too small for Xen and a dom0."""
    if ram_bytes < MIN_RAM_BYTES:
        raise UsageError(
            f"a machine with Xen needs {exact_size(MIN_RAM_BYTES)} of RAM or more, not "
            f"{exact_size(ram_bytes)}"
        )
