"""What is found in the place of a file that openrbu keeps, and is not that file: a directory, a
FIFO, a link, a file without an end. No command waits for it, follows it, fills memory with it or
loses a machine because of it, and there is a way out of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.bios.cmos_file import CmosFile
from openrbu.errors import MachineError, ObstacleError, OpenRbuError
from openrbu.machine import store
from openrbu.machine.clock import local_now
from openrbu.machine.state import MAX_STATE_BYTES, StateFile, spare_for
from openrbu.machine.virtual import VirtualMachine
from openrbu.system.kept_files import OddFileError, read_kept, remove_whatever
from openrbu.units import MIB
from openrbu.update.journal import Journal
from rigs.cli import Cli
from rigs.small_disks import largest_file

HUGE_BYTES = 60 << 30


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "something").write_text("in it")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        os.chdir(path.parent)  # a socket's name is short
        end.bind(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _link(path: Path) -> None:
    kept = path.parent / "kept-elsewhere"
    kept.write_text("{}")
    path.symlink_to(kept)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE_BYTES)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a directory": (_directory, "it is a directory, not a file"),
    "a FIFO": (os.mkfifo, "it is a FIFO, not a file"),
    "a socket": (_socket, "it is a socket, not a file"),
    "a dangling link": (_dangling, "it is a symbolic link, not a file"),
    "a link": (_link, "it is a symbolic link, not a file"),
    "a loop": (_loop, "it is a symbolic link, not a file"),
    "a huge file": (_huge, "it is larger than "),
}


def put(what: str, path: Path) -> str:
    """Put something odd in place of a file. Returns what is to be said of it."""
    path.unlink(missing_ok=True)
    make, says = ODD[what]
    make(path)
    return says


def names(directory: Path) -> dict[str, tuple[int, int]]:
    """What is in a directory, but locks: each entry's kind and size."""
    seen = {path: path.lstat() for path in directory.rglob("*") if path.name != "lock"}
    return {
        str(path): (status.st_mode, 0 if path.is_dir() else status.st_size)
        for path, status in seen.items()
    }


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    return Cli(tmp_path, capsys)


@pytest.fixture
def box(cli: Cli) -> Path:
    """The directory of a machine that is on."""
    cli.json("machine", "new", "box", "--ram", "64M")
    return cli.directory / "home" / "machines" / "box"


@pytest.fixture
def guest(cli: Cli) -> Path:
    """The directory of the guest a on a host with two guests."""
    cli.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    for name in ("a", "b"):
        cli.json("balloon", "guest", "xen", name, "--memory", "64M")
    return cli.directory / "home" / "machines" / "xen" / "xen" / "guests" / "a"


# -- the state of a machine -----------------------------------------------------------------


@pytest.mark.parametrize("what", ODD)
def test_an_odd_state_of_a_machine_is_refused_and_switching_off_removes_it(
    cli: Cli, box: Path, what: str
) -> None:
    cli.json("machine", "new", "other", "--ram", "64M")
    says = put(what, box / "state.json")
    before = names(box)
    for command in ("status --machine box", "cancel --machine box", "machine reboot box"):
        line = cli.fails(4, *command.split())
        assert says in line
        assert line.endswith("nothing was changed; to discard the state: rbu machine off box\n")
    refused, other = cli.json("machine", "list")["machines"]
    assert (says in refused["problem"], other["is_on"]) == (True, True)
    assert names(box) == before
    assert cli.json("machine", "off", "box")["changed"]
    assert not list(box.glob("state.*"))
    assert not cli.json("machine", "show", "box")["lost_power"]
    cli("machine", "reboot", "box")
    assert cli.json("machine", "show", "box")["is_on"]


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["state.json", "state.spare", "machine.json", "lock"])
def test_a_machine_with_something_odd_can_be_removed(
    cli: Cli, box: Path, what: str, name: str
) -> None:
    put(what, box / name)
    cli.json("machine", "rm", "box", "--yes")
    assert not box.exists()


def test_a_link_is_removed_and_not_what_it_leads_to(cli: Cli, box: Path) -> None:
    put("a link", box / "state.json")
    cli.json("machine", "off", "box")
    assert (box / "kept-elsewhere").read_text() == "{}"


