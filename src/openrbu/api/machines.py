"""Machines: open one and update it; make, switch off and remove virtual ones.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu import errors

if TYPE_CHECKING:
    from openrbu.formats.hdr import Image
    from openrbu.formats.loading import LoadedImage
    from openrbu.hosts.base import Host
    from openrbu.hosts.own_driver import DriverChoice, OwnDriverHost
    from openrbu.machine.base import Machine as VirtualMachine
    from openrbu.machine.factory import MachineSpec
    from openrbu.memory.physical import ReadableMemory
    from openrbu.own_driver.backends import MemoryKind
    from openrbu.own_driver.own_memory import Backend
    from openrbu.policy.deciding import Decision, Step
    from openrbu.policy.model import Policy
    from openrbu.update.cancelling import Cancelled
    from openrbu.update.choosing import Choice, FoundImages
    from openrbu.update.journal import Attempt
    from openrbu.update.options import Options
    from openrbu.update.outcome import Outcome
    from openrbu.update.plan import Plan
    from openrbu.update.progress import ProgressReporter
    from openrbu.update.report import UpdateStatus
    from openrbu.update.restarted import Restarted


class Machine:
    """A machine that is open: a virtual one, or the computer that this process runs on.

    After the block of `open_machine` it is closed: everything raises a `UsageError` then.
    """

    def __init__(self, host: Host, virtual: VirtualMachine | None = None) -> None:
        self._host, self._virtual = host, virtual
        self._is_closed = False

    @property
    def host(self) -> Host:
        """Its files, modules and memory, as a program on it sees them.

        :raise UsageError: when it is closed.
        """
        self._check_open()
        return self._host

    @property
    def virtual(self) -> VirtualMachine | None:
        """The virtual machine behind `host`, with its power and its RAM; None: it is this computer.

        :raise UsageError: when it is closed.
        """
        self._check_open()
        return self._virtual

    def _check_open(self) -> None:
        if self._is_closed:
            raise errors.UsageError(
                f"{self._host.name} is closed: use it within the block that opened it"
            )

    @property
    def memory(self) -> ReadableMemory:
        """Its physical memory, for reading.

        :raise ObstacleError: when it can't be read from here.
        :raise MachineError: when the machine is off.
        """
        self.host.exists("/sys")  # raises when it is off
        memory = self.host.physical_memory
        if memory is None:
            raise errors.ObstacleError(f"the physical memory of {self.host.name} can't be read")
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

    def choose(self, found: FoundImages, step: Step | None = None) -> Choice:
        """Choose one of the images of `find_images`: the newest that fits this machine, or the one
        for a policy's `step` (`Decision.next_step`). A file's only image is taken whatever it is.

        :raise NotForThisMachineError: when none fits.
        :raise UsageError: when it is not known which is the newest.
        :raise ObstacleError: when the machine's SMBIOS tables can't be read.
        :raise DamagedInputError: when its SMBIOS tables are damaged, or a file has changed since.
        """
        from openrbu.update.choosing import choose
        from openrbu.update.target import read_target

        return choose(found, read_target(self.host), step)

    def decide(self, policy: Policy) -> Decision:
        """What a policy says of this machine now: its next step, or why there is none.

        :raise ObstacleError: when its SMBIOS tables can't be read.
        :raise DamagedInputError: when its SMBIOS tables are damaged.
        """
        from openrbu.policy.deciding import decide
        from openrbu.update.target import read_target

        target = read_target(self.host)
        return decide(
            policy,
            system_id=target.system_id,
            version=target.version,
            service_tag=target.system.service_tag,
            now=self.host.now(),
        )

    def plan(self, image: Image | LoadedImage, options: Options | None = None) -> Plan:
        """What an update to `image` would do here, and what prevents it. Changes nothing.

        :raise UsageError: when the packet size in `options` is not valid.
        :raise ObstacleError: when the machine's SMBIOS tables can't be read.
        :raise DamagedInputError: when its SMBIOS tables are damaged.
        """
        from openrbu.formats.loading import LoadedImage
        from openrbu.update.options import Options
        from openrbu.update.plan import make_plan

        asked = Options() if options is None else options
        if isinstance(image, LoadedImage):
            return make_plan(self.host, image.image, asked.for_image(image))
        return make_plan(self.host, image, asked)

    def update(
        self, plan: Plan, *, progress: ProgressReporter | None = None, arm: bool = True
    ) -> Outcome | None:
        """Do what was planned: stage and verify the image, and arm the BIOS. The next restart
        updates it. Without `arm` it is only staged and verified; the method `arm` does the rest.

        Returns None where the machine runs that version already; then nothing was changed. After an
        error the machine is as it was before, or the message says what could not be undone.

        Where the machine has changed since the plan was made, a new plan with the same options
        takes its place.

        :raise OpenRbuError: `plan.refusal`, where it is not None.
        :raise NotForThisMachineError: when the plan was made for another machine.
        :raise ObstacleError: when another process updates this machine.
        :raise UpdateFailedError: when it was tried and did not work.
        """
        from openrbu.update.flow import perform
        from openrbu.update.progress import SilentProgress

        reporter = SilentProgress() if progress is None else progress
        return perform(self.host, plan, reporter, arm=arm)

    def arm(
        self, options: Options | None = None, *, progress: ProgressReporter | None = None
    ) -> Outcome:
        """Arm the BIOS for the update that `update(plan, arm=False)` has left staged, after what is
        staged was verified again. The next restart updates it.

        Of `options` the password counts, `without_password`, `mend_cmos`, `allow_any_restart` and
        `policy`, which has to allow what is staged, now; what the update was given holds, too.
        A BIOS that is armed for it already is left so, and it is verified: `Outcome.changed`. After
        an error it is not armed, and what was staged is still staged.

        :raise UpdateFailedError: when nothing of openrbu's is staged (`kind` "not_staged"), it is
            not what was verified ("staged_changed"), or a BIOS would not take it.
        :raise ObstacleError: when something is in the way of arming, the policy does not allow it
            (also where it is armed already), or another process updates this machine.
        :raise DamagedInputError: when its SMBIOS tables, or its journal, are damaged.
        """
        from openrbu.update.arming import arm
        from openrbu.update.progress import SilentProgress

        return arm(self.host, options, SilentProgress() if progress is None else progress)

    def status(self) -> UpdateStatus:
        """The machine's status: its BIOS, what is staged and armed, how the last update ended.

        :raise ObstacleError: when it can't be read.
        :raise DamagedInputError: when its SMBIOS tables, or its journal, are damaged.
        """
        from openrbu.update.report import read_status

        return read_status(self.host)

    def history(self, *, last: int | None = None) -> tuple[Attempt, ...]:
        """The updates that were tried on the machine, oldest first; or the `last` of them, which
        costs the same however many there are.

        :raise UsageError: when `last` is less than 1.
        :raise ObstacleError | DamagedInputError: when its journal can't be read.
        """
        from openrbu.update.report import read_history

        if last is not None and last < 1:
            raise errors.UsageError(f"the last updates are 1 or more, not {last}")
        return read_history(self.host, last)

    def cancel(self, *, password: str | None = None) -> Cancelled:
        """Cancel an armed or staged update: clear the token first, then memory.

        `password` is the BIOS admin password: some BIOSes clear the token only with it.

        :raise ObstacleError: when the token can't be accessed, another process updates the
            machine, or the BIOS needs its password (`kind` "password_needed") or does not take the
            one given ("wrong_password"); then nothing was changed.
        :raise DamagedInputError: when its SMBIOS tables are damaged.
        :raise UpdateFailedError: when the token stays set, or the kernel returns an error.
        """
        from openrbu.update.cancelling import cancel

        return cancel(self.host, password)

    def restart(self, *, cold: bool = False) -> Restarted | None:
        """Restart, as the kernel's reboot mode says; `cold`: with a power cycle, which clears
        memory. A virtual machine that is off is switched on.

        Returns None for this computer, which shuts down soon; afterwards `status` says how the
        update ended.

        :raise ObstacleError: when that is not allowed.
        :raise UsageError: for a cold restart of this computer.
        """
        if self.virtual is None:
            if cold:
                raise errors.UsageError("only a virtual machine's power can be cut from here")
            self.host.restart()
            return None
        from openrbu.update.restarted import restart

        return restart(self.host, self.virtual, cold=cold)


@contextlib.contextmanager
def open_machine(
    name: str | None = None,
    *,
    serve: bool = False,
    driver: DriverChoice = "auto",
    reading: bool = False,
) -> Iterator[Machine]:
    """Open the virtual machine of that name for the block; without a name, the computer that this
    process runs on.

    `driver`: which `dell_rbu` this computer uses. `auto`: the one that is loaded; where none is,
    openrbu's own if the kernel has none to load. `kernel` and `own`: that one.

    `serve`: other programs, such as `rbu --machine NAME …`, can use the virtual machine at the same
    time. The end of the block waits until they are done.

    `reading`: the virtual machine is only looked at. This also works where its directory may be
    read and not written; what would be recorded, such as how its last update ended, is not then.

    :raise MachineError: when there is no such machine, when another process has it for more than a
        few seconds and does not serve it, or when its files can't be used.
    :raise ObstacleError: when openrbu's own driver is chosen, and the kernel's is loaded; or the
        kernel's, and `rbu run` serves openrbu's own to this process.
    :raise UsageError: when a driver is chosen for a virtual machine, which has its own kernel.
    """
    if name is None:
        with (
            contextlib.closing(_this_computer(driver)) as host,
            _until_closed(Machine(host)) as machine,
        ):
            host.check_choice()
            yield machine
        return
    if driver != "auto":
        raise errors.UsageError("a virtual machine has its own kernel, and that kernel's driver")
    from openrbu.hosts.virtual import VirtualHost
    from openrbu.sharing.access import open_machine as open_virtual

    with (
        open_virtual(name, serve=serve, reading=reading) as virtual,
        _until_closed(Machine(VirtualHost(virtual), virtual)) as machine,
    ):
        yield machine


def _this_computer(driver: DriverChoice, memory_from: MemoryKind = "huge_pages") -> OwnDriverHost:
    from openrbu.hosts.own_driver import OwnDriverHost
    from openrbu.linux.facts import kernel_has_none

    def make_backend() -> Backend:
        from openrbu.own_driver.backends import AnyBackend

        return AnyBackend(memory_from)

    return OwnDriverHost(
        choice=driver,
        make_backend=make_backend,
        memory_from=memory_from,
        kernel_has_none=kernel_has_none,
    )


@contextlib.contextmanager
def _until_closed(machine: Machine) -> Iterator[Machine]:
    try:
        yield machine
    finally:
        machine._is_closed = True


def make_machine(name: str, spec: MachineSpec | None = None) -> Path:
    """Make a virtual machine and switch it on. Returns its directory. One that can't be switched on
    is removed again.

    :raise UsageError: when the spec has a name, a version, a size or a profile that is not valid.
    :raise MachineError: when a machine of that name exists, or the files can't be written.
    :raise ObstacleError: when it can't be switched on, such as for lack of memory.
    :raise DamagedInputError: when the SMBIOS tables in the spec can't be used.
    """
    from openrbu.machine import factory, removal, store, turns
    from openrbu.sharing.access import open_or_connect

    directory = factory.make_machine(name, factory.MachineSpec() if spec is None else spec)
    try:
        with open_or_connect(directory) as machine:
            if not machine.is_on:  # another process may have found it meanwhile
                machine.power_on()
    except store.InUseError:  # another process has the new machine all the time
        raise
    except errors.MachineError as error:
        with turns.locked_in_turn(directory):
            removal.remove_machine(directory)
        raise errors.ObstacleError(f"machine {name!r} was not made: {error}") from None
    return directory


def machine_names() -> list[str]:
    """The names of the virtual machines, sorted.

    :raise MachineError: when they can't be listed.
    """
    from openrbu.machine import store

    return store.machine_names()


def switch_off(name: str) -> bool:
    """Switch a virtual machine off; its RAM is lost. Returns whether it was on. This also works for
    a machine whose state this openrbu refuses to read.

    :raise MachineError: as `open_machine`.
    """
    from openrbu.machine.ram import RamGoneError
    from openrbu.machine.removal import discard_state
    from openrbu.machine.state import StateRefusedError
    from openrbu.machine.store import existing_directory
    from openrbu.sharing.access import open_machine

    try:
        with open_machine(name) as machine:
            if not machine.is_on:
                return False
            machine.power_off()
    except (RamGoneError, StateRefusedError):
        discard_state(existing_directory(name))
    return True


def remove_machine(name: str) -> None:
    """Remove a virtual machine with all its files, its journal included.

    :raise MachineError: when there is no such machine, it is in use, or its files don't allow it.
    """
    from openrbu.machine import removal, store, turns
    from openrbu.sharing.access import remove_dead_mounts_of

    directory = store.existing_directory(name)
    removal.remove_odd_lock(directory)
    with turns.locked_in_turn(directory):
        remove_dead_mounts_of(directory)
        removal.remove_machine(directory)
