"""A tool that is killed at any step of an update, or of a cancel, on a machine that goes on.

Another process has the machine, as a kernel has a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import ObstacleError
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.base import Machine
from openrbu.update.cancelling import cancel
from openrbu.update.report import NextRestart, UpdateStatus, read_status
from rigs.killed import killed_at_step
from rigs.machines import NEWER, WAYS, image, make, published, update
from rigs.served import client, serving

WITHOUT_END = 500
"""More steps than an update has."""


Opener = Callable[[], AbstractContextManager[Host]]


@contextmanager
def served(tmp_path: Path, model: str, **spec: Any) -> Iterator[tuple[Machine, Opener]]:
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
    now = read_status(VirtualHost(machine))
    truth = machine.status()
    assert (truth.is_armed, truth.reboot_mode) == (False, "cold")
    assert (now.is_armed or False, now.staged_size_bytes) == (False, 0)
    if did_begin:
        assert now.last is not None
        assert now.last.outcome == "cancelled"


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_update_that_is_killed_at_any_step_is_told_and_cancelled(
    tmp_path: Path, model: str, mode: Any
) -> None:
    meant = image(model)
    seen: set[tuple[bool | None, bool, bool]] = set()
    with served(tmp_path, model) as (machine, opened):
        for number in range(1, WITHOUT_END):
            if not killed_at_step(number, opened, lambda host: update(host, meant, mode=mode)):
                break
            now = what_is_true(machine, meant)
            seen.add((now.is_armed, now.was_cut_off, now.staged_size_bytes > 0))
            did_begin = now.last is not None and now.last.is_open
            cancel(VirtualHost(machine))
            check_all_is_taken_back(machine, did_begin=did_begin)
        assert 10 < number < WITHOUT_END - 1
        assert seen >= {(False, True, False), (False, True, True), (True, False, True)}
        assert machine.restart().version_after == NEWER[model]


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