@pytest.mark.parametrize("what", ODD)
def test_an_odd_spare_costs_the_machine_nothing(cli: Cli, box: Path, what: str) -> None:
    put(what, box / "state.spare")
    cli.json("module", "load", "dell_rbu", "--machine", "box")
    assert "dell_rbu" in cli.json("machine", "show", "box")["modules"]
    assert (box / "state.json").stat().st_size < MAX_STATE_BYTES


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["machine.json", "nvram.json", "cmos", "DMI"])
def test_an_odd_file_of_a_machine_is_told_in_one_line(
    cli: Cli, box: Path, name: str, what: str
) -> None:
    put(what, box / name)
    before = names(box)
    line = cli.fails(4, "status", "--machine", "box")
    assert (line.count("\n"), name in line) == (1, True)
    assert names(box) == before


def test_a_lock_of_any_size_is_used(box: Path) -> None:
    put("a huge file", box / "lock")
    with (
        store.locked(box),
        pytest.raises(MachineError, match=f"process {os.getpid()}:"),
        store.locked(box),
    ):
        pass


@pytest.mark.parametrize("what", ODD)
def test_an_odd_journal_is_told_in_one_line(tmp_path: Path, what: str) -> None:
    says = put(what, tmp_path / "journal.jsonl")
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ObstacleError, match=f"can't be read: {says}"):
        journal.attempts()
    if what != "a huge file":
        with pytest.raises(ObstacleError, match=f"can't be written: {says}"):
            journal.append("one", "started", local_now())


@pytest.mark.parametrize("what", ["a dangling link", "a loop"])
def test_a_machine_with_a_link_for_its_machine_json_is_listed(
    cli: Cli, box: Path, what: str
) -> None:
    says = put(what, box / "machine.json")
    (listed,) = cli.json("machine", "list")["machines"]
    assert says in listed["problem"]


@pytest.mark.parametrize("name", ["home", "home/machines"])
def test_a_home_that_is_no_directory_is_not_taken_for_one_without_machines(
    cli: Cli, name: str
) -> None:
    assert cli.json("machine", "list")["machines"] == []
    path = cli.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    line = cli.fails(4, "machine", "list")
    machines = cli.directory / "home" / "machines"
    why = "Not a directory; OPENRBU_HOME=DIR names another directory for machines"
    assert line == f"rbu: the machines in {machines} can't be listed: {why}\n"


# -- a process that may not write so much ---------------------------------------------------


@pytest.mark.parametrize("limit_bytes", [0, 100, 4096, spare_for(MIB) - 1])
def test_a_process_that_may_not_write_a_whole_state_changes_nothing(
    cli: Cli, box: Path, limit_bytes: int
) -> None:
    """What was seen: space for the state was there, and it could not be written there."""
    before = cli.json("machine", "show", "box")
    for command in ("module load dell_rbu --machine box", "machine reboot box"):
        with largest_file(limit_bytes):
            ended = cli(*command.split())
        assert (ended.code, ended.out) == (4, "")
        assert "ulimit -f" in ended.err
        assert cli.json("machine", "show", "box") == before


def test_a_limit_of_just_a_state_is_enough(cli: Cli, box: Path) -> None:
    with largest_file(spare_for(MIB)):
        cli.json("module", "load", "dell_rbu", "--machine", "box")
    assert "dell_rbu" in cli.json("machine", "show", "box")["modules"]


def test_a_machine_that_can_not_be_saved_is_said_to_have_lost_its_power(box: Path) -> None:
    with VirtualMachine(box) as machine:
        machine.load_module("dell_rbu", {})
        with (
            largest_file(100),
            pytest.raises(MachineError, match=r"'box' has lost its power, because .*too large"),
        ):
            machine.close()
    with VirtualMachine(box) as machine:
        assert machine.lost_power


# -- the state of a guest -------------------------------------------------------------------


