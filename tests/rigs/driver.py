"""A `dell_rbu` to test: in process here, behind the same few calls wherever else it is served.

`System` is all that a contract test may use. Paths are the real ones, `/sys/…`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import Profile, profile
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.sysfs import SysfsTree
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.pages import PageSource
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr, pages_for
from rigs.kept import kept

DEVICE = "/sys/devices/platform/dell_rbu"
FIRMWARE = "/sys/class/firmware/dell_rbu"
FLOOR = "/sys/module/dell_rbu/parameters/allocation_floor"

_CP_CHUNK_BYTES = 128 * KIB


class System(Protocol):
    """A Linux with the driver in it."""

    free_bytes_may_stray: int
    """By how much `free_bytes` may differ though nothing that a test does took memory, or gave it
    back: a kernel has others to serve."""

    def read(self, path: str, offset: int = 0, size_bytes: int = _CP_CHUNK_BYTES) -> bytes:
        """One `pread`."""

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        """As many `pwrite`s as it takes."""

    def exists(self, path: str) -> bool: ...

    def list(self, path: str) -> Sequence[str]: ...

    def load_module(self, **parameters: str) -> None:
        """`modprobe dell_rbu name=value …`."""

    def unload_module(self) -> None:
        """`rmmod dell_rbu`."""

    def settle(self) -> None:
        """Wait until what the last write has set off in the kernel is done."""

    def find_in_memory(self, data: bytes) -> Sequence[int]:
        """The page-aligned physical addresses where `data` lies as one piece."""

    def free_bytes(self) -> int:
        """How much memory the kernel could still hand out."""


NewSystem = Callable[[], System]
"""Makes a machine whose driver is not loaded yet."""


class InProcess:
    """The driver in this process, over RAM in a file in `directory`. The module is not loaded.

    `wrap` may put something between the driver and its pages, such as `FaultyPages`.
    """

    free_bytes_may_stray = 0

    def __init__(
        self,
        directory: Path,
        profile_name: str = "documented",
        *,
        ram_bytes: int = 32 * MIB,
        wrap: Callable[[PageSource], PageSource] = lambda pages: pages,
    ) -> None:
        regions = pc_regions(ram_bytes)
        self.memory = RamFile.create(directory / "ram", regions)
        self.allocator = BuddyAllocator(self.memory)
        self.pages = wrap(self.allocator)
        self.profile: Profile = profile(profile_name)
        self.log: list[str] = []
        self._boot()

    def _boot(self) -> None:
        self.tree = SysfsTree(transfer_limit_bytes=self.profile.transfer_limit_bytes)
        self.firmware = FirmwareClass(self.tree, self.pages, log=self.log.append)
        self.firmware.install(SysfsTree())

    def _make_driver(self, **parameters: str) -> DellRbu:
        return DellRbu(
            self.tree,
            self.firmware,
            self.pages,
            profile=self.profile,
            log=self.log.append,
            image_type=parameters.get("image_type", "mono"),
            allocation_floor=int(parameters.get("allocation_floor", str(1 * MIB)), 0),
        )

    def read(self, path: str, offset: int = 0, size_bytes: int = _CP_CHUNK_BYTES) -> bytes:
        return self.tree.read(_inner(path), offset, size_bytes)

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        done = self.tree.write(_inner(path), data, offset)
        while done < len(data):
            done += self.tree.write(_inner(path), data[done:], offset + done)

    def exists(self, path: str) -> bool:
        return self.tree.exists(_inner(path))

    def list(self, path: str) -> Sequence[str]:
        return self.tree.list(_inner(path))

    def load_module(self, **parameters: str) -> None:
        driver = self._make_driver(**parameters)
        driver.load()
        self.driver = driver

    def unload_module(self) -> None:
        self.driver.unload()

    def settle(self) -> None:
        """Nothing to wait for: a write returns when all that it sets off is done."""

    def find_in_memory(self, data: bytes) -> Sequence[int]:
        found = []
        for region in self.memory.regions:
            for address in range(region.start, region.end - len(data) + 1, PAGE_SIZE):
                head = self.memory.view(PhysAddr(address), min(len(data), 16))
                if head == data[:16] and self.memory.view(PhysAddr(address), len(data)) == data:
                    found.append(address)
        return found

    def free_bytes(self) -> int:
        return self.allocator.free_bytes

    def put_away_and_take_out(self) -> None:
        """Go through a snapshot, as text, into a fresh tree."""
        firmware = kept(self.firmware.snapshot())
        driver = kept(self.driver.snapshot())
        allocator = kept(self.allocator.snapshot())
        self.allocator = BuddyAllocator.restore(self.memory, allocator)
        self.pages = self.allocator
        self._boot()
        self.driver = self._make_driver()
        self.driver.restore(driver)
        self.firmware.restore(firmware)


def _inner(path: str) -> str:
    assert path.startswith("/sys/"), path
    return path.removeprefix("/sys")


class Shell:
    """Runs the commands of the kernel's document: `echo WORDS > PATH` and `cp FILE PATH`.

    FILE is looked up in `directory`.
    """

    def __init__(self, system: System, directory: Path) -> None:
        self.system, self._directory = system, directory

    def __call__(self, command: str) -> None:
        words = shlex.split(command)
        if words[0] == "echo":
            assert words[-2] == ">", command
            self.system.write(words[-1], " ".join(words[1:-2]).encode() + b"\n")
        else:
            assert words[0] == "cp", command
            _, source, target = words
            copy_in(self.system, target, (self._directory / source).read_bytes())
        self.system.settle()


def copy_in(system: System, path: str, data: bytes) -> None:
    """What `cp` does to a file that is there: writes one behind the other."""
    for offset in range(0, len(data), _CP_CHUNK_BYTES):
        system.write(path, data[offset : offset + _CP_CHUNK_BYTES], offset)


def cat(system: System, path: str) -> bytes:
    """What `cat` does: reads one behind the other until one brings nothing."""
    data = b""
    while piece := system.read(path, len(data)):
        data += piece
    return data


def stage(system: System, data: bytes) -> None:
    """Steps 1 to 3 of the kernel's document, after `init` where there is no entry."""
    if not system.exists(f"{FIRMWARE}/loading"):
        system.write(f"{DEVICE}/image_type", b"init")
        system.settle()
    system.write(f"{FIRMWARE}/loading", b"1\n")
    copy_in(system, f"{FIRMWARE}/data", data)
    system.write(f"{FIRMWARE}/loading", b"0\n")
    system.settle()


def stage_packets(system: System, data: bytes, packet_size_bytes: int) -> None:
    """Packet mode, then `stage`."""
    system.write(f"{DEVICE}/image_type", b"packet\n")
    system.write(f"{DEVICE}/packet_size", f"{packet_size_bytes}\n".encode())
    stage(system, data)


def holds_memory(system: System, before_bytes: int) -> bool:
    """Whether less is free than before."""
    return system.free_bytes() < before_bytes - system.free_bytes_may_stray


def gave_all_back(system: System, before_bytes: int) -> bool:
    """Whether as much is free as before."""
    return abs(system.free_bytes() - before_bytes) <= system.free_bytes_may_stray


def pattern(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes of which no two pages are alike, and no two seeds."""
    page = bytearray(range(256)) * (PAGE_SIZE // 256)
    pages = bytearray()
    for number in range(pages_for(size_bytes)):
        page[:8] = (number << 16 | seed).to_bytes(8, "little")
        page[-1] = number & 0xFF
        pages += page
    return bytes(pages[:size_bytes])
