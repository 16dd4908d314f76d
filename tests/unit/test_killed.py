"""A tool that is killed at any step of an update, or of a cancel, on a machine that goes on.

Another process has the machine, as a kernel has a real one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import ObstacleError
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host, read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.firmware_class import IGNORE_FALLBACK, SEARCH_PATH
from openrbu.linux.memory import NR_HUGEPAGES
from openrbu.machine.base import Machine
from openrbu.units import GIB, KIB, MIB
from openrbu.update.arming import arm
from openrbu.update.cancelling import cancel
from openrbu.update.driver import RbuDriver
from openrbu.update.firmware_file import DIRECTORY
from openrbu.update.report import NextRestart, UpdateState, UpdateStatus, read_status
from openrbu.update.staged_update import NotStagedError
from rigs.all_cases import ALL_CASES
from rigs.killed import killed_at_step
from rigs.machines import WAYS, image, make, published, update
from rigs.served import client, serving

# Updates over and over. What a client of a machine may as another user: test_service and others.
pytestmark = [pytest.mark.untraced, pytest.mark.any_user]

WITHOUT_END = 500
"""More steps than an update has."""


Opener = Callable[[], AbstractContextManager[Host]]


@contextmanager
def served(
    tmp_path: Path, model: str = "precision-390", **spec: Any
) -> Iterator[tuple[Machine, Opener]]:
    """The machine as this process has it, and how another one opens it as a host."""
    directory = make(tmp_path, model, **spec)

    @contextmanager
    def opened() -> Iterator[Host]:
        with client(directory) as machine:
            yield VirtualHost(machine)

    with serving(directory), client(directory) as machine:
        yield machine, opened


def what_is_true(machine: Machine, meant: Image) -> UpdateStatus:
    """The machine's status, after it was checked against the machine itself: its token, and what
    its BIOS would find in its RAM."""
    now = read_status(VirtualHost(machine))
    truth = machine.status()
    assert (now.is_armed or False) == truth.is_armed
    assert now.restart_mode == truth.reboot_mode
    assert now.under_way == ""
    if truth.is_armed:
        (bios,) = published(meant)
        found = bios.find(machine.ram).image
        assert (found.header, bytes(found.body)) == (meant.header, bytes(meant.body))
        assert now.restart_mode == "warm"
        assert (now.is_verified, now.next_restart) == (True, NextRestart.UPDATES)
        assert now.last is not None
        assert now.last.outcome == "armed"
    else:
        assert now.next_restart in (NextRestart.CHANGES_NOTHING, NextRestart.UNKNOWN)
    return now


def check_all_is_taken_back(machine: Machine, *, did_begin: bool) -> None:
    host = VirtualHost(machine)
    now = read_status(host)
    truth = machine.status()
    assert (truth.is_armed, truth.reboot_mode) == (False, "cold")
    assert (now.is_armed or False, now.staged_size_bytes) == (False, 0)
    assert not RbuDriver(host).is_loading
    assert read_text(host, NR_HUGEPAGES) == "0"
    assert read_text(host, SEARCH_PATH) == ""
    assert not host.exists(f"/run/{DIRECTORY}/dell_rbu")
    if did_begin:
        assert now.last is not None
        assert now.last.outcome == "cancelled"


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_update_that_is_killed_at_any_step_is_told_and_cancelled(
    tmp_path: Path, model: str, mode: Any
) -> None:
    with served(tmp_path, model) as (machine, opened):
        kill_at_each_step(machine, opened, image(model), mode=mode)


def test_so_is_one_whose_image_the_kernel_gets_as_a_file(tmp_path: Path) -> None:
    with served(tmp_path, profile="linux") as (machine, opened):
        VirtualHost(machine).write(IGNORE_FALLBACK, b"1")
        kill_at_each_step(machine, opened, image(), mode="packet")


def test_so_is_one_that_holds_memory_above_4_gib(tmp_path: Path) -> None:
    large: dict[str, Any] = {"flash_size_bytes": 5 * MIB}
    with served(tmp_path, profile="linux", ram_bytes=5 * GIB, **large) as (machine, opened):
        meant = image(**large)
        options = {"mode": "packet", "packet_size_bytes": 64 * KIB}
        every = 3 if ALL_CASES else 10
        assert kill_at_each_step(machine, opened, meant, every=every, **options) > 1


def kill_at_each_step(
    machine: Machine, opened: Opener, meant: Image, *, every: int = 1, **options: Any
) -> int:
    """Kill an update before each step, or one of `every` steps; see what is true then, and
    cancel it. In the end it is done, and the machine is updated. Returns how often memory was held
    when it was killed."""
    held = 0
    seen: set[tuple[bool | None, bool, bool]] = set()
    for number in range(1, WITHOUT_END, every):
        if not killed_at_step(number, opened, lambda host: update(host, meant, **options)):
            break
        held += read_text(VirtualHost(machine), NR_HUGEPAGES) != "0"
        now = what_is_true(machine, meant)
        seen.add((now.is_armed, now.was_cut_off, now.staged_size_bytes > 0))
        did_begin = now.last is not None and now.last.is_open
        assert cancel(VirtualHost(machine)).changed is did_begin
        check_all_is_taken_back(machine, did_begin=did_begin)
    assert 10 < number < WITHOUT_END - 1
    assert seen >= {(False, True, False), (False, True, True)}
    assert every > 1 or (True, False, True) in seen
    assert machine.restart().version_after == meant.header.version.text
    return held


@pytest.mark.parametrize(("model", "mode"), [("precision-390", "packet"), WAYS[-2]])
def test_one_that_only_stages_is_cut_off_or_staged_wherever_it_is_killed(
    tmp_path: Path, model: str, mode: Any
) -> None:
    meant = image(model)
    seen: list[UpdateState] = []
    with served(tmp_path, model) as (machine, opened):
        host = VirtualHost(machine)
        for number in range(1, WITHOUT_END):
            was_killed = killed_at_step(
                number, opened, lambda host: update(host, meant, mode=mode, arm=False)
            )
            now = what_is_true(machine, meant)
            assert not machine.status().is_armed
            seen.append(now.state)
            if now.state is UpdateState.STAGED:
                assert arm(host).is_armed
                what_is_true(machine, meant)
            else:
                with pytest.raises(NotStagedError):
                    arm(host)
            cancel(host)
            check_all_is_taken_back(machine, did_begin=now.last is not None)
            if not was_killed:
                break
    first = seen.index(UpdateState.STAGED)
    assert set(seen[first:]) == {UpdateState.STAGED}
    not_yet = {UpdateState.NONE, UpdateState.UNKNOWN, UpdateState.CUT_OFF}
    assert UpdateState.CUT_OFF in seen[:first]
    assert set(seen[:first]) <= not_yet


@pytest.mark.parametrize(("model", "mode"), [("precision-390", "packet"), *WAYS[-2:]])
def test_what_is_staged_is_armed_or_can_be_armed_wherever_arming_is_killed(
    tmp_path: Path, model: str, mode: Any
) -> None:
    meant = image(model)
    seen: list[UpdateState] = []
    with served(tmp_path, model) as (machine, opened):
        host = VirtualHost(machine)
        for number in range(1, WITHOUT_END):
            update(host, meant, mode=mode, arm=False)
            was_killed = killed_at_step(number, opened, arm)
            now = what_is_true(machine, meant)
            seen.append(now.state)
            assert (now.state is UpdateState.ARMED) is machine.status().is_armed
            again = arm(host)
            assert (again.is_armed, again.changed) == (True, now.state is UpdateState.STAGED)
            assert what_is_true(machine, meant).state is UpdateState.ARMED
            cancel(host)
            check_all_is_taken_back(machine, did_begin=True)
            if not was_killed:
                break
        assert 3 < number < WITHOUT_END - 1
    order = [each for each, _ in itertools.groupby(seen)]
    assert order == [UpdateState.STAGED, UpdateState.ARMED]


@pytest.mark.parametrize(("model", "mode"), [("precision-390", "packet"), WAYS[-2]])
def test_an_update_goes_on_after_one_that_was_killed_at_any_step(
    tmp_path: Path, model: str, mode: Any
) -> None:
    meant = image(model)
    refused = 0
    with served(tmp_path, model) as (machine, opened):
        host = VirtualHost(machine)
        for number in range(1, WITHOUT_END):
            if not killed_at_step(number, opened, lambda host: update(host, meant, mode=mode)):
                break
            if machine.status().is_armed:
                with pytest.raises(ObstacleError, match="the BIOS is armed already"):
                    update(host, meant, mode=mode)
                refused += 1
            else:
                update(host, meant, mode=mode)
            assert what_is_true(machine, meant).is_armed
            cancel(host)
            check_all_is_taken_back(machine, did_begin=True)
        assert 0 < refused < number / 2


@pytest.mark.parametrize(("model", "mode"), [("precision-390", "packet"), WAYS[-2]])
def test_a_cancel_that_is_killed_at_any_step_is_done_by_the_next_one(
    tmp_path: Path, model: str, mode: Any
) -> None:
    meant = image(model)
    with served(tmp_path, model) as (machine, opened):
        host = VirtualHost(machine)
        for number in range(1, WITHOUT_END):
            update(host, meant, mode=mode)
            was_killed = killed_at_step(number, opened, cancel)
            if machine.status().is_armed:
                assert what_is_true(machine, meant).last is not None
            cancel(host)
            check_all_is_taken_back(machine, did_begin=True)
            if not was_killed:
                break
        assert 3 < number < WITHOUT_END - 1
