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
from openrbu.formats.buddyinfo import free_bytes
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host
from openrbu.linux.memory import read_available_bytes, read_zones
from openrbu.memory.physical import ReadableMemory
from openrbu.units import GIB, PAGE_SIZE, human_size, order_for
from openrbu.update import own_memory
from openrbu.update.clearing import HAS_THE_BUG, Clearing
from openrbu.update.driver import Mode, Progress, RbuDriver, ReadBack
from openrbu.update.possible_bioses import PossibleBioses
from openrbu.update.target import is_on_xen
from openrbu.update.verify import (
    Finding,
    NotTakenError,
    OtherDataError,
    ReadBackError,
    Verified,
    compare,
    find_staged,
    read_free_pages,
)

DROP_CACHES = "/proc/sys/vm/drop_caches"

_MAX_SEARCHES = 3
"""How many searches of physical memory have to fail before it is an error."""

OVERWRITE_FACTOR = 4
"""How many times the delivered size is overwritten: a kernel does not hand out the pages first that
were freed last. (Measured on the same kernel: of 260 packets that were dropped, 224 were still in
free memory after as many zeros, none after four times as many.)"""


_MOST_OVERWRITTEN_BYTES = 1 * GIB
"""The largest image that a kernel loads without harm is below 2 GiB."""

_ON_XEN = (
    f"on Xen use --mode packet --packet-size {PAGE_SIZE}; or restart, and update before dom0's "
    "memory is ballooned"
)


class OutOfMemoryError(UpdateFailedError):
    """The kernel has no free memory in blocks as large as the image or the packets need."""

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
    """What is delivered to the driver: `staged` is the image as it is, or cut into packets of
    `packet_size_bytes` (None: not packets).

    `mode` is what the BIOS finds. `in_one_block`: the driver gets the packets as if they were a
    monolithic image, and so puts them into one block below 4 GiB, each at the start of a page.
    """

    mode: Mode
    image: Buffer
    staged: Buffer
    packet_size_bytes: int | None
    in_one_block: bool = False

    @property
    def image_type(self) -> Mode:
        """The type of image that the driver is told."""
        return "mono" if self.in_one_block else self.mode

    @property
    def piece_bytes(self) -> int:
        """The size of what has to be contiguous."""
        if self.packet_size_bytes is None or self.in_one_block:
            return len(self.staged)
        return self.packet_size_bytes

    @property
    def shape(self) -> str:
        """The pieces that it has, as text."""
        if self.packet_size_bytes is None:
            return f"one block of {human_size(len(self.image))}"
        count = len(self.staged) // self.packet_size_bytes
        size = human_size(self.packet_size_bytes)
        if self.in_one_block:
            return f"{count} packets of {size} in one block of {human_size(len(self.staged))}"
        return f"{count} blocks of {size}"

    @property
    def lack(self) -> str:
        """What is missing where there is no memory for it, with the blocks that the kernel has to
        find: they are powers of two."""
        block = human_size(PAGE_SIZE << order_for(self.piece_bytes))
        if self.packet_size_bytes is None:
            return f"no free block of {block} for an image of {human_size(len(self.image))}"
        count = len(self.staged) // self.packet_size_bytes
        if self.in_one_block:
            size = human_size(self.packet_size_bytes)
            return f"no free block of {block} for {count} packets of {size}"
        return f"no free memory for {count} blocks of {block}"


