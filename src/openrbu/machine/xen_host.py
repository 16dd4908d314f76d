"""A Xen host that is kept in a directory, as any number of processes have it open: its guests come
and go here, and are attached."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import KernelError, MachineError, ObstacleError, UsageError
from openrbu.kernel.balloon import XenGuest
from openrbu.kernel.kernel import Kernel
from openrbu.kernel.states import KernelState
from openrbu.machine import store
from openrbu.machine.config import MachineConfig, XenConfig, load_config
from openrbu.machine.dom0 import XEN
from openrbu.machine.state import StateFile, StateRefusedError
from openrbu.machine.state_formats import MachineState
from openrbu.machine.xen_guests import Guest, GuestInUseError, hold
from openrbu.machine.xen_orders import GuestOrder, read_order, write_order
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.system.lockfile import LockFile, owner_of, take_within
from openrbu.system.signals import signals_held
from openrbu.units import MAX_ORDER, PAGE_SIZE, human_size, pages_for
from openrbu.xen.arrays import LOCK_WITHIN_S
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import DOM0, DomainInfo, Hypervisor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class XenHost:
    """A host that is on. Any number of processes may have it open: it takes no lock.

    `keeps`: this process keeps the guests that it attaches for as long as it runs. `config` is what
    `machine.json` says, where the caller has read it already.

    :raise MachineError: when the machine in `directory` runs no Xen, is off, or its files don't
        allow it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        now: Callable[[], float],
        keeps: bool = False,
        config: MachineConfig | None = None,
    ) -> None:
        self.directory, self.name, self.now = directory, directory.name, now
        self.keeps = keeps
        self._guests = directory / XEN / "guests"
        with contextlib.ExitStack() as stack, store.disk_errors(directory):
            self.config = config or load_config(directory)
            self._xen = xen_config(directory, self.config)
            self.ram = RamFile(
                directory / "ram", pc_regions(self.config.ram_bytes), is_mapped=False
            )
            stack.callback(self.ram.close)
            _check_power(directory)
            self.hypervisor = Hypervisor.open(directory / XEN, backing=self.ram)
            stack.callback(self.hypervisor.close)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Let go of the host's files."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_power(self) -> None:
        """See that the host is still on that was opened here.

        :raise MachineError: when it is off, lost its power, or was restarted.
        """
        _check_power(self.directory)
        if self.hypervisor.has_ended:
            raise MachineError(f"host {self.name!r} was restarted: all its guests are gone")

    def guest_names(self) -> list[str]:
        """The guests that there are but for dom0, sorted."""
        return guest_names(self.directory)

    def domain_of(self, name: str) -> DomainInfo:
        """What the hypervisor knows of a guest.

        :raise MachineError: when there is none of that name.
        """
        info = self.hypervisor.find(name)
        if info is None:
            raise MachineError(
                f"host {self.name!r} has no guest {name!r}; make one: "
                f"rbu balloon guest {self.name} {name}"
            )
        return info

    def profile_of(self, name: str) -> str:
        """How the balloon driver of a guest works.

        :raise MachineError: when that can't be read.
        """
        if name == DOM0:
            return self._xen.profile
        order = read_order(self._guests / name)
        return "" if order is None else order.profile

    def owner_of(self, name: str) -> str | None:
        """The process that has a guest, where it said so."""
        return owner_of(self._guests / name / "lock")

    def create(self, name: str, order: GuestOrder) -> None:
        """Make a guest. All or nothing; no signal comes in between.

        :raise UsageError: when what is wanted can't be.
        :raise MachineError: when there is one of that name, or the disk refuses.
        :raise ObstacleError: when there is no memory for it.
        """
        order.check()
        if name == DOM0 or not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} can't be a guest's name: letters, digits, '.', '_' and '-', at most 63, "
                "and not dom0"
            )
        if order.max_bytes > self.hypervisor.total_pages * PAGE_SIZE:
            raise self.too_much(order.max_bytes)
        directory = self._guests / name
        with signals_held(), store.disk_errors(self.directory), contextlib.ExitStack() as stack:
            self._check_new(name)
            self._guests.mkdir(0o700, exist_ok=True)
            with self._making():
                directory.mkdir(0o700, exist_ok=True)
                hold(stack, directory, self.name)
            self._check_new(name)
            undo = stack.enter_context(contextlib.ExitStack())
            undo.callback(self._clear_away, directory)
            state = StateFile.of_guest(directory, self.name)
            state.take()
            self._create_domain(name, order)
            undo.callback(self.hypervisor.destroy, name)
            boot_id = str(uuid.uuid4())
            kernel = self.make_kernel(name, order, boot_id)
            _use(kernel.allocator, order)
            write_order(directory, order)
            state.put(MachineState(boot_id, kernel.snapshot()))
            undo.pop_all()

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Alone with the guests' directories: one that was just made and is not held yet, or is
        half removed, looks like one whose making was cut short.

        :raise MachineError: when another process stays here.
        :raise FileNotFoundError: when there is nothing to be alone with.
        """
        with LockFile(self._guests / ".making", create=True) as lock:
            if not take_within(lock.take, LOCK_WITHIN_S):
                raise MachineError(
                    f"another process makes or removes a guest of {self.name!r}, and stays there: "
                    "let it go on (fg), or end it"
                )
            yield

    def _clear_away(self, directory: Path) -> None:
        """Remove the directory of a guest that could not be made."""
        with self._making():
            shutil.rmtree(directory)

    def _check_new(self, name: str) -> None:
        if self._has(name):
            raise MachineError(f"host {self.name!r} has a guest {name!r} already")

    def _create_domain(self, name: str, order: GuestOrder) -> None:
        try:
            self.hypervisor.create_domain(
                name,
                pages=order.memory_bytes // PAGE_SIZE,
                max_pages=order.max_bytes // PAGE_SIZE,
                claim_pages=order.claim_bytes // PAGE_SIZE,
            )
        except KernelError as error:
            if error.errno != errno.ENOMEM:
                raise
            wanted = order.memory_bytes + order.claim_bytes
            free = (self.hypervisor.free_pages - self.hypervisor.claimed_pages) * PAGE_SIZE
            why = (
                f"{human_size(max(free, 0))} is free and not promised to others; have another "
                f"guest give some back: rbu balloon target {self.name} GUEST SIZE"
            )
            if free >= wanted:
                why = f"the memory below it is used up: {(self.directory / 'ram').resolve().parent}"
            raise ObstacleError(
                f"no memory on {self.name!r} for guest {name!r}: it takes {human_size(wanted)}, "
                f"and {why}"
            ) from None

    def too_much(self, wanted_bytes: int) -> ObstacleError:
        """That a guest is to have more than there is."""
        total, wanted = (
            human_size(self.hypervisor.total_pages * PAGE_SIZE),
            human_size(wanted_bytes),
        )
        return ObstacleError(
            f"host {self.name!r} has {total} for all its guests: none can have {wanted}"
        )

    def remove(self, name: str) -> None:
        """Destroy a guest and remove all that it has.

        :raise GuestInUseError: when another process has it.
        :raise MachineError: when there is none of that name.
        """
        directory = self._existing(name)
        with signals_held(), store.disk_errors(self.directory), contextlib.ExitStack() as stack:
            stack.enter_context(self._making())
            hold(stack, directory, self.name)
            self._destroy(directory)

    def bury_lost(self) -> list[str]:
        """Destroy the guests that lost their power with the process that had them; their names."""
        if not self.guest_names():
            return []
        with signals_held(), store.disk_errors(self.directory), self._making():
            return [name for name in self.guest_names() if self._bury(self._guests / name)]

    def _bury(self, directory: Path) -> bool:
        """Destroy a guest if it lost its power; whether it had."""
        with contextlib.ExitStack() as stack:
            try:
                hold(stack, directory, self.name)
            except (GuestInUseError, FileNotFoundError):  # alive; or removed just now
                return False
            # asked first: it raises where this is another host's guest by now
            if self._has(directory.name) and (directory / "state.json").exists():
                return False
            self._destroy(directory)
            return True

    def _destroy(self, directory: Path) -> None:
        """The caller holds the guest's lock."""
        with contextlib.suppress(MachineError):  # the hypervisor may not know it any more
            self.hypervisor.destroy(directory.name)
        shutil.rmtree(directory)

    def attach(self, name: str) -> Guest:
        """A guest, held by this process until it is closed.

        :raise GuestInUseError: when another process has it.
        :raise MachineError: when there is none of that name, it lost its power, or its files don't
            allow it.
        """
        return Guest(self, self._existing(name))

    @contextlib.contextmanager
    def attached(self, *, skip_refused: bool = False) -> Iterator[list[Guest]]:
        """All guests that no other process has, until the end of the block; `skip_refused`: without
        those whose state is refused.

        :raise StateRefusedError: when there is such a guest, otherwise.
        """
        with contextlib.ExitStack() as stack:
            guests: list[Guest] = []
            for name in self.guest_names():
                try:
                    guests.append(stack.enter_context(self.attach(name)))
                except StateRefusedError:
                    if not skip_refused:
                        raise
                except MachineError:  # another process has it, or it is gone
                    continue
            yield guests

    def _existing(self, name: str) -> Path:
        if name == DOM0:
            raise UsageError("dom0 is the host's own: it comes and goes with the machine")
        self.domain_of(name)
        return self._guests / name

    def _has(self, name: str) -> bool:
        """Whether the hypervisor knows a guest."""
        return self.hypervisor.find(name) is not None

    def make_kernel(
        self, name: str, order: GuestOrder, boot_id: str, saved: KernelState | None = None
    ) -> Kernel:
        """The kernel of a guest that was made as ordered: as it is when it starts, or as it was
        put away."""
        domain = self.hypervisor.domain(name)
        return Kernel(
            GuestMemory(domain, self.ram),
            profile=profile(self.config.profile),
            boot_id=boot_id,
            xen=XenGuest(domain, balloon_profile(order.profile)),
            dmi=None,
            saved=saved,
            now=self.now,
        )


