"""openrbu's own driver on real huge pages: an image staged, read back, and searched as by a BIOS.

Run as a program it prints the shortest time of several, in seconds. The pages are there already,
which is what the wish is about; what it takes to get them depends on the computer's memory.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from openrbu.drivers.dell_rbu import DEVICE_PATH
from openrbu.drivers.firmware_class import CLASS_PATH
from openrbu.formats.packet import split
from openrbu.memory.scan import search
from openrbu.own_driver.driver import OwnDriver, open_own_driver
from openrbu.units import MIB, PAGE_SIZE, PhysAddr
from rigs.own_computer import own_computer
from rigs.own_rbu import FewPages

IMAGE_BYTES = 16 * MIB
ROUNDS = 8

_ENTRY = f"{CLASS_PATH}/dell_rbu"


def seconds() -> float:
    """How long it takes, with pages of this computer. Needs root."""
    with own_computer() as here:
        return float(here.do(sys.executable, __file__))


def _stage(driver: OwnDriver, packets: memoryview) -> None:
    """By the files, as a tool does it, in writes of 1 MiB."""
    driver.tree.write(f"{_ENTRY}/loading", b"1")
    data = driver.tree.open(f"{_ENTRY}/data", writing=True)
    for start in range(0, len(packets), MIB):
        assert data.write(start, packets[start : start + MIB]) == len(packets[start : start + MIB])
    driver.tree.write(f"{_ENTRY}/loading", b"0")


def _verify(driver: OwnDriver, digest: bytes) -> None:
    """Read back, and found whole in the pages at their physical addresses, which are read again."""
    found = hashlib.sha256()
    data = driver.tree.open(f"{DEVICE_PATH}/data", reading=True)
    offset = 0
    while part := data.read(offset, MIB):
        found.update(part)
        offset += len(part)
    assert found.digest() == digest
    assert driver.memory is not None
    memory = driver.memory.memory
    (whole,) = search(memory, PhysAddr(0), memory.regions[-1].end).packet_sets
    assert whole.is_complete
    assert not driver.moved()


def main() -> None:
    packets = split(os.urandom(IMAGE_BYTES), packet_size_bytes=PAGE_SIZE, set_id=b"_A06")
    digest = hashlib.sha256(packets).digest()
    best = float("inf")
    with open_own_driver(FewPages()) as driver:
        driver.load({"image_type": "packet"})
        try:
            driver.tree.write(f"{DEVICE_PATH}/packet_size", b"4096")
            for _ in range(ROUNDS):
                start = time.perf_counter()
                _stage(driver, packets)
                _verify(driver, digest)
                best = min(best, time.perf_counter() - start)
        finally:
            driver.stop()
    print(best)


if __name__ == "__main__":
    main()
