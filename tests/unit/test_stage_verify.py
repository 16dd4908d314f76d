"""Staging through the driver, and both looks at what was staged."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.post import Board, find_update
from openrbu.bios.rules import FoundUpdate, RejectedError
from openrbu.errors import KernelError, ObstacleError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import Image
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.narrowed import possible_pages
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update import stage
from openrbu.update.clearing import Clearing
from openrbu.update.driver import CHUNK_BYTES, DATA, LOADING, RbuDriver, ReadBack
from openrbu.update.possible_bioses import PossibleBioses
from openrbu.update.stage import DriverState, OutOfMemoryError, Payload, make_payload
from openrbu.update.verify import compare, find_staged
from rigs.machines import (
    DEVICE,
    ENTRY,
    PROFILES,
    Hook,
    Watched,
    hidden_memory,
    image,
    image_bytes,
    make,
    published,
    running,
    status,
)

IMAGE = image_bytes()
OTHER = image_bytes(version="2.4.0", seed=2)
SKIPPING = ("linux-5.7",)
"""The profiles that leave a packet out when packets are read back."""

HIGH = PhysAddr(40 * MIB)
"""Memory that nothing here is staged in."""


def quiet(count: int) -> None:
    pass


@pytest.fixture(params=PROFILES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, profile=request.param)) as machine:
        yield machine


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path)) as machine:
        yield machine


def payload(mode: Any = "packet", data: bytes = IMAGE, size: int = 4096) -> Payload:
    return make_payload(data, mode=mode, packet_size_bytes=size, password=None)


def staged(host: Any, what: Payload) -> ReadBack:
    """Prepare, stage and read back."""
    stage.load_driver(host, what.mode)
    stage.stage(host, what, quiet)
    return stage.read_back(host, what)


# -- payloads -------------------------------------------------------------------------------


def test_a_monolithic_payload_is_the_image_itself() -> None:
    what = payload("mono")
    assert what.staged is what.image is IMAGE
    assert what.shape == "one block of 128.1 KiB"


def test_a_packet_payload_is_a_set_named_after_the_image() -> None:
    what = payload(size=8192)
    joined = packet.join(what.staged)
    assert bytes(joined.image[: len(IMAGE)]) == IMAGE
    assert joined.set_id == packet.own_set_id(IMAGE, 8192, None)
    assert not joined.password.present
    assert what.shape == "18 blocks of 8 KiB"
    assert joined.total == 18


def test_a_password_goes_into_packet_0() -> None:
    what = make_payload(IMAGE, mode="packet", packet_size_bytes=4096, password="secret")
    assert packet.join(what.staged).password.crc == packet.password_crc("secret")


# -- staging --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_is_staged_lies_in_memory_and_reads_back_as_the_kernel_does(
    machine: VirtualMachine, mode: str
) -> None:
    host, what = VirtualHost(machine), payload(mode)
    seen = staged(host, what)
    broken = machine.config.profile == "linux-5.7" and mode == "packet"
    assert seen is (ReadBack.SKIPS_A_PACKET if broken else ReadBack.RIGHT)
    verified = stage.verify(host, what, seen, published(Image.parse(IMAGE)))
    assert verified.extents
    lying = b"".join(machine.ram.read(each.start, each.size_bytes) for each in verified.extents)
    assert lying == bytes(what.staged)


def test_each_byte_that_goes_to_the_driver_is_told(usual: VirtualMachine) -> None:
    what = payload("mono", image_bytes(flash_size_bytes=3 * MIB))
    told: list[int] = []
    stage.load_driver(VirtualHost(usual), "mono")
    stage.stage(VirtualHost(usual), what, told.append)
    assert sum(told) == len(what.staged)
    assert len(told) == 4


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mode", ["mono", "packet"])
@pytest.mark.parametrize("was_loaded", [False, True])
@pytest.mark.parametrize("dcdbas", [False, True])
def test_restoring_leaves_the_kernel_as_it_was(
    tmp_path: Path, profile: str, mode: str, was_loaded: bool, dcdbas: bool
) -> None:
    with running(make(tmp_path, "precision-t7600", profile=profile)) as machine:
        host, what = VirtualHost(machine), payload(mode)
        if dcdbas:
            host.load_module("dcdbas", {})
        if was_loaded:
            host.load_module("dell_rbu", {"image_type": "packet"})
            host.write(f"{DEVICE}/packet_size", b"12345")
        before = status(machine)
        driver_before = stage.read_driver_state(host)
        staged(host, what)
        if profile == "linux-5.7" and mode == "packet":
            with pytest.raises(ObstacleError, match="it may crash when it drops them"):
                stage.restore(host, driver_before, delivered_bytes=len(what.staged))
            assert not machine.running_kernel().is_dead
            return
        stage.restore(host, driver_before, delivered_bytes=len(what.staged))
        assert status(machine) == before


def test_restoring_gives_an_unfinished_delivery_up(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {})
    before, driver_before = status(machine), stage.read_driver_state(host)
    RbuDriver(host).ensure_entry()
    host.write(f"{ENTRY}/loading", b"1")
    host.write(f"{ENTRY}/data", IMAGE)
    stage.restore(host, driver_before, delivered_bytes=len(IMAGE))
    assert status(machine) == before


def test_restoring_gives_the_entry_up_that_could_not_be_given_up_at_first(
    machine: VirtualMachine,
) -> None:
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {})
    RbuDriver(host).abort_entry()
    before, driver_before = status(machine), stage.read_driver_state(host)
    staged(host, payload("mono"))
    refused: list[str] = []

    def refuse_once(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and arguments[:2] == (f"{ENTRY}/loading", b"-1\n") and not refused:
            refused.append(arguments[0])
            raise OSError(errno.EIO, "Input/output error")

    stage.restore(Watched(host, refuse_once), driver_before, delivered_bytes=len(IMAGE))
    assert refused
    assert status(machine) == before


def test_a_delivery_that_is_interrupted_is_aborted(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {})
    driver = RbuDriver(host)

    def interrupt(done: int) -> None:
        assert read_text(host, LOADING) == "1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.deliver(IMAGE, interrupt)
    assert not driver.is_in_use
    assert not driver.has_staged_data


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_an_entry_that_goes_by_itself_while_it_is_given_up_is_gone(
    usual: VirtualMachine, number: int
) -> None:
    host = VirtualHost(usual)
    host.load_module("dell_rbu", {})
    gone: list[str] = []

    def goes(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and arguments[0] == LOADING:
            gone.append(arguments[0])
            host.write(*arguments)
            raise OSError(number, os.strerror(number), LOADING)

    driver = RbuDriver(Watched(host, goes))
    driver.abort_entry()
    assert gone == [LOADING]
    assert not driver.is_in_use


@pytest.mark.parametrize("size_bytes", [1, 4096, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_so_many_zeros_are_put_into_memory_as_are_asked_for(
    usual: VirtualMachine, size_bytes: int
) -> None:
    host, zeros = VirtualHost(usual), bytearray()
    host.load_module("dell_rbu", {})
    RbuDriver(Watched(host, collect(zeros))).overwrite_freed(size_bytes)
    assert zeros == bytes(size_bytes)


def test_four_times_as_many_zeros_follow_what_is_cleared(usual: VirtualMachine) -> None:
    """A kernel hands out other pages first than those that were freed last."""
    host, zeros, what = VirtualHost(usual), bytearray(), payload()
    staged(host, what)
    stage.clear(Watched(host, collect(zeros)))
    assert zeros == bytes(4 * len(what.staged))


def collect(data: bytearray) -> Hook:
    """A hook that puts what is delivered to the driver into `data`."""

    def collect_piece(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and arguments[0] == DATA:
            data.extend(arguments[1])

    return collect_piece


def test_what_begins_with_the_packets_0_and_1_is_safe_to_drop_whatever_follows(
    machine: VirtualMachine,
) -> None:
    """A kernel that skips a packet shows that at the start."""
    host = VirtualHost(machine)
    stage.load_driver(host, "packet")
    driver = RbuDriver(host)
    driver.set_type("packet")
    driver.set_packet_size(4096)
    driver.deliver(bytes(payload().staged[: 2 * 4096]) + bytes(4096), quiet)
    is_broken = machine.config.profile in SKIPPING
    assert (driver.clearing is not Clearing.IS_SAFE) == is_broken


def test_restoring_what_was_never_loaded_does_nothing(usual: VirtualMachine) -> None:
    before = status(usual)
    stage.restore(VirtualHost(usual), DriverState(was_loaded=False), delivered_bytes=0)
    assert status(usual) == before


@pytest.mark.parametrize("cursor", [0, 1, 4096, 5000])
@pytest.mark.parametrize("profile", ["documented", "linux-5.7"])
def test_a_kernel_that_dies_of_clearing_is_known_wherever_its_read_position_is(
    tmp_path: Path, profile: str, cursor: int
) -> None:
    with running(make(tmp_path, profile=profile)) as machine:
        host = VirtualHost(machine)
        staged(host, payload())
        if cursor:
            machine.running_kernel().read(f"{DEVICE}/data", 0, cursor)
        assert RbuDriver(host).clearing == ("crashes" if profile == "linux-5.7" else "is_safe")
        assert stage.clear(host) == (profile != "linux-5.7")
        assert not machine.running_kernel().is_dead


def test_a_single_packet_of_such_a_kernel_is_not_dropped_either(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host = VirtualHost(machine)
        one = bytes(payload().staged[:4096])
        staged(host, Payload("packet", IMAGE, one, 4096))
        assert RbuDriver(host).clearing is Clearing.UNKNOWN


def test_a_driver_that_keeps_another_packet_size_is_an_error(usual: VirtualMachine) -> None:
    host = VirtualHost(usual)
    host.load_module("dell_rbu", {})
    with pytest.raises(UpdateFailedError, match="shows packet size 0 after 4294967295 was written"):
        RbuDriver(host).set_packet_size(0xFFFFFFFF)


def test_an_entry_that_does_not_come_is_an_obstacle_after_some_seconds(tmp_path: Path) -> None:
    waited: list[float] = []
    with running(make(tmp_path, profile="linux")) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        replaced: dict[str, Callable[[Any], Any]] = {
            "sleep": waited.append,
            "exists": lambda path: ENTRY not in path and host.exists(path),
        }
        with pytest.raises(ObstacleError, match=r"did not appear within 10 s.*FW_LOADER"):
            RbuDriver(Watched(host, lambda *_: None, replaced)).ensure_entry()
    assert 10 <= sum(waited) < 12


def test_memory_that_is_short_is_told_by_its_shape(tmp_path: Path) -> None:
    directory = make(tmp_path)
    for mode, fault, says in (
        ("mono", "allocations-fail-above=4", "no free block of 256 KiB for an image of 128.1 KiB"),
        ("packet", "allocations-fail-after=20", "no free memory for 34 blocks of 4 KiB"),
        ("mono", "allocations-fail-after=0", "the kernel has no memory to receive 128.1 KiB"),
    ):
        with running(directory, faults=(fault,)) as machine:
            with pytest.raises(OutOfMemoryError, match=says):
                staged(VirtualHost(machine), payload(mode))
            machine.power_off()


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_nothing_of_an_image_is_left_in_memory_when_it_is_cleared(
    usual: VirtualMachine, mode: str
) -> None:
    """Not in the driver's memory, and not in the kernel's buffer that it was delivered in."""
    host = VirtualHost(usual)
    staged(host, payload(mode))
    before = search(usual.ram)
    assert before.images or before.packet_sets
    assert stage.clear(host)
    after = search(usual.ram)
    assert (after.images, after.packet_sets, after.headers) == ((), (), ())
    assert not RbuDriver(host).has_staged_data


# -- reading back ---------------------------------------------------------------------------


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1000, 4096, 1 << 20])
def test_read_back_is_judged_byte_for_byte(size: int) -> None:
    meant = bytes(payload().staged)
    skipping = meant[4096:] + b"\x77" * 4096
    second = meant[:4096] + meant[8192:] + bytes(4096)
    for given, judged in (
        (meant, ReadBack.RIGHT),
        (b"", ReadBack.NOTHING),
        (meant[:-1], ReadBack.DIFFERENT),
        (meant + b"\0", ReadBack.DIFFERENT),
        (meant[:-1] + b"\1", ReadBack.DIFFERENT),
        (b"\1" + meant[1:], ReadBack.DIFFERENT),
        (skipping, ReadBack.SKIPS_A_PACKET),
        (second, ReadBack.SKIPS_A_PACKET),
        (skipping[:-1], ReadBack.DIFFERENT),
        (b"\1" + skipping[1:], ReadBack.DIFFERENT),
        (bytes(len(meant)), ReadBack.DIFFERENT),
    ):
        assert compare(chunked(given, size), meant, packet_size_bytes=4096) is judged
    assert compare(chunked(skipping, size), meant, packet_size_bytes=None) is ReadBack.DIFFERENT


def test_packets_that_read_back_wrongly_need_physical_memory_to_be_checked(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host, what = VirtualHost(machine), payload()
        seen = staged(host, what)
        assert stage.verify(host, what, seen, published(Image.parse(IMAGE))).extents
        with pytest.raises(UpdateFailedError, match="restart, then use --mode mono or another"):
            stage.verify(hidden_memory(host), what, seen, published(Image.parse(IMAGE)))


def test_where_memory_is_hidden_the_drivers_word_is_all_there_is(usual: VirtualMachine) -> None:
    host, what = hidden_memory(VirtualHost(usual)), payload("mono")
    verified = stage.verify(host, what, staged(host, what), published(Image.parse(IMAGE)))
    assert (verified.read_back, verified.extents) == (ReadBack.RIGHT, None)
    with pytest.raises(UpdateFailedError, match="gives back something else than was delivered"):
        stage.verify(host, what, ReadBack.DIFFERENT, published(Image.parse(IMAGE)))


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_search_of_memory_is_repeated_twice_before_its_failure_is_an_error(
    usual: VirtualMachine, failures: int
) -> None:
    """Another program writes to a page with a packet while it is compared."""

    class Disturbed(RamFile):
        """The machine's memory, whose first searches fail."""

        searches = 0

        def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
            self.searches += 1
            if self.searches <= failures:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            return super().populated(start, end)

    host, what = VirtualHost(usual), payload()
    seen = staged(host, what)
    memory = Disturbed(usual.directory / "ram", usual.ram.regions, writable=False)
    shown = Watched(host, lambda *_: None, {"physical_memory": memory})
    if failures < 3:
        assert stage.verify(shown, what, seen, published(Image.parse(IMAGE))).extents
    else:
        with pytest.raises(OSError, match="Bad address"):
            stage.verify(shown, what, seen, published(Image.parse(IMAGE)))
        assert memory.searches == failures
    memory.close()


