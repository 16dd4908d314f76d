"""QEMU as the hardware of a lab machine: which machines it can be, its start, and its CMOS."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from openrbu.cmos import read_first_bank, write_first_bank
from openrbu.errors import ObstacleError, UsageError
from openrbu.formats.smbios import Tables
from openrbu.lab import boot
from openrbu.lab.bzimage import unpacked
from openrbu.lab.packages import GuestSoftware
from openrbu.lab.qemu import Qemu
from openrbu.lab.scratch import memory_file
from openrbu.lab.xen import XenBoot
from openrbu.machine.models import TokenKind, model
from openrbu.ports import IoPorts
from openrbu.units import GIB, MIB, human_size

DEFAULT_RAM_BYTES = 512 * MIB
MIN_RAM_BYTES = 256 * MIB
MAX_RAM_BYTES = 3 * GIB
"""Up to this size each byte of RAM is in QEMU's RAM file at the offset of its physical address."""

_CMOS_KEPT = range(0x0E, 0x80)
"""The bytes of a PC's first bank of CMOS behind the clock's. QEMU has no other bank."""


def check_machine(name: str, ram_bytes: int) -> None:
    """Refuse a machine that QEMU can't be. `name` is the model's.

    :raise ObstacleError: for a model whose tokens are reached through SMIs: QEMU does not have
    them.
    :raise UsageError: when there is no such model, or the size of RAM is not possible.
    """
    if model(name).tokens is not TokenKind.INDEXED_IO:
        raise ObstacleError(
            f"the lab can't be a {name}: its tokens are reached by SMI, for which QEMU has no "
            "handler; use a virtual machine instead: rbu machine new --help"
        )
    if not MIN_RAM_BYTES <= ram_bytes <= MAX_RAM_BYTES or ram_bytes % MIB:
        raise UsageError(
            f"a lab machine has {human_size(MIN_RAM_BYTES)} to {human_size(MAX_RAM_BYTES)} of RAM "
            f"in whole MiB, not {human_size(ram_bytes)}"
        )


def start_qemu(
    software: GuestSoftware,
    directory: Path,
    *,
    accelerator: str,
    ram: tuple[int, int],
    rom: bytes,
    tables: Tables,
    agent: int,
    console: int,
    on_terminal: bool,
    xen: XenBoot | None,
) -> Qemu:
    """Start a QEMU whose processor is halted.

    `ram` is the descriptor of the RAM file, and its size in bytes. `rom` is the BIOS. `agent` is
    the descriptor of the channel to the agent, `console` that of the file for the output of the
    guest's console. The caller has to close the descriptors.

    :raise QemuError: when QEMU does not start.
    """
    with contextlib.ExitStack() as files:  # the files that QEMU reads when it starts

        def file_with(data: bytes) -> int:
            fd = memory_file("openrbu", data)
            files.callback(os.close, fd)
            return fd

        def file_at(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, fd)
            return fd

        rom_fd = file_with(rom)
        table_fds = [file_with(each.build()) for each in boot.for_qemu(tables)]
        modules: list[int] = []
        booted = None
        if xen is not None:
            modules = [file_at(unpacked(software.vmlinuz)), file_at(software.initramfs)]
            booted = (xen, modules[0], modules[1])
        return Qemu(
            boot.arguments(
                software,
                directory,
                accelerator=accelerator,
                ram=ram,
                rom=rom_fd,
                tables=table_fds,
                agent=agent,
                console=console,
                on_terminal=on_terminal,
                xen=booted,
            ),
            fds=[ram[0], rom_fd, *table_fds, *modules, agent, console],
            on_terminal=on_terminal,
        )


def copy_cmos(source: IoPorts, target: IoPorts, *, but_zeros: bool = False) -> None:
    """Copy CMOS except for its clock. With `but_zeros` bytes that are 0 in `source` are left
    out."""
    for index in _CMOS_KEPT:
        value = read_first_bank(source, index)
        if value or not but_zeros:
            write_first_bank(target, index, value)
