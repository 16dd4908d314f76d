"""The command balloon watch, and several processes on one Xen host."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.balloon.clock import SystemClock
from openrbu.machine import store
from openrbu.machine.guest_spec import GuestSpec
from openrbu.machine.removal import remove_machine
from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_host import XenHost
from openrbu.system.interrupts import TerminatedBySignal
from rigs.cli import Cli
from rigs.served import serving
from rigs.xen import (
    MIB_KIB,
    START_S,
    Clock,
    balloon_spec,
    current_mib,
    guests,
    until,
    up_while_another_comes_down,
    watching,
)

# -- watch ------------------------------------------------------------------------------------


def test_watching_ends_when_all_have_arrived(xen: Cli, clock: Clock) -> None:
    up_while_another_comes_down(xen, clock, "linux-2.6.18-xen")
    watched = xen.json("balloon", "watch", "xen")
    assert (watched["changed"], watched["has_settled"]) == (True, True)
    assert guests(watched)["a"]["current_kib"] == 250 * MIB_KIB
    a = [each for each in watched["events"] if each["guest"] == "a"]
    assert [a[0]["state"], a[-1]["state"]] == ["waiting", "settled"]
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
        "a gave up; to make it try again: rbu balloon target xen a SIZE",
        "all have settled after 0.0 s",
    ]


def test_watching_for_a_time_goes_on_when_all_have_settled(xen: Cli, clock: Clock) -> None:
    """Meanwhile another process sets a target, makes a guest, and tells dom0."""
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "300M")
    directory = store.machine_directory("xen")
    steps = [
        lambda host: host.hypervisor.domain("a").set_target_kib(200 * MIB_KIB),
        lambda host: host.create("b", balloon_spec()),
        lambda host: host.hypervisor.domain("b").set_target_kib(70 * MIB_KIB),
    ]

    def take_a_step() -> None:
        if steps and clock.now_s > START_S + 2 * (4 - len(steps)):
            with XenHost(directory, now=clock.wall) as host:
                steps.pop(0)(host)

    clock.waited = take_a_step
    watched = xen.json("balloon", "watch", "xen", "--for", 10)
    assert 10 <= watched["elapsed_s"] < 10.2
    found = guests(watched)
    assert [found[name]["current_kib"] / MIB_KIB for name in ("a", "b")] == [200, 70]
    arrivals = {each["guest"]: each["time_s"] for each in watched["events"]}
    assert 2 < arrivals["a"] < 2.5
    assert 6 < arrivals["b"] < 7.5


def test_a_guest_that_tries_for_ever_is_watched_for_a_time(xen: Cli, clock: Clock) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "300M", "--profile", "linux-2.6.18-xen")
    xen.json("balloon", "target", "xen", "a", "480M")
    watched = xen.json("balloon", "watch", "xen", "--for", 30)
    assert (watched["has_settled"], guests(watched)["a"]["state"]) == (False, "waiting")
    ended = xen("balloon", "watch", "xen", "--for", 1)
    assert ended.out.splitlines()[-1].endswith(
        "s not all have settled: continue with rbu balloon watch xen"
    )


def test_ctrl_c_ends_watching_and_is_no_failure(xen: Cli, clock: Clock) -> None:
    def interrupt() -> None:
        raise TerminatedBySignal(signal.SIGINT)

    xen.json("balloon", "guest", "xen", "a", "--memory", "300M")
    xen.json("balloon", "target", "xen", "a", "480M")
    clock.waited = interrupt
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


def gave_up_under_linux(rbu: Cli, clock: Clock) -> None:
    """The guest `a`, which tried in vain for long enough."""
    rbu.json("balloon", "guest", "xen", "a", "--memory", "300M")
    rbu.json("balloon", "target", "xen", "a", "480M")
    clock.now_s += 60


def test_who_gave_up_under_linux_is_to_be_told_another_size(xen: Cli, clock: Clock) -> None:
    gave_up_under_linux(xen, clock)
    ended = xen("balloon", "watch", "xen")
    assert ended.out.splitlines()[-2:] == [
        "a gave up; to make it try again: rbu balloon target xen a ANOTHER_SIZE",
        "all have settled after 0.0 s",
    ]


@pytest.mark.parametrize("set_by_s", [-3600.0, 3600.0])
def test_setting_the_wall_clock_is_nothing_to_who_watches(
    xen: Cli, clock: Clock, set_by_s: float
) -> None:
    waits = 0

    def set_the_wall_clock() -> None:
        nonlocal waits
        waits += 1
        assert waits < 100
        clock.wall_ahead_s = set_by_s

    xen.json("balloon", "guest", "xen", "a", "--memory", "300M", "--profile", "linux-2.6.18-xen")
    xen.json("balloon", "target", "xen", "a", "480M")
    clock.waited = set_the_wall_clock
    watched = xen.json("balloon", "watch", "xen", "--for", 5)
    assert 5 <= watched["elapsed_s"] < 5.2
    assert 0 < guests(watched)["a"]["retry_in_s"] <= 1
    assert 0 < guests(xen.json("balloon", "show", "xen"))["a"]["retry_in_s"] <= 1


def meanwhile(clock: Clock, act: Callable[[], object]) -> None:
    """Have this happen after 1.5 s of watching, which is between two looks at the host."""
    acts = [act]

    def act_in_time() -> None:
        if acts and clock.now_s > START_S + 1.5:
            acts.pop()()

    clock.waited = act_in_time


def watched_in_vain(rbu: Cli, clock: Clock, says: str) -> None:
    """Watching the host `xen`, whose `a` grows at first, ends with this; what happened is told."""
    pytest.importorskip("matplotlib")
    rbu.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "200M")
    with XenHost(store.machine_directory("xen"), now=clock.wall) as host:
        host.hypervisor.domain("a").set_target_kib(200 * MIB_KIB)
    told = rbu.json("balloon", "watch", "xen", "--for", 10, "--chart", "a.svg", code=4)
    assert told["error"]["message"] == says
    assert (told["host"], told["changed"], told["chart"]) == ("xen", True, "a.svg")
    assert told["elapsed_s"] < 3
    assert "has_settled" not in told
    a = [each["current_kib"] for each in told["events"] if each["guest"] == "a"]
    assert (len(a) > 10, a[-1]) == (True, 200 * MIB_KIB)
    assert rbu.files == ["a.svg"]


IS_OFF = "host 'xen' is off; start it: rbu machine reboot xen"


def test_a_host_that_is_switched_off_ends_watching(xen: Cli, clock: Clock) -> None:
    def switch_off() -> None:
        with VirtualMachine(store.machine_directory("xen")) as machine:
            machine.power_off()

    meanwhile(clock, switch_off)
    watched_in_vain(xen, clock, IS_OFF)


def test_a_host_that_is_restarted_ends_watching(xen: Cli, clock: Clock) -> None:
    def restart() -> None:
        with VirtualMachine(store.machine_directory("xen")) as machine:
            machine.restart()

    meanwhile(clock, restart)
    watched_in_vain(xen, clock, "host 'xen' was restarted: all its guests are gone")
    assert current_mib(xen) == {"dom0": 128}


def test_a_host_that_is_removed_ends_watching(xen: Cli, clock: Clock) -> None:
    def remove() -> None:
        directory = store.machine_directory("xen")
        with store.locked(directory):
            remove_machine(directory)

    meanwhile(clock, remove)
    watched_in_vain(xen, clock, "there is no machine 'xen'; make one: rbu machine new xen")


def test_a_host_that_loses_its_power_ends_watching(xen: Cli, clock: Clock) -> None:
    with serving(store.machine_directory("xen")) as server:
        xen.json("balloon", "target", "xen", "dom0", "100M")
        meanwhile(clock, server.kill)
        watched_in_vain(xen, clock, IS_OFF)


# -- several processes ------------------------------------------------------------------------


def test_targets_are_picked_up_by_the_process_that_watches(live_xen: Cli) -> None:
    with watching(live_xen, "--for", "60") as process:
        until(process, " a: 100 MiB")
        ended = live_xen("balloon", "target", "xen", "a", "200M")
        assert ended.out == (
            f"a has the target 200 MiB: process {process.pid} has the guest, and will move it\n"
        )
        until(process, " a: 200 MiB of 200 MiB, idle")
        assert f"process {process.pid} has it" in live_xen("balloon", "show", "xen").out
        shown = guests(live_xen.json("balloon", "show", "xen"))["a"]
        assert (shown["current_kib"], shown["owner_pid"]) == (200 * MIB_KIB, process.pid)
        line = live_xen.fails(4, "balloon", "guest", "xen", "a", "--rm")
        assert f"guest 'a' of 'xen' is in use by process {process.pid}" in line
        live_xen.json("balloon", "target", "xen", "dom0", "100M")
        until(process, " dom0: 100 MiB of 100 MiB")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "200 MiB" in out
    assert current_mib(live_xen) == {"dom0": 100, "a": 200}


def test_a_guest_of_another_process_and_one_of_ours_contend(live_xen: Cli) -> None:
    """The other one comes down while ours waits for its memory."""
    live_xen.json("balloon", "target", "xen", "a", "300M")
    with watching(live_xen, "--for", "60") as process:
        with XenHost(store.machine_directory("xen"), now=SystemClock().wall) as mine:
            mine.create("b", balloon_spec())
        until(process, " b: 64 MiB")
        live_xen.json("balloon", "target", "xen", "b", "160M")
        until(process, " b: 67 MiB of 160 MiB, tries again")
        live_xen.json("balloon", "target", "xen", "a", "200M")
        until(process, " b: 160 MiB of 160 MiB, idle")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert current_mib(live_xen) == {"dom0": 128, "a": 200, "b": 160}
    with XenHost(store.machine_directory("xen"), now=SystemClock().wall) as again:
        again.hypervisor.check()


def test_guests_that_were_moved_die_with_the_process_that_is_killed_and_that_is_said(
    live_xen: Cli,
) -> None:
    with watching(live_xen, "--for", "60") as process:
        live_xen("balloon", "target", "xen", "a", "200M")
        until(process, " a: 200 MiB of 200 MiB, idle")
        process.kill()
    line = live_xen.fails(4, "balloon", "target", "xen", "a", "100M")
    assert "guest 'a' of 'xen' lost its power with the process that had it" in line
    assert live_xen.json("balloon", "show", "xen")["lost"] == []  # it was said
    assert current_mib(live_xen) == {"dom0": 128}


def test_show_tells_of_lost_guests_once(live_xen: Cli) -> None:
    with watching(live_xen, "--for", "60") as process:
        live_xen("balloon", "target", "xen", "a", "200M")
        until(process, " a: 200 MiB of 200 MiB, idle")
        process.kill()
    ended = live_xen("balloon", "show", "xen")
    assert "guest a of xen has lost its power, and was destroyed" in ended.out
    assert "lost its power" not in live_xen("balloon", "show", "xen").out


def test_any_command_that_finds_lost_guests_names_them(live_xen: Cli) -> None:
    with watching(live_xen, "--for", "60") as process:
        live_xen("balloon", "target", "xen", "a", "200M")
        until(process, " a: 200 MiB of 200 MiB, idle")
        process.kill()
    told = live_xen("balloon", "target", "xen", "dom0", "100M")
    assert (told.code, "guest a of xen has lost its power" in told.out) == (0, True)


def test_a_host_that_another_command_has_is_shown_without_its_dom0(xen: Cli, clock: Clock) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "300M")
    with store.locked(store.machine_directory("xen")):
        shown = guests(xen.json("balloon", "show", "xen"))
        assert shown["dom0"]["state"] is None
        assert shown["a"]["state"] == "settled"
        line = xen.fails(4, "balloon", "target", "xen", "dom0", "100M")
        assert f"machine 'xen' is in use by process {os.getpid()}: wait for it" in line


def test_guests_of_another_process_have_not_settled_for_all_that_is_known(live_xen: Cli) -> None:
    with watching(live_xen, "--for", "60") as process:
        until(process, " a: 100 MiB")
        watched = live_xen.json("balloon", "watch", "xen")
        assert watched["has_settled"] is None
        lines = live_xen("balloon", "watch", "xen").out.splitlines()
        assert lines[-2] == f"process {process.pid} has a: it may still move"
        assert lines[-1].startswith("the others have settled after")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert live_xen.json("balloon", "watch", "xen")["has_settled"] is True


def test_a_guest_that_another_process_attaches_at_once_is_made_all_the_same(
    xen: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who watches the host does: another one of its guests' users is between the two steps."""
    create = XenHost.create
    with contextlib.ExitStack() as stack:

        def create_and_be_too_late(host: XenHost, name: str, spec: GuestSpec) -> None:
            create(host, name, spec)
            other = stack.enter_context(XenHost(host.directory, now=host.now, keeps=True))
            stack.enter_context(other.attach(name))

        monkeypatch.setattr(XenHost, "create", create_and_be_too_late)
        made = xen.json("balloon", "guest", "xen", "b", "--memory", "64M")
        assert (made["changed"], guests(made)["b"]["owner_pid"]) == (True, os.getpid())
