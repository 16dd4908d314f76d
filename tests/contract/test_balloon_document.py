"""The document of the change to the balloon driver, statement by statement.

Each test names the lines that it is about and says them in other words. Guests have real page
allocators, and are on a host that counts its machine frames; targets are set through the files.
`hard-limit` is the driver as it was, `linux-2.6.18-xen` as the change makes it. What of that holds
on later Linux is tried with `linux`, too: all does, but that there are tries enough has to be said,
and the timer is not every second.

=======  ===================================================================================
lines    test, or why there is none
=======  ===================================================================================
1        the title: test_memory_that_comes_free_is_got_without_a_word
3-5      test_it_was_one_shortage_and_the_driver_gave_up
5-6      test_it_was_the_limit_that_had_been_reached_that_was_recorded
6-7      test_it_was_only_a_target_that_got_the_driver_going_again
9-11     test_memory_that_comes_free_is_got_without_a_word
11-14    test_guests_that_grow_while_others_shrink_all_arrive
14-15    test_a_guest_told_to_have_more_than_its_allocation_stays_within_it
15-17    test_targets_beyond_the_host_s_memory_leave_each_guest_what_it_has
19       test_there_is_no_hard_limit_any_more
19-21    test_growing_is_tried_again_on_the_timer_that_shrinking_has
23-25    test_pages_that_were_granted_are_kept
25       test_it_was_that_granted_pages_went_back
=======  ===================================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from openrbu.drivers.sysfs import SysfsTree
from openrbu.drivers.xen_balloon import BATCH_PAGES, XenBalloon
from openrbu.drivers.xen_balloon_files import DEVICE_PATH, XenMemory
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.xen.hypervisor import Domain, Hypervisor

BEFORE, AFTER, LATER = "hard-limit", "linux-2.6.18-xen", "linux"
HOST_PAGES = 64 * MIB // PAGE_SIZE

since_the_change = pytest.mark.parametrize("profile", [AFTER, LATER])


class Guest:
    """A guest with the driver in it. Time is told to `pass_time`."""

    def __init__(self, domain: Domain, ram: RamFile, profile: str) -> None:
        self.domain = domain
        self.allocator = BuddyAllocator(ram)
        ballooned = np.arange(domain.current_pages, domain.frame_count, dtype=np.uint32)
        self.allocator.withdraw_pages(ballooned)
        self.balloon = XenBalloon(
            self.allocator,
            domain,
            profile=balloon_profile(profile),
            current_pages=domain.current_pages,
            ballooned=ballooned,
        )
        self.sys, self.proc = SysfsTree(), SysfsTree()
        XenMemory(self.balloon, self.sys, self.proc).install()
        if profile == LATER:
            self.write("max_retry_count", "0")

    def read(self, name: str) -> str:
        return self.sys.read(f"{DEVICE_PATH}/{name}").decode().strip()

    def write(self, name: str, text: str) -> None:
        self.sys.write(f"{DEVICE_PATH}/{name}", f"{text}\n".encode())

    def tell(self, pages: int) -> None:
        """Set a target, and let the driver begin."""
        self.write("target_kb", str(pages * PAGE_SIZE // KIB))

    @property
    def pages(self) -> int:
        """What it has, as all who can know it say."""
        pages = int(self.read("info/current_kb")) * KIB // PAGE_SIZE
        assert pages == self.domain.current_pages == self.allocator.free_bytes // PAGE_SIZE
        return pages

    @contextlib.contextmanager
    def busy(self, pages: int) -> Iterator[None]:
        """As many of its free pages are in use."""
        frames: Frames = self.allocator.take_pages(pages)
        yield
        self.allocator.give_pages(frames)


NewGuest = Callable[..., Guest]


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    """64 MiB of memory for guests."""
    region = Region(PhysAddr(0), PhysAddr(HOST_PAGES * PAGE_SIZE))
    host = Hypervisor.in_memory((region,), reserved=())
    yield host
    host.check()


@pytest.fixture
def new_guest(host: Hypervisor, tmp_path: Path) -> Iterator[NewGuest]:
    """Makes guests."""
    with contextlib.ExitStack() as stack:

        def new(name: str, profile: str, *, pages: int, frames: int = HOST_PAGES) -> Guest:
            domain = host.create_domain(name, pages=pages, max_pages=frames)
            region = Region(PhysAddr(0), PhysAddr(frames * PAGE_SIZE))
            ram = RamFile.create(tmp_path / name, (region,))
            return Guest(domain, stack.enter_context(contextlib.closing(ram)), profile)

        yield new


def pass_time(*guests: Guest, to_s: float, from_s: float = 0.0) -> None:
    """Let the guests do what is due, a tenth of a second at a time and a batch at a turn."""
    for tenth in range(round(from_s * 10), round(to_s * 10) + 1):
        moved = 1
        while moved:
            moved = sum(guest.balloon.step(tenth / 10) for guest in guests)


def tries(guest: Guest, count: int) -> list[float]:
    """When the driver makes its next tries, all of which fail, from now on."""
    times, now_s = [], 0.0
    for _ in range(count):
        assert guest.balloon.step(now_s) == 0
        due_s = guest.balloon.due_s
        assert due_s is not None
        times.append(now_s := due_s)
    return times


def test_it_was_one_shortage_and_the_driver_gave_up(host: Hypervisor, new_guest: NewGuest) -> None:
    """Lines 3-5: not to get all that it asks for was taken for the end of what there is."""
    guest = new_guest("guest", BEFORE, pages=4000)
    other = host.create_domain("other", pages=HOST_PAGES - 5000, max_pages=HOST_PAGES)
    guest.tell(6000)
    pass_time(guest, to_s=0)
    assert (guest.pages, guest.balloon.due_s) == (4000 + BATCH_PAGES, None)
    other.decrease(np.arange(3000, dtype=np.uint32))
    pass_time(guest, to_s=60)
    assert guest.pages == 4000 + BATCH_PAGES


def test_it_was_the_limit_that_had_been_reached_that_was_recorded(
    host: Hypervisor, new_guest: NewGuest
) -> None:
    """Lines 5-6: and the most that the guest could have got was kept, to be shown."""
    guest = new_guest("guest", BEFORE, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 5000, max_pages=HOST_PAGES)
    assert guest.read("info/hard_limit_kb") == "???"
    guest.tell(6000)
    pass_time(guest, to_s=0)
    assert guest.read("info/hard_limit_kb") == str(5000 * PAGE_SIZE // KIB)
    assert "Xen hard limit:        20000 kB\n" in guest.proc.read("/xen/balloon").decode()


def test_it_was_only_a_target_that_got_the_driver_going_again(
    host: Hypervisor, new_guest: NewGuest
) -> None:
    """Lines 6-7: nothing was tried any more until a target was written, even the same one."""
    guest = new_guest("guest", BEFORE, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 4000, max_pages=HOST_PAGES)
    guest.tell(6000)
    pass_time(guest, to_s=0)
    host.destroy("other")
    pass_time(guest, from_s=0, to_s=60)
    assert guest.pages == 4000
    guest.tell(6000)
    pass_time(guest, from_s=60, to_s=60)
    assert guest.pages == 6000


@since_the_change
def test_memory_that_comes_free_is_got_without_a_word(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Lines 1 and 9-11: the shortage may be the host's and pass, so trying goes on."""
    guest = new_guest("guest", profile, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 4000, max_pages=HOST_PAGES)
    guest.tell(6000)
    pass_time(guest, to_s=300)
    assert guest.pages == 4000
    host.destroy("other")
    pass_time(guest, from_s=300, to_s=340)
    assert (guest.pages, guest.balloon.due_s) == (6000, None)


