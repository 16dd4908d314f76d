"""Files of a computer whose boot was prepared for openrbu's own driver, below a directory."""

from __future__ import annotations

from pathlib import Path

from openrbu.units import MIB
from rigs.cores import direct, put_core

PMEM_START, PMEM_BYTES = 192 * MIB, 8 * MIB
COMMAND_LINE = "root=/dev/sda1 quiet memmap=8M!192M"

GIB_OF_RAM = """\
00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  01000000-01e01d31 : Kernel code
  1b000000-1effffff : Crash kernel
fec00000-fec003ff : IOAPIC 0
"""


def write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{text}\n")


def make_pmem(root: Path, name: str = "pmem0", *, start: int = PMEM_START) -> None:
    """A device of 8 MiB, which the command line names where `start` says the same; noise is on it,
    as in memory after a start."""
    write(root, "proc/cmdline", COMMAND_LINE)
    write(root, "proc/sys/kernel/random/boot_id", "1f0b3a5c")
    block = f"sys/block/{name}"
    write(root, f"{block}/device/resource", f"{start:#x}")
    write(root, f"{block}/device/size", str(PMEM_BYTES))
    write(root, f"{block}/device/holder", "")
    write(root, f"{block}/size", str(PMEM_BYTES // 512))
    (root / block / "holders").mkdir()
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).write_bytes(b"\xa5" * PMEM_BYTES)


def make_crash_region(root: Path, iomem: str = GIB_OF_RAM) -> None:
    """A kernel that keeps 64 MiB for a crash kernel, and has none loaded."""
    put_core(root, [direct(0x1000, 0xA0000), direct(MIB, 1024 * MIB)], iomem)
    write(root, "sys/kernel/kexec_crash_loaded", "0")
    write(root, "proc/sys/kernel/kexec_load_disabled", "0")
