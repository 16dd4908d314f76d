"""A Xen host that is kept in a directory. Any number of processes may have it open: they make,
destroy and attach its guests."""

from __future__ import annotations

import contextlib
import errno
import os
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
from openrbu.machine.guest_spec import GuestSpec, read_guest_spec, write_guest_spec
from openrbu.machine.state import StateFile, StateRefusedError
from openrbu.machine.state_formats import MachineState
from openrbu.machine.xen_guests import AttachedGuest, GuestInUseError, lock_guest
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.system.kept_files import OddFileError, is_odd, remove_whatever
from openrbu.system.lockfile import LockFile, acquire_within, owner_of
from openrbu.system.signals import signals_deferred
from openrbu.units import MAX_ORDER, PAGE_SIZE, exact_size, human_sizes, pages_for
from openrbu.xen.arrays import LOCK_WITHIN_S
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import DOM0, DomainInfo, Hypervisor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class XenHost:
    """A host that is on. It takes no lock, so any number of processes may have it open.

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
        """Close the host's files."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_power(self) -> None:
        """Check that the host that was opened here is still on.

        :raise MachineError: when it is off, lost its power, or was restarted.
        """
        _check_power(self.directory)
        if self.hypervisor.has_ended:
            raise MachineError(f"host {self.name!r} was restarted: all its guests are gone")

    def guest_names(self) -> list[str]:
        """The names of all guests but dom0, sorted."""
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
        """The name of the balloon profile of a guest; empty while the guest is being made.

        :raise MachineError: when the guest's file can't be read.
        """
        if name == DOM0:
            return self._xen.profile
        spec = read_guest_spec(self._guests / name)
        return "" if spec is None else spec.profile

    def owner_of(self, name: str) -> str | None:
        """The number of the process that has a guest, where it is known."""
        return owner_of(self._guests / name / "lock")

    def create(self, name: str, spec: GuestSpec) -> None:
        """Make a guest, or change nothing. Signals are deferred meanwhile.

        :raise UsageError: when there can't be a guest of this name, or after this spec.
        :raise MachineError: when there is a guest of that name already, or the disk refuses.
        :raise ObstacleError: when the host has too little memory for it.
        """
        spec.check()
        if name == DOM0 or not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} can't be a guest's name: letters, digits, '.', '_' and '-', at most 63, "
                "and not dom0"
            )
        if spec.max_bytes > self.hypervisor.total_pages * PAGE_SIZE:
            raise self.excess_error(spec.max_bytes)
        directory = self._guests / name
        with signals_deferred(), store.disk_errors(self.directory), contextlib.ExitStack() as stack:
            self._check_new(name)
            self._guests.mkdir(0o700, exist_ok=True)
            with self._creation_lock():
                directory.mkdir(0o700, exist_ok=True)
                lock_guest(stack, directory, self.name)
            self._check_new(name)
            undo = stack.enter_context(contextlib.ExitStack())
            undo.callback(self._remove_leftover, directory)
            state = StateFile.of_guest(directory, self.name)
            state.mark_in_use()
            self._create_domain(name, spec)
            undo.callback(self.hypervisor.destroy, name)
            boot_id = str(uuid.uuid4())
            kernel = self.make_kernel(name, spec, boot_id)
            _allocate_used(kernel.allocator, spec)
            write_guest_spec(directory, spec)
            state.save(MachineState(boot_id, kernel.snapshot()))
            undo.pop_all()

    @contextlib.contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Lock the directories of the guests against other processes. One that was just made and is
        not locked yet, or is half removed, would look like the rest of a guest that was never
        finished.

        :raise MachineError: when another process keeps the lock.
        :raise FileNotFoundError: when the host has no directory for guests.
        """
        with LockFile(self._guests / ".making", create=True) as lock:
            if not acquire_within(lock.acquire, LOCK_WITHIN_S):
                raise MachineError(
                    f"another process makes or removes a guest of {self.name!r}, and does not end: "
                    "let it go on (fg), or end it"
                )
            yield

    def _remove_leftover(self, directory: Path) -> None:
        """Remove the directory of a guest that could not be made."""
        with self._creation_lock():
            shutil.rmtree(directory)

    def _check_new(self, name: str) -> None:
        if self._has(name):
            raise MachineError(f"host {self.name!r} has a guest {name!r} already")

    def _create_domain(self, name: str, spec: GuestSpec) -> None:
        try:
            self.hypervisor.create_domain(
                name,
                pages=spec.memory_bytes // PAGE_SIZE,
                max_pages=spec.max_bytes // PAGE_SIZE,
                claim_pages=spec.claim_bytes // PAGE_SIZE,
            )
        except KernelError as error:
            if error.errno != errno.ENOMEM:
                raise
            wanted = spec.memory_bytes + spec.claim_bytes
            free = (self.hypervisor.free_pages - self.hypervisor.claimed_pages) * PAGE_SIZE
            takes, is_free = human_sizes(wanted, max(free, 0))
            why = (
                f"{is_free} is free and not promised to others; have another "
                f"guest give some back: rbu balloon target {self.name} GUEST SIZE"
            )
            if free >= wanted:
                why = f"the memory below it is used up: {(self.directory / 'ram').resolve().parent}"
            raise ObstacleError(
                f"no memory on {self.name!r} for guest {name!r}: it takes {takes}, and {why}"
            ) from None

    def excess_error(self, wanted_bytes: int) -> ObstacleError:
        """The error for a guest that shall have more memory than the host has for guests."""
        total = exact_size(self.hypervisor.total_pages * PAGE_SIZE)
        wanted = exact_size(wanted_bytes)
        return ObstacleError(
            f"host {self.name!r} has {total} for all its guests: none can have {wanted}"
        )

    def remove(self, name: str) -> None:
        """Destroy a guest and remove its directory.

        :raise GuestInUseError: when another process has it.
        :raise MachineError: when there is none of that name.
        """
        directory = self._existing(name)
        with signals_deferred(), store.disk_errors(self.directory), contextlib.ExitStack() as stack:
            stack.enter_context(self._creation_lock())
            if is_odd(directory / "lock"):  # then no process has it
                remove_whatever(directory / "lock")
            lock_guest(stack, directory, self.name)
            self._destroy(directory)

    def destroy_orphans(self) -> list[str]:
        """Destroy the guests whose process died, so that they lost their power. Returns their
        names."""
        if not self.guest_names():
            return []
        with signals_deferred(), store.disk_errors(self.directory), self._creation_lock():
            return [
                name for name in self.guest_names() if self._destroy_if_orphan(self._guests / name)
            ]

    def _destroy_if_orphan(self, directory: Path) -> bool:
        """Destroy a guest if it lost its power. Returns whether it had."""
        with contextlib.ExitStack() as stack:
            try:
                lock_guest(stack, directory, self.name)
            except (GuestInUseError, FileNotFoundError, OddFileError):
                # alive; removed just now; or what is in place of its lock says nothing
                return False
            # checked first: it raises when the directory has a guest of a newer host by now
            has_state = not StateFile.of_guest(directory, self.name).is_lost
            if self._has(directory.name) and has_state:
                return False
            self._destroy(directory)
            return True

    def _destroy(self, directory: Path) -> None:
        """Destroy a guest that the caller has locked."""
        with contextlib.suppress(MachineError):  # the hypervisor may not know it any more
            self.hypervisor.destroy(directory.name)
        shutil.rmtree(directory)

    def attach(self, name: str) -> AttachedGuest:
        """A guest, which this process has until it is closed.

        :raise GuestInUseError: when another process has it.
        :raise MachineError: when there is none of that name, it lost its power, or its files don't
            allow it.
        """
        return AttachedGuest(self, self._existing(name))

    @contextlib.contextmanager
    def attached(
        self, *, refused: dict[str, MachineError] | None = None
    ) -> Iterator[list[AttachedGuest]]:
        """All guests that no other process has, until the end of the block. Those that can't be
        attached, such as one whose state is refused, are put into `refused`, with the error.

        :raise StateRefusedError: when there is a guest whose state is refused, without `refused`.
        """
        with contextlib.ExitStack() as stack:
            guests: list[AttachedGuest] = []
            for name in self.guest_names():
                try:
                    guests.append(stack.enter_context(self.attach(name)))
                except GuestInUseError:
                    continue
                except MachineError as error:
                    if refused is None and isinstance(error, StateRefusedError):
                        raise
                    if refused is not None and self._has(name):  # it may be gone
                        refused[name] = error
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
        self, name: str, spec: GuestSpec, boot_id: str, saved: KernelState | None = None
    ) -> Kernel:
        """The kernel of a guest with this spec, as it is when it starts, or as it was saved."""
        domain = self.hypervisor.domain(name)
        return Kernel(
            GuestMemory(domain, self.ram),
            profile=profile(self.config.profile),
            boot_id=boot_id,
            xen=XenGuest(domain, balloon_profile(spec.profile)),
            dmi=None,
            saved=saved,
            now=self.now,
        )


def xen_config(directory: Path, config: MachineConfig | None = None) -> XenConfig:
    """The Xen part of the configuration of the machine in a directory. `config` is the whole one,
    where the caller has read it already.

    :raise MachineError: when the machine there runs no Xen, or its file can't be read.
    """
    xen = (config or load_config(directory)).xen
    if xen is None:
        raise MachineError(
            f"machine {directory.name!r} runs no Xen; make one that does: rbu balloon host NAME"
        )
    return xen


def guest_names(directory: Path) -> list[str]:
    """The names of all guests of the host in a directory but dom0, sorted; none where there is no
    host."""
    guests = directory / XEN / "guests"
    if not guests.is_dir():
        return []
    return sorted(each.name for each in guests.iterdir() if _NAME.fullmatch(each.name))


def _check_power(directory: Path) -> None:
    """Check that the host in a directory is on.

    :raise MachineError: when it is off.
    """
    if not (_has_power(directory) and (directory / XEN).is_dir()):
        name = directory.name
        raise MachineError(f"host {name!r} is off; start it: rbu machine reboot {name}")


def _has_power(directory: Path) -> bool:
    """Whether the machine in a directory may be on: its kernel was saved, or runs in a process."""
    if os.path.lexists(directory / "state.json"):
        return True
    with contextlib.suppress(FileNotFoundError), LockFile(directory / "lock", create=False) as lock:
        if lock.is_locked():
            return True
    return os.path.lexists(directory / "state.json")  # it may have been saved just now


def _allocate_used(allocator: BuddyAllocator, spec: GuestSpec) -> None:
    """Allocate the memory that the guest's programs use, in the largest blocks possible.

    :raise UsageError: when the guest does not have so much.
    """
    left = pages_for(spec.used_bytes)
    for block in range(MAX_ORDER, -1, -1):
        with contextlib.suppress(KernelError):  # there is no such block any more
            while left >= 1 << block:
                allocator.allocate(block)
                left -= 1 << block
    if left:
        most = exact_size(spec.used_bytes - left * PAGE_SIZE)
        raise UsageError(
            f"a guest of {exact_size(spec.memory_bytes)} can use {most} itself at most, not "
            f"{exact_size(spec.used_bytes)}"
        )
