"""A Dell machine in QEMU: real Linux and the real driver, and openrbu's BIOS at its restart.

QEMU is the hardware, with a real SeaBIOS as its ROM. Identity, flash, NVRAM and CMOS are those of a
virtual machine, made by the same factory, in a temporary directory. RAM is a file in memory that
QEMU and this process share.

At a restart QEMU halts, with RAM and CMOS as the kernel left them. `bios.post` works on them, as in
a virtual machine. Then a new QEMU starts, with the content of the flash as its ROM. It has the same
RAM, or empty RAM after a cold restart or an update, and the same CMOS bytes. Whether a restart is
warm says the word at 0x472, as for a real BIOS: the kernel sets it to 0x1234 for a warm restart
(measured: `warm` in /sys/kernel/reboot/mode does that, `cold` leaves 0).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from openrbu.bios.activation import bios_activation
from openrbu.bios.cmos_file import CmosFile
from openrbu.bios.flash import Flash, FlashFile
from openrbu.bios.nvram import NvramFile
from openrbu.bios.post import Board, post
from openrbu.bios.post_report import PostReport
from openrbu.bios.rules import rule_set
from openrbu.bios.tables import tables_of_boot
from openrbu.cmos import banks_of
from openrbu.errors import MachineError, OpenRbuError
from openrbu.formats.smbios import Tables
from openrbu.lab import boot, calls
from openrbu.lab.board import copy_cmos, start_qemu
from openrbu.lab.guest import RESET, GuestLostError, GuestStoppedError, Output, QemuGuest
from openrbu.lab.packages import GuestSoftware
from openrbu.lab.qemu import Qemu
from openrbu.lab.scratch import (
    MACHINE_PREFIX,
    cache_in_use,
    fd_path,
    memory_file,
    new_file,
    remove_tree,
)
from openrbu.lab.seabios import is_seabios
from openrbu.lab.sizes import (
    DEFAULT_RAM_BYTES,
    GAP_BYTES,
    LOW_RAM_BYTES,
    check_machine,
    check_memory,
    offsets_in_qemu,
)
from openrbu.lab.xen import XenBoot
from openrbu.machine.clock import Clock, local_now
from openrbu.machine.config import load_config, read_tables
from openrbu.machine.factory import MachineSpec, put_tokens_right, write_parts
from openrbu.machine.models import DEFAULT_MODEL
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.system.fallocate import insert_hole
from openrbu.system.files import fresh_directory
from openrbu.system.signals import signals_deferred
from openrbu.units import KIB, PhysAddr

_WARM_FLAG, _WARM = PhysAddr(0x472), (0x1234).to_bytes(2, "little")

_SEABIOS_LINE = re.compile(r"SeaBIOS \(version (.*)\)")


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended. `status`: its exit status; None when the machine restarted or was
    switched off before the program ended. `post`: what the BIOS did at that restart."""

    status: int | None
    post: PostReport | None = None


class CannotStartError(OpenRbuError):
    """The flash contains no BIOS that QEMU can start. `post`: the start that wrote the flash."""

    kind = "cannot_start"

    def __init__(self, post: PostReport) -> None:
        super().__init__(
            f"QEMU can't start the BIOS {post.version_after}: it is not a SeaBIOS; to make one: "
            "rbu lab bios"
        )
        self.post = post


