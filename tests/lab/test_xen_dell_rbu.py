"""The kernel's dell_rbu in a real dom0, under Xen 4.17, before and after ballooning.

The driver's own read-back is right each time. What a BIOS finds is what lies in one piece in
*machine* memory, and that is looked at from outside. Images are made in the guest: one that came
in over virtio can lie whole in Xen's bounce buffer, where nobody staged it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import staging
from lab.balloon import move
from lab.staging import image_of
from lab.story import Story
from openrbu.formats.dell import CompletionCode
from openrbu.lab.calls import Load
from openrbu.memory.ram_array import RamArray
from openrbu.memory.scan import FoundSet, SearchResult, search
from openrbu.units import BIOS_SEARCH_END, BIOS_SEARCH_START, KIB, PAGE_SIZE, PhysAddr
from rigs.lab import DOM0_BYTES, Lab, SharedMachine

pytestmark = pytest.mark.lab

DOM0_KIB = DOM0_BYTES // KIB
LOW_KIB = 220 * KIB
"""So far down, dom0 has given most of its free memory away."""


class Dom0(SharedMachine):
    """A dom0 that is ballooned down and up again, or never was since it started."""

    is_ballooned = False

    def be_fresh(self) -> None:
        if self.is_up and self.is_ballooned:
            self.machine.cut_power()
            self.machine.power_on()
        self.is_ballooned = False

    def be_ballooned(self) -> None:
        if not self.is_ballooned:
            move(self, LOW_KIB)
            move(self, DOM0_KIB)
        self.is_ballooned = True


@pytest.fixture(scope="module")
def shared_dom0(lab: Lab) -> Iterator[Dom0]:
    shared = Dom0(lab.xen_machine)
    yield shared
    shared.close()


@pytest.fixture
def ballooned(shared_dom0: Dom0) -> Dom0:
    shared_dom0.be_ballooned()
    return shared_dom0


@pytest.fixture
def fresh(shared_dom0: Dom0) -> Dom0:
    shared_dom0.be_fresh()
    return shared_dom0


def staged(dom0: Dom0, mode: str, version: str, packet_bytes: int = PAGE_SIZE) -> bool:
    """Stage an image that is made in the guest; whether the driver gives it back right."""
    dom0.calls([Load("dell_rbu")])  # or else it is there already
    words = [sys.executable, staging.__file__, mode, version, str(packet_bytes)]
    return bool(json.loads(dom0.run(words).lower()))


def found(dom0: Dom0) -> SearchResult:
    """What a BIOS would find."""
    return search(dom0.machine.ram)


def packets_of(seen: SearchResult, packet_bytes: int) -> FoundSet:
    (packets,) = (each for each in seen.packet_sets if each.set_id == packet_bytes)
    return packets


def versions_of(seen: SearchResult) -> list[str]:
    """Of the images that are whole in machine memory."""
    return [str(each.header.version) for each in seen.images]


def carries(dom0: Dom0, packets: FoundSet, version: str) -> bool:
    """Whether the packets that are found make up the image."""
    return packets.assemble(dom0.machine.ram).startswith(image_of(version))


def places_of(dom0: Dom0, image: bytes) -> list[set[int]]:
    """Where in machine memory each whole page of an image is, copies included."""
    whole = range(0, len(image) - PAGE_SIZE + 1, PAGE_SIZE)
    pages = [image[at : at + PAGE_SIZE] for at in whole]
    by_word = {int.from_bytes(page[:4], "little"): page for page in pages}
    ram = dom0.machine.ram
    seen = RamArray(ram, BIOS_SEARCH_START, BIOS_SEARCH_END).pages_with(*by_word)
    places: dict[bytes, set[int]] = {page: set() for page in pages}
    by_number = list(by_word.values())
    for address, number in zip(*(each.tolist() for each in seen), strict=True):
        page = by_number[number]
        if ram.read(PhysAddr(address), PAGE_SIZE) == page:
            places[page].add(address)
    return [places[page] for page in pages]


def test_rbu_update_in_a_ballooned_dom0_is_found_by_the_bios(
    lab: Lab, ballooned: Dom0, tmp_path: Path
) -> None:
    story = Story(lab, ballooned.machine, tmp_path)
    new = story.newer()
    image = story.file("new.hdr", story.image(new))
    story.until_restart("rbu", "update", image, "--reboot")
    post = story.machine.restart()
    ballooned.is_ballooned = False
    assert (post.completion_code, post.reason) == (CompletionCode.COMPLETED, "")
    assert (post.version_before, post.version_after, post.mode) == (story.old, new, "packet")
    assert story.versions() == (new, new, new, new)


def test_before_ballooning_all_is_found_whole(fresh: Dom0) -> None:
    assert staged(fresh, "mono", "2.2.0")
    assert "2.2.0" in versions_of(found(fresh))
    assert staged(fresh, "packet", "2.2.1", 2 * PAGE_SIZE)
    assert carries(fresh, packets_of(found(fresh), 2 * PAGE_SIZE), "2.2.1")


def test_after_ballooning_a_monolithic_image_is_read_back_right_and_is_scattered(
    ballooned: Dom0,
) -> None:
    version = "2.3.0"
    assert staged(ballooned, "mono", version)
    seen = found(ballooned)
    assert version not in versions_of(seen)
    assert version in [str(each.header.version) for each in seen.headers]
    places = places_of(ballooned, image_of(version))
    assert all(places), "each of its pages is there"
    down = sum(
        any(place - PAGE_SIZE in after for place in here)
        for here, after in itertools.pairwise(places)
    )
    assert down > len(places) // 2, "most of them right below the one before"


def test_after_ballooning_packets_of_a_page_are_found(ballooned: Dom0) -> None:
    assert staged(ballooned, "packet", "2.3.1", PAGE_SIZE)
    packets = packets_of(found(ballooned), PAGE_SIZE)
    assert packets.is_complete
    assert not packets.conflicts
    assert carries(ballooned, packets, "2.3.1")


def test_after_ballooning_larger_packets_are_read_back_right_and_are_not_found(
    ballooned: Dom0,
) -> None:
    assert staged(ballooned, "packet", "2.3.2", 4 * PAGE_SIZE)
    seen = found(ballooned)
    assert not any(each.is_complete for each in seen.packet_sets if each.set_id == 4 * PAGE_SIZE)
    assert [each for each in seen.rejects if "checksum" in each.why]
