"""A machine's directory: names, damage, other versions, other users, and disks that refuse."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.bios.flash import Flash
from openrbu.errors import MachineError, ObstacleError, UsageError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import store
from openrbu.machine.config import FORMAT
from openrbu.machine.removal import remove_machine
from openrbu.machine.state import StateRefusedError, spare_for
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import KIB, MIB
from openrbu.update.cancelling import cancel
from openrbu.update.flow import perform
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.machines import (
    DEVICE,
    ENTRY,
    FLASH_BYTES,
    REBOOT_MODE,
    Quiet,
    as_nobody,
    files,
    image,
    image_bytes,
    make,
    opened_up,
    running,
    status,
    update,
)
from rigs.needs import leave_out


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))


# -- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "web-1", "R2.d2_x", "9" * 64])
def test_these_are_names(name: str, tmp_path: Path) -> None:
    assert store.machine_directory(name) == tmp_path / "machines" / name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "ä", "9" * 65, "a\n", "x\0"])
def test_these_are_no_names(name: str) -> None:
    with pytest.raises(UsageError, match="can't be a machine's name"):
        store.machine_directory(name)


def test_machines_are_listed_sorted_and_half_made_ones_are_not(tmp_path: Path) -> None:
    assert store.machine_names() == []
    for name in ("web", "db"):
        make(tmp_path, name=name)
    (tmp_path / "machines" / "half").mkdir()
    assert store.machine_names() == ["db", "web"]
    with pytest.raises(MachineError, match="no machine 'mail'; make one: rbu machine new mail"):
        store.existing_directory("mail")
    assert store.existing_directory("web") == tmp_path / "machines" / "web"


def test_a_removed_machine_is_gone(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with store.locked(directory):
        remove_machine(directory)
    assert not directory.exists()
    with pytest.raises(MachineError, match="No such file"):
        VirtualMachine(directory)


# -- files that are missing or damaged ------------------------------------------------------

PARTS = ["machine.json", "smbios_entry_point", "DMI", "cmos", "flash", "nvram.json", "ram"]


@pytest.mark.parametrize("part", PARTS)
def test_a_machine_without_one_of_its_files_is_refused_and_works_when_it_is_back(
    tmp_path: Path, part: str
) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        before = status(machine)
    (directory / part).rename(tmp_path / "away")
    with pytest.raises(MachineError, match=part):
        VirtualMachine(directory)
    (tmp_path / "away").rename(directory / part)
    with VirtualMachine(directory) as machine:
        assert status(machine) == before


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["empty", "cut", "junk", "a directory", "a FIFO"])
def test_a_damaged_file_is_a_machine_error(tmp_path: Path, part: str, damage: str) -> None:
    directory = make(tmp_path)
    with running(directory):
        pass
    path = directory / part
    whole = path.read_bytes()
    path.unlink()
    if damage == "a directory":
        path.mkdir()
    elif damage == "a FIFO":
        os.mkfifo(path)
    else:
        cut = {"empty": b"", "cut": whole[: len(whole) // 2], "junk": b"\xa5[{" * 5000}[damage]
        path.write_bytes(cut)
    if (part, damage) == ("ram", "empty"):  # what a process leaves that dies inside a power cycle
        VirtualMachine(directory).close()
        return
    with pytest.raises(MachineError, match=f"{part}|tables") as refusal:
        VirtualMachine(directory)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"format": None},
        {"ram_bytes": "64 MiB"},
        {"ram_bytes": 1e9},
        {"ram_bytes": -4096},
        {"ram_bytes": 4097},
        {"profile": "linux-9"},
        {"faults": ["gremlins"]},
        {"faults": None},
        {"colour": "grey"},
    ],
)
def test_a_machine_json_that_says_nonsense_is_damaged(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    directory = make(tmp_path)
    path = directory / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    with pytest.raises(MachineError, match=r"machine\.json is damaged"):
        VirtualMachine(directory)


@pytest.mark.parametrize("text", ["[]", "7", "null", "{}", "[" * 100_000])
def test_a_machine_json_that_is_something_else_is_damaged(tmp_path: Path, text: str) -> None:
    directory = make(tmp_path)
    (directory / "machine.json").write_text(text)
    with pytest.raises(MachineError, match=r"machine\.json is damaged"):
        VirtualMachine(directory)


@pytest.mark.parametrize(
    "changes", [{"completed_at": "yesterday"}, {"completed_at": 5}, {"completion_code": "0"}]
)
def test_an_nvram_that_says_nonsense_of_the_last_update_is_damaged(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    directory = make(tmp_path)
    with running(directory):
        pass
    path = directory / "nvram.json"
    nvram = json.loads(path.read_bytes()) | {"completed_at": "2026-03-04T05:06:00"} | changes
    path.write_text(json.dumps(nvram))
    with pytest.raises(MachineError, match=r"nvram\.json"):
        VirtualMachine(directory)
    assert (directory / "state.json").exists()


def test_a_machine_from_a_newer_openrbu_is_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path)
    path = directory / "machine.json"
    path.write_text(
        json.dumps(json.loads(path.read_bytes()) | {"format": FORMAT.number + 1, "colour": "grey"})
    )
    before = files(directory, leave_out=("lock", "summary"))
    with pytest.raises(
        MachineError, match=rf"a newer openrbu .*format {FORMAT.number + 1}; .*rbu machine rm"
    ):
        VirtualMachine(directory)
    assert files(directory, leave_out=("lock", "summary")) == before


def refused(directory: Path, data: bytes) -> str:
    (directory / "state.json").write_bytes(data)
    with pytest.raises(StateRefusedError, match=r"damaged|format") as refusal:
        VirtualMachine(directory)
    return str(refusal.value)


def test_a_state_that_is_damaged_anywhere_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        update(VirtualHost(machine), image())
        whole_kernel = status(machine)
    path = directory / "state.json"
    whole = path.read_bytes()
    size = len(whole.rstrip())
    damaged = [
        whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :]
        for offset in range(0, size, max(1, size // 100))
    ]
    for data in [whole[: size // 2], b"", b"[]", b"null", b"[" * 100_000]:
        assert "\n" not in refused(directory, data)
    for data in damaged:
        path.write_bytes(data)
        with contextlib.suppress(StateRefusedError), VirtualMachine(directory) as machine:
            assert status(machine) == whole_kernel  # a byte that says nothing, as a blank
        assert path.read_bytes() == data
    path.write_bytes(whole)
    with VirtualMachine(directory) as machine:
        assert status(machine) == whole_kernel


# -- one owner ------------------------------------------------------------------------------


def test_the_lock_names_its_owner_and_never_grows(tmp_path: Path) -> None:
    directory = make(tmp_path)
    for _ in range(3):
        with (
            store.locked(directory),
            pytest.raises(MachineError, match=f"in use by process {os.getpid()}:"),
            store.locked(directory),
        ):
            pass
        assert (directory / "lock").stat().st_size == 32


# -- disks and users that refuse ------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A machine that is on, in a directory that nobody may write to."""
    directory = make(tmp_path)
    with running(directory):
        pass
    opened_up(directory)
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)
    yield directory
    directory.chmod(0o755)


