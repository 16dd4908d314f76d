"""The Linux that runs on a virtual machine: pages, modules, and the files that they show.

It has only what an update needs: a page allocator over the machine's RAM, the attribute trees
behind `/sys`, `/proc` and `/dev`, and the modules `dell_rbu` and `dcdbas`. Its state can be saved
(`snapshot`), so that the machine stays on between two commands.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

from openrbu.buffers import Buffer
from openrbu.drivers.dell_rbu_profiles import Profile
from openrbu.drivers.dev_port import add_port_files
from openrbu.drivers.dmi import add_dmi
from openrbu.drivers.firmware_class import FirmwareClass, FirmwareFile
from openrbu.drivers.sysfs import (
    ROOT,
    Caller,
    Directory,
    OpenFile,
    Stat,
    SysfsTree,
    TextAttribute,
)
from openrbu.errors import DamagedInputError, KernelError, MachineError
from openrbu.faults import Faults
from openrbu.kernel import faults
from openrbu.kernel.changes import ChangeInProgress
from openrbu.kernel.constant_files import add_constant_files
from openrbu.kernel.dev_mem import dev_mem
from openrbu.kernel.lockdown import Lockdown
from openrbu.kernel.memory_files import RESERVED, MemoryFiles
from openrbu.kernel.modules import Module, ModuleMaker
from openrbu.kernel.plain_files import PlainFiles
from openrbu.kernel.restart_files import RestartFiles
from openrbu.kernel.states import KernelState, RebootMode, check_blocks, unowned_blocks
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faults import faulty_pages, hold_back
from openrbu.memory.physical import PhysicalMemory
from openrbu.ports import IoPorts
from openrbu.units import HUGE_PAGE_ORDER

if TYPE_CHECKING:
    from openrbu.kernel.balloon import KernelBalloon, XenGuest


class KernelFile:
    """A file of a running kernel that a program has open.

    After that kernel has stopped, `read` and `write` raise ENODEV.
    """

    def __init__(self, kernel: Kernel, file: OpenFile) -> None:
        self._kernel, self._file = kernel, file

    def stat(self) -> Stat:
        """fstat(2)."""
        return self._file.stat()

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One pread(2).

        :raise KernelError: the kernel's error.
        :raise MachineError: when the kernel has crashed.
        """
        self._kernel.check_not_crashed()
        self._kernel.run_balloon()
        return self._file.read(offset, size_bytes)

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One pwrite(2); the number of bytes written.

        :raise KernelError: the kernel's error.
        :raise MachineError: when the kernel has crashed, or this write crashes it.
        """
        self._kernel.check_not_crashed()
        with self._kernel.changing(only_hardware=self._file.attribute.is_of_hardware or not data):
            taken = self._file.write(offset, data, sys_rawio=sys_rawio)
        self._kernel.run_balloon()
        return taken


class Kernel:
    """A running kernel.

    `profile`: how its driver behaves. `boot_id`: the content of `/proc/sys/kernel/random/boot_id`.
    `dmi`: the SMBIOS entry point and table; None in a guest of Xen other than dom0. `rom`: the
    bytes of `bios.rom.ROM`; None: programs see no such memory. `ports`: the ports, CMOS behind
    them. `entry_delay_s`: seconds until a requested firmware entry appears. `xen`: which guest of
    Xen it is; then `memory` is that guest's. `saved`: a snapshot, which this kernel continues on
    the same RAM. `broken`: its faults on purpose. `now`: the clock. `smi`: handles SMI calls; None
    on a machine without the calling interface. `restart`: how it began and will restart; None: as
    most kernels. `before_change`: called before each change of the kernel or its memory.
    `find_outside`: has firmware files that are not its own. `log`: gets the lines of the kernel's
    log.

    :raise DamagedInputError: when `saved` does not fit this machine.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        *,
        profile: Profile,
        boot_id: str,
        dmi: tuple[bytes, bytes] | None,
        rom: bytes | None = None,
        ports: IoPorts | None = None,
        entry_delay_s: float = 0.0,
        xen: XenGuest | None = None,
        saved: KernelState | None = None,
        now: Callable[[], float] = time.time,
        smi: Callable[[bytes], bytes] | None = None,
        broken: Faults = MappingProxyType({}),
        restart: RestartFiles | None = None,
        before_change: Callable[[], None] = lambda: None,
        find_outside: Callable[[str], FirmwareFile | None] = lambda path: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.memory = memory
        self._before_change, self._find_outside = before_change, find_outside
        self._profile, self._dmi, self._smi, self._log = profile, dmi, smi, log
        self._ports, self._entry_delay_s, self._now = ports, entry_delay_s, now
        self._boot_id, self._xen, self._faults = boot_id, xen, broken
        self._restart = restart or RestartFiles("", has_files=True, by_kexec=False)
        self._lockdown, self._rom = Lockdown(self._restart.words), rom
        self.is_dead = self._has_stopped = False
        if saved is None:
            self._assemble(BuddyAllocator(memory, reserved=RESERVED))
            for name in self._maker.built_in:
                self.modules[name] = self._maker.make(name, {})
                self.modules[name].load()
        else:
            self._restore(saved)

    def _assemble(self, allocator: BuddyAllocator) -> None:
        """Make the parts of the kernel, and its files, with these pages."""
        self.allocator = allocator
        held = hold_back(allocator, self._faults)
        self.pages, buddyinfo = faulty_pages(allocator, self._faults)
        numbers = count(2)
        limit = self._profile.transfer_limit_bytes  # of sysfs alone
        self.sys, self.proc, self.dev = (
            SysfsTree(numbers=numbers, now=self._now, transfer_limit_bytes=each)
            for each in (limit, None, None)
        )
        for path in ("/devices/platform", "/module"):  # these exist without a driver, too
            self.sys.add(path, Directory())
        self.files = PlainFiles(SysfsTree(numbers=numbers, now=self._now), self.pages)
        self.firmware = FirmwareClass(
            self.sys,
            self.pages,
            find_file=self._find_file,
            has_fallback=faults.NO_FIRMWARE_ENTRY not in self._faults,
            delay_s=self._entry_delay_s,
            now=self._now,
            log=self._log,
        )
        self.firmware.install(self.proc)
        self._maker = ModuleMaker(
            self.sys,
            self.firmware,
            self.pages,
            profile=self._profile,
            smi=self._smi,
            faults=self._faults,
            log=self._log,
        )
        self.modules: dict[str, Module] = {}
        self._restart.install(self.sys, self.proc)
        faults.show_no_module(self.proc, self.files.tree, self._faults)
        self._lockdown.install(self.sys)
        if self._dmi is not None:
            add_dmi(self.sys, *self._dmi)
        if self._rom is not None:
            self.dev.add("/mem", dev_mem(self.memory, self._rom, self._lockdown))
        if self._ports is not None:
            add_port_files(self.sys, self.dev, self._ports, self._lockdown.of_ports)
        self._add_proc("/sys/kernel/random/boot_id", lambda: f"{self._boot_id}\n")
        self._add_proc("/buddyinfo", buddyinfo)
        self._add_proc("/modules", lambda: self._maker.listed(self.modules))
        of_memory = MemoryFiles(allocator, self.files, held, has_huge_pages=self._xen is None)
        of_memory.install(self.sys, self.proc, self._lockdown)
        add_constant_files(self.proc)
        self.huge_pages = of_memory.huge_pages
        self.balloon: KernelBalloon | None = None
        if self._xen is not None:
            from openrbu.kernel.balloon import KernelBalloon  # noqa: PLC0415  (start-up time)

            self.balloon = KernelBalloon(
                self._xen, self.allocator, self.sys, self.proc, log=self._log
            )

    def _find_file(self, path: str) -> FirmwareFile | None:
        return self.files.find(path) or self._find_outside(path)

    def _add_proc(self, path: str, show: Callable[[], str]) -> None:
        self.proc.add(path, TextAttribute(show, mode=0o444, size_bytes=0))

    # -- system calls -----------------------------------------------------------------------

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> KernelFile:
        """Open a file under `/sys`, `/proc` or `/dev`.

        :raise KernelError: the kernel's error.
        """
        tree, inner = self.tree(path)
        return KernelFile(self, tree.open(inner, reading=reading, writing=writing, caller=caller))

    def read(self, path: str, offset: int, size_bytes: int, *, caller: Caller = ROOT) -> bytes:
        """Open, one pread(2), close.

        :raise KernelError: the kernel's error.
        """
        return self.open(path, reading=True, caller=caller).read(offset, size_bytes)

    def write(self, path: str, data: Buffer, offset: int, *, caller: Caller = ROOT) -> int:
        """Open, one pwrite(2), close; the number of bytes written.

        :raise KernelError: the kernel's error.
        :raise MachineError: when the kernel has crashed, or this write crashes it.
        """
        file = self.open(path, writing=True, caller=caller)
        return file.write(offset, data, sys_rawio=caller.sys_rawio)

    def exists(self, path: str) -> bool:
        try:
            tree, inner = self.tree(path)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return tree.exists(inner)

    def list(self, path: str) -> list[str]:
        tree, inner = self.tree(path)
        return tree.list(inner)

    def tree(self, path: str) -> tuple[SysfsTree, str]:
        """The tree that `path` is in, after what is due has been run, and the path in that tree.

        :raise KernelError: ENOENT when it is not under `/sys`, `/proc` or `/dev`, nor one of
            `files`.
        """
        self.check_not_crashed()
        self.run_due()
        for prefix, tree in (("/sys", self.sys), ("/proc", self.proc), ("/dev", self.dev)):
            if path == prefix or path.startswith(prefix + "/"):
                return tree, path[len(prefix) :]
        if self.files.tree.exists(path):
            return self.files.tree, path
        raise KernelError(errno.ENOENT, path)

    def make_file(self, path: str) -> None:
        """Make an empty plain file.

        :raise KernelError: as `PlainFiles.make`.
        """
        self.check_not_crashed()
        with self.changing():
            self.files.make(path)

    def remove_file(self, path: str) -> None:
        """Remove a plain file.

        :raise KernelError: ENOENT when there is none.
        """
        self.check_not_crashed()
        with self.changing():
            self.files.remove(path)

    def run_due(self) -> None:
        """Do what has become due since the last call."""
        self.firmware.run_due()
        self.run_balloon()

    def run_balloon(self) -> None:
        """Run what is due in the balloon driver."""
        if self.balloon is not None and self.balloon.is_due(self._now()):
            with self.changing():
                self.balloon.run_due(self._now())

    def stop(self) -> None:
        """Stop this kernel: the power goes off, or another kernel starts. Its open files can't be
        used any more."""
        self._has_stopped = True

    def check_not_crashed(self) -> None:
        """Check that this kernel runs.

        :raise KernelError: ENODEV when it has stopped.
        :raise MachineError: when it has crashed.
        """
        if self._has_stopped:
            raise KernelError(errno.ENODEV, detail="the machine has been restarted, or is off")
        if self.is_dead:
            raise MachineError("the machine's kernel has crashed: restart the machine")

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """`modprobe name parameter=value …`.

        :raise KernelError: EEXIST when it is loaded; ENODEV when this machine lacks its device.
        :raise UsageError: for a module or a parameter that does not exist.
        """
        self.check_not_crashed()
        if name in self._maker.built_in:
            return
        if name in self.modules:
            raise KernelError(errno.EEXIST, detail=f"module {name} is loaded")
        module = self._maker.make(name, parameters)
        with self.changing():
            module.load()
            self.modules[name] = module

    def unload_module(self, name: str) -> None:
        """`rmmod name`.

        :raise KernelError: ENOENT when it is not loaded, EBUSY when it is in use.
        """
        self.check_not_crashed()
        module = self.modules.get(name)
        if module is None or name in self._maker.built_in:
            why = "is not loaded" if module is None else "is built in"
            raise KernelError(errno.ENOENT, detail=f"module {name} {why}")
        with self.changing():
            module.unload()
            del self.modules[name]

    def load_kexec(self, *, is_loaded: bool) -> None:
        """Load a kernel for kexec, or unload it."""
        self.check_not_crashed()
        with self.changing():
            self._restart.kexec_loaded = is_loaded

    @property
    def reboot_mode(self) -> RebootMode:
        """The kind of its next restart."""
        return self._restart.mode

    # -- state ------------------------------------------------------------------------------

    def snapshot(self) -> KernelState:
        """The kernel's whole state, for `saved` of another kernel."""
        return KernelState(
            allocator=self.allocator.snapshot(),
            restart=self._restart.snapshot(),
            lockdown=self._lockdown.level,
            is_dead=self.is_dead,
            firmware=self.firmware.snapshot(),
            modules=tuple(module.snapshot() for module in self.modules.values()),
            files=self.files.snapshot(),
            balloon=None if self.balloon is None else self.balloon.snapshot(),
        )

    def _restore(self, state: KernelState) -> None:
        self._assemble(BuddyAllocator.restore(self.memory, state.allocator))
        check_blocks(self.allocator, state)
        self.huge_pages.restore(unowned_blocks(state, HUGE_PAGE_ORDER))
        self._restart.restore(state.restart)
        self._lockdown.level = state.lockdown
        self.is_dead = state.is_dead
        for saved in state.modules:
            self.modules[saved.module] = self._maker.restored(saved)
        self.firmware.restore(state.firmware)
        self.files.restore(state.files)  # last: a driver's request must not find them
        if (state.balloon is None) != (self.balloon is None):
            raise DamagedInputError("a kernel that is a guest of Xen has a balloon, and no other")
        if self.balloon is not None and state.balloon is not None:
            self.balloon.restore(state.balloon)

    # -- inside -----------------------------------------------------------------------------

    def changing(self, *, only_hardware: bool = False) -> ChangeInProgress:
        """A block that changes the kernel, or only hardware, whose state is not the kernel's.
        Signals are deferred in it, as in a real kernel."""
        if not only_hardware:
            self._before_change()
        return ChangeInProgress(self._die)

    def _die(self) -> None:
        self.is_dead = True
