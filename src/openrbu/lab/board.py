"""QEMU as the hardware of a lab machine: its start, and its CMOS."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from openrbu.cmos import read_first_bank, write_first_bank
from openrbu.formats.smbios import Tables
from openrbu.lab import boot
from openrbu.lab.boot import Setup
from openrbu.lab.packages import GuestSoftware
from openrbu.lab.qemu import Qemu
from openrbu.lab.scratch import memory_file
from openrbu.ports import IoPorts

_CMOS_KEPT = range(0x0E, 0x80)
"""The bytes of a PC's first bank of CMOS behind the clock's. QEMU has no other bank."""


def start_qemu(
    software: GuestSoftware,
    directory: Path,
    setup: Setup,
    *,
    ram: tuple[int, int],
    rom: bytes,
    tables: Tables,
    agent: int,
    console: int,
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
        modules = []
        if setup.xen is not None:
            modules = [file_at(software.image), file_at(software.initramfs)]
        return Qemu(
            boot.arguments(
                software,
                directory,
                setup,
                ram=ram,
                rom=rom_fd,
                tables=table_fds,
                agent=agent,
                console=console,
                xen_modules=modules,
            ),
            fds=[ram[0], rom_fd, *table_fds, *modules, agent, console],
            on_terminal=setup.on_terminal,
        )


def copy_cmos(source: IoPorts, target: IoPorts, *, but_zeros: bool = False) -> None:
    """Copy CMOS except for its clock. With `but_zeros` bytes that are 0 in `source` are left
    out."""
    for index in _CMOS_KEPT:
        value = read_first_bank(source, index)
        if value or not but_zeros:
            write_first_bank(target, index, value)
