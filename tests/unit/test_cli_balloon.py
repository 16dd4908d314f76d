"""The commands on Xen hosts: balloon host, guest, target, show, watch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli_rig import RBU, Cli
from openrbu.cli import balloon, balloon_session, balloon_watch
from openrbu.cli.interrupts import Stopped
from openrbu.machine import store
from openrbu.machine.xen.host import XenHost
from openrbu.units import KIB, MIB
from served import serving

MIB_KIB = MIB // KIB
START_S = 1_800_000_000.0


class Clock:
    """The time, which passes only when a test, or a command that waits, says so."""

    def __init__(self) -> None:
        self.now_s = START_S

    def now(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(balloon_session, "now", clock.now)
    monkeypatch.setattr(balloon_watch, "wait", clock.wait)
    return clock


@pytest.fixture
def xen(rbu: Cli, clock: Clock) -> Cli:
    """A host `xen` with 495 MiB for its guests, of which dom0 has 128."""
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    return rbu


def guests(shown: Any) -> dict[str, Any]:
    """The guests of a document by name."""
    return {each["name"]: each for each in shown["guests"]}


def current_mib(rbu: Cli) -> dict[str, float]:
    shown = guests(rbu.json("balloon", "show", "xen"))
    return {name: each["current_kib"] / MIB_KIB for name, each in shown.items()}


def up_while_another_comes_down(rbu: Cli, clock: Clock, profile: str) -> None:
    """The document's scenario: `a` wants more than there is, until `b` gives some back."""
    options = ("--max", "300M", "--profile", profile)
    rbu.json("balloon", "guest", "xen", "a", "--memory", "100M", *options)
    rbu.json("balloon", "guest", "xen", "b", "--memory", "250M", *options)
    told = rbu.json("balloon", "target", "xen", "a", "250M")
    assert told["current_kib"] < told["target_kib"] == 250 * MIB_KIB
    clock.now_s += 1.5
    assert rbu.json("balloon", "target", "xen", "b", "80M")["current_kib"] == 80 * MIB_KIB


# -- the document's story ---------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["linux", "linux-2.6.18-xen"])
def test_a_guest_arrives_untouched_once_another_one_has_come_down(
    xen: Cli, clock: Clock, profile: str
) -> None:
    up_while_another_comes_down(xen, clock, profile)
    clock.now_s += 3600
    shown = guests(xen.json("balloon", "show", "xen"))
    assert shown["a"]["current_kib"] == 250 * MIB_KIB
    assert (shown["a"]["state"], shown["a"]["retry_in_s"]) == ("settled", None)


def test_under_hard_limit_it_stays_short_until_its_target_is_written_again(
    xen: Cli, clock: Clock
) -> None:
    up_while_another_comes_down(xen, clock, "hard-limit")
    clock.now_s += 3600
    shown = guests(xen.json("balloon", "show", "xen"))
    assert (shown["a"]["state"], shown["a"]["current_kib"]) == ("stalled", 116 * MIB_KIB)
    assert "gave up: hard limit 117 MiB" in xen("balloon", "show", "xen").out
    assert xen.json("balloon", "watch", "xen")["elapsed_s"] == 0
    again = xen.json("balloon", "target", "xen", "a", "250M")
    assert (again["state"], again["current_kib"]) == ("settled", 250 * MIB_KIB)


def test_what_was_granted_is_kept_but_under_hard_limit(xen: Cli, clock: Clock) -> None:
    up_while_another_comes_down(xen, clock, "linux")
    assert current_mib(xen)["a"] == 117  # all that was free


# -- host and guest ---------------------------------------------------------------------------


def test_a_host_is_a_machine_that_is_on_with_a_dom0(rbu: Cli) -> None:
    made = rbu.json(
        *("balloon", "host", "xen", "--ram", "1G", "--profile", "linux-2.6.18-xen"),
        *("--model", "precision-390", "--bios-version", "2.1.0"),
    )
    assert (made["changed"], made["host"], made["lost"]) == (True, "xen", [])
    dom0 = guests(made)["dom0"]
    assert (dom0["current_kib"], dom0["max_kib"]) == (256 * MIB_KIB, 512 * MIB_KIB)
    assert (dom0["profile"], dom0["state"]) == ("linux-2.6.18-xen", "settled")
    assert made["free_kib"] == made["total_kib"] - 256 * MIB_KIB
    shown = rbu.json("machine", "show", "xen")
    assert (shown["is_on"], shown["model"]) == (True, "precision-390")
    assert shown["bios_version"] == "2.1.0"


