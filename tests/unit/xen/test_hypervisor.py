"""Guests, and the hypercalls that they make about their memory."""

from __future__ import annotations

import errno
import tracemalloc

import numpy as np
import pytest

from openrbu.errors import KernelError, MachineError, UsageError
from openrbu.memory.frames import Frames
from openrbu.memory.physical import pc_regions
from openrbu.units import MIB, PAGE_SIZE
from openrbu.xen.hypervisor import DOM0, INVALID, XEN_RESERVED, Hypervisor
from rigs.xen_hosts import Stock, frames, machine_frames, ram, small_host, up

NONE = INVALID


# -- guests -----------------------------------------------------------------------------------


def test_a_new_guest_on_a_fresh_host_has_contiguous_machine_frames() -> None:
    host = small_host()
    guest = host.create_domain("one", pages=4, max_pages=6)
    assert machine_frames(guest) == [0, 1, 2, 3, NONE, NONE]
    assert (guest.frame_count, guest.current_pages, guest.max_pages) == (6, 4, 6)
    assert (host.total_pages, host.free_pages) == (100, 96)
    host.check()


def test_the_hypervisor_keeps_the_first_17_mib_for_itself() -> None:
    host = Hypervisor.in_memory(pc_regions(64 * MIB))
    assert host.total_pages == 47 * MIB // PAGE_SIZE
    assert host.create_domain("one", pages=1, max_pages=1).table[0] == 17 * MIB // PAGE_SIZE
    assert XEN_RESERVED[0].end == 17 * MIB


def test_dom0_is_number_0_and_the_others_count_from_1() -> None:
    host = small_host()
    names = ("a", DOM0, "b")
    assert [host.create_domain(name, pages=1, max_pages=1).id for name in names] == [1, 0, 2]
    host.destroy("b")
    assert host.create_domain("b", pages=1, max_pages=1).id == 3
    assert [(info.id, info.name) for info in host.domains()] == [(0, DOM0), (1, "a"), (3, "b")]


def test_a_guest_is_found_by_its_name() -> None:
    host = small_host()
    host.create_domain("ä" * 31, pages=1, max_pages=9, claim_pages=5).set_maximum(7)
    info = host.domain("ä" * 31).info()
    assert (info.name, info.frame_count, info.current_pages) == ("ä" * 31, 9, 1)
    assert (info.max_pages, info.claim_pages) == (7, 5)
    assert (info.target_kib, info.target_serial) == (4, 0)
    with pytest.raises(MachineError, match="there is no guest 'two'"):
        host.domain("two")


@pytest.mark.parametrize("name", ["", "x" * 64, "ä" * 32, "a\nb", "a\0"])
def test_a_name_that_can_not_be_one_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="can't be a guest's name"):
        small_host().create_domain(name, pages=1, max_pages=1)


def test_no_two_guests_have_the_same_name() -> None:
    host = small_host()
    host.create_domain("one", pages=1, max_pages=1)
    with pytest.raises(MachineError, match="there is a guest 'one' already"):
        host.create_domain("one", pages=1, max_pages=1)


@pytest.mark.parametrize(
    ("pages", "most", "claim"), [(0, 0, 0), (5, 4, 0), (3, 4, 2), (-1, 4, 0), (1, 4, -1)]
)
def test_more_pages_than_frames_are_refused(pages: int, most: int, claim: int) -> None:
    with pytest.raises(UsageError, match=r"a guest can't have|more than a maximum"):
        small_host().create_domain("one", pages=pages, max_pages=most, claim_pages=claim)


def test_a_guest_that_does_not_fit_is_not_made_at_all() -> None:
    host = small_host()
    host.create_domain("one", pages=50, max_pages=60, claim_pages=10)
    with pytest.raises(KernelError, match="41 pages wanted, 40 are free") as caught:
        host.create_domain("two", pages=31, max_pages=60, claim_pages=10)
    assert caught.value.errno == errno.ENOMEM
    assert [info.name for info in host.domains()] == ["one"]
    host.check()
    host.create_domain("two", pages=30, max_pages=60, claim_pages=10)