# -- in physical memory ---------------------------------------------------------------------


def look(machine: VirtualMachine, mode: str, *, packets_known: bool = True) -> Any:
    image, packets = Image.parse(IMAGE), payload().staged if mode == "packet" else None
    bioses = published(image, packets_known=packets_known)
    (finding,) = find_staged(machine.ram, image, bioses, packets=packets)
    return finding.extents


def bios_takes(machine: VirtualMachine, *, packets_known: bool = True) -> bool:
    """Whether this machine's BIOS would take what is in memory for our image."""
    board = Board(
        memory=machine.ram,
        flash=machine.flash,
        nvram=machine.nvram,
        activation=None,
        system_id=machine.system_id,
        knows_packets=packets_known,
    )
    try:
        return find_update(board).image.build() == IMAGE
    except RejectedError:
        return False


def put_packets(machine: VirtualMachine, data: bytes, at: int, size: int = 4096) -> None:
    """The packets of `data`, a page apart."""
    pieces = bytes(payload(data=data, size=size).staged)
    step = -(-size // PAGE_SIZE) * PAGE_SIZE * 2
    for number, start in enumerate(range(0, len(pieces), size)):
        machine.ram.write(PhysAddr(at + number * step), pieces[start : start + size])


def test_a_page_that_another_program_takes_while_it_is_looked_at_is_left_out(
    usual: VirtualMachine,
) -> None:
    """Of another update, in free memory. The rest is looked at again; memory is searched once."""

    class Counted(RamFile):
        searches = 0

        def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
            self.searches += 1
            return super().populated(start, end)

    put_packets(usual, IMAGE, HIGH)
    taken = PhysAddr(HIGH - MIB)
    usual.ram.write(taken, bytes(payload(data=OTHER).staged[:PAGE_SIZE]))
    (bios,) = published(Image.parse(IMAGE))
    refused = []

    def find(seen: ReadableMemory) -> FoundUpdate:
        try:
            return bios.find(seen)
        except RejectedError as error:
            refused.append(str(error))
            usual.ram.zero(taken, PAGE_SIZE)
            raise

    memory = Counted(usual.directory / "ram", usual.ram.regions, writable=False)
    possible_pages(memory)
    once = memory.searches
    bioses = PossibleBioses((replace(bios, find=find),))
    assert find_staged(memory, Image.parse(IMAGE), bioses, packets=payload().staged)
    assert len(refused) == 1
    assert memory.searches == 2 * once
    memory.close()


def test_nothing_in_memory_is_not_found(usual: VirtualMachine) -> None:
    for mode in ("mono", "packet"):
        with pytest.raises(UpdateFailedError, match="staged: nothing in memory looks like one"):
            look(usual, mode)


def test_an_image_is_found_where_it_lies_whole_on_a_page(usual: VirtualMachine) -> None:
    usual.ram.write(HIGH, IMAGE)
    (extent,) = look(usual, "mono")
    assert (extent.start, extent.end) == (HIGH, HIGH + len(IMAGE))


@pytest.mark.parametrize("at", [HIGH + 512, 640 * KIB - PAGE_SIZE, 64 * MIB - PAGE_SIZE])
def test_an_image_off_the_page_or_cut_by_the_end_of_ram_is_not_found(
    usual: VirtualMachine, at: int
) -> None:
    room = next(each.end for each in usual.ram.regions if each.start <= at < each.end) - at
    usual.ram.write(PhysAddr(at), IMAGE[:room])
    with pytest.raises(UpdateFailedError, match="would not take what is staged"):
        look(usual, "mono")


def test_packets_are_found_scattered_in_any_order_and_more_than_once(
    usual: VirtualMachine,
) -> None:
    put_packets(usual, IMAGE, HIGH)
    put_packets(usual, IMAGE, HIGH + 4 * MIB)
    extents = look(usual, "packet")
    assert sum(each.size_bytes for each in extents) == len(payload().staged)


def test_a_missing_packet_is_noticed(usual: VirtualMachine) -> None:
    put_packets(usual, IMAGE, HIGH)
    usual.ram.zero(PhysAddr(HIGH + 2 * PAGE_SIZE * 5), PAGE_SIZE)
    with pytest.raises(
        UpdateFailedError, match="1 of the set's 34 packets is missing or damaged: "
    ):
        look(usual, "packet")


HAZARDS: dict[str, Callable[[VirtualMachine], None]] = {
    "another image, whole": lambda machine: machine.ram.write(PhysAddr(HIGH + 8 * MIB), OTHER),
    "packets of another set": lambda machine: put_packets(machine, OTHER, HIGH + 8 * MIB),
    "some packets of another set": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), bytes(payload(data=OTHER).staged[8192:16384])
    ),
    "packets of our image of another size": lambda machine: put_packets(
        machine, IMAGE, HIGH + 8 * MIB, size=1024
    ),
    "some packets of our own set": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), bytes(payload().staged[8192:16384])
    ),
    "our image in packets": lambda machine: put_packets(machine, IMAGE, HIGH + 8 * MIB),
    "our image, whole": lambda machine: machine.ram.write(PhysAddr(HIGH + 8 * MIB), IMAGE),
    "another image with its middle torn": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), OTHER[:60_000] + bytes(9) + OTHER[60_009:]
    ),
    "pages of our image": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), IMAGE[:PAGE_SIZE]
    ),
    "a packet with a wrong checksum": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), bytes(payload(data=OTHER).staged[4096:8191]) + b"\x99"
    ),
    "an image for another flash": lambda machine: machine.ram.write(
        PhysAddr(HIGH + 8 * MIB), image_bytes(flash_size_bytes=64 * KIB)
    ),
}


