"""`rbu machine log`: what the kernel of a virtual machine said."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from openrbu import api
from openrbu.machine.clock import local_now
from openrbu.machine.kernel_log import MAX_BYTES, KernelLog, read_log
from openrbu.system.descriptors import readable
from rigs.cli import RBU, Cli

TIMEOUT_S = 20.0
LOADING = "/sys/class/firmware/dell_rbu/loading"


def say_something(name: str = "demo") -> None:
    """Have the kernel complain of a value that it does not know."""
    with api.open_machine(name) as machine:
        assert machine.virtual is not None
        machine.write_file("/sys/devices/platform/dell_rbu/image_type", b"init")
        machine.write_file(LOADING, b"7")


@pytest.fixture
def machine(rbu: Cli) -> Path:
    """A machine with the driver, which has said nothing."""
    rbu.json("machine", "new", "demo")
    rbu.json("module", "load", "dell_rbu", "--machine", "demo")
    return Path(rbu.json("machine", "show", "demo")["directory"])


def test_what_the_drivers_say_is_kept_over_restarts_until_the_machine_is_removed(
    rbu: Cli, machine: Path
) -> None:
    say_something()
    rbu.json("machine", "reboot", "demo")
    rbu.json("machine", "reboot", "demo", "--kexec")
    rbu.json("module", "load", "dell_rbu", "--machine", "demo")
    say_something()
    lines = rbu.json("machine", "log", "demo")["lines"]
    assert [each["number"] for each in lines] == [1, 2, 3, 4, 5]
    assert [each["event"] for each in lines] == ["boot", "line", "boot", "boot", "line"]
    assert [each["boot_id"] for each in lines] == [
        lines[0]["boot_id"], lines[0]["boot_id"], lines[2]["boot_id"],
        lines[3]["boot_id"], lines[3]["boot_id"],
    ]  # fmt: skip
    assert len({each["boot_id"] for each in lines}) == 3
    assert [each["at"] for each in lines] == sorted(each["at"] for each in lines)
    assert (
        lines[1]["text"]
        == lines[4]["text"]
        == ("firmware dell_rbu: loading_store: unexpected value (7)")
    )
    shown = rbu("machine", "log", "demo").out.splitlines()
    assert shown[0].endswith(" == the kernel starts, after the BIOS")
    assert shown[1].endswith(f"    {lines[1]['text']}")
    assert shown[3].endswith(" == the kernel starts, by kexec, without the BIOS")
    rbu.json("machine", "rm", "demo", "--yes")
    assert not machine.exists()
    assert "no machine" in rbu.fails(4, "machine", "log", "demo")


def test_an_image_that_is_not_staged_has_its_reason_there(rbu: Cli, machine: Path) -> None:
    with api.open_machine("demo") as opened:
        opened.write_file("/sys/devices/platform/dell_rbu/image_type", b"packet")
        for path, data in ((LOADING, b"1"), (LOADING.replace("loading", "data"), b"x" * 99),
                           (LOADING, b"0")):  # fmt: skip
            opened.write_file(path, data)
    assert read_log(machine)[-1].text == "dell_rbu: packet_size is not set"


def test_it_is_bounded_and_its_newest_lines_stay(tmp_path: Path) -> None:
    said: list[str] = []
    add = KernelLog(tmp_path, local_now, said.append).of_boot("a", is_new=False, by_kexec=False)
    for number in range(3000):
        add(f"line {number} " + "x" * 100)
    assert len(said) == 3000
    assert (tmp_path / "kernel.log").stat().st_size <= MAX_BYTES
    lines = read_log(tmp_path)
    assert [each.number for each in lines] == list(range(lines[0].number, 3001))
    assert len(lines) > 500
    again = KernelLog(tmp_path, local_now, said.append).of_boot("b", is_new=True, by_kexec=False)
    again("y" * 10_000)
    assert [each.number for each in read_log(tmp_path)[-2:]] == [3001, 3002]
    assert len(read_log(tmp_path)[-1].text) == 4096


@pytest.mark.parametrize("is_link", [True, False])
def test_something_else_in_its_place_disturbs_nothing_and_is_told(
    rbu: Cli, machine: Path, is_link: bool
) -> None:
    path = machine / "kernel.log"
    path.unlink()
    if is_link:
        path.symlink_to(machine / "cmos")
    else:
        path.mkdir()
    cmos = (machine / "cmos").read_bytes()
    say_something()
    assert (machine / "cmos").read_bytes() == cmos
    assert "kernel.log: it is a" in rbu.fails(4, "machine", "log", "demo")
    rbu.json("machine", "rm", "demo", "--yes")


def test_lines_that_are_damaged_are_passed_over(rbu: Cli, machine: Path) -> None:
    say_something()
    path = machine / "kernel.log"
    good = path.read_bytes()
    first = json.loads(good.splitlines()[0])
    wrong = [b"\xff", b"{", b"[]", json.dumps({**first, "number": 2, "at": "noon"}).encode(), b""]
    path.write_bytes(good + b"\n".join(wrong) + b"\n")
    assert len(read_log(machine)) == 2
    say_something()
    assert [each.number for each in read_log(machine)] == [1, 2, 3]


def test_a_machine_without_a_log_has_said_nothing(rbu: Cli, machine: Path) -> None:
    (machine / "kernel.log").unlink()
    assert rbu("machine", "log", "demo").out == "the kernel of demo has said nothing\n"
    assert rbu.json("machine", "log", "demo")["lines"] == []


def test_new_lines_are_shown_as_they_come(rbu: Cli, machine: Path) -> None:
    command = [*RBU, "machine", "log", "demo", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None

        def next_line() -> str:
            assert following.stdout is not None
            assert readable([following.stdout], TIMEOUT_S)
            return following.stdout.readline()

        assert "the kernel starts" in next_line()
        say_something()
        assert "unexpected value" in next_line()
        following.send_signal(signal.SIGINT)
        assert following.stdout.read() == ""
        assert following.wait(TIMEOUT_S) == 128 + signal.SIGINT
    assert "don't go together" in rbu("machine", "log", "demo", "--follow", "--json").err


def test_a_reader_that_is_gone_ends_it(rbu: Cli, machine: Path) -> None:
    command = [*RBU, "machine", "log", "demo", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        following.stdout.close()
        say_something()
        assert following.wait(TIMEOUT_S) == 0
