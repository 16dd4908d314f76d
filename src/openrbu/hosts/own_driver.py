"""A Linux machine whose `dell_rbu` may be openrbu's own: its files lie over the kernel's.

Which driver is used:

- `kernel`: the kernel's.
- `own`: openrbu's own, unless the kernel's is loaded.
- `auto`: that one of the two which is loaded; where none is, openrbu's own if the kernel has none
  to load.

Under `rbu run` without a machine the files below `/sys` are those of openrbu's own driver, which
the process that serves them has: they are used as a kernel's, and what they don't say is told by
the driver's record.

While this process only reads, the driver is looked at as another process may have it just now. The
first change takes it, until `close`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, OwnRbu
from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.whole_paths import whole_path
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import GIB, PAGE_SIZE, PhysAddr

if TYPE_CHECKING:
    from openrbu.own_driver.backends import MemoryKind
    from openrbu.own_driver.driver import OwnDriver
    from openrbu.own_driver.obstacles import Obstacle
    from openrbu.own_driver.own_memory import Backend
    from openrbu.own_driver.store import Store

DriverChoice = Literal["auto", "kernel", "own"]

REAL_SYS = "/sys/.real"
"""Where `rbu run` without a machine, and nobody else, binds the real `/sys`."""

KERNELS_IS_LOADED = (
    "the kernel's dell_rbu is loaded, and is used: rmmod dell_rbu unloads it, where it is a module"
)

_OWN_IS_SERVED = (
    "rbu run serves openrbu's own driver here, and not the kernel's: leave out --driver kernel"
)

_NAME = "dell_rbu"
_DEVICE = f"/sys/devices/platform/{_NAME}"
_CLASS = "/sys/class/firmware"
_OURS = (
    _DEVICE,
    f"/sys/module/{_NAME}",
    f"/sys/bus/platform/devices/{_NAME}",
    f"{_CLASS}/{_NAME}",
)

_BELOW = PhysAddr(4 * GIB)


class OwnDriverHost(LinuxHost):
    """The machine whose file systems are below `root`.

    `choice`: which driver it uses. `make_backend`: makes the memory of openrbu's own, of the kind
    `memory_from` where the driver has none yet.
    `kernel_has_none`: tells whether the kernel has no `dell_rbu` that it could load.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        choice: DriverChoice = "auto",
        make_backend: Callable[[], Backend],
        memory_from: MemoryKind = "huge_pages",
        kernel_has_none: Callable[[Host], bool],
    ) -> None:
        super().__init__(root)
        self.root, self._choice, self._make_backend = root, choice, make_backend
        self._kernel_has_none, self._memory_from = kernel_has_none, memory_from
        self._open = contextlib.ExitStack()
        self._driver: OwnDriver | None = None
        self._seen: OwnDriver | None = None
        self._seen_stamp: tuple[int, int] | None = None

    def close(self) -> None:
        """Let other processes change the driver."""
        self._driver = self._seen = self._seen_stamp = None
        self._open.close()

    # -- which driver ---------------------------------------------------------------------------

    @property
    def own_rbu(self) -> OwnRbu | None:
        return _Rbu(self) if self._uses_own() else None

    @property
    def offers_own_rbu(self) -> bool:
        return self._choice != "kernel"

    @cached_property
    def is_served(self) -> bool:
        """Whether `rbu run` serves openrbu's own driver to this process."""
        return super().exists(REAL_SYS)

    def check_choice(self) -> None:
        """:raise ObstacleError: when the driver that was chosen can't be used here."""
        if self._choice == "own" and self.own_rbu is None:
            raise ObstacleError(KERNELS_IS_LOADED)
        if self._choice == "kernel" and self.is_served:
            raise ObstacleError(_OWN_IS_SERVED)

    def _uses_own(self) -> bool:
        if self.is_served:
            return True
        if self._choice == "kernel" or super().exists(_DEVICE):
            return False
        return self._choice == "own" or self._is_started or self._would_be_own

    @cached_property
    def _would_be_own(self) -> bool:
        return self._kernel_has_none(LinuxHost(self.root))

    @cached_property
    def _backend(self) -> Backend:
        return self._make_backend()

    @property
    def _is_started(self) -> bool:
        if self._driver is not None or not super().exists("/run/openrbu/driver"):
            return self._driver is not None
        return self.store.has_record

    @cached_property
    def store(self) -> Store:
        """Where the driver keeps its state."""
        from openrbu.own_driver.store import Store  # noqa: PLC0415  (start-up time)

        return Store(self.root)

    @property
    def driver(self) -> OwnDriver | None:
        """openrbu's own driver as it is now, for reading; None where it is not loaded or not used.

        :raise ObstacleError | DamagedInputError: as `look_at_own_driver`.
        """
        if not self.is_served and (self._choice == "kernel" or super().exists(_DEVICE)):
            return None
        return self.started_driver

    @property
    def started_driver(self) -> OwnDriver | None:
        """openrbu's own driver as it is now, for reading, used or not; None: it is not loaded.

        :raise ObstacleError | DamagedInputError: as `look_at_own_driver`.
        """
        if not self._is_started:
            return None
        if self._driver is not None:
            return self._driver if self._driver.is_loaded else None
        from openrbu.own_driver.driver import look_at_own_driver  # noqa: PLC0415  (start-up time)

        stamp = self.store.stamp
        if stamp is None or stamp != self._seen_stamp:
            self._seen = look_at_own_driver(self._backend, root=self.root)
            self._seen_stamp = self.store.stamp
        return self._seen

    @property
    def driver_for_change(self) -> OwnDriver:
        """openrbu's own driver, loaded or not, which this process has from now on until `close`.

        :raise ObstacleError | DamagedInputError: as `open_own_driver`.
        """
        if self._driver is None:
            from openrbu.own_driver.driver import open_own_driver  # noqa: PLC0415  (start-up time)

            opened = open_own_driver(self._backend, root=self.root)
            self._driver = self._open.enter_context(opened)
        return self._driver

    def _of(self, path: str) -> OwnDriver | None:
        """The driver, where this path is one of its files', and none that is served."""
        is_its = not self.is_served and any(
            path == each or path.startswith(f"{each}/") for each in _OURS
        )
        return self.driver if is_its else None

    @property
    def physical_memory(self) -> ReadableMemory | None:
        """With the memory of openrbu's own driver, where the kernel does not count that as RAM."""
        memory, driver = super().physical_memory, self.driver
        if memory is None or driver is None or driver.memory is None:
            return memory
        own = driver.memory.memory
        is_apart = all(
            not each.clip(ram.start, ram.end) for each in own.regions for ram in memory.regions
        )
        if not own.regions or not is_apart:
            return memory
        from openrbu.memory.several import SeveralMemories  # noqa: PLC0415  (start-up time)

        return SeveralMemories([memory, own])

    # -- files ----------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        driver = self._of(path)
        if driver is not None:
            return driver.tree.exists(_inner(path))
        return super().exists(path)

    def names(self, path: str) -> list[str]:
        driver = self._of(path)
        if driver is None:
            return super().names(path)
        with whole_path(path):
            return driver.tree.list(_inner(path))

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        driver = self._of(path)
        if driver is None:
            yield from super().chunks(path, size_bytes, offset)
            return
        with whole_path(path):
            file = driver.tree.open(_inner(path), reading=True)
            while chunk := file.read(offset, size_bytes):
                yield chunk
                offset += len(chunk)

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if self._of(path) is None:
            super().write(path, data, offset)
            return
        with whole_path(path):
            file = self.driver_for_change.tree.open(_inner(path), writing=True)
            rest = memoryview(data)
            while rest:
                done = file.write(offset, rest)
                rest, offset = rest[done:], offset + done

    # -- modules --------------------------------------------------------------------------------

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        if name != _NAME or self.is_served or not self._uses_own():
            super().load_module(name, parameters)
            return
        self.refuse_obstacles()
        try:
            self.driver_for_change.load(parameters)
        except OSError as error:
            raise ObstacleError(
                f"openrbu's own driver can't be started: {error.strerror}"
            ) from None

    def refuse_obstacles(self) -> None:
        """:raise ObstacleError: for what keeps openrbu's own driver from having memory at all."""
        from openrbu.own_driver.backends import refuse_obstacles  # noqa: PLC0415  (start-up time)

        refuse_obstacles(self._memory_from, self.root)

    def unload_module(self, name: str) -> None:
        if name != _NAME or self.is_served or self.driver is None:
            super().unload_module(name)
            return
        try:
            self.driver_for_change.unload()
        except OSError as error:
            if error.errno == errno.EBUSY:  # its firmware entry is there, as with the kernel's
                raise
            raise ObstacleError(
                f"openrbu's own driver can't be stopped: {error.strerror}"
            ) from None


