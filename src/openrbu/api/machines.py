"""openrbu as a library: all that `rbu` does with images, memory and machines. See docs/library.md.

    from openrbu import api

    image = api.read_image("A06.hdr")
    with api.open_machine("demo") as machine:
        outcome = machine.update(machine.plan(image))
        if outcome is not None:
            machine.restart()

Results are frozen. What goes wrong is an `openrbu.errors.OpenRbuError`, whose classes say who is at
fault. The names in `__all__` are public; what else there is in openrbu may change at any time.

A function imports what it needs when it is called, and a class comes from its module (`_CLASSES`)
when somebody asks for it: importing this module costs a program next to nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from openrbu import errors
from openrbu.units import PhysAddr

if TYPE_CHECKING:
    from openrbu.bios.post_report import PostReport
    from openrbu.formats.hdr import Image, SystemId
    from openrbu.formats.image_packets import ImagePackets, JoinedImage
    from openrbu.formats.loading import LoadedFile, LoadedImage
    from openrbu.hosts.base import Host
    from openrbu.machine.base import Machine as VirtualMachine
    from openrbu.machine.factory import MachineSpec
    from openrbu.memory.physical import ReadableMemory
    from openrbu.memory.search_result import SearchResult
    from openrbu.update.flow import Cancelled, Outcome
    from openrbu.update.journal import Attempt
    from openrbu.update.options import Options
    from openrbu.update.plan import Plan
    from openrbu.update.progress import ProgressReporter
    from openrbu.update.report import UpdateStatus
    from openrbu.update.restarted import Restarted

__all__ = [
    "Attempt",
    "Cancelled",
    "Host",
    "Image",
    "ImagePackets",
    "JoinedImage",
    "LoadedFile",
    "LoadedImage",
    "Machine",
    "MachineSpec",
    "Options",
    "Outcome",
    "Plan",
    "PostReport",
    "ProgressReporter",
    "ReadableMemory",
    "Restarted",
    "SearchResult",
    "SystemId",
    "UpdateStatus",
    "VirtualMachine",
    "build_image",
    "errors",
    "join",
    "machine_names",
    "make_machine",
    "open_dump",
    "open_machine",
    "packets",
    "read_image",
    "read_images",
    "remove_machine",
    "run",
    "scan",
    "switch_off",
]

_CLASSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "Attempt": ("openrbu.update.journal", "Attempt"),
        "Cancelled": ("openrbu.update.flow", "Cancelled"),
        "Host": ("openrbu.hosts.base", "Host"),
        "Image": ("openrbu.formats.hdr", "Image"),
        "ImagePackets": ("openrbu.formats.image_packets", "ImagePackets"),
        "JoinedImage": ("openrbu.formats.image_packets", "JoinedImage"),
        "LoadedFile": ("openrbu.formats.loading", "LoadedFile"),
        "LoadedImage": ("openrbu.formats.loading", "LoadedImage"),
        "MachineSpec": ("openrbu.machine.factory", "MachineSpec"),
        "Options": ("openrbu.update.options", "Options"),
        "Outcome": ("openrbu.update.flow", "Outcome"),
        "Plan": ("openrbu.update.plan", "Plan"),
        "PostReport": ("openrbu.bios.post_report", "PostReport"),
        "ReadableMemory": ("openrbu.memory.physical", "ReadableMemory"),
        "Restarted": ("openrbu.update.restarted", "Restarted"),
        "SearchResult": ("openrbu.memory.search_result", "SearchResult"),
        "UpdateStatus": ("openrbu.update.report", "UpdateStatus"),
        "SystemId": ("openrbu.formats.hdr", "SystemId"),
        "VirtualMachine": ("openrbu.machine.base", "Machine"),
        "ProgressReporter": ("openrbu.update.progress", "ProgressReporter"),
    }
)
"""Where the public classes are: module, and name in it."""

StrPath = str | os.PathLike[str]


def __getattr__(name: str) -> object:
    """A public class, out of its module (PEP 562)."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _CLASSES[name]
    return getattr(importlib.import_module(module), attribute)


