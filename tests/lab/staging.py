"""Stages an image that is made where this runs: run in a guest, it leaves no other copies there.

Its words: `mono` or `packet`, the image's BIOS version, and the size of packets in bytes.
"""

from __future__ import annotations

import random
import sys

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.lab.calls import Call, Read, WaitForDriver, Write, perform
from openrbu.units import KIB, PAGE_SIZE

DRIVER, FIRMWARE = "/sys/devices/platform/dell_rbu", "/sys/class/firmware/dell_rbu"

FLASH_BYTES = 250 * KIB


def image_of(version: str) -> bytes:
    """The image of that version, the same each time."""
    data = random.Random(version).randbytes(FLASH_BYTES)
    return make_image(data, version=BiosVersion.parse(version), systems=[SystemId(0x1DE)])


def stage(mode: str, version: str, packet_bytes: int) -> bool:
    """Stage an image, as packets under a set ID that is their size. Whether the driver gives it
    back right."""
    data = image_of(version)
    calls: list[Call] = [Write(f"{DRIVER}/image_type", b"init"), WaitForDriver()]
    calls.append(Write(f"{DRIVER}/image_type", mode.encode()))
    if mode == "packet":
        data = bytes(split(data, packet_size_bytes=packet_bytes, set_id=packet_bytes))
        calls.append(Write(f"{DRIVER}/packet_size", b"%d" % packet_bytes))
    calls += WaitForDriver(), Write(f"{FIRMWARE}/loading", b"1")
    places = range(0, len(data), PAGE_SIZE)
    calls += (Write(f"{FIRMWARE}/data", data[at : at + PAGE_SIZE], at) for at in places)
    calls += Write(f"{FIRMWARE}/loading", b"0"), WaitForDriver()
    for call in calls:
        result = perform(call)
        assert result.errno is None, (call, result)
    staged = [perform(Read(f"{DRIVER}/data", at)).value for at in places]
    return staged == [data[at : at + PAGE_SIZE] for at in places]


if __name__ == "__main__":
    print(stage(sys.argv[1], sys.argv[2], int(sys.argv[3])))