@pytest.mark.parametrize("hazard", HAZARDS)
@pytest.mark.parametrize("mode", ["mono", "packet"])
@pytest.mark.parametrize("packets_known", [True, False])
def test_what_verify_finds_beside_the_image_is_what_the_bios_would_refuse_it_for(
    usual: VirtualMachine, hazard: str, mode: str, packets_known: bool
) -> None:
    """Never laxer than the BIOS, and no stricter than it takes."""
    if mode == "packet" and not packets_known:
        return
    HAZARDS[hazard](usual)
    if mode == "packet":
        put_packets(usual, IMAGE, HIGH)
    else:
        usual.ram.write(HIGH, IMAGE)
    if bios_takes(usual, packets_known=packets_known):
        assert look(usual, mode, packets_known=packets_known)
    else:
        with pytest.raises(UpdateFailedError, match="power cycle the machine, which clears"):
            look(usual, mode, packets_known=packets_known)


def test_the_hazards_above_are_some_that_a_bios_takes_and_some_that_it_does_not(
    usual: VirtualMachine,
) -> None:
    taken = set()
    for hazard in HAZARDS.values():
        usual.ram.clear()
        hazard(usual)
        usual.ram.write(HIGH, IMAGE)
        taken.add(bios_takes(usual))
    assert taken == {True, False}


