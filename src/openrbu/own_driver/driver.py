"""openrbu's own `dell_rbu`: the driver, as its document says it, on this computer's own memory.

Theory of operation. `DellRbu` and the firmware class are those of a virtual machine, with the
profile `documented`; their pages are an `OwnMemory`. `OwnDriver.tree` has the files that the
kernel's driver would have below `/sys`. The driver does not run all the time: a process opens it,
uses the files, and closes it. What it is in between is in the `Store`, and what is staged is in
memory that outlives the process.

One process at a time opens it for changes (`open_own_driver`). Others may look at it meanwhile
(`look_at_own_driver`).

Each change of what is staged goes like this, so that a process may be killed at any moment:

1. the record says `changing`;
2. memory is taken, filled or cleared, and its caches are written back;
3. the record says `ready`, with what is staged now.

A record that says `changing` and is not locked is that of a killed process: all of its memory is
cleared and given back, and nothing is staged. One that says `stopping` is removed besides. An image
that is being delivered is in the memory of the process, and is gone with it.

Decision: docs/decisions/0038-own-driver.md.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from openrbu.drivers.dell_rbu import DEFAULT_ALLOCATION_FLOOR, FLOOR_PATH, NAME, DellRbu
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.firmware_class import CLASS_PATH, FirmwareClass
from openrbu.drivers.numbers import unsigned_long
from openrbu.drivers.states import DellRbuState
from openrbu.drivers.sysfs import SysfsTree
from openrbu.errors import KernelError, ObstacleError
from openrbu.memory.physical import PhysicalMemory, Region, joined
from openrbu.own_driver.own_memory import Backend, OwnMemory, OwnMemoryRecord
from openrbu.own_driver.process_image import ProcessImage
from openrbu.own_driver.recording_tree import RecordingTree
from openrbu.own_driver.store import FORMAT, DriverRecord, Store
from openrbu.system.signals import signals_deferred
from openrbu.units import PhysAddr

PROFILE = "documented"

LOADING = f"{CLASS_PATH}/{NAME}/loading"

_Phase = Literal["ready", "changing", "stopping"]

_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})

_JUST_LOADED = DellRbuState(
    module="dell_rbu",
    image_type="mono",
    packet_size_bytes=0,
    allocation_floor=DEFAULT_ALLOCATION_FLOOR,
    staged=(),
    is_mono=False,
    cursor=0,
    has_entry=True,
)


class OwnDriver:
    """The driver, loaded or not. `open_own_driver` and `look_at_own_driver` make one.

    `tree` has its files, by their paths below `/sys`; while it is not loaded, only those of the
    firmware class. A write to one of them returns when the record is up to date. Any thread may use
    it that has locked `lock`. `backend`: the memory that it gets when it is loaded. `may_change`:
    this process has locked the `store`. `log` gets the lines that a kernel would log.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        *,
        may_change: bool,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._store, self._backend, self._log = store, backend, log
        self._may_change = may_change
        self._phase: _Phase = "ready"
        self._boot_id = store.boot_id
        self._state = _JUST_LOADED
        self.lock = threading.RLock()
        self.is_kept = False
        """Whether an operator started it, who will stop it; if not, an update did."""
        self.is_flushed = False
        """Whether what is staged was written from the processor's caches to RAM since."""
        self.memory: OwnMemory | None = None
        """Its memory; None while it is not loaded."""
        self._driver: DellRbu | None = None
        self.tree = RecordingTree(self._changing)
        self._firmware = FirmwareClass(
            self.tree, _PagesOf(self), new_image=ProcessImage, now=time.monotonic, log=log
        )
        self._firmware.install(SysfsTree())

    # -- what is there --------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        return self._driver is not None

    @property
    def image_type(self) -> str:
        """`mono` or `packet`; empty while it is not loaded."""
        return "" if self._driver is None else self._driver.image_type

    @property
    def packet_size_bytes(self) -> int:
        return 0 if self._driver is None else self._driver.packet_size_bytes

    @property
    def staged_size_bytes(self) -> int:
        return 0 if self._driver is None else self._driver.staged_size_bytes

    @property
    def staged_regions(self) -> tuple[Region, ...]:
        """Where in physical memory the staged bytes are, ascending."""
        blocks = () if self._driver is None else self._driver.staged_blocks
        return joined(sorted((block.address, block.address + block.size_bytes) for block in blocks))

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where in physical memory its pages are, used or not."""
        return () if self.memory is None else self.memory.memory.regions

    def moved(self) -> tuple[Region, ...]:
        """The parts of what is staged that are no longer where they were staged, by their old
        addresses: these are read again.

        :raise OSError: when the addresses can't be read.
        """
        staged = self.staged_regions
        if self.memory is None or not staged:
            return ()
        parts = (part.clip(each.start, each.end) for part in self.memory.moved() for each in staged)
        return tuple(part for part in parts if part is not None)

    def lost(self) -> tuple[Region, ...]:
        """Huge pages that are somewhere else by now; where nothing is staged, others are taken.

        :raise OSError: as `moved`.
        """
        memory = self.memory
        return () if memory is None or memory.kind != "huge_pages" else memory.moved()

    # -- loading and unloading ------------------------------------------------------------------

    def load(
        self, parameters: Mapping[str, str] = _NO_PARAMETERS, *, is_kept: bool = False
    ) -> None:
        """`modprobe`: start it, with the parameters of the kernel's module.

        :raise KernelError: EEXIST when it is loaded; EINVAL or ERANGE for a parameter; ENOSPC when
            `image_type` is too long; EBUSY when this process may not change it.
        :raise ObstacleError: when this computer has no memory for it.
        :raise OSError: when the record can't be written.
        """
        if self._driver is not None:
            raise KernelError(errno.EEXIST, detail=f"module {NAME} is loaded already")
        floor = parameters.get("allocation_floor", str(DEFAULT_ALLOCATION_FLOOR))
        self._state = replace(
            _JUST_LOADED,
            image_type=parameters.get("image_type", "mono"),
            allocation_floor=unsigned_long(floor.encode(errors="replace"), FLOOR_PATH),
        )
        self.is_kept = is_kept
        with self._changing("stopping"):  # who finds it half loaded is to remove it
            try:
                memory = self._backend.new(self._note)
                self._load_on(memory)
            except BaseException:
                self._store.remove()
                raise

    def _load_on(self, memory: OwnMemory) -> None:
        try:
            self._assemble(memory).load()
        except BaseException:
            self.memory = self._driver = None
            memory.give_back()
            raise

    def unload(self) -> None:
        """`rmmod`: clear what is staged, give all memory back, and remove the files.

        :raise KernelError: ENOENT when it is not loaded; EBUSY while its firmware entry exists, or
            when this process may not change it; nothing is changed then.
        :raise OSError: when memory can't be given back; the next process tries it again.
        """
        if self._driver is None or self.memory is None:
            raise KernelError(errno.ENOENT, detail=f"module {NAME} is not loaded")
        with self._changing("stopping"):
            self._driver.unload()
            memory, self.memory, self._driver = self.memory, None, None
            memory.give_back()
            self._store.remove()

    def stop(self) -> None:
        """End a load that was begun, and unload it.

        :raise KernelError: as `unload`.
        :raise OSError: as `unload`.
        """
        if self._firmware.is_requested(NAME):
            self.tree.write(LOADING, b"-1")
        self.unload()

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        """Have so much free memory now: see `OwnMemory.reserve`.

        :raise KernelError: ENOMEM when it is not to be had; ENOENT when the driver is not loaded.
        """
        if self.memory is None:
            raise KernelError(errno.ENOENT, detail=f"module {NAME} is not loaded")
        with self._changing():
            self.memory.reserve(size_bytes, block_bytes=block_bytes, below=below)

    def keep(self) -> None:
        """Have it stay until an operator stops it, although an update has started it.

        :raise KernelError: ENOENT when it is not loaded; EBUSY when this process may not change it.
        :raise OSError: when the record can't be written.
        """
        if self.memory is None:
            raise KernelError(errno.ENOENT, detail=f"module {NAME} is not loaded")
        with self.lock:
            self.is_kept = True
            self._note(self.memory.record())

    def _assemble(self, memory: OwnMemory) -> DellRbu:
        self.memory = memory
        self._driver = DellRbu(
            self.tree,
            self._firmware,
            memory,
            profile=profile(PROFILE),
            image_type=self._state.image_type,
            allocation_floor=self._state.allocation_floor,
            largest_order=memory.largest_order,
            log=self._log,
        )
        return self._driver

    # -- the record -----------------------------------------------------------------------------

    def restore(self, record: DriverRecord) -> None:
        """Continue with a record of this boot. After a change that was cut off nothing is staged;
        where this process may, it clears the memory, and the driver is as it was just loaded, or
        gone where it was to be stopped.

        :raise ObstacleError: when its memory can't be opened.
        :raise OSError: when it can't be given back.
        :raise DamagedInputError: when the record does not fit.
        """
        self._state, self._phase, self.is_kept = record.driver, record.phase, record.is_kept
        self.is_flushed = record.is_flushed
        memory = self._backend.open(record.memory, self._note)
        if record.phase == "ready":
            self._assemble(memory).restore(record.driver)
        elif self._may_change:
            memory.give_back()
            self._store.remove()
            self._phase = "ready"
            if record.phase == "changing":
                floor = str(record.driver.allocation_floor)
                parameters = {"image_type": record.driver.image_type, "allocation_floor": floor}
                self.load(parameters, is_kept=record.is_kept)
        else:
            nothing = replace(record.driver, staged=(), is_mono=False, cursor=0)
            self._assemble(memory).restore(nothing)

    @contextlib.contextmanager
    def _changing(self, phase: _Phase = "changing") -> Iterator[None]:
        """A block that changes the driver. The record says so before, and afterwards how the driver
        is; where it is not loaded then, there is no record. No signal interrupts it.

        :raise KernelError: EBUSY when this process may not change it.
        :raise OSError: when the record can't be written.
        """
        if not self._may_change:
            raise KernelError(errno.EBUSY, detail="another process has openrbu's own driver")
        with self.lock, signals_deferred():
            before, self._phase = self.staged_regions, phase
            if self.memory is not None:
                self._note(self.memory.record())
            try:
                yield
            finally:
                if self.memory is not None and self._driver is not None:
                    touched = dict.fromkeys((*before, *self.staged_regions))
                    if touched:  # what was cleared, too: or the BIOS finds it
                        self.is_flushed = self.memory.flush(touched)
                    self._state = self._driver.snapshot()
                    self._phase = "ready"
                    self._note(self.memory.record())
                self._phase = "ready"

    def _note(self, memory: OwnMemoryRecord) -> None:
        """Write the record, with the memory as it is or is going to be."""
        if not self._may_change:
            raise KernelError(errno.EBUSY, detail="another process has openrbu's own driver")
        record = DriverRecord(
            format=FORMAT.number,
            boot_id=self._boot_id,
            phase=self._phase,
            is_kept=self.is_kept,
            is_flushed=self.is_flushed,
            driver=self._state,
            memory=memory,
        )
        self._store.save(record)


class _PagesOf:
    """The pages of a driver's memory, which it has while it is loaded."""

    def __init__(self, driver: OwnDriver) -> None:
        self._driver = driver

    def _pages(self) -> OwnMemory:
        if self._driver.memory is None:
            raise KernelError(errno.ENOMEM)
        return self._driver.memory

    @property
    def memory(self) -> PhysicalMemory:
        return self._pages().memory

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        return self._pages().allocate(order, below=below)

    def free(self, address: PhysAddr, order: int) -> None:
        self._pages().free(address, order)