def test_a_guest_that_its_backing_has_no_memory_for_is_not_made_at_all() -> None:
    stock = Stock(30)
    host = small_host(backing=stock)
    host.create_domain("one", pages=20, max_pages=20)
    with pytest.raises(KernelError, match="11 pages wanted, 10 are free"):
        host.create_domain("two", pages=11, max_pages=20)
    assert stock.taken == set(range(20))
    host.check()
    host.create_domain("two", pages=10, max_pages=20)


def test_a_guest_that_ends_leaves_all_its_pages_scrubbed() -> None:
    stock = Stock(100)
    host = small_host(backing=stock)
    host.create_domain("one", pages=20, max_pages=40, claim_pages=10)
    other = host.create_domain("two", pages=20, max_pages=20)
    host.destroy("one")
    assert (host.free_pages, host.claimed_pages) == (80, 0)
    assert stock.taken == set(machine_frames(other))
    host.check()
    with pytest.raises(MachineError, match="there is no guest 'one'"):
        host.destroy("one")


def test_a_destroyed_guest_can_do_nothing_even_when_another_has_its_row() -> None:
    host = small_host()
    gone = host.create_domain("one", pages=3, max_pages=9)
    host.destroy("one")
    host.create_domain("one", pages=2, max_pages=9)
    assert not gone.is_there
    for call in (
        lambda: gone.populate(frames(5)),
        lambda: gone.decrease(frames(0)),
        lambda: gone.set_maximum(1),
        lambda: gone.set_claim(1),
        lambda: gone.set_target_kib(1),
        lambda: gone.current_pages,
        gone.info,
    ):
        with pytest.raises(MachineError, match="guest 'one' was destroyed"):
            call()


def test_a_host_has_room_for_2048_guests() -> None:
    host = small_host((0, 3000))
    for number in range(2048):
        host.create_domain(f"guest{number}", pages=1, max_pages=1)
    with pytest.raises(MachineError, match="no more than 2048 guests"):
        host.create_domain("one more", pages=1, max_pages=1)
    host.check()
    host.destroy("guest7")
    host.create_domain("one more", pages=1, max_pages=1)


# -- populate and decrease --------------------------------------------------------------------


def test_what_was_given_back_is_handed_out_again_first() -> None:
    guest = small_host().create_domain("one", pages=8, max_pages=10)
    guest.decrease(frames(5, 2))
    assert machine_frames(guest) == [0, 1, NONE, 3, 4, NONE, 6, 7, NONE, NONE]
    assert guest.populate(frames(9, 8, 5)) == 3
    assert machine_frames(guest) == [0, 1, NONE, 3, 4, 8, 6, 7, 5, 2]


def test_a_guest_that_balloons_down_and_up_has_its_pages_in_descending_order() -> None:
    """As was seen on Xen 4.17 (docs/reference/balloon.md, X7): frames come back last one first."""
    host = small_host((0, 2048))
    guest = host.create_domain("one", pages=1024, max_pages=1024)
    guest.decrease(up(0, 512))
    assert guest.populate(up(0, 512)[::-1]) == 512
    assert (np.diff(guest.table[:512].astype(int)) == -1).all()
    host.check()


def test_two_guests_take_what_the_other_gives_back() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=10, max_pages=10)
    two = host.create_domain("two", pages=10, max_pages=16)
    assert two.populate(up(10, 16)) == 0
    one.decrease(up(2, 5))
    assert two.populate(up(10, 16)) == 3
    assert machine_frames(two)[10:] == [2, 3, 4, NONE, NONE, NONE]
    assert (one.current_pages, two.current_pages, host.free_pages) == (7, 13, 0)
    host.check()


def test_the_first_frames_get_pages_when_the_host_is_short() -> None:
    host = small_host((0, 10))
    guest = host.create_domain("one", pages=7, max_pages=20)
    assert guest.populate(frames(19, 10, 12, 7)) == 3
    assert np.flatnonzero(guest.table != NONE).tolist() == [*range(7), 10, 12, 19]


