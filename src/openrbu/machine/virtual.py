"""A virtual Dell machine: RAM, CMOS, flash, a BIOS that starts it and a kernel that runs on it.

Power: `off` → `power_on` → on → `restart` (warm keeps RAM, cold clears it) → on → `power_off`.
`kexec` starts another kernel in the same RAM, without the BIOS.

Any thread may call: each call locks `lock`, and so do those of `files` and `ports`. `kernel`,
`cmos`, `nvram` and `flash` are for this module, and for processes with one thread.

Between two commands the machine stays on: when it is closed, the state of its kernel is saved
(`machine.state`). When a process dies after its first change, the machine loses its power. Then it
has what a real machine has after a power cut: flash, CMOS, NVRAM, and empty RAM at the next start.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from openrbu.bios.activation import bios_activation
from openrbu.bios.cmos_file import CmosFile
from openrbu.bios.faulty_ports import faulty_ports, faulty_smi
from openrbu.bios.flash import Flash
from openrbu.bios.nvram import ROOM_BYTES, NvramFile
from openrbu.bios.post_report import PostReport
from openrbu.bios.power import PowerRail, flash_rail
from openrbu.bios.rom import rom_below_1_mib
from openrbu.bios.tables import tables_of_boot
from openrbu.cmos import banks_of
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.errors import MachineError, PowerCutError
from openrbu.formats import dell
from openrbu.formats.smbios import Tables
from openrbu.kernel.files import File, MachineFiles
from openrbu.kernel.held import before_start, held_regions
from openrbu.kernel.kernel import Kernel
from openrbu.kernel.states import KernelState
from openrbu.machine import shared_flash, store, summary
from openrbu.machine.base import MachineStatus
from openrbu.machine.clock import Clock, local_now, seconds_of
from openrbu.machine.config import load_config, read_tables
from openrbu.machine.faults import parse_faults
from openrbu.machine.kernel_log import KernelLog
from openrbu.machine.kernel_user import KernelUser
from openrbu.machine.path_locks import PathLocks, path_lock
from openrbu.machine.program_files import ProgramFiles
from openrbu.machine.ram import open_ram
from openrbu.machine.state import StateFile, spare_for
from openrbu.machine.state_formats import MachineState
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.ports import IoPorts, OwnPorts
from openrbu.system.files import make_room
from openrbu.system.signals import signals_deferred


class VirtualMachine(KernelUser):
    """The machine in `directory`, opened and locked by this process until `close`.

    `more_faults`: labels of faults beside those of its `machine.json`. `serving`: this process is
    going to serve it to other programs, see `sharing.service`. `copy_of`: the directory that
    `directory` is a copy of, to be looked at; its RAM is opened for reading only, see
    `machine.reading`.

    :raise InUseError: when another process has it.
    :raise MachineError: when its files can't be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock = local_now,
        rail: PowerRail | None = None,
        more_faults: tuple[str, ...] = (),
        log: Callable[[str], None] = lambda line: None,
        serving: bool = False,
        copy_of: Path | None = None,
    ) -> None:
        self.directory, self.name = directory, directory.name
        self.original = copy_of or directory
        self.lock = threading.RLock()
        self.files = MachineFiles(self, self.lock)
        self.path_locks, self.program_files = PathLocks(), ProgramFiles()
        self._clock, self._log = clock, KernelLog(directory, clock, log)
        self.kernel: Kernel | None = None
        self.last_post: PostReport | None = None
        self._boot_id = ""
        self._is_open = True
        with contextlib.ExitStack() as stack:
            stack.enter_context(store.locked(directory, serving=serving))
            self.config = load_config(directory)
            stack.callback(self.program_files.close)
            self._faults = parse_faults((*self.config.faults, *more_faults))
            self._state = StateFile.of_machine(directory)
            with store.disk_errors(directory):
                self._open_parts(stack, rail or PowerRail())
                self._resume()
            self._open = stack.pop_all()

    def _open_parts(self, stack: contextlib.ExitStack, rail: PowerRail) -> None:
        directory = self.directory
        self._factory_tables = read_tables(directory, self.config)
        self.system_id = dell.system_id(self._factory_tables)
        self.cmos = CmosFile(directory / "cmos", rail, banks=banks_of(self._factory_tables))
        self.nvram = NvramFile(directory / "nvram.json", rail)
        own_rail = flash_rail(rail, self._faults)
        device = shared_flash.open_flash(directory, rail=own_rail, faults=self._faults)
        stack.callback(device.close)
        self.flash = Flash(device, faults=self._faults)
        self._state.spare_bytes = spare_for(self.flash.size_bytes)
        is_copy = self.original != directory
        self.ram = open_ram(directory, self.config, self._state.read, reading=is_copy)
        stack.callback(self.ram.close)
        self._dom0: Dom0 | None = None
        if self.config.xen is not None:
            from openrbu.machine.dom0 import Dom0  # noqa: PLC0415  (start-up time)

            self._dom0 = Dom0(directory, self.config.xen, self.ram)
            stack.callback(self._dom0.close)
        self._activation = bios_activation(
            self._factory_tables,
            self.cmos,
            self.nvram,
            lambda: self.ram if self._dom0 is None else self._dom0.memory,
        )
        self._ports = faulty_ports(self.cmos, self._activation, self._faults)
        self._smi = faulty_smi(self._activation, self._faults)

    # -- power ------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self.kernel is not None

    @property
    def lost_power(self) -> bool:
        """Whether the machine is off because a process that ran it died."""
        return not self.is_on and self._state.is_lost

    def power_on(self) -> PostReport:
        """Start with empty RAM; what the BIOS did.

        :raise MachineError: when it is on already, or its flash contains no BIOS.
        """
        with self.lock:
            if self.is_on:
                raise MachineError(f"machine {self.name!r} is on")
            return self._start(keep_ram=False)

    def restart(self, *, cold: bool | None = None) -> PostReport:
        """Restart, or start a machine that is off; what the BIOS did. `cold` clears RAM; None: the
        kernel's reboot mode decides. On Xen that mode has no effect: Xen restarts warm here, as
        with `reboot=warm` on its command line.

        :raise MachineError: when its flash contains no BIOS; or when the disk has no room for what
            a BIOS may have to write: then nothing has changed.
        :raise PowerCutError: when the power rail fails meanwhile; the machine is off then.
        """
        with self.lock:
            if self.kernel is None:
                return self.power_on()
            on_xen = self._dom0 is not None
            is_warm = on_xen or self.kernel.reboot_mode == "warm" if cold is None else not cold
            return self._start(keep_ram=is_warm)

    def kexec(self) -> None:
        """Start Linux once more, without the BIOS."""
        with self._changing():
            self.running_kernel()
            self.config.check_kexec()
            self._state.mark_in_use()
            self._stop_kernel()
            self.kernel = self._make_kernel(str(uuid.uuid4()), by_kexec=True)

    def power_off(self) -> None:
        """Switch off; RAM is lost."""
        with self._changing():
            self._stop_kernel()
            self._state.mark_lost()
            if self._dom0 is not None:
                self._dom0.stop()
            self.ram.clear()
            self._state.delete()

    def _start(self, *, keep_ram: bool) -> PostReport:
        """POST, then the kernel. A BIOS that tried an update resets and clears RAM after it, and
        Xen clears RAM whenever it starts. Signals are deferred meanwhile.
        """
        from openrbu.machine.bios_start import keeps_ram, run_bios  # noqa: PLC0415  (start-up time)

        keep_ram = keep_ram and keeps_ram(self._faults)
        with self._changing():
            make_room(self.directory, ROOM_BYTES)
            if self.is_armed:
                self.flash.make_room()
            self._state.mark_in_use()
            before = before_start(
                self.kernel, self.frame_table, memory_is_kept=keep_ram, is_armed=self.is_armed
            )
            self._stop_kernel()
            if self._dom0 is not None:  # other processes may run its guests
                self._dom0.stop()
            if not keep_ram:
                self.ram.clear()
            self.last_post = report = run_bios(
                self.config,
                self._faults,
                self._clock(),
                tables=self._factory_tables,
                memory=self.ram,
                flash=self.flash,
                nvram=self.nvram,
                activation=self._activation,
                ports=self.cmos,
                before=before,
            )
            if report.attempted or self._dom0 is not None:
                self.ram.clear()
            if self._dom0 is not None:
                self._dom0.start()
            self.kernel = self._make_kernel(str(uuid.uuid4()))
        return report

    def cut_power(self) -> None:
        """Cut the power of a machine that is on."""
        with self.lock:
            self._stop_kernel()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """A block that no other thread and no signal interrupts.

        :raise MachineError: when this process has closed the machine, or for an error of the disk.
        """
        with self.lock, signals_deferred(), store.disk_errors(self.directory):
            if not self._is_open:
                raise MachineError(f"this process has closed the machine {self.name!r}")
            yield

    def _stop_kernel(self) -> None:
        if self.kernel is not None:
            self.kernel.stop()
            self.kernel = None

    # -- what it shows ----------------------------------------------------------------------

    @property
    def tables(self) -> Tables:
        """The SMBIOS tables of this boot: the factory's, with the BIOS in the flash and the result
        of the last update in them."""
        return tables_of_boot(self._factory_tables, self.flash.current, self.nvram.contents)

    @property
    def is_armed(self) -> bool:
        """Whether the next start looks for an update."""
        return self._activation is not None and self._activation.is_armed

    def running_kernel(self) -> Kernel:
        """The kernel.

        :raise MachineError: when the machine is off.
        """
        if self.kernel is None:
            why = "is off"
            if self.lost_power:
                why = "lost its power when the process that ran it ended"
            raise MachineError(
                f"machine {self.name!r} {why}; start it: rbu machine reboot {self.name}"
            )
        return self.kernel

    def status(self) -> MachineStatus:
        """Its status now."""
        with self.lock:
            kernel = self.kernel
            return MachineStatus(
                tables=self.tables,
                is_on=self.is_on,
                lost_power=self.lost_power,
                is_armed=self.is_armed,
                flash_size_bytes=self.flash.size_bytes,
                modules=() if kernel is None else tuple(sorted(kernel.modules)),
                reboot_mode=None if kernel is None else kernel.reboot_mode,
            )

    @property
    def frame_table(self) -> Frames | None:
        with self.lock:
            if self._dom0 is None or not self.is_on:
                return None
            return self._dom0.domain.table.copy()

    @property
    def held_regions(self) -> tuple[Region, ...]:
        with self.lock:
            return held_regions(self.kernel, self.frame_table)

    # -- what runs on it (see `machine.base`) -------------------------------------------------

    @property
    def ports(self) -> IoPorts:
        self.running_kernel()
        return OwnPorts(self._ports, self.lock)

    def check_connection(self) -> None:
        """Does nothing: the machine is in this process."""

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File:
        with self.lock:
            self.running_kernel()
            return self.files.open(path, reading=reading, writing=writing)

    def use_root(self, root: int | None) -> None:
        with self.lock:
            self.program_files.use(self, "" if root is None else f"/proc/self/fd/{root}")

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        me = object()
        return path_lock(
            path,
            lambda: self.path_locks.acquire(path, me),
            lambda: self.path_locks.release(path, me),
        )

    # -- saved between commands -------------------------------------------------------------

    def _make_kernel(
        self, boot_id: str, saved: KernelState | None = None, *, by_kexec: bool = False
    ) -> Kernel:
        self._boot_id, tables = boot_id, self.tables
        return Kernel(
            self.ram if self._dom0 is None else self._dom0.memory,
            profile=profile(self.config.profile),
            boot_id=boot_id,
            dmi=tables.build(),
            rom=rom_below_1_mib(tables, self.config.hardware_revision),
            ports=self._ports,
            entry_delay_s=self.config.entry_delay_s,
            xen=None if self._dom0 is None else self._dom0.guest,
            saved=saved,
            now=seconds_of(self._clock),
            smi=self._smi,
            broken=self._faults,
            restart=self.config.restart_files(by_kexec=by_kexec),
            before_change=self._before_change,
            find_outside=self.program_files.find,
            log=self._log.of_boot(boot_id, is_new=saved is None, by_kexec=by_kexec),
        )

    def _resume(self) -> None:
        """Continue the kernel whose state was saved, if there is one.

        :raise StateRefusedError: when the state is not understood, or does not fit this machine.
            Then nothing has changed.
        """
        state = self._state.read()
        if state is not None:
            with self._state.refused_if_unfit():
                if self._dom0 is not None:
                    self._dom0.resume()
                self.kernel = self._make_kernel(state.boot_id, state.kernel)
        elif self._dom0 is not None:
            self._dom0.stop()

    def _before_change(self) -> None:
        if self._state.is_in_use:  # this runs at each write to a file, so it must be quick
            return
        with store.disk_errors(self.directory):
            self._state.mark_in_use()

    def close(self) -> None:
        """Save the kernel's state, and release the machine."""
        with self.lock:
            if not self._is_open:
                return
            self._is_open = False
            with signals_deferred(), self._open:
                shown = summary.told(self.config, self.status)
                if self.kernel is not None:
                    state = MachineState(self._boot_id, self.kernel.snapshot())
                    self.kernel.stop()  # for programs that have a file of it open
                    with store.disk_errors(self.directory):
                        self._state.save(state)
                shared_flash.settle(self.directory, self.config.format)
                summary.keep(self.directory, shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        _, error, _ = raised
        if isinstance(error, PowerCutError):
            self.cut_power()
        self.close()