@contextlib.contextmanager
def open_own_driver(
    backend: Backend,
    *,
    root: Path = Path("/"),
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[OwnDriver]:
    """The driver of this computer, loaded or not, for this process alone in the block. What a
    process has left that was killed in a change is cleared and given back first.

    `root`: the directory of `/run` and `/proc`.

    :raise ObstacleError: when another process has it, this user may not use it, or its memory can't
        be opened.
    :raise DamagedInputError: when its record is damaged.
    """
    store = Store(root)
    with store.locked():
        driver = OwnDriver(store, backend, may_change=True, log=log)
        if (record := store.read()) is not None:
            _restore(driver, record)
        yield driver


def look_at_own_driver(backend: Backend, *, root: Path = Path("/")) -> OwnDriver | None:
    """The driver of this computer as it is now, for reading: the other process that may have it is
    not kept from its work. What a process has left that was killed in a change is cleared and given
    back. None: it is not loaded, or this user can't see it.

    :raise ObstacleError: when its memory can't be opened.
    :raise DamagedInputError: when its record is damaged.
    """
    store = Store(root)
    record = store.read()
    if record is not None and record.phase != "ready" and not store.is_locked:
        with contextlib.suppress(ObstacleError), open_own_driver(backend, root=root):
            pass
        record = store.read()
    if record is None or record.phase == "stopping":
        return None
    driver = OwnDriver(store, backend, may_change=False)
    _restore(driver, record)
    return driver


def _restore(driver: OwnDriver, record: DriverRecord) -> None:
    try:
        driver.restore(record)
    except OSError as error:
        raise ObstacleError(
            f"the memory of openrbu's own driver can't be used: {error.filename or ''} "
            f"{error.strerror}"
        ) from None