class _Rbu:
    """What `Host.own_rbu` tells."""

    def __init__(self, host: OwnDriverHost) -> None:
        self._host = host

    @property
    def largest_block_bytes(self) -> int:
        from openrbu.own_driver.own_memory import LARGEST_ORDER  # noqa: PLC0415  (start-up time)

        driver = self._host.driver
        memory = None if driver is None else driver.memory
        return PAGE_SIZE << (LARGEST_ORDER if memory is None else memory.largest_order)

    @property
    def is_kept(self) -> bool:
        if self._host.is_served:  # who serves it stops it
            return True
        driver = self._host.driver
        return driver is not None and driver.is_kept

    @property
    def staged_regions(self) -> tuple[Region, ...]:
        driver = self._host.driver
        return () if driver is None else driver.staged_regions

    def moved(self) -> tuple[Region, ...]:
        driver = self._host.driver
        return () if driver is None else driver.moved()

    @property
    def memory_bytes(self) -> int:
        driver = self._host.driver
        if driver is None:
            return 0
        return sum(each.size_bytes for each in driver.regions) - sum(
            each.size_bytes for each in driver.lost()
        )

    @property
    def _kind(self) -> MemoryKind:
        """The kind of its memory, or that which it would have."""
        driver = self._host.driver
        if driver is None or driver.memory is None:
            return "huge_pages"
        return cast("MemoryKind", driver.memory.kind)

    @property
    def cannot_flush(self) -> str:
        from openrbu.own_driver.cache import cannot_flush  # noqa: PLC0415  (start-up time)

        if self._kind != "huge_pages":
            return "no process has that memory mapped"
        return cannot_flush()

    def obstacles(self, needed_bytes: int) -> tuple[Obstacle, ...]:
        from openrbu.own_driver.backends import obstacles_to_more  # noqa: PLC0415  (start-up time)

        driver = self._host.driver
        memory = None if driver is None else driver.memory
        return obstacles_to_more(memory, self._host.root, needed_bytes=needed_bytes)

    def reserve(self, size_bytes: int, *, block_bytes: int) -> None:
        if self._host.is_served:  # who serves it takes memory as it is needed
            return
        self._host.driver_for_change.reserve(size_bytes, block_bytes=block_bytes, below=_BELOW)


def _inner(path: str) -> str:
    """A path in the tree."""
    return path.removeprefix("/sys")
