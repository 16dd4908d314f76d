"""Rule sets: what each kind of BIOS takes out of a memory. The real code itself is in `oracle`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from openrbu.bios.rules import (
    RULE_SETS,
    FoundUpdate,
    Identity,
    RejectedError,
    collector,
    known_flash_size,
    mono_search,
    poweredge_2950,
    rule_set,
    rules_for,
)
from openrbu.errors import UsageError
from openrbu.formats import dell, smbios
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.packet import password_crc
from openrbu.formats.version import BiosVersion
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.boards import changed, packets_of, resummed

REGIONS = tuple(
    Region(PhysAddr(start), PhysAddr(end))
    for start, end in [(0, 640 * KIB), (MIB, 64 * MIB), (4 * GIB, 4 * GIB + 8 * MIB)]
)
FLASH_BYTES = 64 * KIB
DATA, OTHER_DATA = (random.Random(seed).randbytes(FLASH_BYTES) for seed in (1, 2))

LOW, HIGH, ABOVE = 5 * MIB, 9 * MIB, 4 * GIB + MIB

NOT_FOUND = CompletionCode.IMAGE_NOT_FOUND
REFUSED = CompletionCode.INCONSISTENT_IMAGE


def image_of(
    data: bytes = DATA, *, version: str = "0.2.9", systems: Sequence[str] = ("0x01b2",)
) -> bytes:
    return make_image(
        data, version=BiosVersion.parse(version), systems=[SystemId.parse(text) for text in systems]
    )


IMAGE, OTHER = image_of(), image_of(OTHER_DATA)
OLD_STYLE = image_of(version="A11", systems=["0x0152"])
OTHER_OLD_STYLE = image_of(OTHER_DATA, version="A12", systems=["0x0152"])
PACKETS = packets_of(IMAGE)

SERVER = Identity(0x01B2, FLASH_BYTES)
NOTEBOOK = Identity(0x0152, FLASH_BYTES)


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[RamFile]:
    with contextlib.closing(RamFile.create(tmp_path / "ram", REGIONS)) as file:
        yield file


def put(ram: RamFile, at: int, *parts: bytes) -> None:
    """Put pieces on pages, one behind the other."""
    for part in parts:
        ram.write(PhysAddr(at), part)
        at += -(-len(part) // PAGE_SIZE) * PAGE_SIZE


def takes(rules: str, ram: RamFile, machine: Identity) -> FoundUpdate:
    return rule_set(rules).find_update(ram, machine)


def refuses(rules: str, ram: RamFile, machine: Identity) -> tuple[CompletionCode, str]:
    with pytest.raises(RejectedError) as caught:
        rule_set(rules).find_update(ram, machine)
    return caught.value.code, str(caught.value)


def same(image: Image, data: bytes) -> bool:
    return image.build() == data


# -- the registry --------------------------------------------------------------------------------


def test_a_rule_set_is_found_by_its_name_and_an_unknown_name_names_them_all() -> None:
    assert all(rule_set(name).name == name for name in RULE_SETS)
    with pytest.raises(UsageError, match="published, poweredge-2950, latitude-d500"):
        rule_set("bios")


@pytest.mark.parametrize(
    ("system", "rules", "flash"),
    [
        *[(system, "poweredge-2950", MIB) for system in (0x1B1, 0x1B2, 0x1B3, 0x1B8, 0x1BB)],
        (0x0152, "latitude-d500", MIB),
        (0x0121, "published", None),
    ],
)
def test_a_system_whose_code_is_known_has_its_rules_and_the_flash_that_the_code_demands(
    system: int, rules: str, flash: int | None
) -> None:
    structures = [
        dell.make_oem_strings(["Dell System", f"1[{system:04X}]"]),
        smbios.make_structure(127, 0x7F00, b""),
    ]
    tables = smbios.make_tables(smbios.make_entry_point(version=(2, 6)), structures)
    assert rules_for(tables).name == rules
    assert known_flash_size(tables) == flash


def test_of_an_id_only_13_bits_and_of_a_revision_3_are_in_an_images_list() -> None:
    assert Identity(0x01B2, MIB, revision=1).system_word == SystemId(0x1B2, 1).pack()
    assert Identity(0x81B2, MIB).system_word == SystemId(0x1B2).pack()
    assert Identity(None, MIB).system_word is None


@pytest.mark.parametrize("rules", RULE_SETS)
def test_an_empty_memory_holds_no_update_for_any_rule_set(rules: str, ram: RamFile) -> None:
    code, why = refuses(rules, ram, SERVER)
    assert code is NOT_FOUND
    assert "nothing in memory looks like" in why


@pytest.mark.parametrize("rules", RULE_SETS)
def test_the_hardware_revision_counts(rules: str, ram: RamFile) -> None:
    data = OLD_STYLE if rules == "latitude-d500" else IMAGE
    machine = NOTEBOOK if rules == "latitude-d500" else SERVER
    put(ram, LOW, data)
    assert same(takes(rules, ram, machine).image, data)
    refuses(rules, ram, replace(machine, revision=1))


@pytest.mark.parametrize("rules", RULE_SETS)
def test_data_of_another_size_than_the_flash_is_refused(rules: str, ram: RamFile) -> None:
    put(ram, LOW, OLD_STYLE if rules == "latitude-d500" else IMAGE)
    machine = NOTEBOOK if rules == "latitude-d500" else SERVER
    refuses(rules, ram, replace(machine, flash_size_bytes=2 * FLASH_BYTES))


@pytest.mark.parametrize("rules", RULE_SETS)
def test_a_machine_without_a_system_id_takes_nothing(rules: str, ram: RamFile) -> None:
    put(ram, LOW, OLD_STYLE if rules == "latitude-d500" else IMAGE)
    refuses(rules, ram, Identity(None, FLASH_BYTES))


# -- published -----------------------------------------------------------------------------------


def test_the_published_rules_refuse_two_images_and_what_is_above_4_gib(ram: RamFile) -> None:
    put(ram, ABOVE, IMAGE)
    assert refuses("published", ram, SERVER)[0] is NOT_FOUND
    put(ram, LOW, IMAGE)
    assert takes("published", ram, SERVER).extents[0].start == LOW
    put(ram, HIGH, OTHER)
    assert refuses("published", ram, SERVER)[0] is REFUSED


# -- PowerEdge 2950 ------------------------------------------------------------------------------


def test_the_highest_good_image_is_taken_and_one_that_fails_is_passed_over(ram: RamFile) -> None:
    put(ram, LOW, OTHER)
    put(ram, HIGH, IMAGE)
    put(ram, 12 * MIB, image_of(systems=["0x01bb"]))
    put(ram, 16 * MIB, IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]))
    found = takes("poweredge-2950", ram, SERVER)
    assert (found.mode, found.extents[0].start) == ("mono", HIGH)
    assert same(found.image, IMAGE)
    failed = poweredge_2950.trace(ram, SERVER).first.candidates
    assert [(hex(each.address), each.failed) for each in failed] == [
        (hex(16 * MIB), mono_search.WHOLE_WORD),
        (hex(12 * MIB), poweredge_2950.SYSTEM),
    ]


def test_a_missing_feature_ends_the_search_with_a_good_image_below(ram: RamFile) -> None:
    put(ram, LOW, IMAGE)
    put(ram, HIGH, OTHER)
    code, why = refuses("poweredge-2950", ram, replace(SERVER, features=1))
    assert code is REFUSED
    assert "0x900000 failed the check of: features" in why


@pytest.mark.parametrize("at", [0x20000, MIB, 3 * MIB, LOW, ABOVE], ids=hex)
def test_packets_are_found_from_128_kib_up_and_above_4_gib(ram: RamFile, at: int) -> None:
    put(ram, at, *PACKETS)
    found = takes("poweredge-2950", ram, SERVER)
    assert found.mode == "packet"
    assert found.extents == (Region(PhysAddr(at), PhysAddr(at + PAGE_SIZE * len(PACKETS))),)
    assert same(found.image, IMAGE)


@pytest.mark.parametrize("lost", [0x1F000, 8 * MIB + 512], ids=hex)
def test_packets_below_128_kib_or_off_a_page_are_not_seen(ram: RamFile, lost: int) -> None:
    put(ram, LOW, *PACKETS[1:])
    put(ram, lost, PACKETS[0])
    code, why = refuses("poweredge-2950", ram, SERVER)
    assert (code, why) == (NOT_FOUND, f"packets: {len(PACKETS) - 1} of {len(PACKETS)} packets")


def test_an_image_in_one_piece_comes_before_packets(ram: RamFile) -> None:
    put(ram, LOW, *PACKETS)
    put(ram, HIGH, OTHER)
    assert same(takes("poweredge-2950", ram, SERVER).image, OTHER)


def test_a_foreign_set_below_is_in_the_way_and_one_above_is_not(ram: RamFile) -> None:
    put(ram, LOW, *PACKETS)
    put(ram, HIGH, *packets_of(OTHER, set_id=b"else")[:5])
    assert same(takes("poweredge-2950", ram, SERVER).image, IMAGE)
    put(ram, 4 * MIB, packets_of(OTHER, set_id=b"else")[3])  # its ID is the set's then
    assert "5 of 18 packets" in refuses("poweredge-2950", ram, SERVER)[1]


def test_of_two_packets_of_one_number_the_lower_wins(ram: RamFile) -> None:
    put(ram, LOW, *PACKETS)
    put(ram, HIGH, packets_of(OTHER)[5])
    assert same(takes("poweredge-2950", ram, SERVER).image, IMAGE)
    put(ram, 4 * MIB, packets_of(OTHER)[5])
    assert mono_search.WHOLE_WORD in refuses("poweredge-2950", ram, SERVER)[1]


@pytest.mark.parametrize(
    "lowest",
    [
        changed(PACKETS[0], totPkts=0),
        changed(PACKETS[0], totPkts=1),
        changed(PACKETS[0], hdrSize=600),
        changed(PACKETS[0], totPkts=0xFFFF, pktSize=4),
        PACKETS[0][:4] + bytes(28),
    ],
)
def test_where_the_real_bios_leaves_ram_ours_refuses_and_says_so(
    ram: RamFile, lowest: bytes
) -> None:
    put(ram, HIGH, *PACKETS)
    put(ram, LOW, lowest)
    code, why = refuses("poweredge-2950", ram, SERVER)
    assert code is REFUSED
    assert "the real BIOS" in why


def test_a_page_that_claims_a_packet_of_0_bytes_stops_the_search_wherever_it_is(
    ram: RamFile,
) -> None:
    put(ram, LOW, *PACKETS)
    put(ram, HIGH, PACKETS[0][:4] + bytes(28))
    assert same(takes("poweredge-2950", ram, SERVER).image, IMAGE), "complete before it is met"
    put(ram, 4 * MIB, PACKETS[0][:4] + bytes(28))
    assert "packet of 0 bytes" in refuses("poweredge-2950", ram, SERVER)[1]


def test_the_password_of_packet_0_has_to_be_the_machines(ram: RamFile) -> None:
    crc = password_crc("secret")
    put(ram, LOW, *packets_of(IMAGE, password_crc=crc))
    assert same(takes("poweredge-2950", ram, replace(SERVER, password_crc=crc)).image, IMAGE)
    assert "password" in refuses("poweredge-2950", ram, SERVER)[1]


def test_an_image_of_more_than_3_mib_overwrites_packets_from_4_mib_on(ram: RamFile) -> None:
    data = random.Random(3).randbytes(4 * MIB)
    whole = image_of(data)
    machine = Identity(0x01B2, len(data))
    put(ram, 4 * MIB, *packets_of(whole, size=64 * KIB))
    assert "packets" in refuses("poweredge-2950", ram, machine)[1]
    ram.clear()
    put(ram, 8 * MIB, *packets_of(whole, size=64 * KIB))
    assert same(takes("poweredge-2950", ram, machine).image, whole)


def test_a_machine_without_packets_does_not_look_for_them(ram: RamFile) -> None:
    put(ram, LOW, *PACKETS)
    machine = replace(SERVER, knows_packets=False)
    assert refuses("poweredge-2950", ram, machine)[0] is NOT_FOUND


# -- Latitude D500 -------------------------------------------------------------------------------


def test_the_lowest_good_old_style_image_is_taken(ram: RamFile) -> None:
    put(ram, HIGH, OTHER_OLD_STYLE)
    put(ram, LOW, OLD_STYLE)
    put(ram, MIB, image_of(version="A11", systems=["0x0153", "0x0152"]))
    found = takes("latitude-d500", ram, NOTEBOOK)
    assert (found.mode, found.extents[0].start) == ("mono", LOW)
    assert same(found.image, OLD_STYLE)


def test_new_style_images_and_packets_are_nothing_to_it(ram: RamFile) -> None:
    put(ram, LOW, *packets_of(OLD_STYLE))
    assert refuses("latitude-d500", ram, NOTEBOOK)[0] is NOT_FOUND
    put(ram, HIGH, image_of(systems=["0x0152"]))
    assert "major version" in refuses("latitude-d500", ram, NOTEBOOK)[1]


# -- bounded, and quick --------------------------------------------------------------------------


def test_headers_by_the_thousand_are_not_all_checked(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mono_search, "WORK_BYTES", 20 * len(IMAGE))
    put(ram, LOW, *[IMAGE[:PAGE_SIZE]] * 100)
    code, why = refuses("poweredge-2950", ram, SERVER)
    assert code is NOT_FOUND
    assert "80 more headers were not checked" in why


def test_packets_that_claim_a_giant_image_take_no_memory(tmp_path: Path) -> None:
    regions = (Region(PhysAddr(0), PhysAddr(640 * KIB)), Region(PhysAddr(MIB), PhysAddr(3 * GIB)))
    with contextlib.closing(RamFile.create(tmp_path / "ram", regions)) as big:
        head = changed(PACKETS[0], totPkts=40, pktSize=65535)[:32]
        put(big, 4 * MIB, resummed(head.ljust(65535 * KIB, b"\0")))
        assert "claims an image" in refuses("poweredge-2950", big, SERVER)[1]


def test_packets_that_are_in_the_way_again_and_again_are_counted(
    ram: RamFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "MAX_STEPS", 1000)
    put(ram, 4 * MIB, *[PACKETS[1]] * 200)
    put(ram, MIB, *PACKETS)
    assert "too many packets are above" in refuses("poweredge-2950", ram, SERVER)[1]


class Counted(RamFile):
    """RAM that counts how much of it is read."""

    read_bytes = 0

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        self.read_bytes += size_bytes
        return super().read(address, size_bytes)


def test_it_reads_at_most_four_times_what_the_search_that_all_share_does(
    ram: RamFile, tmp_path: Path
) -> None:
    for page in range(8 * MIB, 60 * MIB, PAGE_SIZE):
        ram.write(PhysAddr(page), DATA[:PAGE_SIZE])
    put(ram, LOW, *PACKETS)
    read_bytes = []
    for look in (
        lambda seen: search(seen, flash_size_bytes=FLASH_BYTES),
        lambda seen: takes("poweredge-2950", seen, SERVER),
    ):
        memory = Counted(tmp_path / "ram", REGIONS, writable=False, is_mapped=False)
        with contextlib.closing(memory):
            look(memory)
            read_bytes.append(memory.read_bytes)
    assert read_bytes[1] <= 4 * read_bytes[0]
