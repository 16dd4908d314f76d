"""Stage: put the image into memory through the driver, and take it out again.

`DriverState` is how the driver was before; a failure or a cancel puts the driver back into it.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from functools import partial

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, ObstacleError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host
from openrbu.memory.physical import ReadableMemory
from openrbu.units import PAGE_SIZE, human_size
from openrbu.update.driver import Mode, Progress, RbuDriver, ReadBack
from openrbu.update.judges import Judges
from openrbu.update.target import is_on_xen
from openrbu.update.verify import (
    Finding,
    StrangerError,
    Verified,
    compare,
    find_staged,
    read_free_pages,
)

DROP_CACHES = "/proc/sys/vm/drop_caches"

_MAY_CRASH = (
    "this kernel may crash when its driver drops the staged packets (a bug of 5.7, fixed in 6.16)"
)

_LOOKS = 3
"""How often physical memory is searched before a refusal counts. (Measured on Debian's 6.1.192: the
first look is spoiled in 9 of 10 packet updates, the second was in none.)"""

_OVERWRITE_FACTOR = 4
"""How many times the delivered size is overwritten: a kernel does not hand out the pages first that
were freed last. (Measured on the same kernel: of 260 packets that were dropped, 224 were still in
free memory after as many zeros, none after four times as many.)"""


_ON_XEN = (
    f"on Xen use --mode packet --packet-size {PAGE_SIZE}; or restart, and update before dom0's "
    "memory is ballooned"
)


class OutOfMemoryError(UpdateFailedError):
    """There is no memory of the shape that the image takes."""

    kind = "out_of_memory"


@dataclass(frozen=True, slots=True)
class DriverState:
    """The state of the driver before staging. The other fields say what a driver shows when it has
    just been loaded, where `was_loaded` is False.

    `had_entry`: the firmware entry was there, or the kernel was making it.
    """

    was_loaded: bool
    image_type: str = "mono"
    packet_size_bytes: int = 0
    had_entry: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """What the driver is given: the image as it is, or cut into packets."""

    mode: Mode
    image: Buffer
    staged: Buffer
    packet_size_bytes: int | None

    @property
    def shape(self) -> str:
        """What memory it takes, for people."""
        if self.packet_size_bytes is None:
            return f"one block of {human_size(len(self.image))}"
        count = len(self.staged) // self.packet_size_bytes
        return f"{count} blocks of {human_size(self.packet_size_bytes)}"


def make_payload(
    image: Buffer, *, mode: Mode, packet_size_bytes: int, password: str | None
) -> Payload:
    """Make what the driver gets. A packet set has its own ID: stale packets of another one in
    memory are not taken for its.

    :raise UsageError: when the packet size does not do.
    """
    if mode == "mono":
        return Payload(mode, image, image, None)
    crc = packet.password_crc(password) if password is not None else None
    set_id = packet.own_set_id(image, packet_size_bytes, crc)
    packets = packet.split(
        image, packet_size_bytes=packet_size_bytes, set_id=set_id, password_crc=crc
    )
    return Payload(mode, image, packets, packet_size_bytes)


def read_driver_state(host: Host) -> DriverState:
    """Read the driver's state, for `restore`.

    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if not driver.is_loaded:
        return DriverState(host.module_is_loaded("dell_rbu"))
    return DriverState(True, driver.image_type, driver.packet_size_bytes, driver.is_in_use)


def load_driver(host: Host, mode: Mode) -> None:
    """Load the driver where it is not loaded.

    :raise ObstacleError: when it can't be loaded, or when what it has staged already can't be
        dropped safely (see `RbuDriver.may_crash_on_clear`).
    """
    driver = RbuDriver(host)
    driver.load(mode)
    if driver.may_crash_on_clear:
        raise ObstacleError(f"{_MAY_CRASH}: restart the machine first")


