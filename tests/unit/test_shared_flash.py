"""Machines share the flash files that have the same bytes, and none of them notices."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from openrbu.bios.flash import BLOCK_BYTES, Flash, FlashFile
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import removal, shared_flash, store
from openrbu.machine.factory import MachineSpec, write_parts
from openrbu.machine.virtual import VirtualMachine
from rigs.machines import files, image, in_child, kill_self, make, running, update

NAMES = ("one", "two", "three")


def fleet(home: Path, *names: str) -> list[Path]:
    return [make(home, name=name) for name in names or NAMES]


def updated(directory: Path, version: str = "2.3.0") -> VirtualMachine:
    """The machine after an update and its restart, closed."""
    with running(directory) as machine:
        update(VirtualHost(machine), image(version=version))
        assert machine.restart().version_after == version
    return machine


def shelf(home: Path) -> list[Path]:
    place = home / "machines" / ".flash"
    return sorted(place.iterdir()) if place.is_dir() else []


def version(directory: Path) -> str:
    with VirtualMachine(directory) as machine:
        return machine.flash.current.version


def test_new_machines_share_a_file_and_so_do_updated_ones(tmp_path: Path) -> None:
    one, two, three = fleet(tmp_path)
    (shared,) = shelf(tmp_path)
    assert all((each / "flash").samefile(shared) for each in (one, two, three))
    updated(one)
    updated(two)
    assert (one / "flash").samefile(two / "flash")
    assert not (one / "flash").samefile(three / "flash")
    assert len(shelf(tmp_path)) == 2
    assert [version(each) for each in (one, two, three)] == ["2.3.0", "2.3.0", "2.1.2"]
    assert not list(tmp_path.rglob("flash.*"))


def test_what_no_machine_has_any_more_is_removed(tmp_path: Path) -> None:
    one, two = fleet(tmp_path, "one", "two")
    updated(one)
    assert len(shelf(tmp_path)) == 2
    updated(two)
    assert len(shelf(tmp_path)) == 1
    for each in (one, two):
        with store.locked(each):
            removal.remove_machine(each)
    assert shelf(tmp_path) == []
    assert list((tmp_path / "machines").iterdir()) == []


def test_an_update_that_the_bios_refuses_leaves_the_file_shared(tmp_path: Path) -> None:
    one, two = fleet(tmp_path, "one", "two")
    with running(one, faults=("erase-fails",)) as machine:
        update(VirtualHost(machine), image())
        assert machine.restart().completion_code != 0
        assert (one / "flash.own").exists()
    assert (one / "flash").samefile(two / "flash")
    assert not (one / "flash.own").exists()


def test_a_machine_of_an_older_format_shares_nothing(tmp_path: Path) -> None:
    """An older openrbu would write into the file in place."""
    one, two = fleet(tmp_path, "one", "two")
    updated(two)
    path = one / "flash"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    with running(one) as machine:
        update(VirtualHost(machine), image())
        machine.restart()
        (one / "flash.own").write_bytes(path.read_bytes())  # as one that was killed might leave
    assert (one / "flash").samefile(path)
    shared_flash.settle(one, 2)
    assert (one / "flash").stat().st_nlink == 1


# -- killed anywhere ------------------------------------------------------------------------

CALLS = ("replace", "unlink", "hardlink_to", "write_bytes", "rmdir")


def kill_at(number: int) -> None:
    """Kill this process before step `number` of those that change names or make files."""
    left = [number]

    def stepped(call: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **more: object) -> object:
            left[0] -= 1
            if not left[0]:
                kill_self()
            return call(*arguments, **more)

        return step

    for name in CALLS:
        setattr(Path, name, stepped(getattr(Path, name)))
    for name in ("pwrite", "posix_fallocate", "fsync"):
        setattr(os, name, stepped(getattr(os, name)))


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_process_that_is_killed_anywhere_leaves_the_old_bios_or_the_new_one(
    tmp_path: Path, is_shared: bool
) -> None:
    """From the start of the BIOS to the end of the process. The other machine is as it was."""
    one, two, other = fleet(tmp_path)
    if is_shared:
        updated(two)
    with running(one) as machine:
        update(VirtualHost(machine), image())
    kept = shutil.copytree(tmp_path / "machines", tmp_path / "kept")
    before, versions = (other / "flash").read_bytes(), set[str]()
    for number in count(1):
        shutil.rmtree(one)
        shutil.copytree(kept / "one", one)
        (one / "flash").unlink()
        (one / "flash").hardlink_to(other / "flash")

        def work(number: int = number) -> None:
            with VirtualMachine(one) as machine:
                kill_at(number)
                machine.restart()

        if in_child(work) == 0:
            break
        with VirtualMachine(one) as machine:
            if not machine.is_on:
                machine.power_on()
            versions.add(machine.flash.current.version)
        assert version(one) == machine.flash.current.version
        assert not (one / "flash.own").exists()
        assert (other / "flash").read_bytes() == before
        assert version(two) == ("2.3.0" if is_shared else "2.1.2")
    assert number > 30
    assert versions == {"2.1.2", "2.3.0"}


# -- what is changed by hand, and other file systems ----------------------------------------


def test_a_file_that_was_changed_by_hand_is_not_spread(tmp_path: Path) -> None:
    (one,) = fleet(tmp_path, "one")
    (shared,) = shelf(tmp_path)
    with shared.open("r+b") as file:
        file.write(b"junk")
    two, three = fleet(tmp_path, "two", "three")
    assert (version(two), version(three)) == ("2.1.2", "2.1.2")
    assert (two / "flash").samefile(three / "flash")
    assert not (one / "flash").samefile(two / "flash")


def test_without_links_each_machine_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(1, os.strerror(1), str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    one, two = fleet(tmp_path, "one", "two")
    monkeypatch.undo()
    updated(one)
    assert (version(one), version(two)) == ("2.3.0", "2.1.2")


def test_a_copy_that_a_crash_of_the_computer_has_emptied_does_not_count(tmp_path: Path) -> None:
    (one,) = fleet(tmp_path, "one")
    for lost in (b"", bytes((one / "flash").stat().st_size)):
        (one / "flash.own").write_bytes(lost)
        assert version(one) == "2.1.2"
        assert not (one / "flash.own").exists()
    (one / "flash.own").write_bytes(b"")
    updated(one)
    assert version(one) == "2.3.0"


def test_the_parts_of_a_machine_of_the_lab_share_nothing(tmp_path: Path) -> None:
    write_parts(tmp_path, MachineSpec(flash_size_bytes=BLOCK_BYTES))
    assert (tmp_path / "flash").stat().st_nlink == 1
    assert not (tmp_path / ".flash").exists()


def test_a_file_with_two_names_is_never_written(tmp_path: Path) -> None:
    path, other, own = tmp_path / "flash", tmp_path / "other", tmp_path / "flash.own"
    data = random.Random(1).randbytes(BLOCK_BYTES)
    Flash.create(path, data, version="A05", release_date="01/02/2026")
    other.hardlink_to(path)
    before = files(tmp_path)
    device = FlashFile(path)
    device.program(0, bytes(BLOCK_BYTES))
    assert device.read(0, BLOCK_BYTES) == bytes(BLOCK_BYTES)
    device.close()
    assert own.stat().st_blocks * 512 >= own.stat().st_size
    assert own.read_bytes()[:BLOCK_BYTES] == bytes(BLOCK_BYTES)
    assert own.read_bytes()[BLOCK_BYTES:] == path.read_bytes()[BLOCK_BYTES:]
    assert files(tmp_path, leave_out=("flash.own",)) == before
