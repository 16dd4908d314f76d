"""The commands on Xen hosts: what goes wrong, completion and help."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from openrbu._vendor import typer
from openrbu.cli import balloon
from openrbu.units import MIB
from rigs.cli import Cli
from rigs.small_disks import small_tmpfs
from rigs.xen import Clock, current_mib

# -- what goes wrong --------------------------------------------------------------------------


WRONG = [
    (("show", "nowhere"), 4, "there is no machine 'nowhere'"),
    (("watch", "nowhere"), 4, "there is no machine 'nowhere'"),
    (("show", "plain"), 4, "machine 'plain' runs no Xen; make one that does: rbu balloon"),
    (("guest", "plain", "a"), 4, "runs no Xen"),
    (("target", "plain", "a", "1G"), 4, "runs no Xen"),
    (("watch", "plain"), 4, "runs no Xen"),
    (("host", "xen"), 4, "there is a machine 'xen' already"),
    (("host", "new", "--ram", "1G", "--dom0", "2G"), 2, "dom0 has 64 MiB to 1007 MiB"),
    (("host", "new", "--ram", "1G", "--dom0", "100001K"), 2, "not whole pages of 4 KiB"),
    (("host", "new", "--ram", "1G", "--dom0-max", "64M"), 2, "not less than what it starts"),
    (("host", "new", "--ram", "lots"), 2, "--ram: 'lots' is not a size"),
    (("host", "new", "--profile", "hurd"), 2, "no balloon profile 'hurd'"),
    (("host", "new", "--ram-in", ""), 2, "Invalid value for '--ram-in': the path is empty"),
    (("host", "new", "--ram", "64M"), 2, "a Xen host needs 81 MiB of RAM or more"),
    (("host", "new", "--model", ""), 2, "no model"),
    (("host", "new", "--ram-in", "nowhere"), 2, "RAM can't be kept in nowhere"),
    (("guest", "xen", "dom0"), 2, "'dom0' can't be a guest's name"),
    (("guest", "xen", "dom0", "--rm"), 2, "it comes and goes with the machine"),
    (("guest", "xen", "a/b"), 2, "can't be a guest's name"),
    (("guest", "xen", "b", "--memory", ""), 2, "--memory: '' is not a size"),
    (("guest", "xen", "b", "--profile", ""), 2, "no balloon profile ''"),
    (("guest", "xen", "b", "--memory", "0"), 2, "a guest starts with 64 MiB at least"),
    (("guest", "xen", "b", "--memory", "102401K"), 2, "--memory: '102401K' is not whole pages"),
    (("guest", "xen", "b", "--memory", "300M"), 4, "it takes 300 MiB, and 267 MiB is free"),
    (("guest", "xen", "b", "--max", "1T"), 4, "host 'xen' has 495 MiB for all its guests"),
    (("guest", "xen", "b", "--memory", "65M", "--max", "64M"), 2, "maximum (64 MiB)"),
    (("guest", "xen", "b", "--memory", "64M", "--claim", "1G"), 2, "a claim is for what"),
    (("guest", "xen", "b", "--memory", "64M", "--uses", "64M"), 2, "can use"),
    (("guest", "xen", "a", "--memory", "64M"), 4, "host 'xen' has a guest 'a' already"),
    (("guest", "xen", "a", "--rm", "--max", "1G"), 2, "--rm takes HOST and NAME alone"),
    (("target", "xen", "a", "0"), 2, "a guest can't do without memory"),
    (("target", "xen", "a", "1"), 2, "SIZE: '1' is not whole pages of 4 KiB"),
    (("target", "xen", "a", "much"), 2, "SIZE: 'much' is not a size"),
    (("target", "xen", "a", "2G"), 4, "none can have 2 GiB"),
    (("target", "xen", "z", "80M"), 4, "host 'xen' has no guest 'z'; make one: rbu balloon"),
    (("watch", "xen", "--for", "0"), 2, "--for: 0 is not a time"),
    (("watch", "xen", "--for", "nan"), 2, "--for: nan is not a time"),
]


def test_what_can_not_be_is_one_line_and_changes_nothing(xen: Cli) -> None:
    xen.json("machine", "new", "plain", "--ram", "64M")
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "200M")
    before = xen.json("balloon", "show", "xen"), xen.json("machine", "list")
    for words, code, says in WRONG:
        assert says in xen.fails(code, "balloon", *words)
    assert (xen.json("balloon", "show", "xen"), xen.json("machine", "list")) == before


def test_a_host_that_is_off_has_no_guests(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M")
    xen.json("machine", "off", "xen")
    for words in (("show", "xen"), ("guest", "xen", "b"), ("target", "xen", "a", "80M")):
        assert "'xen' is off; start it: rbu machine reboot xen" in xen.fails(4, "balloon", *words)
    xen.json("machine", "reboot", "xen")
    assert current_mib(xen) == {"dom0": 128}


def test_a_host_whose_memory_is_not_there_is_not_made(rbu: Cli, tmp_path: Path) -> None:
    (tmp_path / "ram").mkdir()
    with small_tmpfs(tmp_path / "ram", 64 * MIB) as ram:
        line = rbu.fails(4, "balloon", "host", "xen", "--ram", "1G", "--ram-in", ram)
        assert "machine 'xen' was not made: dom0 can't be started" in line
        assert rbu.json("machine", "list")["machines"] == []
        assert list(ram.iterdir()) == []


def test_a_guest_for_which_the_memory_below_is_not_there_is_told_apart(
    rbu: Cli, tmp_path: Path
) -> None:
    (tmp_path / "ram").mkdir()
    with small_tmpfs(tmp_path / "ram", 192 * MIB) as ram:
        rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M", "--ram-in", ram)
        line = rbu.fails(4, "balloon", "guest", "xen", "a", "--memory", "100M")
        assert f"the memory below it is used up: {ram}" in line
        rbu.json("machine", "rm", "xen", "--yes")


def test_a_full_disk_keeps_a_guest_from_moving_and_that_is_all(
    xen: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    xen.json("balloon", "guest", "xen", "a", "--memory", "100M")
    with monkeypatch.context() as patched:
        patched.setattr("openrbu.machine.state.os.posix_fallocate", full)
        assert "the disk is full" in xen.fails(4, "balloon", "target", "xen", "a", "80M")
        assert "the disk is full" in xen.fails(4, "balloon", "guest", "xen", "b")
    assert current_mib(xen) == {"dom0": 128, "a": 80}  # the target was told


# -- completion and help ----------------------------------------------------------------------


def test_hosts_guests_and_profiles_are_completed(xen: Cli) -> None:
    xen.json("machine", "new", "xylophone", "--ram", "64M")
    xen.json("balloon", "guest", "xen", "apple", "--memory", "64M")
    assert balloon.complete_hosts("x") == ["xen"]
    command = typer.main.get_command(typer.Typer(callback=lambda: None, add_completion=False))
    context = typer.Context(command)
    context.params["host"] = "xen"
    assert balloon.complete_guests(context, "") == ["dom0", "apple"]
    assert balloon.complete_guests(context, "ap") == ["apple"]
    context.params["host"] = "../x"
    assert balloon.complete_guests(context, "") == []
    assert balloon.complete_balloon_profiles("linux-") == ["linux-2.6.18-xen"]


def test_help_tells_the_story(rbu: Cli) -> None:
    told = rbu("balloon", "host", "--help").out
    assert "rbu balloon target xen1 a 1G" in told
    assert max(map(len, told.splitlines())) <= 80
    for command in ("host", "guest", "target", "show", "watch"):
        ended = rbu("balloon", command, "--help")
        assert (ended.code, "rbu balloon " in ended.out) == (0, True)
        assert "Exit codes" in ended.out


def test_the_story_that_help_tells_comes_true_for_who_types_slowly(rbu: Cli, clock: Clock) -> None:
    for line in rbu("balloon", "host", "--help").out.splitlines():
        found = re.match(r" +rbu (balloon .*?)(?:  #.*)?$", line)
        if found is not None:
            rbu.json(*found[1].split())
            clock.now_s += 60
    shown = {each["name"]: each for each in rbu.json("balloon", "show", "xen1")["guests"]}
    assert (shown["a"]["current_kib"], shown["b"]["current_kib"]) == (1 << 20, 256 << 10)


def test_json_errors_have_their_kind(rbu: Cli) -> None:
    error = rbu.json("balloon", "show", "nowhere", code=4)["error"]
    assert error["kind"] == "machine"
    assert json.dumps(error)