def test_a_read_only_directory_is_refused_in_one_line_and_left_as_it_was(closed: Path) -> None:
    before = files(closed)

    def work() -> None:
        for what in (
            lambda: VirtualMachine(closed),
            lambda: store.locked(closed).__enter__(),
            lambda: make(closed.parents[1], name="another"),
        ):
            with pytest.raises(MachineError, match=r"permission denied: .*(belongs to|forbids)"):
                what()

    if os.geteuid():
        closed.parent.chmod(0o555)
    as_nobody(work)
    closed.parent.chmod(0o755)
    assert files(closed) == before
    assert store.machine_names() == ["box"]


def test_a_directory_that_can_not_be_entered_is_refused_in_one_line(tmp_path: Path) -> None:
    directory = make(tmp_path)
    opened_up(directory)
    directory.chmod(0o700 if os.geteuid() == 0 else 0)

    def work() -> None:
        assert store.machine_names() == ["box"]
        with pytest.raises(MachineError, match="permission denied"):
            VirtualMachine(store.existing_directory("box"))

    as_nobody(work)
    directory.chmod(0o755)


def mount(*arguments: str) -> None:
    if os.geteuid():
        leave_out("only root can mount a small disk or a read-only one")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        leave_out(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A machine that is on, on a file system that is read-only."""
    directory = make(tmp_path)
    with running(directory):
        pass
    mount("--bind", str(directory), str(directory))
    try:
        mount("-o", "remount,ro,bind", str(directory))
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_read_only_file_system_is_refused_in_one_line(read_only: Path) -> None:
    with pytest.raises(MachineError, match="its file system is read-only"):
        VirtualMachine(read_only)


class Disk:
    """A small file system of its own, filled up and freed at will."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def fill(self) -> None:
        with (self.home / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4 * KIB))

    def free(self) -> None:
        (self.home / "filler").unlink()

    def leave(self, size_bytes: int) -> None:
        """Fill up but for this much."""
        self.fill()
        os.truncate(self.home / "filler", (self.home / "filler").stat().st_size - size_bytes)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    home = tmp_path / "disk"
    home.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home))
    try:
        yield Disk(home)
    finally:
        subprocess.run(["umount", str(home)], check=True)


FULL = "the disk is full: free some space"


def test_no_machine_is_made_on_a_full_disk_and_nothing_is_left(disk: Disk) -> None:
    disk.leave(200 * KIB)
    with pytest.raises(MachineError, match=FULL):
        make(disk.home)
    assert list((disk.home / "machines").iterdir()) == []
    disk.free()
    with running(make(disk.home)) as machine:
        assert machine.is_on


def test_a_machine_on_a_full_disk_can_still_be_looked_at(disk: Disk) -> None:
    directory = make(disk.home)
    with running(directory) as machine:
        before = status(machine)
    disk.fill()
    with VirtualMachine(directory) as machine:
        assert status(machine) == before
        (obstacle,) = make_plan(VirtualHost(machine), image(), Options()).obstacles
        assert obstacle.kind == "journal"