def make_payload(
    image: Buffer,
    *,
    mode: Mode,
    packet_size_bytes: int,
    password: str | None,
    in_one_block: bool = False,
) -> Payload:
    """Make what is delivered to the driver. A packet set has its own ID, so that packets of another
    set that are still in memory are not mixed in.

    :raise UsageError: when the packet size is not valid, or the image needs too many packets.
    """
    if mode == "mono":
        return Payload(mode, image, image, None)
    crc = packet.password_crc(password) if password is not None else None
    set_id = packet.own_set_id(image, packet_size_bytes, crc)
    packets = packet.split(
        image, packet_size_bytes=packet_size_bytes, set_id=set_id, password_crc=crc
    )
    return Payload(mode, image, packets, packet_size_bytes, in_one_block)


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

    :raise MayCrashError: when what it has staged already can't be dropped safely.
    :raise ObstacleError: when it can't be loaded.
    """
    driver = RbuDriver(host)
    driver.load(mode)
    driver.check_clearing()


def stage(host: Host, payload: Payload, progress: Progress) -> None:
    """Deliver the payload to the driver. `read_back` says whether the driver had memory for it.

    :raise OutOfMemoryError: when the kernel has no memory for the delivery.
    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    driver.set_type(payload.image_type)
    try:
        own_memory.reserve(host, len(payload.staged), payload.piece_bytes)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise OutOfMemoryError(f"{payload.lack} ({error.strerror})") from None
    if payload.packet_size_bytes is not None and not payload.in_one_block:
        driver.set_packet_size(payload.packet_size_bytes)
    try:
        driver.deliver(payload.staged, progress)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        size = human_size(len(payload.staged))
        raise OutOfMemoryError(f"the kernel has no memory to receive {size}") from None


def read_back(host: Host, payload: Payload) -> ReadBack:
    """Compare what the driver gives back with what was delivered. What is not right is looked at
    once more, after a moment: the kernel passes on what was delivered in the background.

    :raise OutOfMemoryError: when it gives nothing back.
    """
    driver = RbuDriver(host)
    size_bytes = None if payload.in_one_block else payload.packet_size_bytes
    seen = compare(driver.staged(), payload.staged, packet_size_bytes=size_bytes)
    if seen in (ReadBack.NOTHING, ReadBack.DIFFERENT):
        driver.let_entry_go()
        seen = compare(driver.staged(), payload.staged, packet_size_bytes=size_bytes)
    if seen is ReadBack.NOTHING:
        raise OutOfMemoryError(payload.lack)
    return seen


def verify(host: Host, payload: Payload, seen: ReadBack, bioses: PossibleBioses) -> Verified:
    """Check what was read back, and find it in physical memory where that can be read.

    :raise ReadBackError: when the driver gives back something else.
    :raise NotTakenError: when one of the possible BIOSes would not take it from where it is.
    :raise MovedError: when pages of openrbu's own driver are not where they were.
    :raise UpdateFailedError: when it can't be checked, because the kernel skips a packet.
    """
    if seen is ReadBack.DIFFERENT:
        raise ReadBackError("the driver gives back something else than was delivered")
    memory = host.physical_memory
    if memory is not None:
        findings = _find(host, memory, payload, bioses)
        own_memory.check_in_place(host, [each for one in findings for each in one.extents])
        return Verified(seen, findings, own_memory.staged_in(host))
    own_memory.check_in_place(host)
    if seen is ReadBack.SKIPS_A_PACKET:
        raise UpdateFailedError(
            f"{HAS_THE_BUG}, so they can't be checked: restart, then use --mode mono or another "
            "kernel"
        )
    return Verified(seen, None, own_memory.staged_in(host))


def _find(
    host: Host, memory: ReadableMemory, payload: Payload, bioses: PossibleBioses
) -> tuple[Finding, ...]:
    """What each possible BIOS takes out of memory.

    The memory of a running machine changes while it is searched. So a search that fails is
    repeated.

    :raise NotTakenError: when every search fails.
    :raise OSError: what the kernel returns to the last search.
    """
    image = Image.parse(payload.image)
    search = partial(
        find_staged,
        memory,
        image,
        bioses,
        packets=None if payload.mode == "mono" else payload.staged,
        free_pages=partial(read_free_pages, host),
    )
    for _ in range(_MAX_SEARCHES - 1):
        with contextlib.suppress(UpdateFailedError, DamagedInputError, OSError):
            return search()
    try:
        return search()
    except NotTakenError as refused:
        is_other = isinstance(refused, OtherDataError)
        if payload.piece_bytes > PAGE_SIZE and is_on_xen(host) and not is_other:
            raise NotTakenError(f"{refused} ({_ON_XEN})") from None
        raise
    except DamagedInputError as damage:  # what was found is not what was copied a moment later
        raise NotTakenError(f"memory changes while it is searched: {damage}") from None


