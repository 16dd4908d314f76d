"""An update that is staged and waits to be armed: what it is, read back from where it is now.

The image's file may be gone by then. So the image comes out of the driver, and where the kernel's
driver can't give packets back (a bug of some kernels, `clearing.BUG`), out of physical memory. The
journal has the digest of what was staged; only what has that digest counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from openrbu.errors import DamagedInputError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import Image
from openrbu.formats.image_packets import join_image
from openrbu.hosts.base import Host
from openrbu.update import stage
from openrbu.update.checks.situation import Situation
from openrbu.update.driver import RbuDriver, ReadBack
from openrbu.update.journal import Attempt
from openrbu.update.options import Options
from openrbu.update.possible_bioses import PossibleBioses, possible_bioses
from openrbu.update.target import Target
from openrbu.update.verify import Verified
from openrbu.update.ways import Way


class NotStagedError(UpdateFailedError):
    """Nothing that openrbu has staged waits to be armed."""

    kind = "not_staged"


class StagedChangedError(UpdateFailedError):
    """What is staged is not what was staged and verified."""

    kind = "staged_changed"

    def __init__(self, why: str, first: str = "") -> None:
        """`first`: what is to be known, or done, before it is staged again."""
        super().__init__(f"{why}{first}; stage it again: rbu update")
        self.why = why


@dataclass(frozen=True, slots=True)
class StagedUpdate:
    """What is staged. `read_back`: how the driver gives it back. `password_crc`: the CRC-32 of the
    BIOS admin password in packet 0; None: there is none."""

    image: Image
    payload: stage.Payload
    read_back: ReadBack
    password_crc: int | None
    way: Way
    target: Target
    options: Options

    @property
    def bioses(self) -> PossibleBioses:
        """The BIOSes that could be the machine's; all have to take it."""
        crc = self.password_crc
        return possible_bioses(self.image, self.target, self.options, staged_crc=crc)

    def situation(self, host: Host) -> Situation:
        """The machine as it is now, with what is staged.

        :raise ObstacleError: as `Situation.of`.
        """
        return Situation.of(
            host,
            self.image,
            self.target,
            self.options,
            bioses=self.bioses,
            mode=self.payload.mode,
        )

    def verify(self, host: Host) -> Verified:
        """Find it in physical memory where that can be read, as before an update is armed.

        :raise UpdateFailedError: as `stage.verify`.
        """
        return stage.verify(host, self.payload, self.read_back, self.bioses)


def staged_update(host: Host, last: Attempt, target: Target, options: Options) -> StagedUpdate:
    """What the update `last` has staged, as it is now.

    :raise StagedChangedError: when it is not there any more.
    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if not driver.is_loaded:
        raise StagedChangedError("the dell_rbu driver was unloaded, and what was staged with it")
    wanted = last.fields.get("staged_sha256")
    data = b"".join(driver.staged())
    if not data:
        raise StagedChangedError("the driver has nothing staged any more")
    seen = ReadBack.RIGHT
    if _digest(data) != wanted:
        if last.fields.get("read_back") != ReadBack.SKIPS_A_PACKET.value:
            raise StagedChangedError("the driver has something else than what was staged")
        data, seen = _in_memory(host, wanted), ReadBack.SKIPS_A_PACKET
    return _parsed(data, seen, last, target, options, is_one_block=driver.image_type == "mono")


def _parsed(
    data: bytes,
    seen: ReadBack,
    last: Attempt,
    target: Target,
    options: Options,
    *,
    is_one_block: bool,
) -> StagedUpdate:
    """:raise StagedChangedError: when the data is no image; the digest says that it is one."""
    name = str(last.fields.get("way"))
    try:
        if last.fields.get("mode") != "packet":
            image = Image.parse(data)
            payload = stage.Payload("mono", data, data, None)
            way = Way(name, "mono", packet.DEFAULT_PACKET_BYTES)
            return StagedUpdate(image, payload, seen, None, way, target, options)
        joined = join_image(data)
    except DamagedInputError as damage:
        raise StagedChangedError(f"what is staged is no update: {damage}") from None
    size, password = joined.packets.packet_size_bytes, joined.packets.password
    whole = joined.image.build()
    payload = stage.Payload("packet", whole, data, size, in_one_block=is_one_block)
    way = Way(name, "packet", size, in_one_block=is_one_block)
    crc = password.crc if password.present else None
    return StagedUpdate(joined.image, payload, seen, crc, way, target, options)


def _in_memory(host: Host, wanted: object) -> bytes:
    """The packets with the digest `wanted`, back to back, out of physical memory.

    :raise StagedChangedError: when they are not there.
    """
    from openrbu.memory.joined_image import joined_image  # noqa: PLC0415  (start-up time)
    from openrbu.memory.scan import search  # noqa: PLC0415  (as above)

    memory = host.physical_memory
    if memory is None:
        raise StagedChangedError("this kernel skips a packet, and physical memory can't be read")
    for found in search(memory).packet_sets:
        try:
            image = joined_image(memory, found).build()
        except DamagedInputError:
            continue
        packets = packet.split(
            image,
            packet_size_bytes=found.packet_size_bytes,
            set_id=found.set_id,
            password_crc=found.password.crc if found.password.present else None,
        )
        if _digest(packets) == wanted:
            return bytes(packets)
    raise StagedChangedError("what was staged is not in physical memory any more")


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