def xen_config(directory: Path, config: MachineConfig | None = None) -> XenConfig:
    """What the host in a directory is, of which this may be read already.

    :raise MachineError: when the machine there runs no Xen, or that can't be read.
    """
    xen = (config or load_config(directory)).xen
    if xen is None:
        raise MachineError(
            f"machine {directory.name!r} runs no Xen; make one that does: rbu balloon host NAME"
        )
    return xen


def guest_names(directory: Path) -> list[str]:
    """The guests of the host in a directory but for dom0, sorted; none where it is no host."""
    guests = directory / XEN / "guests"
    if not guests.is_dir():
        return []
    return sorted(each.name for each in guests.iterdir() if _NAME.fullmatch(each.name))


def _check_power(directory: Path) -> None:
    """See that the host in a directory is on.

    :raise MachineError: when it is not.
    """
    if not (_has_power(directory) and (directory / XEN).is_dir()):
        name = directory.name
        raise MachineError(f"host {name!r} is off; start it: rbu machine reboot {name}")


def _has_power(directory: Path) -> bool:
    """Whether the machine in a directory may be on: its kernel was put away, or is in a process."""
    if (directory / "state.json").exists():
        return True
    with contextlib.suppress(FileNotFoundError), LockFile(directory / "lock", create=False) as lock:
        if lock.is_held():
            return True
    return (directory / "state.json").exists()  # it may have been put away just now


def _use(allocator: BuddyAllocator, order: GuestOrder) -> None:
    """Have the guest itself use as much memory as was ordered, in blocks as large as can be.

    :raise UsageError: when it has not got so much.
    """
    left = pages_for(order.used_bytes)
    for block in range(MAX_ORDER, -1, -1):
        with contextlib.suppress(KernelError):  # there is no such block any more
            while left >= 1 << block:
                allocator.allocate(block)
                left -= 1 << block
    if left:
        most = human_size(order.used_bytes - left * PAGE_SIZE)
        raise UsageError(
            f"a guest of {human_size(order.memory_bytes)} can use {most} itself at most, not "
            f"{human_size(order.used_bytes)}"
        )