def test_a_guest_has_what_was_ordered(xen: Cli) -> None:
    made = xen.json(
        *("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "200M"),
        *("--claim", "50M", "--profile", "hard-limit"),
    )
    a = guests(made)["a"]
    assert [a[f"{what}_kib"] for what in ("current", "target", "max", "claim", "balloon")] == [
        mib * MIB_KIB for mib in (100, 100, 200, 50, 100)
    ]
    assert a["profile"] == "hard-limit"
    assert made["claimed_kib"] == 50 * MIB_KIB
    line = xen("balloon", "show", "xen").out.splitlines()[-1]
    assert line == "267 MiB of 495 MiB free on xen, 50 MiB of it claimed"


def test_a_maximum_that_is_not_given_is_twice_the_start_or_all_there_is(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "64M")
    xen.json("balloon", "guest", "xen", "b", "--memory", "300M")
    shown = guests(xen.json("balloon", "show", "xen"))
    assert shown["a"]["max_kib"] == 128 * MIB_KIB
    assert shown["b"]["max_kib"] == 495 * MIB_KIB


def test_a_guest_that_is_destroyed_gives_its_memory_back(xen: Cli) -> None:
    before = xen.json("balloon", "show", "xen")
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--claim", "50M")
    gone = xen.json("balloon", "guest", "xen", "a", "--rm")
    assert (gone["changed"], gone["name"]) == (True, "a")
    assert xen.json("balloon", "show", "xen") == before
    assert "has no guest 'a'" in xen.fails(4, "balloon", "guest", "xen", "a", "--rm")


def test_what_a_guest_uses_itself_it_does_not_give_away(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "200M", "--uses", "120M")
    told = xen.json("balloon", "target", "xen", "a", "64M")
    assert 120 * MIB_KIB < told["current_kib"] < 160 * MIB_KIB
    assert (told["state"], told["retry_in_s"]) == ("waiting", 2)


def test_a_guest_told_to_have_more_than_its_maximum_stops_there_and_that_is_said(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "150M")
    ended = xen("balloon", "target", "xen", "a", "200M")
    assert ended.code == 0
    assert "a may have 150 MiB: it will stop there" in ended.out
    a = guests(xen.json("balloon", "show", "xen"))["a"]
    assert (a["current_kib"], a["target_kib"]) == (150 * MIB_KIB, 200 * MIB_KIB)
    assert a["state"] == "settled"
    assert "idle: can't grow further" in xen("balloon", "show", "xen").out


def test_dom0_is_told_through_its_file(xen: Cli) -> None:
    told = xen.json("balloon", "target", "xen", "dom0", "200M")
    assert (told["name"], told["current_kib"]) == ("dom0", 200 * MIB_KIB)
    assert current_mib(xen) == {"dom0": 200}
    assert xen.json("balloon", "target", "xen", "dom0", "100M")["current_kib"] == 100 * MIB_KIB


def test_dom0_of_a_served_host_is_told_through_the_process_that_serves_it(xen: Cli) -> None:
    with serving(store.machine_directory("xen")):
        assert xen.json("balloon", "target", "xen", "dom0", "200M")["state"] == "settled"
        assert current_mib(xen) == {"dom0": 200}


@pytest.mark.parametrize(
    ("profile", "state"),
    [("linux", "waiting"), ("linux-2.6.18-xen", "waiting"), ("hard-limit", "stalled")],
)
def test_what_dom0_is_at_is_told_from_its_files(
    rbu: Cli, clock: Clock, profile: str, state: str
) -> None:
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M", "--profile", profile)
    rbu.json("balloon", "guest", "xen", "a", "--memory", "300M")
    told = rbu.json("balloon", "target", "xen", "dom0", "250M")
    assert (told["state"], told["target_kib"]) == (state, 250 * MIB_KIB)
    assert told["retry_in_s"] is None  # the files don't tell


def test_ram_in_a_directory_of_limited_size_is_there(rbu: Cli, tmp_path: Path) -> None:
    (tmp_path / "ram").mkdir()
    made = rbu.json(
        "balloon", "host", "xen", "--ram", "256M", "--dom0", "64M", "--ram-in", tmp_path / "ram"
    )
    (file,) = (tmp_path / "ram").iterdir()

    def taken_mib() -> float:
        return file.stat().st_blocks * 512 / MIB

    assert 64 <= taken_mib() < 66
    rbu.json("balloon", "guest", "xen", "a", "--memory", "64M", "--max", "160M")
    assert 128 <= taken_mib() < 130
    rbu.json("balloon", "target", "xen", "a", "160M")
    assert 224 <= taken_mib() < 226
    rbu.json("balloon", "guest", "xen", "a", "--rm")
    assert taken_mib() < 66
    assert guests(made)["dom0"]["state"] == "settled"
    rbu.json("machine", "rm", "xen", "--yes")
    assert list((tmp_path / "ram").iterdir()) == []


# -- watch ------------------------------------------------------------------------------------


def test_watching_ends_when_all_have_arrived(xen: Cli, clock: Clock) -> None:
    up_while_another_comes_down(xen, clock, "linux-2.6.18-xen")
    watched = xen.json("balloon", "watch", "xen")
    assert (watched["changed"], watched["has_settled"]) == (True, True)
    assert guests(watched)["a"]["current_kib"] == 250 * MIB_KIB
    a = [each for each in watched["events"] if each["guest"] == "a"]
    assert [a[0]["state"], a[-1]["state"]] == ["waiting", "settled"] or a[0]["state"] == "moving"
    sizes = [each["current_kib"] for each in a]
    assert sizes == sorted(sizes)
    assert len(sizes) > 50  # a slope, and no jump
    assert watched["events"][0]["time_s"] == 0


def test_in_a_pipe_each_change_is_a_line(xen: Cli, clock: Clock) -> None:
    up_while_another_comes_down(xen, clock, "hard-limit")
    ended = xen("balloon", "watch", "xen")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert "    0.0 s  a: 116 MiB of 250 MiB, gave up: hard limit 117 MiB" in lines
    assert "    0.0 s  b: 80 MiB of 80 MiB, idle" in lines
    assert lines[-2:] == [
        "a gave up; have it try again: rbu balloon target xen a SIZE",
        "all have settled after 0.0 s",
    ]


def test_watching_for_a_time_goes_on_when_all_have_settled(
    xen: Cli, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile another process sets a target, makes a guest, and tells dom0."""
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "300M")
    directory = store.machine_directory("xen")
    steps = [
        lambda host: host.hypervisor.domain("a").set_target(200 * MIB_KIB),
        lambda host: host.create("b", balloon_order()),
        lambda host: host.hypervisor.domain("b").set_target(70 * MIB_KIB),
    ]

    def wait(seconds: float) -> None:
        clock.now_s += seconds
        if steps and clock.now_s > START_S + 2 * (4 - len(steps)):
            with XenHost(directory, now=clock.now) as host:
                steps.pop(0)(host)

    monkeypatch.setattr(balloon_watch, "wait", wait)
    watched = xen.json("balloon", "watch", "xen", "--for", 10)
    assert 10 <= watched["elapsed_s"] < 10.2
    found = guests(watched)
    assert [found[name]["current_kib"] / MIB_KIB for name in ("a", "b")] == [200, 70]
    arrivals = {each["guest"]: each["time_s"] for each in watched["events"]}
    assert 2 < arrivals["a"] < 2.5
    assert 6 < arrivals["b"] < 7.5


def balloon_order() -> Any:
    from openrbu.machine.xen.orders import GuestOrder

    return GuestOrder(64 * MIB, 160 * MIB)


def test_a_guest_that_tries_for_ever_is_watched_for_a_time(xen: Cli, clock: Clock) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "300M", "--profile", "linux-2.6.18-xen")
    xen.json("balloon", "target", "xen", "a", "480M")
    watched = xen.json("balloon", "watch", "xen", "--for", 30)
    assert (watched["has_settled"], guests(watched)["a"]["state"]) == (False, "waiting")
    ended = xen("balloon", "watch", "xen", "--for", 1)
    assert ended.out.splitlines()[-1].endswith("s there is more to do: rbu balloon watch goes on")


def test_ctrl_c_ends_watching_and_is_no_failure(
    xen: Cli, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise Stopped(signal.SIGINT)

    xen.json("balloon", "guest", "xen", "a", "--memory", "300M")
    xen.json("balloon", "target", "xen", "a", "480M")
    monkeypatch.setattr(balloon_watch, "wait", interrupted)
    watched = xen.json("balloon", "watch", "xen")
    assert (watched["has_settled"], guests(watched)["a"]["state"]) == (False, "waiting")
    assert xen.json("balloon", "show", "xen")["lost"] == []


def test_the_chart_is_drawn_and_where_it_can_not_be_that_is_said_before(xen: Cli) -> None:
    pytest.importorskip("matplotlib")
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M")
    assert xen.json("balloon", "watch", "xen", "--chart", "a.svg")["chart"] == "a.svg"
    assert xen.files == ["a.svg"]
    line = xen.fails(1, "balloon", "watch", "xen", "--for", 3600, "--chart", "nowhere/a.svg")
    assert "nowhere/a.svg can't be written" in line
    line = xen.fails(2, "balloon", "watch", "xen", "--chart", "a.gif")
    assert "ends in .svg or .png" in line
    Path("taken.png").mkdir()
    ended = xen("balloon", "watch", "xen", "--chart", "taken.png")
    assert (ended.code, ended.err) == (1, "rbu: taken.png can't be written: Is a directory\n")


def test_a_host_that_is_switched_off_ends_watching(
    xen: Cli, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openrbu.machine.virtual import VirtualMachine

    def switch_off(seconds: float) -> None:
        with VirtualMachine(store.machine_directory("xen")) as machine:
            machine.power_off()

    xen.json("balloon", "guest", "xen", "a", "--memory", "300M")
    monkeypatch.setattr(balloon_watch, "wait", switch_off)
    ended = xen("balloon", "watch", "xen", "--for", 10, "--json")
    assert ended.code == 4
    assert "was destroyed" in ended.document["error"]["message"]


# -- several processes ------------------------------------------------------------------------


@contextlib.contextmanager
def watching(rbu: Cli, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that watches the host: it has its guests when this begins."""
    command = [*RBU, "balloon", "watch", "xen", *options]
    with subprocess.Popen(
        command, cwd=rbu.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(process, "idle")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read lines up to one that has this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(text)


@pytest.fixture
def host(rbu: Cli) -> Cli:
    """A host with a guest, by the clock of this computer."""
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    rbu.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "300M")
    return rbu


def test_targets_are_picked_up_by_the_process_that_watches(host: Cli) -> None:
    with watching(host, "--for", "60") as process:
        until(process, " a: 100 MiB")
        ended = host("balloon", "target", "xen", "a", "200M")
        assert ended.out == (
            f"a is told to have 200 MiB: process {process.pid} has it, and will move it\n"
        )
        until(process, " a: 200 MiB of 200 MiB, idle")
        assert f"process {process.pid} has it" in host("balloon", "show", "xen").out
        shown = guests(host.json("balloon", "show", "xen"))["a"]
        assert (shown["current_kib"], shown["owner_pid"]) == (200 * MIB_KIB, process.pid)
        line = host.fails(4, "balloon", "guest", "xen", "a", "--rm")
        assert f"guest 'a' of 'xen' is in use by process {process.pid}" in line
        host.json("balloon", "target", "xen", "dom0", "100M")
        until(process, " dom0: 100 MiB of 100 MiB")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "200 MiB" in out
    assert current_mib(host) == {"dom0": 100, "a": 200}


def test_a_guest_of_another_process_and_one_of_ours_contend(host: Cli) -> None:
    """The other one comes down while ours waits for its memory."""
    host.json("balloon", "target", "xen", "a", "300M")
    with watching(host, "--for", "60") as process:
        with XenHost(store.machine_directory("xen"), now=balloon_session.now) as mine:
            mine.create("b", balloon_order())
        until(process, " b: 64 MiB")
        host.json("balloon", "target", "xen", "b", "160M")
        until(process, " b: 67 MiB of 160 MiB, tries again")
        host.json("balloon", "target", "xen", "a", "200M")
        until(process, " b: 160 MiB of 160 MiB, idle")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert current_mib(host) == {"dom0": 128, "a": 200, "b": 160}
    with XenHost(store.machine_directory("xen"), now=balloon_session.now) as again:
        again.hypervisor.check()


def test_guests_that_were_moved_die_with_the_process_that_is_killed_and_that_is_said(
    host: Cli,
) -> None:
    with watching(host, "--for", "60") as process:
        host("balloon", "target", "xen", "a", "200M")
        until(process, " a: 200 MiB of 200 MiB, idle")
        process.kill()
    line = host.fails(4, "balloon", "target", "xen", "a", "100M")
    assert "guest 'a' of 'xen' lost its power with the process that had it" in line
    assert host.json("balloon", "show", "xen")["lost"] == []  # it was said
    assert current_mib(host) == {"dom0": 128}


def test_show_tells_of_lost_guests_once(host: Cli) -> None:
    with watching(host, "--for", "60") as process:
        host("balloon", "target", "xen", "a", "200M")
        until(process, " a: 200 MiB of 200 MiB, idle")
        process.kill()
    ended = host("balloon", "show", "xen")
    assert "guest a of xen has lost its power, and was destroyed" in ended.out
    assert "lost its power" not in host("balloon", "show", "xen").out


def test_a_host_that_another_command_has_is_shown_without_its_dom0(
    host: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balloon_session, "PATIENCE_S", 0.0)
    with store.locked(store.machine_directory("xen")):
        shown = guests(host.json("balloon", "show", "xen"))
        assert shown["dom0"]["state"] is None
        assert shown["a"]["state"] == "settled"
        line = host.fails(4, "balloon", "target", "xen", "dom0", "100M")
        assert f"machine 'xen' is in use by process {os.getpid()}: wait for it" in line


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
    (("host", "new", "--ram", "1G", "--dom0-max", "64M"), 2, "no less than what it starts"),
    (("host", "new", "--ram", "lots"), 2, "--ram: 'lots' is not a size"),
    (("host", "new", "--profile", "hurd"), 2, "no balloon profile 'hurd'"),
    (("host", "new", "--ram-in", "nowhere"), 2, "no RAM can be kept in nowhere"),
    (("guest", "xen", "dom0"), 2, "'dom0' can't be a guest's name"),
    (("guest", "xen", "dom0", "--rm"), 2, "it comes and goes with the machine"),
    (("guest", "xen", "a/b"), 2, "can't be a guest's name"),
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
    (("target", "xen", "a", "2G"), 4, "none can have 2048 MiB"),
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


def test_a_host_whose_memory_is_not_there_is_not_made(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openrbu.memory.physical import RamFile

    (tmp_path / "ram").mkdir()
    monkeypatch.setattr(RamFile, "commit", lambda self, frames: 0)
    line = rbu.fails(4, "balloon", "host", "xen", "--ram", "1G", "--ram-in", tmp_path / "ram")
    assert "dom0" in line
    assert rbu.json("machine", "list")["machines"] == []
    assert list((tmp_path / "ram").iterdir()) == []


def test_a_guest_for_which_the_memory_below_is_not_there_is_told_apart(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openrbu.memory.physical import RamFile

    (tmp_path / "ram").mkdir()
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--ram-in", tmp_path / "ram")
    monkeypatch.setattr(RamFile, "commit", lambda self, frames: 0)
    line = rbu.fails(4, "balloon", "guest", "xen", "a", "--memory", "100M")
    assert f"the memory below it is used up: {tmp_path / 'ram'}" in line


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
    command = typer.main.get_command(typer.Typer(callback=lambda: None))
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


def test_json_errors_have_their_kind(rbu: Cli) -> None:
    error = rbu.json("balloon", "show", "nowhere", code=4)["error"]
    assert error["kind"] == "machine"
    assert json.dumps(error)