@pytest.mark.parametrize("profile", [BEFORE, AFTER, LATER])
def test_guests_that_grow_while_others_shrink_all_arrive(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Lines 11-14: pressure that is there until things stabilise is what the change is for. As the
    driver was, the guest that grows is left behind."""
    growing = new_guest("growing", profile, pages=8000)
    shrinking = new_guest("shrinking", profile, pages=HOST_PAGES - 8000)
    with shrinking.busy(6000):
        growing.tell(12_000)
        shrinking.tell(HOST_PAGES - 12_000)
        pass_time(growing, shrinking, to_s=1)
    pass_time(growing, shrinking, from_s=1, to_s=40)
    assert shrinking.pages == HOST_PAGES - 12_000
    assert (growing.pages < 12_000) if profile == BEFORE else (growing.pages == 12_000)


@since_the_change
def test_a_guest_told_to_have_more_than_its_allocation_stays_within_it(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Lines 14-15: no sensible toolstack does that. One that does gets a guest at its allocation
    that asks and asks, and no harm is done."""
    guest = new_guest("guest", profile, pages=1000)
    guest.domain.set_maximum(2000)
    guest.tell(3000)
    pass_time(guest, to_s=100)
    assert (guest.pages, host.free_pages) == (2000, HOST_PAGES - 2000)
    guest.tell(1900)
    pass_time(guest, from_s=100, to_s=100)
    assert (guest.pages, guest.balloon.due_s) == (1900, None)


@since_the_change
def test_targets_beyond_the_host_s_memory_leave_each_guest_what_it_has(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Lines 15-17: nor does it promise more than there is. If so, the memory is used to the last
    page, nobody loses any, and what is given up by one goes to those that wait."""
    guests = [new_guest(f"guest-{number}", profile, pages=2000) for number in range(3)]
    for guest in guests:
        guest.tell(HOST_PAGES)
    pass_time(*guests, to_s=10)
    before = [guest.pages for guest in guests]
    assert (sum(before), host.free_pages) == (HOST_PAGES, 0)
    assert min(before) > 2000
    guests[0].tell(1000)
    pass_time(*guests, from_s=10, to_s=60)
    after = [guest.pages for guest in guests]
    assert (after[0], sum(after), host.free_pages) == (1000, HOST_PAGES, 0)
    assert all(now >= earlier for earlier, now in zip(before[1:], after[1:], strict=True))


@since_the_change
def test_there_is_no_hard_limit_any_more(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Line 19: the idea is gone, and the files that told of it."""
    guest = new_guest("guest", profile, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 4000, max_pages=HOST_PAGES)
    guest.tell(6000)
    pass_time(guest, to_s=5)
    assert guest.balloon.due_s is not None
    assert sorted(guest.sys.list(f"{DEVICE_PATH}/info")) == ["current_kb", "high_kb", "low_kb"]
    if profile == AFTER:
        assert b"limit" not in guest.proc.read("/xen/balloon")


@pytest.mark.parametrize(
    ("profile", "due_s"),
    [(AFTER, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (LATER, [2.0, 6.0, 14.0, 30.0, 62.0, 94.0])],
)
def test_growing_is_tried_again_on_the_timer_that_shrinking_has(
    host: Hypervisor, new_guest: NewGuest, profile: str, due_s: list[float]
) -> None:
    """Lines 19-21: whoever can't grow waits as whoever can't shrink always did."""
    growing = new_guest("growing", profile, pages=HOST_PAGES // 2)
    shrinking = new_guest("shrinking", profile, pages=HOST_PAGES // 2)
    growing.tell(HOST_PAGES)
    shrinking.tell(0)
    with shrinking.busy(HOST_PAGES // 2):
        assert tries(growing, 6) == tries(shrinking, 6) == due_s


@since_the_change
def test_pages_that_were_granted_are_kept(
    host: Hypervisor, new_guest: NewGuest, profile: str
) -> None:
    """Lines 23-25: fewer pages than asked for are better than none."""
    guest = new_guest("guest", profile, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 4100, max_pages=HOST_PAGES)
    guest.tell(6000)
    assert guest.balloon.step(0.0) == 100
    assert (guest.pages, host.free_pages) == (4100, 0)


def test_it_was_that_granted_pages_went_back(host: Hypervisor, new_guest: NewGuest) -> None:
    """Line 25: they used to be returned to the hypervisor."""
    guest = new_guest("guest", BEFORE, pages=4000)
    host.create_domain("other", pages=HOST_PAGES - 4100, max_pages=HOST_PAGES)
    guest.tell(6000)
    assert guest.balloon.step(0.0) == 0
    assert (guest.pages, host.free_pages) == (4000, 100)
