"""Stage: put the image into memory through the driver, and take it out again.

What staging changes on the machine is remembered in a `Ground`, so that a failure or a cancel can
leave it as it was.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats import packet
from openrbu.hosts.base import Host
from openrbu.units import human_size
from openrbu.update.driver import Mode, Progress, RbuDriver
from openrbu.update.verify import ReadBack, Verified, compare, find_staged


class OutOfMemoryError(UpdateFailedError):
    """The driver had no memory of the shape that the image takes."""


@dataclass(frozen=True, slots=True)
class Ground:
    """How the driver was before: `was_loaded` False means that it was loaded for this update."""

    was_loaded: bool
    image_type: str
    packet_size_bytes: int


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
    """Make what the driver gets. A packet set's ID is the CRC-32 of the image: sets of one image
    are alike, sets of two are not.

    :raise UsageError: when the packet size does not do.
    """
    if mode == "mono":
        return Payload(mode, image, image, None)
    crc = packet.password_crc(password) if password is not None else None
    packets = packet.split(
        image, packet_size_bytes=packet_size_bytes, set_id=zlib.crc32(image), password_crc=crc
    )
    return Payload(mode, image, packets, packet_size_bytes)


def prepare(host: Host, mode: Mode) -> Ground:
    """Have the driver there, and remember how it was.

    :raise ObstacleError: when there is no driver to be had, or it must not be touched.
    """
    driver = RbuDriver(host)
    loaded_now = driver.load(mode)
    if driver.dies_of_clearing:
        raise ObstacleError(
            "this kernel would die of dropping the packets that its driver holds (a bug of 5.7, "
            "mended in 6.16): restart the machine first"
        )
    return Ground(not loaded_now, driver.image_type, driver.packet_size_bytes)


def stage(host: Host, payload: Payload, progress: Progress) -> None:
    """Hand the payload to the driver. Whether it could keep it, `verify` says.

    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    driver.set_type(payload.mode)
    if payload.packet_size_bytes is not None:
        driver.set_packet_size(payload.packet_size_bytes)
    driver.deliver(payload.staged, progress)


def read_back(host: Host, payload: Payload) -> ReadBack:
    """Compare what the driver holds with what it was given.

    :raise OutOfMemoryError: when it holds nothing.
    """
    seen = compare(
        RbuDriver(host).staged(), payload.staged, packet_size_bytes=payload.packet_size_bytes
    )
    if seen is ReadBack.NOTHING:
        raise OutOfMemoryError(f"the driver found no {payload.shape} in free memory")
    return seen


def verify(host: Host, payload: Payload, seen: ReadBack) -> Verified:
    """Judge what was read back, and find it in physical memory where that can be seen.

    :raise UpdateFailedError: when the driver holds something else, or where no BIOS finds it.
    """
    if seen is ReadBack.DIFFERENT:
        raise UpdateFailedError("the driver gives back something else than it was given")
    memory = host.physical_memory
    if memory is not None:
        return Verified(seen, find_staged(memory, payload.image, mode=payload.mode))
    if seen is ReadBack.SKIPS_A_PACKET:
        raise UpdateFailedError(
            "this kernel's driver reads packets back wrongly (a bug of 5.7, mended in 6.16), so "
            "they can't be checked: restart, then use --mode mono or another kernel"
        )
    return Verified(seen, None)


def clear(host: Host) -> bool:
    """Free what is staged, where that does not kill the kernel; True when it was done.

    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    if driver.dies_of_clearing:
        return False
    driver.set_type(driver.image_type)
    return True


def restore(host: Host, ground: Ground) -> None:
    """Free what is staged and leave the driver as it was.

    :raise OSError: as the kernel answers.
    """
    driver = RbuDriver(host)
    if not ground.was_loaded:
        driver.unload()
        return
    driver.set_type(ground.image_type)
    if driver.packet_size_bytes != ground.packet_size_bytes:
        driver.set_packet_size(ground.packet_size_bytes)