def test_the_state_of_a_machine_is_put_away_on_a_disk_that_has_filled_up_meanwhile(
    disk: Disk,
) -> None:
    directory = make(disk.home)
    with running(directory):
        pass
    with VirtualMachine(directory) as machine:
        host = VirtualHost(machine)
        update(host, image(), mode="packet")
        disk.fill()
        after = status(machine)
    with VirtualMachine(directory) as machine:
        assert status(machine) == after
    disk.free()
    with VirtualMachine(directory) as machine:
        assert machine.restart().version_after == "2.3.0"


def test_it_is_put_away_on_a_full_disk_again_and_again(disk: Disk) -> None:
    directory = make(disk.home)
    with running(directory) as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"cold")
    with VirtualMachine(directory) as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"hard")
    for mode in ("warm", "cold", "warm", "hard"):
        disk.fill()  # what was given back in between is gone, too
        with VirtualMachine(directory) as machine:
            VirtualHost(machine).write(REBOOT_MODE, mode.encode())
        with VirtualMachine(directory) as machine:
            assert read_text(VirtualHost(machine), REBOOT_MODE) == mode
        for name in ("state.json", "state.spare"):  # room that is let go may be another's at once
            assert 512 * (directory / name).stat().st_blocks >= spare_for(FLASH_BYTES)


def test_a_change_is_refused_while_there_is_no_room_to_put_its_outcome_away(disk: Disk) -> None:
    directory = make(disk.home)
    with running(directory):
        pass
    (directory / "state.spare").unlink(missing_ok=True)
    disk.leave(spare_for(FLASH_BYTES) // 2)
    with VirtualMachine(directory) as machine:
        before = status(machine)
        with pytest.raises(MachineError, match=FULL):
            VirtualHost(machine).write(REBOOT_MODE, b"warm")
        with pytest.raises(MachineError, match=FULL):
            VirtualHost(machine).load_module("dell_rbu", {})
        assert status(machine) == before
    with VirtualMachine(directory) as machine:
        assert status(machine) == before


@pytest.mark.parametrize("model", ["poweredge-2650", "precision-390", "precision-t7600"])
@pytest.mark.parametrize("left_kib", [0, 4, 64, 136, 200, 300, 400, 500])
def test_an_update_on_a_disk_that_fills_up_leaves_the_machine_as_it_was(
    disk: Disk, model: str, left_kib: int
) -> None:
    directory = make(disk.home, model)
    with running(directory) as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"cold")
    with VirtualMachine(directory) as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"hard")
        before = status(machine)
        disk.leave(left_kib * KIB)
        host = VirtualHost(machine)
        plan = make_plan(host, image(model), Options())
        if left_kib < 300:
            with pytest.raises(ObstacleError, match=r"free some space|No space left on device"):
                perform(host, plan, Quiet())
            assert status(machine) == before
        else:
            perform(host, plan, Quiet())
            cancel(host)
    disk.free()
    with VirtualMachine(directory) as machine:
        assert machine.is_on
        update(VirtualHost(machine), image(model))
        assert machine.restart().completion_code == 0


def test_a_restart_is_refused_where_the_bios_could_not_write_and_nothing_is_lost(
    disk: Disk,
) -> None:
    directory = make(disk.home)
    with running(directory) as machine:
        update(VirtualHost(machine), image())
    disk.fill()
    for cold in (False, True):
        with VirtualMachine(directory) as machine:
            with pytest.raises(MachineError, match=FULL):
                machine.restart(cold=cold)
            assert machine.is_on
            assert machine.is_armed
    disk.free()
    with VirtualMachine(directory) as machine:
        assert machine.restart().version_after == "2.3.0"


def test_a_disk_that_fills_up_during_the_flash_does_no_harm(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flash has all its room before the BIOS begins, or the restart is refused."""
    directory = make(disk.home)
    with running(directory) as machine:
        update(VirtualHost(machine), image())
    disk.leave(72 * KIB)
    with VirtualMachine(directory) as machine:
        with pytest.raises(MachineError, match=FULL):
            machine.restart()
        assert machine.is_on
        assert machine.is_armed
    assert [each.name for each in directory.glob("flash*")] == ["flash"]
    disk.free()
    make_room = Flash.make_room

    def made(flash: Flash) -> None:
        make_room(flash)
        disk.leave(72 * KIB)

    monkeypatch.setattr(Flash, "make_room", made)
    with VirtualMachine(directory) as machine:
        assert machine.restart().version_after == "2.3.0"
    disk.free()
    with VirtualMachine(directory) as machine:
        assert machine.status().tables == machine.tables
        assert machine.flash.current.version == "2.3.0"


def test_staging_by_hand_on_a_full_disk_says_so_and_can_be_done_again(disk: Disk) -> None:
    directory = make(disk.home)
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        host.write(f"{ENTRY}/loading", b"1")
        disk.fill()
        with pytest.raises(MachineError, match=FULL):
            host.write(f"{ENTRY}/data", image_bytes())
        disk.free()
        host.write(f"{ENTRY}/data", image_bytes())
        host.write(f"{ENTRY}/loading", b"0")
        assert b"".join(host.chunks(f"{DEVICE}/data", MIB)) == image_bytes()
