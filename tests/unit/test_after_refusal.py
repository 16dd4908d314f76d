"""What was staged is not what was meant, or no BIOS would take it there: another way is tried,
before the update gives up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import UpdateFailedError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import MIB, PAGE_SIZE, PhysAddr
from openrbu.update.driver import IMAGE_TYPE, STAGED
from openrbu.update.stage import DROP_CACHES
from openrbu.update.verify import LeftoverCopyError, OtherDataError
from rigs.boards import packets_of
from rigs.machines import Watched, image, image_bytes, make, running, status, update

SERVER = "poweredge-2950"
STALE = packets_of(image_bytes(SERVER, seed=2), set_id=b"old_")
"""Packets of an image that the server takes, and that is not the one to be staged."""


class ReadsWrongly(Watched):
    """A host whose driver gives back another last byte, as often as `times` (None: always), while
    its type of image is one of `kinds`."""

    def __init__(self, host: Any, *kinds: str, times: int | None = None) -> None:
        self._times, self._kinds = times, kinds

        def chunks(path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
            read = list(host.chunks(path, size_bytes, offset))
            if read and path == STAGED and self._is_due(read_text(host, IMAGE_TYPE)):
                read[-1] = read[-1][:-1] + bytes([read[-1][-1] ^ 1])
            yield from read

        super().__init__(host, lambda *_: None, {"chunks": chunks})

    def _is_due(self, kind: str) -> bool:
        if kind not in self._kinds or self._times == 0:
            return False
        self._times = None if self._times is None else self._times - 1
        return True


class Caching(Watched):
    """A host whose kernel drops its caches when that is asked for."""

    was_dropped = False

    def __init__(self, host: Any) -> None:
        def write(path: str, data: bytes, offset: int = 0) -> None:
            if path == DROP_CACHES:
                self.was_dropped = True
            else:
                host.write(path, data, offset)

        exists = {"exists": lambda path: path == DROP_CACHES or host.exists(path)}
        super().__init__(host, lambda *_: None, {"write": write} | exists)


def is_done(machine: VirtualMachine) -> bool:
    return machine.restart().completion_code == 0


def test_what_is_read_back_wrongly_once_is_staged_once_more(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        # looked at twice, and before it is dropped
        outcome = update(ReadsWrongly(VirtualHost(machine), "mono", times=2), image(), mode="mono")
        assert outcome.way.name == "unchanged"
        assert outcome.tried == ("the driver gives back something else than was delivered",)
        assert is_done(machine)


@pytest.mark.parametrize(
    ("kinds", "way"), [(("packet",), "one_block"), (("packet", "mono"), None)], ids=str
)
def test_what_is_read_back_wrongly_in_packets_is_staged_in_one_block(
    tmp_path: Path, kinds: tuple[str, ...], way: str | None
) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        host = ReadsWrongly(VirtualHost(machine), *kinds)
        before = status(machine)
        if way is None:
            with pytest.raises(UpdateFailedError, match=r"else.*\(once more\).*\(all in one block"):
                update(host, image())
            assert status(machine) == before
            return
        outcome = update(host, image())
        assert (outcome.way.name, outcome.mode) == (way, "packet")
        assert is_done(machine)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VirtualMachine]:
    """A PowerEdge 2950: its BIOS takes the lowest packets of all, and an image in one piece before
    any of them."""
    with running(make(tmp_path, SERVER, flash_size_bytes=MIB)) as machine:
        yield machine


def put_in_use(machine: VirtualMachine) -> None:
    """Stale packets in pages that the kernel has given out, below those that it gives out next."""
    allocator = machine.running_kernel().allocator
    for packet in STALE[:9]:
        machine.ram.write(allocator.allocate(0), packet)


def test_other_data_in_use_that_keeps_a_bios_from_packets_does_not_from_one_piece(
    server: VirtualMachine,
) -> None:
    put_in_use(server)
    outcome = update(VirtualHost(server), image(SERVER, flash_size_bytes=MIB))
    assert (outcome.way.name, outcome.mode) == ("one_piece", "mono")
    assert all("because of other data in memory" in what for what in outcome.tried)
    assert is_done(server)


def test_where_no_way_is_left_all_are_told_with_what_to_do(server: VirtualMachine) -> None:
    put_in_use(server)
    before = status(server)
    with pytest.raises(OtherDataError, match="try --drop-caches, or power cycle the machine") as no:
        update(VirtualHost(server), image(SERVER, flash_size_bytes=MIB), mode="packet")
    assert str(no.value).count("because of other data in memory") == 2
    assert str(no.value).count("power cycle") == 1
    assert status(server) == before


def test_the_page_cache_is_dropped_for_a_leftover_copy_only_when_that_is_asked_for(
    tmp_path: Path,
) -> None:
    """The copy is in the last free page, which nothing overwrites."""
    directory = make(tmp_path, ram_bytes=256 * MIB, flash_size_bytes=MIB)
    with running(directory) as machine:
        stale = packets_of(image_bytes(seed=2, flash_size_bytes=MIB), set_id=b"old_")[3]
        machine.ram.write(PhysAddr(256 * MIB - 2 * PAGE_SIZE), stale)
        for asked in (False, True):
            host = Caching(VirtualHost(machine))
            with pytest.raises(LeftoverCopyError) as refused:
                update(host, image(flash_size_bytes=MIB), mode="packet", drop_caches=asked)
            assert ("try --drop-caches" in str(refused.value)) is not asked
            assert host.was_dropped is asked