def clear(host: Host) -> bool:
    """Free what is staged, unless that may crash the kernel. True when it was freed. A load that
    was begun is ended, and what it has left in memory overwritten.

    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if driver.clearing is not Clearing.IS_SAFE:
        return False
    had_entry = driver.is_in_use and not driver.is_loading
    _free(host, max(driver.staged_size_bytes, driver.loading_size_bytes or 0))
    if had_entry:
        driver.request_entry()
    return True


def drop_caches(host: Host, which: bytes = b"3") -> None:
    """Have the kernel drop its caches of files, where it can. `which`: `1` is the page cache alone,
    `3` the others, too (drop_caches in the kernel's documentation of sysctl)."""
    with contextlib.suppress(OSError):
        if host.exists(DROP_CACHES):
            host.write(DROP_CACHES, which)


def drop(host: Host, delivered_bytes: int) -> None:
    """Free what is staged, and overwrite what its delivery left in memory.

    :raise MayCrashError: when that may crash the kernel.
    :raise OSError: what the kernel returns.
    """
    _free(host, delivered_bytes)


def clear_memory(
    host: Host, delivered_bytes: int, *, much: bool = False, caches: bool = False
) -> None:
    """Free what is staged, and clear free memory, as far as a program can: the memory that the
    kernel hands out next is overwritten with zeros. `much`: half of what there is, which takes
    longer. `caches`: the page cache is dropped before, which may have a copy, too.

    :raise MayCrashError: when that may crash the kernel.
    :raise OSError: what the kernel returns.
    """
    if caches:
        drop_caches(host, b"1")
    _free(host, delivered_bytes, much=much)


def restore(host: Host, before: DriverState, *, delivered_bytes: int) -> None:
    """Free what is staged and put the driver back into the state before. `delivered_bytes`: the
    size of the largest delivery; 0 when the driver was only loaded and not changed.

    :raise MayCrashError: when that may crash the kernel.
    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if delivered_bytes and driver.is_loaded:
        _free(host, delivered_bytes)
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


def _free(host: Host, delivered_bytes: int, *, much: bool = False) -> None:
    """Free what is staged, and overwrite what its delivery left in memory, as far as there is
    memory for that: a kernel without any ends programs, this one among them. `much`: overwrite as
    much as that allows.

    Linux has free pages for itself and others for programs: both are overwritten. (A delivery takes
    pages from among those for programs, too. Measured on 6.1.192: after packets were cancelled, one
    or two of them were there, and an update in one piece was refused because of them.)

    :raise OSError: what the kernel returns when it frees; a failure to overwrite is ignored.
    """
    driver = RbuDriver(host)
    kind = driver.image_type
    driver.set_type(kind if kind in ("mono", "packet") else "init")
    usual_bytes, most_bytes = OVERWRITE_FACTOR * delivered_bytes, _most_to_overwrite(host)
    if most_bytes is not None:
        usual_bytes = min(usual_bytes, most_bytes)
    size_bytes = most_bytes if much and most_bytes is not None else usual_bytes
    with contextlib.suppress(OSError, ObstacleError):
        if host.own_rbu is None:
            driver.overwrite_freed(size_bytes)
        else:
            driver.abort_entry()
    # Of the kernel's driver, a page or two: as much as may be would end programs in a small group.
    host.clear_free_memory(usual_bytes if host.own_rbu is None else size_bytes)


def _most_to_overwrite(host: Host) -> int | None:
    """How many bytes may be overwritten at a time: half of what is available; None where that is
    not known."""
    available = read_available_bytes(host)
    if available is None:
        available = free_bytes(read_zones(host)) or None
    return None if available is None else min(available // 2, _MOST_OVERWRITTEN_BYTES)
