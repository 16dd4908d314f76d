"""Runs in a lab's guest: stages image after image with openrbu's own driver, and waits after each.

    python own_driver.py GO MODE:SIZE_KIB:PACKET_BYTES …

It opens the driver in a new process for each image, as commands do, and writes a line of JSON: the
addresses that the driver says, and what it took. The next image is staged when the file GO has the
line's number: until then all stands still, and memory can be looked at from outside. At the end
the driver is stopped.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.own_driver.backends import default_backend
from openrbu.own_driver.driver import OwnDriver, open_own_driver
from openrbu.system.waiting import Deadline
from openrbu.units import KIB

BACKEND = default_backend()

ENTRY, DRIVER = "class/firmware/dell_rbu", "devices/platform/dell_rbu"

PRECISION_390, POWEREDGE_2950 = 0x01DE, 0x01B2

_PIECE_BYTES = 128 * KIB

_LIMIT_S = 240.0
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """An image, and how it is staged. `packet_bytes` is 0 in one piece."""

    mode: str
    size_kib: int
    packet_bytes: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        mode, size, packet = text.split(":")
        return cls(mode, int(size), int(packet))

    def __str__(self) -> str:
        return f"{self.mode}:{self.size_kib}:{self.packet_bytes}"

    @property
    def image(self) -> bytes:
        """The image: the same each time, for the machine of the lab and for a PowerEdge 2950."""
        data = random.Random(str(self)).randbytes(self.size_kib * KIB)
        systems = [SystemId(PRECISION_390), SystemId(POWEREDGE_2950)]
        return make_image(data, version=BiosVersion.parse("2.9.9"), systems=systems)

    @property
    def set_id(self) -> int:
        return 0x4F000000 + self.size_kib + self.packet_bytes

    @property
    def stream(self) -> bytes:
        """What the driver is given."""
        if self.mode == "mono":
            return self.image
        packets = split(self.image, packet_size_bytes=self.packet_bytes, set_id=self.set_id)
        return bytes(packets)


def stage(driver: OwnDriver, case: Case) -> None:
    """Stage it through the driver's files."""
    stream = case.stream
    write = driver.tree.write
    write(f"{DRIVER}/image_type", case.mode.encode())
    if case.packet_bytes:
        write(f"{DRIVER}/packet_size", b"%d" % case.packet_bytes)
    write(f"{ENTRY}/loading", b"1")
    for at in range(0, len(stream), _PIECE_BYTES):
        write(f"{ENTRY}/data", stream[at : at + _PIECE_BYTES], at)
    write(f"{ENTRY}/loading", b"0")


def told(driver: OwnDriver) -> dict[str, Any]:
    """What the driver says of itself."""
    return {
        "staged": [[each.start, each.end] for each in driver.staged_regions],
        "staged_size_bytes": driver.staged_size_bytes,
        "moved": [[each.start, each.end] for each in driver.moved()],
        "is_flushed": driver.is_flushed,
    }


def wait_for_go(go: Path, line: int) -> None:
    """Wait until whoever looks from outside has seen that line: a file in `go` says so."""
    for _ in Deadline(f"{go} for line {line}", _LIMIT_S).checks(_PAUSE_S):
        if (go / str(line)).exists():
            break


def main(go: Path, cases: Sequence[Case]) -> None:
    with open_own_driver(BACKEND) as driver:
        driver.load(is_kept=True)
    for number, case in enumerate(cases):
        start = time.monotonic()
        with open_own_driver(BACKEND) as driver:
            opened = time.monotonic()
            stage(driver, case)
            took = {"open_s": opened - start, "stage_s": time.monotonic() - opened}
        with open_own_driver(BACKEND) as driver:  # as another process finds it
            print(json.dumps({"line": number, **told(driver), **took}), flush=True)
        wait_for_go(go, number)
    with open_own_driver(BACKEND) as driver:
        driver.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Case.parse(each) for each in sys.argv[2:]])
