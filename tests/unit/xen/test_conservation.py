"""Machine frames are conserved, whatever guests do: random hypercalls against a plain model."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from openrbu.errors import KernelError, MachineError
from openrbu.xen.hypervisor import INVALID, Domain, Hypervisor
from openrbu.xen.state import HostState
from rigs.xen_hosts import Stock, frames, machine_frames, private_host, ram, small_host

TOTAL = 60
SPANS = ((2, 30), (40, 72))


@dataclass
class Expected:
    """What a guest should have."""

    domain: Domain
    maximum: int
    claim: int
    present: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)


class Guests(RuleBasedStateMachine):
    """Guests of a host whose backing may be shorter than its RAM."""

    @initialize(capacity=st.sampled_from([TOTAL, TOTAL, 45]), in_files=st.booleans())
    def a_fresh_host(self, capacity: int, in_files: bool) -> None:
        self.stock = Stock(capacity)
        self.directory = Path(tempfile.mkdtemp()) if in_files else None
        if self.directory is None:
            self.host = small_host(*SPANS, backing=self.stock)
        else:
            self.host = Hypervisor.create(
                self.directory, ram(*SPANS), reserved=(), backing=self.stock, takes_memory=True
            )
        self.guests: dict[str, Expected] = {}
        self.make("a", pages=10, more=40)
        self.make("b", pages=5, more=30)

    def teardown(self) -> None:
        if self.directory is not None:
            self.host.close()
            shutil.rmtree(self.directory)

    @property
    def free(self) -> int:
        return TOTAL - sum(len(guest.present) for guest in self.guests.values())

    @property
    def claimed(self) -> int:
        return sum(guest.claim for guest in self.guests.values())

    @property
    def in_stock(self) -> int:
        return self.stock.capacity - (TOTAL - self.free)

    @rule(name=st.sampled_from("abcd"), pages=st.integers(0, 20), more=st.integers(0, 60))
    def create(self, name: str, pages: int, more: int) -> None:
        self.make(name, pages=pages, more=more)

    def make(self, name: str, *, pages: int, more: int) -> None:
        claim = more // 2
        if pages + more == 0:
            return
        if name in self.guests:
            with pytest.raises(MachineError):
                self.host.create_domain(name, pages=pages, max_pages=pages + more)
            return
        if pages + claim > self.free - self.claimed or pages > self.in_stock:
            with pytest.raises(KernelError):
                self.host.create_domain(
                    name, pages=pages, max_pages=pages + more, claim_pages=claim
                )
            return
        domain = self.host.create_domain(
            name, pages=pages, max_pages=pages + more, claim_pages=claim
        )
        self.guests[name] = Expected(
            domain, pages + more, claim, set(range(pages)), set(range(pages, pages + more))
        )

    def guest(self, data: st.DataObject) -> Expected:
        return self.guests[data.draw(st.sampled_from(sorted(self.guests)))]

    @precondition(lambda self: self.guests)
    @rule(data=st.data())
    def destroy(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.guests)))
        self.host.destroy(name)
        del self.guests[name]

    @precondition(lambda self: self.guests)
    @rule(data=st.data(), count=st.integers(0, 60), seed=st.integers(0, 9))
    def populate(self, data: st.DataObject, count: int, seed: int) -> None:
        guest = self.guest(data)
        wanted = np.random.default_rng(seed).permutation(sorted(guest.missing))[:count]
        room = max(0, guest.maximum - len(guest.present))
        promised = self.claimed - guest.claim
        expected = min(len(wanted), room, self.free - promised, self.in_stock)
        assert guest.domain.populate(wanted.astype(np.uint32)) == expected
        got = {int(frame) for frame in wanted[:expected]}
        guest.present |= got
        guest.missing -= got
        guest.claim = max(0, guest.claim - expected)

    @precondition(lambda self: self.guests)
    @rule(data=st.data(), count=st.integers(0, 60), seed=st.integers(0, 9))
    def decrease(self, data: st.DataObject, count: int, seed: int) -> None:
        guest = self.guest(data)
        given = np.random.default_rng(seed).permutation(sorted(guest.present))[:count]
        guest.domain.decrease(given.astype(np.uint32))
        gone = {int(frame) for frame in given}
        guest.present -= gone
        guest.missing |= gone

    @precondition(lambda self: self.guests)
    @rule(data=st.data(), pages=st.integers(0, 70))
    def set_claim(self, data: st.DataObject, pages: int) -> None:
        guest = self.guest(data)
        fits = pages <= self.free - (self.claimed - guest.claim)
        if pages and (not fits or len(guest.present) + pages > guest.maximum):
            with pytest.raises(KernelError):
                guest.domain.set_claim(pages)
            return
        guest.domain.set_claim(pages)
        guest.claim = pages

    @precondition(lambda self: self.guests)
    @rule(data=st.data(), pages=st.integers(0, 70))
    def set_maximum(self, data: st.DataObject, pages: int) -> None:
        guest = self.guest(data)
        guest.domain.set_maximum(pages)
        guest.maximum = pages
        guest.claim = min(guest.claim, max(0, pages - len(guest.present)))

    @precondition(lambda self: self.directory is not None)
    @rule()
    def open_again(self) -> None:
        assert self.directory is not None
        self.host.close()
        self.host = Hypervisor.open(self.directory, backing=self.stock)
        for name, guest in self.guests.items():
            guest.domain = self.host.domain(name)

    @invariant()
    def frames_are_conserved(self) -> None:
        self.host.check()
        assert self.host.free_pages == self.free
        assert self.host.claimed_pages == self.claimed <= self.free
        used: list[int] = []
        for guest in self.guests.values():
            table = guest.domain.table
            assert set(np.flatnonzero(table != INVALID).tolist()) == guest.present
            assert guest.domain.current_pages == len(guest.present)
            used += table[table != INVALID].tolist()
        assert len(set(used)) == len(used) == TOTAL - self.free
        assert self.stock.taken == set(used)


Guests.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestGuests = Guests.TestCase


# -- what `check` finds -----------------------------------------------------------------------


@pytest.fixture
def state() -> HostState:
    """Of a host of 100 pages; `a` has 3 of 5 frames and a claim of 2, `b` has 4 of 4."""
    state = private_host()
    host = Hypervisor(state)
    host.create_domain("a", pages=3, max_pages=5, claim_pages=2)
    host.create_domain("b", pages=4, max_pages=4)
    host.create_domain("c", pages=9, max_pages=9)
    host.destroy("c")
    host.check()
    return state


def tables(state: HostState) -> list[np.ndarray]:
    return [state.table(row) for row in state.rows]


def found_by_check(state: HostState, what: str) -> None:
    with pytest.raises(MachineError, match=what):
        Hypervisor(state).check()


def test_a_machine_frame_of_two_guests_is_found(state: HostState) -> None:
    tables(state)[0][4] = tables(state)[1][0]
    found_by_check(state, "in the frame tables twice")


def test_a_machine_frame_that_is_twice_in_a_table_is_found(state: HostState) -> None:
    tables(state)[1][0] = tables(state)[1][1]
    found_by_check(state, "in the frame tables twice")


def test_a_free_machine_frame_in_a_table_is_found(state: HostState) -> None:
    tables(state)[0][4] = 9
    found_by_check(state, "is free, and a guest has it")


def test_a_fresh_machine_frame_in_a_table_is_found(state: HostState) -> None:
    tables(state)[0][2] = 99
    found_by_check(state, "lost")


def test_a_lost_machine_frame_is_found(state: HostState) -> None:
    tables(state)[0][2] = INVALID
    found_by_check(state, "lost")


def test_a_machine_frame_that_is_no_ram_is_found(state: HostState) -> None:
    tables(state)[0][4] = 100
    found_by_check(state, "not RAM")


def test_a_machine_frame_that_is_free_twice_is_found(state: HostState) -> None:
    state.heap.give(frames(8))
    found_by_check(state, "free twice")


def test_pages_counted_wrong_are_found(state: HostState) -> None:
    next(iter(state.rows)).set_counts(4, 2)
    found_by_check(state, "counted wrong")


def test_a_claim_counted_wrong_is_found(state: HostState) -> None:
    next(iter(state.rows)).set_counts(3, 1)
    found_by_check(state, "more is claimed than is free, or it is counted wrong")


def test_more_claims_than_free_pages_are_found(state: HostState) -> None:
    state.set_counts(next(iter(state.rows)), 3, 94)
    found_by_check(state, "more is claimed than is free")


def test_a_frame_table_of_nobody_is_found(state: HostState) -> None:
    state.arrays.make_table(77, 5)
    found_by_check(state, "has no guest")


# -- a hypercall that was cut off -------------------------------------------------------------


def test_what_was_cut_off_is_made_whole_by_the_next_hypercall(state: HostState) -> None:
    """As after a kill in the middle of populate: a frame in the table, and counted nowhere."""
    host = Hypervisor(state)
    state.begin_change(handing_out=1)
    tables(state)[0][3] = int(state.heap.peek(1)[0])
    state.arrays.make_table(77, 5)
    guest = host.domain("a")
    host.check()
    assert (guest.current_pages, guest.claim_pages) == (4, 1)
    assert machine_frames(guest) == [0, 1, 2, 7, INVALID]
    assert host.domain("b").current_pages == 4
    assert (host.free_pages, host.claimed_pages) == (92, 1)


def test_damage_that_can_not_be_mended_is_said(state: HostState) -> None:
    state.begin_change()
    tables(state)[0][4] = tables(state)[1][0]
    with pytest.raises(MachineError, match="in the frame tables twice"):
        Hypervisor(state).domains()