def test_the_first_frames_get_pages_when_the_backing_is_short() -> None:
    stock = Stock(9)
    host = small_host(backing=stock)
    guest = host.create_domain("one", pages=7, max_pages=20)
    assert guest.populate(up(7, 15)) == 2
    assert guest.populate(up(9, 15)) == 0
    assert len(stock.taken) == guest.current_pages == 9
    host.check()


def test_a_guest_gets_no_more_than_its_maximum() -> None:
    host = small_host()
    guest = host.create_domain("one", pages=5, max_pages=20)
    guest.set_maximum(8)
    assert guest.populate(up(5, 15)) == 3
    guest.set_maximum(6)
    assert guest.populate(frames(8)) == 0
    assert guest.current_pages == 8
    guest.decrease(up(0, 4))
    assert guest.populate(up(8, 15)) == 2
    host.check()


def test_a_maximum_above_the_frames_is_nothing_special() -> None:
    guest = small_host().create_domain("one", pages=1, max_pages=3)
    guest.set_maximum(1000)
    assert (guest.max_pages, guest.frame_count) == (1000, 3)
    assert guest.populate(frames(1, 2)) == 2
    with pytest.raises(ValueError, match="maximum"):
        guest.set_maximum(-1)


def test_no_frames_are_no_work() -> None:
    guest = small_host().create_domain("one", pages=3, max_pages=5)
    assert guest.populate(frames()) == 0
    guest.decrease(frames())
    assert guest.current_pages == 3


WRONG_TO_POPULATE = [
    (frames(6, 0), "has a machine page"),
    (frames(6, 7, 6), "there twice"),
    (frames(6, 10), "has frames 0 to 9"),
    (frames(NONE), "has frames 0 to 9"),
]
WRONG_TO_DECREASE = [
    (frames(0, 6), "has no machine page"),
    (frames(0, 1, 0), "there twice"),
    (frames(0, 10), "has frames 0 to 9"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG_TO_POPULATE)
def test_a_frame_that_can_not_be_populated_is_refused(wrong: Frames, why: str) -> None:
    host = small_host()
    guest = host.create_domain("one", pages=6, max_pages=10)
    with pytest.raises(ValueError, match=why):
        guest.populate(wrong)
    assert (guest.current_pages, host.free_pages) == (6, 94)
    host.check()


@pytest.mark.parametrize(("wrong", "why"), WRONG_TO_DECREASE)
def test_a_frame_that_can_not_be_taken_is_refused(wrong: Frames, why: str) -> None:
    host = small_host()
    guest = host.create_domain("one", pages=6, max_pages=10)
    with pytest.raises(ValueError, match=why):
        guest.decrease(wrong)
    assert (guest.current_pages, host.free_pages) == (6, 94)
    host.check()


def test_the_frame_table_is_only_to_be_looked_at() -> None:
    guest = small_host().create_domain("one", pages=6, max_pages=10)
    with pytest.raises(ValueError, match="read-only"):
        guest.table[0] = 5
    guest.decrease(frames(0))
    assert guest.table[0] == NONE


# -- claims -----------------------------------------------------------------------------------


def test_what_one_guest_has_claimed_another_does_not_get() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=2, max_pages=20, claim_pages=10)
    two = host.create_domain("two", pages=2, max_pages=20)
    assert two.populate(up(2, 20)) == 6
    assert (host.free_pages, host.claimed_pages) == (10, 10)
    assert one.populate(up(2, 6)) == 4
    assert (one.claim_pages, host.claimed_pages) == (6, 6)
    assert two.populate(up(8, 20)) == 0
    assert one.populate(up(6, 20)) == 6
    assert (one.claim_pages, host.claimed_pages, host.free_pages) == (0, 0, 0)
    host.check()