def test_a_byte_that_has_changed_in_memory_is_noticed(usual: VirtualMachine) -> None:
    chooser = random.Random(7)
    for mode, put in (("mono", usual.ram.write), ("packet", None)):
        for _ in range(10):
            usual.ram.clear()
            if put is not None:
                put(HIGH, IMAGE)
                at = HIGH + chooser.randrange(len(IMAGE))
            else:
                usual.ram.write(HIGH, payload().staged)
                at = HIGH + chooser.randrange(len(payload().staged))
            byte = usual.ram.read(PhysAddr(at), 1)[0]
            usual.ram.write(PhysAddr(at), bytes([byte ^ 1 << chooser.randrange(8)]))
            with pytest.raises(UpdateFailedError):
                look(usual, mode)


def test_an_error_of_the_kernel_that_is_not_about_memory_goes_on_as_it_is(
    usual: VirtualMachine,
) -> None:
    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and arguments[0] == f"{ENTRY}/data":
            raise KernelError(5, arguments[0])

    host = Watched(VirtualHost(usual), refuse)
    stage.load_driver(host, "mono")
    with pytest.raises(KernelError, match="Input/output error"):
        stage.stage(host, payload("mono"), quiet)
    assert not RbuDriver(host).has_entry


def test_the_image_for_these_tests_is_one_that_the_machine_takes(usual: VirtualMachine) -> None:
    usual.ram.write(HIGH, IMAGE)
    assert bios_takes(usual)
    assert image().header.version.text == "2.3.0"