class LabMachine:
    """A machine made from `spec`, off at first. Its files exist until `close`. The thread that
    switches it on must not end before the machine is off: QEMU is killed with that thread.

    `ram_file`: a new file for its RAM, which stays after `close`; then the byte at physical address
    A is the file's byte A. (Before, that is so below 4 GiB.) `kernel_words`: further words of the
    kernel's command line. `without_modules`: modules that its kernel is not to have. With `xen` its
    Linux is a dom0, and has the memory that Xen gives it. The guest has the directory `disk` as
    `/lab`. `on_terminal`: a shell may run on the terminal of this process.

    :raise ObstacleError: when QEMU can't be such a machine, a module is built into its kernel, or
        this computer has not enough memory.
    :raise UsageError, DamagedInputError: as `machine.factory.make_machine`.
    """

    def __init__(
        self,
        software: GuestSoftware,
        spec: MachineSpec,
        *,
        accelerator: str = "tcg",
        cpus: int = 1,
        kernel_words: str = "",
        without_modules: Iterable[str] = (),
        ram_file: Path | None = None,
        xen: XenBoot | None = None,
        on_terminal: bool = False,
        clock: Clock = local_now,
    ) -> None:
        self.software, self._clock = software, clock
        files = (software.kernel.file_to_leave_out(each) for each in without_modules)
        left_out = tuple(file for file in files if file is not None)
        self._setup = boot.Setup(accelerator, cpus, kernel_words, on_terminal, xen, left_out)
        self._ram_bytes = DEFAULT_RAM_BYTES if spec.ram_bytes is None else spec.ram_bytes
        check_machine(spec.model or DEFAULT_MODEL, self._ram_bytes, cpus, kernel_words)
        if ram_file is None:
            check_memory(self._ram_bytes)
        self._qemu: Qemu | None = None
        self._guest: QemuGuest | None = None
        self._running = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.enter_context(cache_in_use())
            with signals_deferred():
                self.directory = fresh_directory(Path(tempfile.gettempdir()), MACHINE_PREFIX)
                stack.callback(remove_tree, self.directory)
                write_parts(self.directory, replace(spec, ram_bytes=self._ram_bytes), clock=clock)
                self.disk = self.directory / boot.DISK
                self.disk.mkdir()
                self._open_parts(stack)
                self._open_ram(stack, ram_file)
                stack.callback(self._stop)
            self._open = stack.pop_all()

    def _open_parts(self, stack: contextlib.ExitStack) -> None:
        config = load_config(self.directory)
        self._rules = rule_set(config.bios_rules)
        self._revision = config.hardware_revision
        self._factory_tables = read_tables(self.directory, config)
        self.nvram = NvramFile(self.directory / "nvram.json")
        self.cmos = CmosFile(self.directory / "cmos", banks=banks_of(self._factory_tables))
        self._cmos_is_qemus = False
        device = FlashFile(self.directory / "flash")
        stack.callback(device.close)
        self.flash = Flash(device)

    def _open_ram(self, stack: contextlib.ExitStack, ram_file: Path | None) -> None:
        if ram_file is None:
            self._ram_fd = memory_file("ram", size_bytes=self._ram_bytes)
        else:
            self._ram_fd = new_file(ram_file, self._ram_bytes)
        stack.callback(os.close, self._ram_fd)
        if ram_file is not None and self._ram_bytes > LOW_RAM_BYTES:
            stack.callback(insert_hole, self._ram_fd, LOW_RAM_BYTES, GAP_BYTES)
        regions = pc_regions(self._ram_bytes)
        self.ram_path = Path(fd_path(self._ram_fd))
        self.ram = RamFile(self.ram_path, regions, offsets=offsets_in_qemu(regions))
        stack.callback(self.ram.close)

    # -- power ------------------------------------------------------------------------------

    def power_on(self) -> PostReport:
        """Start with empty RAM: POST, then the kernel, until its agent replies.

        :raise MachineError: when it is on.
        :raise GuestLostError: when its agent does not start.
        :raise CannotStartError: when its flash contains no BIOS that QEMU can start.
        """
        if self._qemu is not None:
            raise MachineError("the lab's machine is on already")
        return self._start(keep_ram=False)

    def restart(self) -> PostReport:
        """Restart the machine after the reset that its kernel requested.

        :raise GuestLostError, CannotStartError: as `power_on`.
        """
        is_warm = self.ram.read(_WARM_FLAG, len(_WARM)) == _WARM
        self._halt()
        return self._start(keep_ram=is_warm)

    def cut_power(self) -> None:
        """Cut the power: RAM is lost; CMOS, NVRAM and flash are not."""
        self._halt()
        self.ram.clear()

    def _halt(self) -> None:
        """End QEMU, and keep the content of its CMOS."""
        try:
            if self._qemu is not None:
                self._qemu.halt()
                copy_cmos(self._qemu, self.cmos)
        finally:
            self._stop()

    def _stop(self) -> None:
        with signals_deferred():
            self._qemu = self._guest = None
            self._running.close()

    def _start(self, *, keep_ram: bool) -> PostReport:
        """POST, then the kernel. A BIOS that tried an update resets and clears RAM after it."""
        if not keep_ram:
            self.ram.clear()
        tables = self._factory_tables
        activation = bios_activation(tables, self.cmos, self.nvram)
        board = Board.of(
            tables,
            self.ram,
            self.flash,
            self.nvram,
            activation,
            rules=self._rules,
            revision=self._revision,
            ports=self.cmos,
        )
        report = post(board, self._clock())
        if report.attempted:
            self.ram.clear()
        rom = self.flash.image()
        if not is_seabios(rom):
            raise CannotStartError(report)
        with signals_deferred(), contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            console = memory_file("console")
            stack.callback(os.close, console)
            with theirs:
                qemu = start_qemu(
                    self.software,
                    self.directory,
                    self._setup,
                    ram=(self._ram_fd, self._ram_bytes),
                    rom=rom,
                    tables=self.tables,
                    agent=theirs.fileno(),
                    console=console,
                )
                stack.callback(qemu.close)
            self._load_cmos(qemu)
            self._qemu, self._guest = qemu, QemuGuest(qemu, ours, console)
            self._running = stack.pop_all()
        qemu.resume()
        try:
            self._guest.wait_until_up()
        except GuestStoppedError as stopped:
            said = self._guest.console_text
            raise GuestLostError(f"it stopped while it started: {stopped}", said) from None
        return report

    def _load_cmos(self, qemu: Qemu) -> None:
        """Copy CMOS into a new QEMU. The CMOS of the first QEMU describes the machine's memory and
        drives: that is copied into ours first, and the check values are set again."""
        if not self._cmos_is_qemus:
            copy_cmos(qemu, self.cmos, but_zeros=True)
            put_tokens_right(self._factory_tables, self.cmos, self.nvram)
            self._cmos_is_qemus = True
        copy_cmos(self.cmos, qemu)

    # -- what it shows ----------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """The SMBIOS tables of this boot."""
        return tables_of_boot(self._factory_tables, self.flash.current, self.nvram.contents)

    @property
    def guest(self) -> QemuGuest:
        """The guest that runs on it.

        :raise MachineError: when it is off.
        """
        if self._guest is None:
            raise MachineError("the lab's machine is off")
        return self._guest

    @property
    def is_on(self) -> bool:
        return self._qemu is not None

    @contextlib.contextmanager
    def halted(self) -> Iterator[Qemu]:
        """The machine stands still, and QEMU can be asked about it.

        :raise MachineError: when it is off.
        """
        if self._qemu is None:
            raise MachineError("the lab's machine is off")
        self._qemu.halt()
        try:
            yield self._qemu
        finally:
            self._qemu.resume()

    @property
    def bios_on_console(self) -> str | None:
        """The version that the BIOS wrote to the console when it started; None when it wrote none.

        :raise MachineError: when the machine is off.
        """
        found = _SEABIOS_LINE.search(self.guest.console_text)
        return None if found is None else found[1]

    def read_file(self, path: str) -> bytes:
        """A file as the guest has it, up to 64 KiB.

        :raise OSError: the error of the guest's kernel.
        :raise GuestLostError, GuestStoppedError: as `QemuGuest.calls`.
        """
        result = self.guest.calls([calls.Read(path, 0, 64 * KIB)])[0]
        if result.errno is not None:
            raise OSError(result.errno, os.strerror(result.errno), path)
        assert isinstance(result.value, bytes)
        return result.value

    # -- programs ---------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        standard_input: bytes = b"",
        output: Output = lambda stream, data: None,
        cut_power: bool = False,
    ) -> ProgramResult:
        """Run a program. When it restarts the machine, return after POST and the next start.

        `cut_power`: the power is cut in place of a restart, and then the machine is switched on.

        :raise OSError: when the program can't be run.
        :raise GuestLostError: when the guest is lost.
        :raise CannotStartError: when QEMU can't start the BIOS after the restart.
        """
        environment = boot.environment() | dict(env or {})
        try:
            status = self.guest.run(
                argv, env=environment, cwd=cwd, standard_input=standard_input, output=output
            )
        except GuestStoppedError as stopped:
            return ProgramResult(None, self._handle_stop(stopped, cut_power))
        return ProgramResult(status)

    def shell(self, argv: Sequence[str], *, cwd: str = "/") -> ProgramResult:
        """Run a program on the terminal. A restart of the machine is handled as by `run`.

        :raise OSError, GuestLostError, CannotStartError: as `run`.
        """
        command = boot.on_terminal(self.software, argv)
        environment = boot.environment()
        try:
            status = self.guest.shell(command, env=environment, cwd=cwd)
        except GuestStoppedError as stopped:
            return ProgramResult(None, self._handle_stop(stopped, False))
        return ProgramResult(status)

    def _handle_stop(self, stopped: GuestStoppedError, cut_power: bool) -> PostReport | None:
        if stopped.reason != RESET:
            self.cut_power()
            return None
        if cut_power:
            self.cut_power()
            return self.power_on()
        return self.restart()

    # -- its end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Switch it off, and remove its files."""
        with signals_deferred():
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