def test_a_guest_gets_more_than_its_claim_when_there_is_more() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=2, max_pages=20, claim_pages=3)
    host.create_domain("two", pages=2, max_pages=20, claim_pages=4)
    assert one.populate(up(2, 20)) == 12
    assert (host.free_pages, host.claimed_pages) == (4, 4)
    host.check()


def test_a_claim_can_be_changed_and_given_up() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=2, max_pages=20, claim_pages=10)
    one.set_claim(18)
    assert host.claimed_pages == 18
    one.set_claim(0)
    assert host.claimed_pages == 0
    assert host.create_domain("two", pages=18, max_pages=20).populate(frames(18)) == 0
    host.check()


def test_a_claim_on_what_is_not_free_or_promised_already_is_refused() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=2, max_pages=20, claim_pages=10)
    two = host.create_domain("two", pages=2, max_pages=10)
    with pytest.raises(KernelError, match="7 pages claimed, 6 are free") as caught:
        two.set_claim(7)
    assert caught.value.name == "ENOMEM"
    two.set_claim(6)
    with pytest.raises(KernelError, match="11 pages claimed, 10 are free"):
        one.set_claim(11)
    with pytest.raises(KernelError, match="no room for 9 more") as caught:
        two.set_claim(9)
    assert caught.value.name == "EINVAL"
    with pytest.raises(ValueError, match="claim"):
        two.set_claim(-1)
    assert (one.claim_pages, two.claim_pages) == (10, 6)


def test_a_lower_maximum_frees_what_was_claimed_beyond_it() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=4, max_pages=20, claim_pages=10)
    one.set_maximum(7)
    assert (one.claim_pages, host.claimed_pages) == (3, 3)
    one.set_maximum(2)
    assert (one.claim_pages, host.claimed_pages) == (0, 0)
    host.check()


def test_pages_that_a_guest_gives_back_are_not_claimed() -> None:
    host = small_host((0, 20))
    one = host.create_domain("one", pages=10, max_pages=20, claim_pages=5)
    one.decrease(up(0, 8))
    assert (one.claim_pages, host.claimed_pages) == (5, 5)
    host.check()


# -- targets ----------------------------------------------------------------------------------


def test_the_serial_counts_each_writing_of_a_target_the_same_value_included() -> None:
    host = small_host()
    guest = host.create_domain("one", pages=3, max_pages=5)
    watcher = host.domain("one")
    seen = [(watcher.target_kib, watcher.target_serial)]
    for kib in (8, 8, 0):
        guest.set_target_kib(kib)
        seen.append((watcher.target_kib, watcher.target_serial))
    assert seen == [(12, 0), (8, 1), (8, 2), (0, 3)]


@pytest.mark.parametrize("kib", [-1, 2**64])
def test_a_target_is_a_number_of_64_bits(kib: int) -> None:
    guest = small_host().create_domain("one", pages=3, max_pages=5)
    with pytest.raises(ValueError, match="target"):
        guest.set_target_kib(kib)


# -- size -------------------------------------------------------------------------------------


def test_a_host_of_a_tebibyte_costs_no_memory_before_it_is_used() -> None:
    tracemalloc.start()
    host = Hypervisor.in_memory(ram((0, 1 << 28)))
    host.create_domain("one", pages=1, max_pages=1).populate(frames())
    current = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert host.total_pages == (1 << 28) - 17 * MIB // PAGE_SIZE
    assert current - 4 * host.total_pages < MIB  # the stack is address space, not memory


@pytest.mark.parametrize("end", [17 * MIB // PAGE_SIZE, (1 << 32) + 1])
def test_ram_that_no_guest_could_have_is_refused(end: int) -> None:
    with pytest.raises(UsageError, match="RAM"):
        Hypervisor.in_memory(ram((0, end)))


def test_ram_ends_at_16_tib() -> None:
    host = Hypervisor.in_memory(ram((INVALID - 5, INVALID)))
    assert host.create_domain("one", pages=5, max_pages=5).table[4] == INVALID - 1