def stage(host: Host, payload: Payload, progress: Progress) -> None:
    """Hand the payload to the driver. Whether it could keep it, `verify` says.

    :raise OutOfMemoryError: when the kernel has no memory to take it in.
    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    driver.set_type(payload.mode)
    if payload.packet_size_bytes is not None:
        driver.set_packet_size(payload.packet_size_bytes)
    try:
        driver.deliver(payload.staged, progress)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        size = human_size(len(payload.staged))
        raise OutOfMemoryError(f"no memory for the kernel to take {size} in") from None


def read_back(host: Host, payload: Payload) -> ReadBack:
    """Compare what the driver holds with what it was given.

    :raise OutOfMemoryError: when it holds nothing.
    """
    seen = compare(
        RbuDriver(host).staged(), payload.staged, packet_size_bytes=payload.packet_size_bytes
    )
    if seen is ReadBack.NOTHING:
        raise OutOfMemoryError(f"no free memory for {payload.shape}")
    return seen


def verify(host: Host, payload: Payload, seen: ReadBack, judges: Judges) -> Verified:
    """Judge what was read back, and find it in physical memory where that can be seen.

    :raise UpdateFailedError: when the driver holds something else, or one of the judges would not
        take it from where it lies.
    """
    if seen is ReadBack.DIFFERENT:
        raise UpdateFailedError("the driver gives back something else than it was given")
    memory = host.physical_memory
    if memory is not None:
        return Verified(seen, _find(host, memory, payload, judges))
    if seen is ReadBack.SKIPS_A_PACKET:
        raise UpdateFailedError(
            "this kernel's driver reads packets back wrongly (a bug of 5.7, mended in 6.16), so "
            "they can't be checked: restart, then use --mode mono or another kernel"
        )
    return Verified(seen, None)


def _find(
    host: Host, memory: ReadableMemory, payload: Payload, judges: Judges
) -> tuple[Finding, ...]:
    """What each judge takes out of memory.

    The memory of a running machine changes while it is searched: a free page that holds a packet
    is another program's, often this one's, by the time that it is compared. So what is refused, or
    can't be read, is looked at again.

    :raise UpdateFailedError: when every look ends in a refusal.
    :raise OSError: when the last look could not be finished, as the kernel answers.
    """
    image = Image.parse(payload.image)
    look = partial(
        find_staged,
        memory,
        image,
        judges,
        packets=None if payload.mode == "mono" else payload.staged,
        free_pages=partial(read_free_pages, host),
    )
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(UpdateFailedError, DamagedInputError, OSError):
            return look()
    try:
        return look()
    except StrangerError:
        raise
    except UpdateFailedError as refused:
        piece = payload.packet_size_bytes or len(payload.image)
        if piece > PAGE_SIZE and is_on_xen(host):
            raise UpdateFailedError(f"{refused} ({_ON_XEN})") from None
        raise


def clear(host: Host) -> bool:
    """Free what is staged, where that does not kill the kernel; True when it was done.

    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    if driver.may_crash_on_clear:
        return False
    had_entry = driver.is_in_use
    _free(driver, driver.staged_size_bytes)
    if had_entry:
        driver.request_entry()
    return True


def clear_memory(host: Host, delivered_bytes: int) -> None:
    """Free what is staged, and clear memory that nobody holds, as far as one can choose: the page
    cache is dropped, and zeros are put where the kernel takes memory from next. Not for a driver
    that may die of clearing.

    :raise OSError: as the kernel answers.
    """
    with contextlib.suppress(OSError):
        if host.exists(DROP_CACHES):
            host.write(DROP_CACHES, b"1")
    _free(RbuDriver(host), delivered_bytes)


def restore(host: Host, before: DriverState, *, delivered_bytes: int) -> None:
    """Free what is staged and leave the driver as it was. `delivered_bytes`: the most that it was
    given at a time; 0 when it was only loaded, and nothing was changed in it.

    :raise ObstacleError: when that would kill the kernel.
    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    if delivered_bytes and driver.is_loaded:
        if driver.may_crash_on_clear:
            raise ObstacleError(f"{_MAY_CRASH}: restart the machine")
        _free(driver, delivered_bytes)
    if not before.was_loaded:
        if host.module_is_loaded("dell_rbu"):
            driver.unload()
    elif delivered_bytes:
        if driver.image_type != before.image_type:
            driver.set_type(before.image_type)
        if driver.packet_size_bytes != before.packet_size_bytes:
            driver.set_packet_size(before.packet_size_bytes)
        if before.had_entry:
            driver.request_entry()
        else:
            driver.abort_entry()


def _free(driver: RbuDriver, delivered_bytes: int) -> None:
    """Free what is staged, and clear what its delivery left behind.

    :raise OSError: as the kernel answers to the first; the second is done as well as it goes.
    """
    kind = driver.image_type
    driver.set_type(kind if kind in ("mono", "packet") else "init")
    with contextlib.suppress(OSError, ObstacleError):
        driver.overwrite_freed(_OVERWRITE_FACTOR * delivered_bytes)
