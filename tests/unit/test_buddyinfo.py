"""`/proc/buddyinfo`: written and read."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError
from openrbu.formats.buddyinfo import ZoneFree, format_buddyinfo, parse_buddyinfo
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.units import GIB
from rigs.no_bytes import NoBytes, gib_machine

SEEN_ON_LINUX = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 
Node 0, zone    DMA32      2      2      4      2      5      4      3      3      4      2    752 
Node 0, zone   Normal    989    254     41    373    593    379    249    138     96     55    318 
"""  # noqa: W291  (every line does end in a blank)


def test_the_format_is_the_one_seen_on_linux() -> None:
    zones = parse_buddyinfo(SEEN_ON_LINUX)
    assert zones[1] == ZoneFree(0, "DMA32", (2, 2, 4, 2, 5, 4, 3, 3, 4, 2, 752))
    assert format_buddyinfo(zones) == SEEN_ON_LINUX


def test_a_fresh_pc_shows_its_three_zones_lowest_first() -> None:
    allocator = BuddyAllocator(NoBytes(*pc_regions(4 * GIB)))
    zones = parse_buddyinfo(allocator.buddyinfo())
    assert [(zone.node, zone.zone) for zone in zones] == [(0, "DMA"), (0, "DMA32"), (0, "Normal")]
    assert {zone.zone: zone.counts for zone in zones} == allocator.free_counts()
    assert zones[2].counts == (0,) * 10 + (256,)


def test_a_zone_without_ram_is_not_shown() -> None:
    assert list(gib_machine().free_counts()) == ["DMA", "DMA32"]


def test_this_machines_own_buddyinfo_can_be_read() -> None:
    path = Path("/proc/buddyinfo")
    if not path.exists():
        pytest.skip("this kernel has no /proc/buddyinfo")
    text = path.read_text()
    assert format_buddyinfo(parse_buddyinfo(text)) == text


def test_other_nodes_zones_and_numbers_of_orders_are_read_too() -> None:
    text = "Node 1, zone  Movable 1 2 3\n\nNode 12, zone  Device 0\n"
    assert parse_buddyinfo(text) == [
        ZoneFree(1, "Movable", (1, 2, 3)),
        ZoneFree(12, "Device", (0,)),
    ]


@pytest.mark.parametrize("text", ["", "\n", "Node 0, zone DMA\n", "MemFree: 1 kB\n", "\0"])
def test_what_is_not_buddyinfo_is_damaged_input(text: str) -> None:
    with pytest.raises(DamagedInputError):
        parse_buddyinfo(text)


def test_the_broken_line_is_named_with_its_offset() -> None:
    good = "Node 0, zone DMA 1\n"
    with pytest.raises(DamagedInputError, match="Node 0, zone DMA32 x") as caught:
        parse_buddyinfo(good + "Node 0, zone DMA32 x\n")
    assert caught.value.offset == len(good)


@given(
    st.lists(
        st.builds(
            ZoneFree,
            st.integers(0, 1023),
            st.sampled_from(["DMA", "DMA32", "Normal", "Movable", "Device"]),
            st.lists(st.integers(0, 2**40), min_size=1, max_size=14).map(tuple),
        ),
        min_size=1,
    )
)
@settings(deadline=None)
def test_reading_what_was_written_gives_the_same(zones: list[ZoneFree]) -> None:
    assert parse_buddyinfo(format_buddyinfo(zones)) == zones
