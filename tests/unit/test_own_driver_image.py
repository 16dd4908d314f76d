"""The image that is delivered to openrbu's own driver: in the memory of the process."""

from __future__ import annotations

import ctypes
import errno
import random
from pathlib import Path

import pytest

from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.firmware_image import MAX_IMAGE_BYTES
from openrbu.drivers.sysfs import SysfsTree
from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.own_driver.process_image import ProcessImage
from openrbu.units import KIB, MIB, PAGE_SIZE

RNG = random.Random(15)


def test_an_image_is_the_bytes_that_were_written() -> None:
    image, meant = ProcessImage(), bytearray()
    for _ in range(60):
        offset, data = RNG.randrange(5 * MIB), RNG.randbytes(RNG.randrange(1, 300 * KIB))
        image.write(offset, data)
        meant.extend(bytes(max(0, offset + len(data) - len(meant))))
        meant[offset : offset + len(data)] = data
        start, size = RNG.randrange(len(meant)), RNG.randrange(3 * MIB)
        assert image.read(start, size) == meant[start : start + size]
    assert (image.size_bytes, image.read()) == (len(meant), bytes(meant))
    image.release()
    assert (image.size_bytes, image.read()) == (0, b"")


def test_no_page_of_the_image_is_a_page_of_the_process() -> None:
    image = ProcessImage()
    image.write(0, bytes(3 * MIB))
    for page in range(0, 3 * MIB, PAGE_SIZE):
        view = next(image.views(page))
        place = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert place % PAGE_SIZE != 0


def test_an_image_that_is_too_large_is_refused_and_nothing_is_changed() -> None:
    image = ProcessImage()
    image.write(0, b"whole")
    with pytest.raises(KernelError) as refused:
        image.write(MAX_IMAGE_BYTES - 1, b"ab")
    assert refused.value.errno == errno.EFBIG
    assert image.read() == b"whole"


def test_a_delivery_takes_no_page_of_the_drivers_memory(tmp_path: Path) -> None:
    """The kernel's takes as many as the image has, and leaves a copy in them."""
    ram = RamFile.create(tmp_path / "ram", pc_regions(32 * MIB))
    pages, tree = BuddyAllocator(ram), SysfsTree()
    firmware = FirmwareClass(tree, pages, new_image=ProcessImage)
    driver = DellRbu(tree, firmware, pages, profile=profile("documented"))
    driver.load()
    before, data = pages.free_bytes, RNG.randbytes(300 * KIB)
    entry = "/class/firmware/dell_rbu"
    tree.write(f"{entry}/loading", b"1")
    for offset in range(0, len(data), 64 * KIB):
        tree.write(f"{entry}/data", data[offset : offset + 64 * KIB], offset)
    assert pages.free_bytes == before
    assert tree.read(f"{entry}/data", 0, MIB) == data
    tree.write(f"{entry}/loading", b"0")
    (block,) = driver.staged_blocks
    assert ram.read(block.address, len(data)) == data
    assert before - pages.free_bytes == block.capacity_bytes
