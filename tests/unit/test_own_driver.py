"""openrbu's own driver, on a RAM file: what it stages, and what a killed process leaves."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.bios.rules import RULE_SETS
from openrbu.bios.rules.ruleset import FoundUpdate, Identity, RejectedError
from openrbu.drivers.dell_rbu import DEVICE_PATH
from openrbu.errors import DamagedInputError, KernelError, ObstacleError
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.packet import split
from openrbu.formats.version import BiosVersion
from openrbu.memory.physical import ReadableMemory
from openrbu.own_driver.driver import LOADING, OwnDriver, look_at_own_driver, open_own_driver
from openrbu.own_driver.store import Store
from openrbu.units import KIB, MIB
from rigs.machines import in_child, kill_self
from rigs.own_memory import HUGE, RamFileBackend, free_pages, make_computer, whole_ram

SYSTEM = 0x01DE
IMAGE = make_image(
    random.Random(38).randbytes(MIB),
    version=BiosVersion.parse("A06"),
    systems=[SystemId(SYSTEM)],
)
PACKETS = bytes(split(IMAGE, packet_size_bytes=64 * KIB, set_id=0x4711))
PAGES = [HUGE * number for number in (9, 8, 7, 10, 11, 12, 13, 14, 15, 16, 3)]
FEW_PAGES = [HUGE * number for number in (3, 2, 4)]
DATA = "/class/firmware/dell_rbu/data"


@pytest.fixture
def computer(tmp_path: Path) -> Path:
    make_computer(tmp_path, PAGES)
    return tmp_path


def stage(driver: OwnDriver, data: bytes = IMAGE, packet_size_bytes: int = 0) -> None:
    """What the kernel's document says."""
    kind = b"packet\n" if packet_size_bytes else b"mono\n"
    driver.tree.write(f"{DEVICE_PATH}/image_type", kind)
    if packet_size_bytes:
        driver.tree.write(f"{DEVICE_PATH}/packet_size", b"%d\n" % packet_size_bytes)
    if not driver.tree.exists(LOADING):
        driver.tree.write(f"{DEVICE_PATH}/image_type", b"init\n")
    driver.tree.write(LOADING, b"1\n")
    for offset in range(0, len(data), 128 * KIB):
        driver.tree.write(DATA, data[offset : offset + 128 * KIB], offset)
    driver.tree.write(LOADING, b"0\n")


def found_in(memory: ReadableMemory) -> FoundUpdate | None:
    """What a BIOS with the published rules takes out of RAM."""
    machine = Identity(SYSTEM, flash_size_bytes=MIB, revision=0, knows_packets=True)
    try:
        return RULE_SETS["published"].find_update(memory, machine)
    except RejectedError:
        return None


def staged_in(driver: OwnDriver) -> bytes:
    return driver.tree.read(f"{DEVICE_PATH}/data", 0, 64 * MIB)


@pytest.mark.parametrize(
    ("data", "packet_size_bytes"), [(IMAGE, 0), (PACKETS, 64 * KIB)], ids=["mono", "packets"]
)
def test_another_process_finds_what_was_staged_and_so_does_the_bios(
    computer: Path, data: bytes, packet_size_bytes: int
) -> None:
    backend = RamFileBackend(computer)

    def other_process() -> None:
        with open_own_driver(backend, root=computer) as driver:
            driver.load()
            stage(driver, data, packet_size_bytes)

    assert in_child(other_process) == 0
    seen = look_at_own_driver(backend, root=computer)
    assert seen is not None
    assert staged_in(seen) == data
    assert seen.image_type == ("packet" if packet_size_bytes else "mono")
    assert seen.tree.read(LOADING) == b"0\n"
    found = found_in(whole_ram(computer))
    assert found is not None
    assert found.image.build() == IMAGE
    assert all(
        any(part.clip(each.start, each.end) == part for each in seen.staged_regions)
        for part in found.extents
    )


def test_stopping_clears_all_and_gives_all_back(computer: Path) -> None:
    backend = RamFileBackend(computer)
    with open_own_driver(backend, root=computer) as driver:
        driver.load()
        stage(driver)
        with pytest.raises(KernelError) as busy:
            driver.unload()
        assert busy.value.errno == errno.EBUSY  # as the kernel's, while its entry is there
        assert staged_in(driver) == IMAGE
        driver.stop()
        assert not driver.is_loaded
        assert not driver.tree.exists(DEVICE_PATH)
        driver.load()  # and once more, in the same tree
        driver.stop()
    assert look_at_own_driver(backend, root=computer) is None
    assert sorted(free_pages(computer)) == sorted(PAGES)
    assert not (computer / "ram").read_bytes().strip(b"\0")


def test_a_record_of_another_boot_is_left_alone(computer: Path) -> None:
    """A program under `rbu run` sees another boot ID, and the same `/run`."""
    backend = RamFileBackend(computer)
    with open_own_driver(backend, root=computer) as driver:
        driver.load()
        stage(driver)
    boot_id = computer / "proc/sys/kernel/random/boot_id"
    boot_id.write_text("another\n")
    assert look_at_own_driver(backend, root=computer) is None
    with open_own_driver(backend, root=computer) as driver:
        assert not driver.is_loaded
    boot_id.write_text("1f0b3a5c\n")
    seen = look_at_own_driver(backend, root=computer)
    assert seen is not None
    assert staged_in(seen) == IMAGE