@pytest.mark.parametrize("what", [*ODD, "nothing"])
def test_an_odd_state_of_a_guest_is_refused_and_the_guest_stays(
    cli: Cli, guest: Path, what: str
) -> None:
    """What was seen: the commands that read destroyed the guest, though no process had died; with
    a FIFO all of them waited, that to destroy it included."""
    path = guest / "state.json"
    path.unlink()
    says = put(what, path) if what in ODD else "state.json is missing"
    before = names(guest)
    line = cli.fails(4, "balloon", "target", "xen", "a", "70M")
    assert says in line
    assert line.endswith("to discard the state: rbu balloon guest xen a --rm\n")
    cli("balloon", "show", "xen")
    assert names(guest) == before
    cli.json("balloon", "guest", "xen", "a", "--rm")
    assert [each["name"] for each in cli.json("balloon", "show", "xen")["guests"]] == ["dom0", "b"]


@pytest.mark.parametrize("what", [what for what in ODD if what != "a huge file"])
@pytest.mark.parametrize("name", ["state.json", "guest.json", "lock"])
def test_the_other_guests_go_on_beside_one_with_something_odd(
    cli: Cli, guest: Path, name: str, what: str
) -> None:
    says = put(what, guest / name)
    _, a, b = cli.json("balloon", "show", "xen")["guests"]
    assert (says in a["problem"], b["problem"]) == (True, None)
    assert cli.json("balloon", "target", "xen", "b", "70M")["current_kib"] == 70 << 10
    cli.json("balloon", "guest", "xen", "a", "--rm")
    assert not guest.exists()


def test_a_guest_that_lost_its_power_is_still_destroyed(cli: Cli, guest: Path) -> None:
    (guest / "state.json").rename(guest / "state.lost")
    assert cli.json("balloon", "show", "xen")["lost"] == ["a"]


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["guest.json", "../../host.json"])
def test_an_odd_file_of_a_host_is_told_in_one_line(
    cli: Cli, guest: Path, name: str, what: str
) -> None:
    put(what, (guest / name).resolve())
    line = cli.fails(4, "balloon", "target", "xen", "a", "70M")
    assert line.count("\n") == 1
    cli.json("machine", "off", "xen")
    cli.json("machine", "rm", "xen", "--yes")


@pytest.mark.parametrize("what", ODD)
def test_a_host_whose_own_state_is_odd_can_be_switched_off(
    cli: Cli, guest: Path, what: str
) -> None:
    directory = guest.parents[2]
    says = put(what, directory / "state.json")
    assert says in cli.fails(4, "balloon", "show", "xen")
    assert guest.is_dir()
    cli.json("machine", "off", "xen")
    cli("machine", "reboot", "xen")
    assert [each["name"] for each in cli.json("balloon", "show", "xen")["guests"]] == ["dom0"]


# -- the one way to read --------------------------------------------------------------------


def test_a_file_of_just_the_most_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"1234")
    assert read_kept(path, max_bytes=4) == b"1234"
    with pytest.raises(OddFileError, match="larger than 3 bytes"):
        read_kept(path, max_bytes=3)
    with pytest.raises(FileNotFoundError):
        read_kept(tmp_path / "nothing")


def test_a_device_is_no_kept_file() -> None:
    with pytest.raises(OddFileError, match="it is a device, not a file"):
        read_kept(Path("/dev/zero"))


def test_whatever_is_there_is_removed_and_nothing_is_no_error(tmp_path: Path) -> None:
    for what in ODD:
        put(what, tmp_path / "it")
        remove_whatever(tmp_path / "it")
        assert not os.path.lexists(tmp_path / "it")
    remove_whatever(tmp_path / "it")


def test_a_state_is_lost_only_where_a_process_took_it(tmp_path: Path) -> None:
    def is_lost() -> bool:
        return StateFile.of_machine(tmp_path).is_lost

    assert not is_lost()
    (tmp_path / "state.lost").touch()
    assert is_lost()
    _loop(tmp_path / "state.json")
    assert not is_lost()


def test_cmos_of_another_size_is_still_told_with_it(tmp_path: Path) -> None:
    (tmp_path / "cmos").write_bytes(b"1")
    with pytest.raises(OpenRbuError, match="has 1 bytes"):
        CmosFile(tmp_path / "cmos")