# -- machines -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that is open: a virtual one, or the computer that this process runs on.

    `host` gives its files, modules and ports, as a program on it sees them. `virtual` is the
    virtual machine behind that, with its power and its RAM; None: it is this computer.
    """

    host: Host
    virtual: VirtualMachine | None = None

    @property
    def memory(self) -> ReadableMemory:
        """Its physical memory, to be looked at.

        :raise ObstacleError: when it can't be seen from here.
        """
        memory = self.host.physical_memory
        if memory is None:
            raise errors.ObstacleError(f"the physical memory of {self.host.name} can't be seen")
        return memory

    def read_file(self, path: str) -> bytes:
        """A whole file of the machine, such as `/sys/devices/platform/dell_rbu/image_type`.

        :raise OSError: as its kernel answers.
        :raise MachineError: when the machine is off.
        """
        from openrbu.hosts.base import read_file

        return read_file(self.host, path)

    def write_file(self, path: str, data: bytes) -> None:
        """Write `data` to a file of the machine, from its start on.

        :raise OSError: as its kernel answers.
        :raise MachineError: when the machine is off, or the disk refuses.
        """
        self.host.write(path, data)

    def plan(self, image: Image | LoadedImage, options: Options | None = None) -> Plan:
        """What an update to `image` would do here, and what stands in its way. Changes nothing.

        :raise UsageError: when the options' packet size can't be one.
        :raise ObstacleError: when the machine can't be looked at.
        :raise DamagedInputError: when its SMBIOS tables are damaged.
        """
        from openrbu.formats.loading import LoadedImage
        from openrbu.update.options import Options
        from openrbu.update.plan import make_plan

        asked = Options() if options is None else options
        if isinstance(image, LoadedImage):
            return make_plan(self.host, image.image, asked.for_image(image))
        return make_plan(self.host, image, asked)

    def update(self, plan: Plan, *, progress: ProgressReporter | None = None) -> Outcome | None:
        """Do what was planned: stage and verify the image, and arm the BIOS. The next restart
        updates it.

        None: the machine runs that version already, and was left alone. When anything else goes
        wrong the machine is as it was before, or the error says what could not be put back.

        :raise OpenRbuError: `plan.refusal`, where there is one.
        :raise ObstacleError: when another process is at an update of this machine.
        :raise UpdateFailedError: when it was tried, and did not work.
        """
        from openrbu.update.flow import perform
        from openrbu.update.progress import SilentProgress

        return perform(self.host, plan, SilentProgress() if progress is None else progress)

    def status(self) -> UpdateStatus:
        """The machine as it is: its BIOS, what is staged and armed, how the last update ended.

        :raise ObstacleError: when it can't be looked at.
        :raise DamagedInputError: when its SMBIOS tables, or its journal, are damaged.
        """
        from openrbu.update.report import read_status

        return read_status(self.host)

    def history(self) -> tuple[Attempt, ...]:
        """The updates that were tried on the machine, oldest first.

        :raise ObstacleError | DamagedInputError: when its journal can't be read.
        """
        from openrbu.update.report import read_history

        return read_history(self.host)

    def cancel(self) -> Cancelled:
        """Take an armed or staged update back: the token first, then what is in memory.

        :raise ObstacleError: when the machine does not allow it, or another process updates it.
        :raise UpdateFailedError: when the token stays set, or the kernel refuses.
        """
        from openrbu.update.flow import cancel

        return cancel(self.host)

    def restart(self, *, cold: bool = False) -> Restarted | None:
        """Restart, in the way that the kernel's reboot mode says; `cold`: a power cycle, which
        clears memory. A virtual machine that is off is switched on.

        None: this computer goes down by and by; `status` tells afterwards how it ended.

        :raise ObstacleError: when that is not allowed.
        :raise UsageError: for a cold restart of this computer.
        """
        if self.virtual is None:
            if cold:
                raise errors.UsageError("only a virtual machine's power can be cut from here")
            self.host.restart()
            return None
        from openrbu.update import restarted

        mode = "cold" if cold else self.virtual.status().reboot_mode
        wanted = restarted.armed_version(self.host)
        on_xen = self.virtual.config.xen is not None
        post = self.virtual.restart(cold=cold or None)
        post = restarted.explained(post, mode, on_xen=on_xen)
        failure = restarted.update_failure(post, wanted)
        return restarted.Restarted(post, self.status(), failure)


@contextlib.contextmanager
def open_machine(name: str | None = None, *, serve: bool = False) -> Iterator[Machine]:
    """The virtual machine of that name, until the end of the block; without a name, the computer
    that this process runs on.

    `serve`: other programs can use the virtual machine meanwhile (`rbu --machine NAME …` does). The
    end of the block waits until they are done.

    :raise MachineError: when there is no such machine, another process has it and does not serve
        it, or its files don't allow it.
    """
    from openrbu.sharing.session import open_session

    with open_session(name, serve=serve) as session:
        yield Machine(session.host, session.machine)


def make_machine(name: str, spec: MachineSpec | None = None) -> Path:
    """Make a virtual machine and switch it on. The directory that it is kept in.

    :raise UsageError: when what is ordered can't be: a name, a version, a size, a profile.
    :raise MachineError: when there is one of that name, or the disk refuses.
    :raise DamagedInputError: when the tables that it is to have can't be used.
    """
    from openrbu.machine import factory
    from openrbu.machine.virtual import VirtualMachine

    directory = factory.make_machine(name, factory.MachineSpec() if spec is None else spec)
    with VirtualMachine(directory) as machine:
        machine.power_on()
    return directory


def machine_names() -> list[str]:
    """The names of the virtual machines, sorted.

    :raise MachineError: when they can't be listed.
    """
    from openrbu.machine import store

    return store.machine_names()


def switch_off(name: str) -> bool:
    """Switch a virtual machine off; its RAM is lost. Whether it was on. One whose state is refused
    is switched off, too.

    :raise MachineError: as `open_machine`.
    """
    from openrbu.machine.removal import discard_state
    from openrbu.machine.state import StateRefusedError
    from openrbu.machine.store import existing_directory
    from openrbu.machine.virtual import RamGoneError
    from openrbu.sharing.session import open_machine

    try:
        with open_machine(name) as machine:
            if not machine.is_on:
                return False
            machine.power_off()
    except (RamGoneError, StateRefusedError):
        discard_state(existing_directory(name))
    return True


def remove_machine(name: str) -> None:
    """Remove a virtual machine and all that it has, its journal included.

    :raise MachineError: when there is none, a process has it, or the disk refuses.
    """
    from openrbu.machine import removal, store
    from openrbu.sharing.access import remove_dead_mounts_of

    directory = store.existing_directory(name)
    with store.locked(directory):
        remove_dead_mounts_of(directory)
        removal.remove_machine(directory)


def run(
    name: str,
    command: Sequence[str],
    *,
    waiting: Callable[[int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> int:
    """Run a program that finds a virtual machine's files at their true paths. Its exit status, or
    the number of the signal that ended it, less than 0.

    Call it in the main thread of a process without other threads that has not opened the machine.
    `waiting` is called with how many programs still use the machine when this one has ended; `log`
    gets a line for what should not happen.

    :raise MachineError: when the machine is off, or a process has it that does not serve it.
    :raise ObstacleError: when this computer does not let such a program be run, or there is none.
    """
    from openrbu.fuse import run as programs
    from openrbu.machine.store import existing_directory

    def ignore(_: object) -> None: ...

    directory = existing_directory(name)
    return programs.run(directory, command, waiting=waiting or ignore, log=log or ignore)


# -- images and packets ---------------------------------------------------------------------


def read_image(path: StrPath) -> LoadedImage:
    """The one image that a file is or holds. It may be damaged: see `LoadedImage.damage`.

    :raise UsageError: when the file can't be read, or holds several images.
    :raise DamagedInputError: when there is none in it, or one whose end is not known.
    :raise NotForRbuError: when the file is known to be for something else.
    :raise ObstacleError: when another program has to take the file apart.
    """
    from openrbu.formats.loading import load_image

    return load_image(Path(path))


def read_images(path: StrPath, *, up_to_its_end: bool = False) -> LoadedFile:
    """All the images that a file is or holds, and what its package says of itself.

    `up_to_its_end`: of an image with more behind it, take what its check words hold for.

    :raise OpenRbuError: as `read_image`; several images are no error.
    """
    from openrbu.formats.loading import load_file

    return load_file(Path(path), up_to_its_end=up_to_its_end)


def build_image(
    flash_data: bytes,
    *,
    version: str,
    systems: Iterable[SystemId | str],
    flash_size_bytes: int | None = None,
) -> Image:
    """A new image for these systems (`0x0121`, with a revision `0x0121:2`).

    `flash_size_bytes`: the data is at the end of so much flash, 0xFF in front of it.

    :raise UsageError: when a value is none that an image's header can have.
    """
    from openrbu.formats.hdr import Image, SystemId, make_image
    from openrbu.formats.version import BiosVersion

    made = make_image(
        flash_data,
        version=BiosVersion.parse(version),
        systems=[SystemId.parse(each) if isinstance(each, str) else each for each in systems],
        flash_size_bytes=flash_size_bytes,
    )
    return Image.parse(made)


def packets(
    image: Image | LoadedImage,
    *,
    packet_size_bytes: int = 4096,
    set_id: bytes | int | None = None,
    password_crc: int | None = None,
) -> ImagePackets:
    """An image as the packets that the driver takes in packet mode.

    `set_id`: four ASCII characters, or a number; None: one that no other image's packets have.
    `password_crc`: the CRC-32 of the BIOS admin password, for packet 0.

    :raise DamagedInputError: when the image is damaged.
    :raise UsageError: when a value is none that packets can have.
    """
    from openrbu.formats.image_packets import packets_of
    from openrbu.formats.loading import LoadedImage

    return packets_of(
        image.image if isinstance(image, LoadedImage) else image,
        packet_size_bytes=packet_size_bytes,
        set_id=set_id,
        password_crc=password_crc,
    )


def join(data: bytes | memoryview) -> JoinedImage:
    """The image in packets that lie back to back.

    :raise DamagedInputError: when they are no whole, sound set, or hold no whole image.
    """
    from openrbu.formats.image_packets import join_image

    return join_image(data)


# -- memory ---------------------------------------------------------------------------------


def scan(memory: ReadableMemory, *, start: int = 0, end: int | None = None) -> SearchResult:
    """All packet sets and images that lie in physical memory from `start` to `end` (None: to its
    end), as a BIOS finds them. `memory` is a machine's (`Machine.memory`), or a dump (`open_dump`).
    """
    from openrbu.memory.scan import search

    last = memory.regions[-1].end if end is None else PhysAddr(end)
    return search(memory, PhysAddr(start), last)


@contextlib.contextmanager
def open_dump(path: StrPath) -> Iterator[ReadableMemory]:
    """A file with a dump of RAM, whose byte at offset A is that at physical address A.

    :raise UsageError: when there is no such file, or it can't be read.
    :raise DamagedInputError: when it is smaller than a page.
    """
    from openrbu.memory.dump import open_dump as open_file

    with open_file(Path(path)) as memory:
        yield memory