def test_one_process_has_it_and_others_may_look(computer: Path) -> None:
    backend = RamFileBackend(computer)
    with open_own_driver(backend, root=computer) as driver:
        driver.load()
        stage(driver)

        def other_process() -> None:
            with (
                pytest.raises(ObstacleError, match=r"in use: process [0-9]+ .*wait for it"),
                open_own_driver(backend, root=computer),
            ):
                pass
            seen = look_at_own_driver(backend, root=computer)
            assert seen is not None
            assert staged_in(seen) == IMAGE
            with pytest.raises(KernelError) as busy:
                seen.tree.write(f"{DEVICE_PATH}/image_type", b"packet")
            assert busy.value.errno == errno.EBUSY
            assert staged_in(seen) == IMAGE

        assert in_child(other_process) == 0


def test_pages_that_moved_are_told_where_something_is_staged(computer: Path) -> None:
    backend = RamFileBackend(computer)
    with open_own_driver(backend, root=computer) as driver:
        driver.load()
        stage(driver)
        assert driver.moved() == ()
        (region,) = driver.staged_regions
        (computer / "moved").write_text(f"{region.start // HUGE * HUGE}")
        assert driver.moved() == (region,)
        stage(driver, b"something small", 0)
        driver.tree.write(f"{DEVICE_PATH}/image_type", b"init")
        assert driver.moved() == ()


def test_a_monolithic_image_may_be_larger_than_the_kernels_largest_block(computer: Path) -> None:
    data = random.Random(16).randbytes(15 * MIB)
    with open_own_driver(RamFileBackend(computer), root=computer) as driver:
        driver.load()
        stage(driver, data)
        (region,) = driver.staged_regions
        assert region.size_bytes == len(data)
        assert whole_ram(computer).read(region.start, len(data)) == data


def test_without_memory_nothing_is_staged(computer: Path) -> None:
    (computer / "free").write_text("")
    log: list[str] = []
    with open_own_driver(RamFileBackend(computer), root=computer, log=log.append) as driver:
        driver.load()
        stage(driver)
        with pytest.raises(KernelError) as nothing:
            staged_in(driver)
        assert nothing.value.errno == errno.ENOMEM
    assert "0 huge pages were got" in log[0]


def test_a_damaged_record_is_refused_and_stays(computer: Path) -> None:
    with open_own_driver(RamFileBackend(computer), root=computer) as driver:
        driver.load()
    record = computer / "run/openrbu/driver/record-1f0b3a5c.json"
    whole = record.read_bytes()
    for wrong in (whole[:-9], whole.replace(b'"format": 1', b'"format": 2'), b"{}"):
        record.write_bytes(wrong)
        with pytest.raises(DamagedInputError, match="own driver"):
            look_at_own_driver(RamFileBackend(computer), root=computer)
        assert record.read_bytes() == wrong


# -- killed at each step --------------------------------------------------------------------


class Steps:
    """Kills this process before step number `number`; each save of the record is a step, too."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, what: str) -> None:
        self._left -= 1
        if not self._left:
            kill_self()


def killed_at(number: int, computer: Path, work: Callable[[OwnDriver], None]) -> bool:
    """Work with the driver in a process that is killed before this step. False: it came to an
    end."""

    def stepped() -> None:
        step = Steps(number)
        for name in ("save", "remove"):
            call = getattr(Store, name)

            def counted(*arguments: object, call: Callable[..., None] = call) -> None:
                step("before the record")
                call(*arguments)
                step("after the record")

            setattr(Store, name, counted)
        with open_own_driver(RamFileBackend(computer, step), root=computer) as driver:
            work(driver)

    return in_child(stepped) != 0


def check_whole_or_nothing(computer: Path, images: tuple[bytes, ...]) -> None:
    """What the next process finds is a whole image where the BIOS finds it, too, or nothing."""
    backend = RamFileBackend(computer)
    seen = look_at_own_driver(backend, root=computer)
    told = b""
    if seen is None or not seen.staged_size_bytes:  # the look has cleared what was half done
        assert not (computer / "ram").read_bytes().strip(b"\0")
    if seen is not None and seen.staged_size_bytes:
        told = staged_in(seen)
        assert told in images
    with open_own_driver(backend, root=computer) as driver:
        kept = staged_in(driver) if driver.staged_size_bytes else b""
        assert kept == told
        found = found_in(whole_ram(computer))
        assert (found is not None and found.image.build() == IMAGE) == bool(kept)
        if driver.is_loaded:
            stage(driver)  # and it goes on
            assert staged_in(driver) == IMAGE
            driver.stop()
    assert sorted(free_pages(computer)) == sorted(FEW_PAGES)
    assert not (computer / "ram").read_bytes().strip(b"\0")


def start_and_stage(driver: OwnDriver) -> None:
    driver.load()
    stage(driver, PACKETS, 64 * KIB)


def stage_again_and_stop(driver: OwnDriver) -> None:
    stage(driver)
    driver.stop()


def test_killed_while_it_is_loaded_and_stages(tmp_path: Path) -> None:
    """Before each step: the record, a page that is taken, bytes that are written or cleared."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        computer = tmp_path / str(number)
        make_computer(computer, FEW_PAGES, ram_bytes=10 * MIB)
        was_killed = killed_at(number, computer, start_and_stage)
        check_whole_or_nothing(computer, (PACKETS,))
    assert number > 20


def test_killed_while_it_stages_another_image_and_stops(tmp_path: Path) -> None:
    number, was_killed = 0, True
    while was_killed:
        number += 1
        computer = tmp_path / str(number)
        make_computer(computer, FEW_PAGES, ram_bytes=10 * MIB)
        with open_own_driver(RamFileBackend(computer), root=computer) as driver:
            start_and_stage(driver)
        was_killed = killed_at(number, computer, stage_again_and_stop)
        check_whole_or_nothing(computer, (PACKETS, IMAGE))
    assert number > 20
