"""Who has to take an update before it is armed, and what keeps one of them from it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import ExitCode, UpdateFailedError
from openrbu.formats.check_words import check_words
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.hosts.virtual import VirtualHost
from openrbu.kernel.page_flags import PageFlags
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.page_flags import FreePages
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.arm import activation_for
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.possible_bioses import PossibleBioses, possible_bioses
from openrbu.update.target import Target, read_target
from openrbu.update.verify import LeftoverCopyError, find_staged
from rigs.boards import changed, packets_of
from rigs.machines import image, image_bytes, make, running, status, update
from rigs.made_tables import dell_tables

SERVER = 0x01B2
UNKNOWN = 0x01DE
SET_ID = 0x12345678


def an_image(version: str, *systems: int, size_bytes: int = MIB, seed: int = 1) -> Image:
    data = random.Random(seed).randbytes(size_bytes)
    listed = [SystemId(each) for each in systems]
    return Image.parse(make_image(data, version=BiosVersion.parse(version), systems=listed))


def bioses_on(
    what: Image, system_id: int, *, packets: bool | None = True, **options: Any
) -> PossibleBioses:
    tables = dell_tables(system_id=system_id, product="A Dell", packets=packets)
    target = Target.of(tables, hardware_revision=None)
    return possible_bioses(what, target, Options(**options))


# -- which BIOSes are possible -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("system_id", "version", "listed", "size_bytes", "names"),
    [
        (UNKNOWN, "2.3.0", (UNKNOWN,), MIB, ("published", "poweredge-2950")),
        (UNKNOWN, "A06", (UNKNOWN,), MIB, ("published",)),
        (UNKNOWN, "A06", (0x0111, UNKNOWN), MIB, ("published",)),
        (UNKNOWN, "2.3.0", (UNKNOWN,), 512 * KIB, ("published", "poweredge-2950")),
        (UNKNOWN, "2.3.0", (UNKNOWN,), 16 * MIB, ("published",)),
        (SERVER, "0.2.9", (SERVER,), MIB, ("poweredge-2950",)),
        (0x0152, "A11", (0x0152,), MIB, ("latitude-d500",)),
    ],
)
def test_the_possible_bioses_are_those_that_could_be_the_machines(
    system_id: int,
    version: str,
    listed: tuple[int, ...],
    size_bytes: int,
    names: tuple[str, ...],
) -> None:
    what = an_image(version, *listed, size_bytes=size_bytes)
    bioses = bioses_on(what, system_id)
    assert (bioses.names, bioses.refusal) == (names, "")


@pytest.mark.parametrize(
    ("version", "listed", "names"),
    [
        ("A06", (UNKNOWN,), ("published", "latitude-d500")),
        ("A06", (0x0111, UNKNOWN), ("published",)),
        ("2.3.0", (UNKNOWN,), ("published", "poweredge-2950")),
    ],
)
def test_a_bios_without_packets_is_possible_where_the_machine_takes_none(
    version: str, listed: tuple[int, ...], names: tuple[str, ...]
) -> None:
    assert bioses_on(an_image(version, *listed), UNKNOWN, packets=None).names == names


@pytest.mark.parametrize(
    ("system_id", "what", "says"),
    [
        (0x0152, an_image("A11", 0x0111, 0x0152), "first of the list"),
        (0x0152, an_image("1.2.3", 0x0152), "major version"),
        (SERVER, an_image("A11", SERVER), "major version"),
        (SERVER, an_image("0.2.9", SERVER, size_bytes=512 * KIB), "checksum"),
    ],
)
def test_what_a_machines_own_bios_takes_from_nowhere_is_an_obstacle_of_the_plan(
    tmp_path: Path, system_id: int, what: Image, says: str
) -> None:
    model = {0x0152: "latitude-d500", SERVER: "poweredge-2950"}[system_id]
    with running(make(tmp_path, model, flash_size_bytes=MIB)) as machine:
        (obstacle,) = make_plan(VirtualHost(machine), what, Options(allow_downgrade=True)).obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("bios_refuses", ExitCode.NOT_FOR_THIS_MACHINE)
    assert says in obstacle.message
    assert " at 0x" not in obstacle.message


# -- what keeps them from it ----------------------------------------------------------------


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[RamFile]:
    regions = pc_regions(4 * GIB)
    with contextlib.closing(RamFile.create(tmp_path / "ram", regions)) as ram:
        yield ram


@pytest.fixture
def bioses() -> PossibleBioses:
    """Those of a machine of an unknown kind: the published rules and a PowerEdge 2950."""
    return bioses_on(IMAGE, UNKNOWN)


IMAGE = an_image("2.3.0", UNKNOWN)
PACKETS = packets_of(IMAGE.build(), set_id=SET_ID.to_bytes(4, "little"))
STALE = packets_of(an_image("2.2.0", UNKNOWN, seed=2).build(), set_id=b"_220")
SAME_ID = changed(STALE[5], pktSetId=SET_ID)
HIGH = 32 * MIB


def joined(what: Image) -> bytes:
    return b"".join(packets_of(what.build(), set_id=SET_ID.to_bytes(4, "little")))


def put(ram: RamFile, at: int, *pieces: bytes) -> None:
    for number, piece in enumerate(pieces):
        ram.write(PhysAddr(at + number * PAGE_SIZE), piece)


def look(ram: RamFile, bioses: PossibleBioses, *free: int) -> list[str]:
    """Who takes the packets; the pages at `free` are free."""
    flags = bytearray(8 * (ram.regions[-1].end // PAGE_SIZE))
    for address in free:
        flags[address // PAGE_SIZE * 8 + 1] = 1 << 2  # bit 10
    pages = FreePages([(0, bytes(flags))])
    found = find_staged(ram, IMAGE, bioses, packets=b"".join(PACKETS), free_pages=lambda _: pages)
    return [finding.rules for finding in found]


def test_all_possible_bioses_take_what_nothing_else_is_beside(
    ram: RamFile, bioses: PossibleBioses
) -> None:
    put(ram, HIGH, *PACKETS)
    assert look(ram, bioses) == ["published", "poweredge-2950"]


@pytest.mark.parametrize("at", [HIGH - 8 * MIB, HIGH + 8 * MIB])
@pytest.mark.parametrize("leftover", [STALE[5], SAME_ID], ids=["another set", "of our set's ID"])
def test_a_leftover_copy_is_told_from_one_in_free_memory_which_may_be_cleared(
    ram: RamFile, bioses: PossibleBioses, at: int, leftover: bytes
) -> None:
    put(ram, HIGH, *PACKETS)
    put(ram, at, leftover)
    with pytest.raises(UpdateFailedError, match="power cycle the machine") as held:
        look(ram, bioses)
    assert not isinstance(held.value, LeftoverCopyError)
    with pytest.raises(LeftoverCopyError, match="power cycle the machine"):
        look(ram, bioses, at)


@pytest.mark.parametrize("at", [HIGH - 8 * MIB, HIGH + 8 * MIB])
def test_only_what_lies_lower_keeps_a_poweredge_from_packets(ram: RamFile, at: int) -> None:
    what = an_image("0.2.9", SERVER)
    bioses = bioses_on(what, SERVER)
    put(ram, HIGH, *packets_of(what.build(), set_id=SET_ID.to_bytes(4, "little")))
    put(ram, at, *STALE[:9])
    if at > HIGH:
        (finding,) = find_staged(ram, what, bioses, packets=joined(what))
        assert (finding.rules, finding.mode) == ("poweredge-2950", "packet")
        assert finding.extents[0].start == HIGH
        return
    with pytest.raises(
        UpdateFailedError, match="poweredge-2950 rules would not take what is staged, because"
    ):
        find_staged(ram, what, bioses, packets=joined(what))


def test_another_image_that_a_poweredge_takes_first_is_noticed(ram: RamFile) -> None:
    what, other = an_image("0.2.9", SERVER), an_image("0.2.7", SERVER, seed=2)
    bioses = bioses_on(what, SERVER)
    ram.write(PhysAddr(HIGH), what.build())
    ram.write(PhysAddr(HIGH - 8 * MIB), other.build())
    (finding,) = find_staged(ram, what, bioses)
    assert finding.extents[0].start == HIGH
    ram.write(PhysAddr(HIGH + 8 * MIB), other.build())
    with pytest.raises(UpdateFailedError, match=r"takes another image, in one piece at 0x2800000"):
        find_staged(ram, what, bioses)


@pytest.mark.parametrize(
    ("at", "bios"),
    [(0x8000, "published"), (512 * KIB, "published"), (0x8000, "poweredge-2950")],
)
def test_a_packet_where_a_bios_does_not_look_is_noticed(ram: RamFile, at: int, bios: str) -> None:
    system_id = SERVER if bios == "poweredge-2950" else UNKNOWN
    what = an_image("2.3.0", system_id)
    packets = packets_of(what.build(), set_id=SET_ID.to_bytes(4, "little"))
    put(ram, HIGH, *packets[1:])
    put(ram, at, packets[0])
    bioses = bioses_on(what, system_id)
    with pytest.raises(UpdateFailedError, match=f"a BIOS with the {bios} rules would not take"):
        find_staged(ram, what, bioses, packets=joined(what))


def test_above_4_gib_only_the_published_rules_see_nothing(ram: RamFile) -> None:
    put(ram, 4 * GIB + MIB, *PACKETS)
    with pytest.raises(UpdateFailedError, match="packets are above 4 GiB"):
        look(ram, bioses_on(IMAGE, UNKNOWN))
    going_on = bioses_on(IMAGE, UNKNOWN, memory_above_4g=True)
    assert look(ram, going_on) == ["published", "poweredge-2950"]
    what = an_image("0.2.9", SERVER)
    put(ram, 4 * GIB + MIB, *packets_of(what.build(), set_id=SET_ID.to_bytes(4, "little")))
    (finding,) = find_staged(ram, what, bioses_on(what, SERVER), packets=joined(what))
    assert finding.extents[0].start == 4 * GIB + MIB


# -- an update ------------------------------------------------------------------------------


def highest_free_page(machine: VirtualMachine) -> int:
    """The free page of a machine that is given out last."""
    assert machine.kernel is not None
    flags = PageFlags(machine.kernel.allocator).read(0, 8 * (256 * MIB // PAGE_SIZE))
    free = FreePages([(0, flags)])
    return next(page for page in range(255 * MIB, MIB, -PAGE_SIZE) if free.any_in(page, PAGE_SIZE))


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_a_stale_set_in_memory_that_is_taken_next_is_cleared_and_told(
    tmp_path: Path, mode: str
) -> None:
    with running(make(tmp_path, ram_bytes=256 * MIB, flash_size_bytes=MIB)) as machine:
        between = 3 * MIB // 2 if mode == "mono" else 3 * MIB  # what comes in and what is kept
        machine.ram.write(PhysAddr(HIGH + between), STALE[3])
        outcome = update(VirtualHost(machine), image(flash_size_bytes=MIB), mode=mode)
        assert machine.is_armed
        assert [what.endswith("cleared free memory") for what in outcome.tried] == [True]
        assert machine.restart().completion_code == 0


def test_a_stale_set_that_can_not_be_cleared_is_refused_and_nothing_is_armed(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, ram_bytes=256 * MIB, flash_size_bytes=MIB)) as machine:
        machine.ram.write(PhysAddr(highest_free_page(machine)), STALE[3])
        before = status(machine)
        with pytest.raises(LeftoverCopyError, match="power cycle the machine"):
            update(VirtualHost(machine), image(flash_size_bytes=MIB), mode="packet")
        assert status(machine) == before
        machine.restart(cold=True)
        update(VirtualHost(machine), image(flash_size_bytes=MIB), mode="packet")


def test_a_kernel_that_dies_of_dropping_packets_is_not_made_to(tmp_path: Path) -> None:
    """The messages name the obstacle, and say that the packets stay."""
    order: dict[str, Any] = {
        "ram_bytes": 256 * MIB,
        "flash_size_bytes": MIB,
        "profile": "linux-5.7",
    }
    with running(make(tmp_path, **order)) as machine:
        machine.ram.write(PhysAddr(HIGH + 3 * MIB), STALE[3])
        with pytest.raises(
            UpdateFailedError, match="would not take what is staged, because of other"
        ):
            update(VirtualHost(machine), image(flash_size_bytes=MIB), mode="packet")
        assert machine.kernel is not None
        assert not machine.kernel.is_dead
        assert not machine.is_armed


def test_a_stale_header_whose_packet_would_reach_over_a_gap_is_none_of_ours(
    ram: RamFile, bioses: PossibleBioses
) -> None:
    packets = packets_of(IMAGE.build(), set_id=SET_ID.to_bytes(4, "little"), size=64 * KIB)
    for number, piece in enumerate(packets):
        ram.write(PhysAddr(HIGH + number * 64 * KIB), piece)
    ram.write(PhysAddr(636 * KIB), packets[3][:PAGE_SIZE])
    found = find_staged(ram, IMAGE, bioses, packets=b"".join(packets))
    assert [finding.rules for finding in found] == ["published", "poweredge-2950"]


def test_an_update_tells_who_takes_it(tmp_path: Path) -> None:
    with running(make(tmp_path, ram_bytes=256 * MIB, flash_size_bytes=MIB)) as machine:
        outcome = update(VirtualHost(machine), image(flash_size_bytes=MIB), mode="packet")
        assert outcome.verified.findings is not None
        assert [(each.rules, each.mode) for each in outcome.verified.findings] == [
            ("published", "packet"),
            ("poweredge-2950", "packet"),
        ]


def test_packets_for_a_bios_that_takes_none_are_told_of(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650", ram_bytes=128 * MIB)) as machine:
        for number, piece in enumerate(packets_of(image_bytes("poweredge-2650"))):
            machine.ram.write(PhysAddr(HIGH + number * PAGE_SIZE), piece)
        VirtualHost(machine).write("/sys/kernel/reboot/mode", b"warm")
        switch = activation_for(VirtualHost(machine), read_target(VirtualHost(machine)))
        switch.arm()
        report = machine.restart()
        assert report.completion_code == 0x000D
        assert "; memory has 34 RBU packets, which this BIOS does not read: " in report.reason


def test_a_leftover_copy_that_only_the_machines_own_kind_of_bios_takes_is_noticed_at_any_size(
    ram: RamFile,
) -> None:
    """A Latitude D500 does not look at the text of an image, and the published rules do."""
    what = an_image("A06", UNKNOWN, size_bytes=512 * KIB)
    bioses = bioses_on(what, UNKNOWN, packets=None)
    assert bioses.names == ("published", "latitude-d500")
    other = bytearray(an_image("A99", UNKNOWN, size_bytes=512 * KIB, seed=2).build())
    other[8:12] = b"Xopy"
    other[-8:] = check_words(bytes(other[:84]), bytes(other[84:-8]))
    ram.write(PhysAddr(HIGH), what.build())
    ram.write(PhysAddr(HIGH - 8 * MIB), bytes(other))
    with pytest.raises(
        UpdateFailedError, match="latitude-d500 rules would not take what is staged, because"
    ):
        find_staged(ram, what, bioses)
