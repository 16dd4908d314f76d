"""The driver's memory of a prepared boot: what is taken, and what is left alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.memory.physical import Region
from openrbu.own_driver.backends import AnyBackend, lost_by, obstacles_to
from openrbu.own_driver.crash_region import CrashRegionBackend, usable_region
from openrbu.own_driver.driver import LOADING, look_at_own_driver, open_own_driver
from openrbu.own_driver.own_memory import CrashRegionRecord, HugePagesRecord, PmemRecord
from openrbu.own_driver.pmem_region import PmemBackend
from openrbu.typed_json import read, to_document
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.prepared import (
    GIB_OF_RAM,
    PMEM_BYTES,
    PMEM_START,
    make_crash_region,
    make_pmem,
    write,
)

IMAGE = make_image(
    random.Random(40).randbytes(MIB), version=BiosVersion.parse("A06"), systems=[SystemId(0x1DE)]
)
PACKETS = bytes(split(IMAGE, packet_size_bytes=64 * KIB, set_id=0x4711))
DRIVER, DATA = "/devices/platform/dell_rbu", "/class/firmware/dell_rbu/data"


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_is_staged_is_on_the_device_until_the_driver_is_stopped(
    tmp_path: Path, mode: str
) -> None:
    make_pmem(tmp_path)
    stream = IMAGE if mode == "mono" else PACKETS
    backend = AnyBackend("pmem", tmp_path)
    with open_own_driver(backend, root=tmp_path) as driver:
        driver.load()
        driver.tree.write(f"{DRIVER}/image_type", mode.encode())
        if mode == "packet":
            driver.tree.write(f"{DRIVER}/packet_size", b"65536")
        driver.tree.write(LOADING, b"1")
        driver.tree.write(DATA, stream)
        driver.tree.write(LOADING, b"0")
        assert not driver.is_flushed  # nobody can say that
    seen = look_at_own_driver(AnyBackend(root=tmp_path), root=tmp_path)  # of whatever kind it is
    assert seen is not None
    assert seen.memory is not None
    assert (seen.memory.kind, seen.moved()) == ("pmem", ())
    on_device = (tmp_path / "dev/pmem0").read_bytes()
    found = b"".join(
        on_device[part.start - PMEM_START : part.end - PMEM_START] for part in seen.staged_regions
    )
    assert stream in found
    with open_own_driver(backend, root=tmp_path) as driver:
        driver.stop()
    assert not any((tmp_path / "dev/pmem0").read_bytes())


@pytest.mark.parametrize(
    ("path", "text", "whose"),
    [
        ("proc/cmdline", "quiet", "the command line does not name it"),
        ("proc/cmdline", "memmap=8M!200M", "the command line does not name it"),
        ("proc/cmdline", "memmap=8M$192M", "the command line does not name it"),
        ("sys/block/pmem0/size", "17", "only a part of it is a device"),
        ("sys/block/pmem0/device/holder", "pfn0.0", "a namespace is on it"),
        ("sys/block/pmem0/pmem0p1/size", "17", "it has partitions"),
        ("sys/block/pmem0/holders/dm-0/dev", "253:0", "another device is on it"),
    ],
)
def test_a_device_that_somebody_uses_is_left_alone(
    tmp_path: Path, path: str, text: str, whose: str
) -> None:
    make_pmem(tmp_path)
    write(tmp_path, path, text)
    with pytest.raises(ObstacleError, match=f"/dev/pmem0 is not to be used: {whose}"):
        PmemBackend(tmp_path).new(lambda record: None)
    assert [each.name for each in obstacles_to("pmem", tmp_path)] == ["pmem_in_use"]
    assert set((tmp_path / "dev/pmem0").read_bytes()) == {0xA5}


@pytest.mark.parametrize(
    ("offset", "mark", "whose"),
    [
        (510, b"\x55\xaa", "a partition table is on it"),
        (1080, b"\x53\xef", "an ext file system is on it"),
        (0, b"LUKS\xba\xbe", "encrypted data is on it"),
        (4086, b"SWAPSPACE2", "swap space is on it"),
        (0x10040, b"_BHRfS_M", "Btrfs is on it"),
    ],
)
def test_a_device_with_somebodys_data_is_left_alone(
    tmp_path: Path, offset: int, mark: bytes, whose: str
) -> None:
    make_pmem(tmp_path)
    with (tmp_path / "dev/pmem0").open("r+b") as file:
        file.seek(offset)
        file.write(mark)
    with pytest.raises(ObstacleError, match=whose):
        PmemBackend(tmp_path).new(lambda record: None)


@pytest.mark.parametrize("value", ["8M!192M", "8192K!0xc000000", "1M$5M,0x800000!192M"])
def test_the_command_line_names_memory_in_several_ways(tmp_path: Path, value: str) -> None:
    make_pmem(tmp_path)
    make_pmem(tmp_path, "pmem1", start=PMEM_START + PMEM_BYTES)
    write(tmp_path, "proc/cmdline", f"quiet memmap={value}")
    memory = PmemBackend(tmp_path).new(lambda record: None)
    end = PMEM_START + PMEM_BYTES
    assert memory.record() == PmemRecord("pmem", "pmem0", PMEM_START, end, False, ())


def test_a_device_that_was_given_to_others_meanwhile_has_moved(tmp_path: Path) -> None:
    make_pmem(tmp_path)
    memory = PmemBackend(tmp_path).new(lambda record: None)
    write(tmp_path, "sys/block/pmem0/holders/dm-0/dev", "253:0")
    assert memory.moved() == memory.memory.regions


def test_memory_that_no_bios_searches_is_not_taken(tmp_path: Path) -> None:
    make_pmem(tmp_path, start=6 * GIB)
    write(tmp_path, "proc/cmdline", "memmap=8M!6G")
    (found,) = obstacles_to("pmem", tmp_path)
    assert "it is at 0x180000000, and no BIOS searches above 4 GiB" in found.text
    high = "100000000-13fffffff : System RAM\n  120000000-12fffffff : Crash kernel\n"
    make_crash_region(tmp_path, f"{GIB_OF_RAM}{high}")
    (found,) = obstacles_to("crash_region", tmp_path)
    assert found.name == "no_crash_region"
    assert "without ,high" in found.remedy


def test_without_a_device_a_boot_is_to_be_prepared(tmp_path: Path) -> None:
    (found,) = obstacles_to("pmem", tmp_path)
    assert found.name == "no_pmem"
    assert "memmap=32M!192M" in found.remedy


def test_the_crash_kernels_memory_begins_behind_what_the_kernel_needs_of_it(tmp_path: Path) -> None:
    make_crash_region(tmp_path)
    assert obstacles_to("crash_region", tmp_path) == ()
    memory = CrashRegionBackend(tmp_path).new(lambda record: None)
    assert memory.memory.regions == (Region(PhysAddr(0x1B300000), PhysAddr(0x1F000000)),)
    assert memory.moved() == ()


def test_of_two_ranges_the_higher_one_is_used_and_the_gib_of_ram_count(tmp_path: Path) -> None:
    iomem = (
        f"{GIB_OF_RAM}100000000-13fffffffff : System RAM\n  200000000-20fffffff : Crash kernel\n"
    )
    make_crash_region(tmp_path, iomem)
    found = usable_region(tmp_path)
    assert found == Region(PhysAddr(0x200000000 + 7 * MIB), PhysAddr(0x210000000))


@pytest.mark.parametrize(
    ("iomem", "name"),
    [
        (GIB_OF_RAM.replace("Crash kernel", "reserved"), "no_crash_region"),
        (GIB_OF_RAM.replace("1effffff", "1b1fffff"), "no_crash_region"),  # 2 MiB are too small
        ("00000000-00000000 : System RAM\n  00000000-00000000 : Crash kernel\n", "no_crash_region"),
    ],
)
def test_without_memory_for_a_crash_kernel_a_boot_is_to_be_prepared(
    tmp_path: Path, iomem: str, name: str
) -> None:
    make_crash_region(tmp_path, iomem)
    (found,) = obstacles_to("crash_region", tmp_path)
    assert found.name == name
    assert "crashkernel=64M" in found.remedy
    with pytest.raises(ObstacleError, match="crashkernel=64M"):
        CrashRegionBackend(tmp_path).new(lambda record: None)


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        ("proc/sys/kernel/kexec_load_disabled", "1", "no_kexec"),
        ("sys/kernel/kexec_crash_loaded", None, "no_kexec"),
        ("proc/kcore", None, "memory_unreadable"),
    ],
)
def test_a_kernel_that_does_not_take_it_is_told(
    tmp_path: Path, path: str, text: str | None, name: str
) -> None:
    make_crash_region(tmp_path)
    (tmp_path / path).unlink()
    if text is not None:
        write(tmp_path, path, text)
    assert [each.name for each in obstacles_to("crash_region", tmp_path)] == [name]


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("usr/sbin/kdump-config", "kdump-config load"),
        ("usr/bin/kdumpctl", "kdumpctl restart"),
        ("usr/bin/true", "systemctl restart kdump"),
    ],
)
def test_a_crash_kernel_that_is_lost_is_told_with_what_brings_it_back(
    tmp_path: Path, program: str, command: str
) -> None:
    make_crash_region(tmp_path)
    write(tmp_path, program, "")
    backend = AnyBackend("crash_region", tmp_path)
    assert lost_by(backend.new(lambda record: None).record(), tmp_path) == ""
    write(tmp_path, "sys/kernel/kexec_crash_loaded", "1")
    memory = backend.new(lambda record: None)
    assert command in lost_by(memory.record(), tmp_path)
    memory.give_back()  # never used: kdump's kernel is not touched


def test_a_crash_kernel_that_is_loaded_again_has_overwritten_what_is_there(tmp_path: Path) -> None:
    make_crash_region(tmp_path)
    memory = CrashRegionBackend(tmp_path).new(lambda record: None)
    write(tmp_path, "sys/kernel/kexec_crash_loaded", "1")
    assert memory.moved() == memory.memory.regions


def test_records_are_told_apart_by_their_kind(tmp_path: Path) -> None:
    rows = ((4, 0x1B300, 2, 16),)
    crash = CrashRegionRecord("crash_region", 0x1B300000, 0x1F000000, True, True, rows)
    pmem = PmemRecord("pmem", "pmem0", 0x1B300000, 0x1F000000, True, rows)
    backend = AnyBackend(root=tmp_path)
    for record in (crash, pmem):
        assert read(type(record), to_document(record)) == record
        again = backend.open(record, lambda record: None)
        assert again.record() == record
        outside = ((0, PMEM_START // PAGE_SIZE, 1, 0),)
        with pytest.raises(DamagedInputError, match="not in the memory"):
            backend.open(replace(record, allocated=outside), print)
    with pytest.raises(DamagedInputError, match="not the record of"):
        PmemBackend(tmp_path).open(crash, print)
    with pytest.raises(DamagedInputError, match="not the record of"):
        CrashRegionBackend(tmp_path).open(
            HugePagesRecord("huge_pages", "", False, (), (), ()), print
        )
