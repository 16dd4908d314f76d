"""openrbu's own `dell_rbu` on this computer: start it, look at it, stop it.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openrbu import errors
from openrbu.api.machines import _this_computer
from openrbu.units import MIB, PAGE_SIZE

if TYPE_CHECKING:
    from openrbu.hosts.own_driver import OwnDriverHost
    from openrbu.own_driver.backends import MemoryKind
    from openrbu.own_driver.status import OwnDriverStatus


def start_driver(
    memory_bytes: int = 0,
    *,
    block_bytes: int = 2 * MIB,
    memory_from: MemoryKind = "huge_pages",
) -> OwnDriverStatus:
    """Start openrbu's own driver on this computer's memory, and keep it until `stop_driver` or the
    restart. `memory_bytes`: have so much below 4 GiB at once, in contiguous blocks of
    `block_bytes`, a power of two; more is taken when it is needed. `memory_from`: what its memory
    is; `crash_region` and `pmem` take a prepared boot (docs/real-machine.md). Where it is started
    already, that memory is taken, and it is kept from now on.

    :raise UsageError: when `block_bytes` is not a power of two, or less than a page.
    :raise ObstacleError: when the kernel's driver is loaded, another process updates this computer,
        this user may not, there is no such memory, or it is started with memory of another kind.
    :raise DamagedInputError: when the driver's record is damaged.
    """
    from openrbu.hosts.own_driver import KERNELS_IS_LOADED
    from openrbu.own_driver.status import status_of
    from openrbu.update.exclusion import alone_on

    if block_bytes < PAGE_SIZE or block_bytes & (block_bytes - 1):
        raise errors.UsageError(f"a block of {block_bytes} bytes: a power of two from 4 KiB on")
    with contextlib.closing(_this_computer("own", memory_from)) as host, alone_on(host):
        if host.own_rbu is None:
            raise errors.ObstacleError(KERNELS_IS_LOADED)
        with _told("openrbu's own driver can't be started"):
            driver = host.driver_for_change
            was_loaded = driver.is_loaded
            if not was_loaded:
                host.refuse_obstacles()
                driver.load(is_kept=True)
            elif driver.memory is not None and driver.memory.kind != memory_from:
                raise errors.ObstacleError(
                    "openrbu's own driver is started already, with other memory "
                    f"({driver.memory.kind}): rbu driver stop"
                )
            try:
                if memory_bytes:
                    host.own_rbu.reserve(memory_bytes, block_bytes=block_bytes)
            except OSError:
                if not was_loaded:
                    driver.stop()
                raise
            if not driver.is_kept:
                driver.keep()  # an update has started it
            status = status_of(driver, host.root)
            assert status is not None
            return status


def driver_status() -> OwnDriverStatus | None:
    """The status of openrbu's own driver; None: it is not started.

    :raise ObstacleError: when this user can't see whether it is, or its memory can't be looked at.
    :raise DamagedInputError: when the driver's record is damaged.
    """
    from openrbu.own_driver.status import status_of

    what = "openrbu's own driver can't be looked at"
    with contextlib.closing(_this_computer("own")) as host, _told(what):
        if host.store.is_closed:
            raise errors.ObstacleError(f"{what}: it takes root")
        driver = host.started_driver  # also under rbu run, where its files look like a kernel's
        return None if driver is None else status_of(driver, host.root)


def stop_driver() -> bool:
    """Stop openrbu's own driver: clear its memory, and give that back; also what is left of one
    whose record is lost. Returns whether there was any of this.

    :raise ObstacleError: when the BIOS is armed for what is staged, another process updates this
        computer, this user may not, or memory can't be given back.
    :raise DamagedInputError: when the driver's record is damaged.
    """
    from openrbu.own_driver.giving_back import give_back_forgotten
    from openrbu.update.exclusion import alone_on

    with contextlib.closing(_this_computer("own")) as host, alone_on(host):
        driver = host.driver_for_change
        if not driver.is_loaded:
            with _told("the memory of a driver whose record is lost can't be given back"):
                return give_back_forgotten(host.root)
        if driver.staged_size_bytes and _is_armed(host):
            raise errors.ObstacleError(
                "the BIOS is armed for what is staged: rbu cancel disarms it, and stops the driver"
            )
        with _told("openrbu's own driver can't be stopped"):
            driver.stop()
        return True


def _is_armed(host: OwnDriverHost) -> bool:
    """Whether the BIOS's token is set, as far as that can be read."""
    from openrbu.update.arm import read_armed
    from openrbu.update.target import read_target

    with contextlib.suppress(errors.OpenRbuError, OSError):
        return bool(read_armed(host, read_target(host)))
    return False


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """:raise ObstacleError: for an error of the kernel in the block."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise errors.ObstacleError(f"{what}: {error.strerror}{where}") from None
