"""The Linux that runs on a virtual machine: pages, modules, and the files that they show.

It is no more of a kernel than the update needs: a page allocator over the machine's RAM, the
attribute trees behind `/sys` and `/proc`, and the modules `dell_rbu` and `dcdbas`. Its state can be
put away as JSON (`snapshot`), so that the machine stays on between two commands.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from openrbu.drivers.dcdbas import Dcdbas
from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.profiles import KernelDiedError, Profile
from openrbu.drivers.sysfs import ROOT, BinaryAttribute, Caller, SysfsTree, TextAttribute
from openrbu.errors import KernelError, MachineError, UsageError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.faults import FaultyPages
from openrbu.memory.kpageflags import PageFlags
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.signals import signals_held
from openrbu.units import MIB, PhysAddr

Snapshot = dict[str, Any]

MODULES = ("dell_rbu", "dcdbas")

RESERVED = (Region(PhysAddr(0), PhysAddr(1 * MIB)), Region(PhysAddr(16 * MIB), PhysAddr(32 * MIB)))
"""What never is free: the first MiB, and the kernel's own text and data."""

REBOOT_MODES = ("warm", "cold", "hard", "soft", "gpio")


class Kernel:
    """A running kernel. `log` gets its log lines.

    `smi` answers SMI calls; a machine without the calling interface has none, and no `dcdbas`.
    `before_change` is called before anything that changes the kernel or its memory.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        *,
        profile: Profile,
        boot_id: str,
        dmi: tuple[bytes, bytes],
        smi: Callable[[bytes], bytes] | None = None,
        faulty_pages: Mapping[str, int] | None = None,
        before_change: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.memory = memory
        self._before_change = before_change
        self.allocator = BuddyAllocator(memory, reserved=RESERVED)
        self._profile, self._dmi, self._smi, self._log = profile, dmi, smi, log
        self._boot_id = boot_id
        self._faulty_pages = dict(faulty_pages or {})
        self.reboot_mode = "cold"
        self.is_dead = False
        self._assemble()

    def _assemble(self) -> None:
        """Build the trees around the allocator that is there."""
        self.pages: PageSource = self.allocator
        if self._faulty_pages:
            self.pages = FaultyPages(self.allocator, **self._faulty_pages)
        self.sys, self.proc = SysfsTree(), SysfsTree()
        self.firmware = FirmwareClass(self.sys, self.pages, log=self._log)
        self.firmware.install()
        self.modules: dict[str, DellRbu | Dcdbas] = {}
        self._parameters: dict[str, dict[str, str]] = {}
        self.sys.add("/kernel/reboot/mode", TextAttribute(self._show_mode, self._store_mode))
        for name, data in zip(("smbios_entry_point", "DMI"), self._dmi, strict=True):
            reader = _slicer(data)
            node = BinaryAttribute(reader, mode=0o400, size_bytes=len(data))
            self.sys.add(f"/firmware/dmi/tables/{name}", node)
        boot_id = TextAttribute(lambda: self._boot_id + "\n", mode=0o444)
        self.proc.add("/sys/kernel/random/boot_id", boot_id)
        self.proc.add("/buddyinfo", TextAttribute(self.allocator.buddyinfo, mode=0o444))
        flags = BinaryAttribute(PageFlags(self.allocator).read, mode=0o400)
        self.proc.add("/kpageflags", flags)
        self.proc.add("/modules", TextAttribute(self._show_modules, mode=0o444))

    # -- system calls -----------------------------------------------------------------------

    def read(self, path: str, offset: int, size_bytes: int, *, caller: Caller = ROOT) -> bytes:
        """One `pread` of a file under `/sys` or `/proc`.

        :raise KernelError: as the kernel answers.
        """
        tree, inner = self._tree(path)
        return tree.read(inner, offset, size_bytes, caller=caller)

    def write(self, path: str, data: bytes, offset: int, *, caller: Caller = ROOT) -> int:
        """One `pwrite`.

        :raise KernelError: as the kernel answers.
        :raise MachineError: when the kernel dies of it.
        """
        tree, inner = self._tree(path)
        with self._changing():
            return tree.write(inner, data, offset, caller=caller)

    def exists(self, path: str) -> bool:
        tree, inner = self._tree(path)
        return tree.exists(inner)

    def list(self, path: str) -> list[str]:
        tree, inner = self._tree(path)
        return tree.list(inner)

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        """`modprobe name parameter=value …`.

        :raise KernelError: EEXIST when it is loaded; ENODEV when this machine has not got it.
        :raise UsageError: for a module or a parameter that does not exist.
        """
        self._check_alive()
        if name in self.modules:
            raise KernelError(errno.EEXIST, detail=f"module {name} is loaded")
        module = self._make_module(name, parameters)
        with self._changing():
            module.load()
            self.modules[name] = module
            self._parameters[name] = dict(parameters)

    def unload_module(self, name: str) -> None:
        """`rmmod name`.

        :raise KernelError: ENOENT when it is not loaded, EBUSY when it is in use.
        """
        self._check_alive()
        module = self.modules.get(name)
        if module is None:
            raise KernelError(errno.ENOENT, detail=f"module {name} is not loaded")
        with self._changing():
            module.unload()
            del self.modules[name], self._parameters[name]

    # -- put away and taken out again -------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All of it, JSON-able."""
        return {
            "allocator": self.allocator.snapshot(),
            "reboot_mode": self.reboot_mode,
            "is_dead": self.is_dead,
            "parameters": self._parameters,
            "firmware": self.firmware.snapshot(),
            "modules": {name: module.snapshot() for name, module in self.modules.items()},
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Become the kernel that the snapshot was taken of; the RAM has to be the same."""
        self.allocator = BuddyAllocator.restore(self.memory, snapshot["allocator"])
        self._assemble()
        self.reboot_mode = snapshot["reboot_mode"]
        self.is_dead = snapshot["is_dead"]
        for name, parameters in snapshot["parameters"].items():
            module = self._make_module(name, parameters)
            module.restore(snapshot["modules"][name])
            self.modules[name] = module
            self._parameters[name] = parameters
        self.firmware.restore(snapshot["firmware"])

    # -- inside -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Something inside the kernel that no signal interrupts, as in a real one."""
        self._before_change()
        with signals_held():
            try:
                yield
            except KernelDiedError as oops:
                self.is_dead = True
                raise MachineError(
                    f"the machine's kernel died ({oops.detail}): restart the machine"
                ) from None

    def _make_module(self, name: str, parameters: Mapping[str, str]) -> DellRbu | Dcdbas:
        if name == "dell_rbu":
            known = _dell_rbu_parameters(parameters)
            return DellRbu(
                self.sys, self.firmware, self.pages, profile=self._profile, log=self._log, **known
            )
        if name == "dcdbas":
            _refuse_unknown(name, parameters, ())
            if self._smi is None:
                raise KernelError(errno.ENODEV, detail="no SMI calling interface in this machine")
            return Dcdbas(self.sys, self.pages, self._smi, log=self._log)
        raise UsageError(f"no module is called {name!r}; there are: {', '.join(MODULES)}")

    def _tree(self, path: str) -> tuple[SysfsTree, str]:
        self._check_alive()
        for prefix, tree in (("/sys", self.sys), ("/proc", self.proc)):
            if path == prefix or path.startswith(prefix + "/"):
                return tree, path[len(prefix) :]
        raise KernelError(errno.ENOENT, path)

    def _check_alive(self) -> None:
        if self.is_dead:
            raise MachineError("the machine's kernel is dead: restart the machine")

    def _show_mode(self) -> str:
        return self.reboot_mode + "\n"

    def _store_mode(self, data: bytes) -> None:
        """The words that Linux takes; each is known by its start."""
        for mode in REBOOT_MODES:
            if data.startswith(mode.encode()):
                self.reboot_mode = mode
                return
        raise KernelError(errno.EINVAL, "/sys/kernel/reboot/mode")

    def _show_modules(self) -> str:
        return "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in self.modules)


def _dell_rbu_parameters(parameters: Mapping[str, str]) -> dict[str, Any]:
    _refuse_unknown("dell_rbu", parameters, ("image_type", "allocation_floor"))
    known: dict[str, Any] = dict(parameters)
    if "allocation_floor" in known:
        try:
            known["allocation_floor"] = int(cast("str", known["allocation_floor"]), 0)
        except ValueError:
            text = known["allocation_floor"]
            raise UsageError(f"allocation_floor takes an address, not {text!r}") from None
    return known


def _refuse_unknown(name: str, parameters: Mapping[str, str], known: tuple[str, ...]) -> None:
    for parameter in parameters:
        if parameter not in known:
            have = ", ".join(known) or "none"
            raise UsageError(f"{name} has no parameter {parameter!r} (it has: {have})")


def _slicer(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size_bytes: data[offset : offset + size_bytes]
