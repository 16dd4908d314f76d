"""What a guest's process does not see: clocks that are set back, hosts that go and others that come
in their places, balloons that are not what they were."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from openrbu.errors import MachineError
from openrbu.machine import store
from openrbu.machine.config import XenConfig
from openrbu.machine.removal import remove_machine
from openrbu.machine.state import StateRefusedError
from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_host import XenHost
from openrbu.units import MIB
from rigs.guests import Clock, current_mib, guest_spec, look, tell
from rigs.machines import make
from rigs.xen_hosts import frames

FILES = "/sys/devices/system/xen_memory/xen_memory0"


def dom0_of(directory: Path, clock: Clock) -> VirtualMachine:
    """The host's machine, which goes by the tests' clock."""
    return VirtualMachine(
        directory, clock=lambda: dt.datetime.fromtimestamp(clock.now_s, tz=dt.UTC)
    )


def number_in(machine: VirtualMachine, name: str) -> int:
    assert machine.kernel is not None
    return int(machine.kernel.read(f"{FILES}/{name}", 0, 99))


def write(machine: VirtualMachine, name: str, text: bytes) -> None:
    assert machine.kernel is not None
    machine.kernel.write(f"{FILES}/{name}", text, 0)


# -- a clock that was set back ---------------------------------------------------------------


def test_a_clock_set_back_stops_no_guest(host: XenHost, clock: Clock) -> None:
    host.create("a", guest_spec(200, 300, "linux-2.6.18-xen"))
    host.create("b", guest_spec(167, 167))
    tell(host, "a", 250)
    look(host, clock)
    host.remove("b")
    look(host, clock, after_s=-3600)
    assert current_mib(host, "a") == 200
    look(host, clock, after_s=1)
    assert current_mib(host, "a") == 250


def test_a_clock_set_back_does_not_stop_dom0(host: XenHost, directory: Path, clock: Clock) -> None:
    host.create("a", guest_spec(367, 367))
    with dom0_of(directory, clock) as machine:
        write(machine, "target_kb", b"%d" % (200 * 1024))
        assert number_in(machine, "retry_count") == 2
    host.remove("a")
    clock.now_s -= 3600
    with dom0_of(directory, clock) as machine:
        assert number_in(machine, "info/current_kb") == 128 * 1024
    clock.now_s += 2
    with dom0_of(directory, clock) as machine:
        assert number_in(machine, "info/current_kb") == 200 * 1024


# -- dom0 beside other guests ----------------------------------------------------------------


@pytest.mark.parametrize(("after_s", "tries"), [(1.9, 2), (2.0, 3), (13.9, 4), (14.0, 1)])
def test_dom0_left_alone_has_tried_at_the_times_that_a_guest_has(
    host: XenHost, directory: Path, clock: Clock, after_s: float, tries: int
) -> None:
    """After 2, 4 and 8 seconds more; then it gives up, and counts from 1 again."""
    host.create("a", guest_spec(367, 400))
    tell(host, "a", 400)
    look(host, clock)
    with dom0_of(directory, clock) as machine:
        write(machine, "target_kb", b"%d" % (200 * 1024))
        assert number_in(machine, "retry_count") == 2
    look(host, clock, after_s=after_s)
    with host.attach("a") as guest, dom0_of(directory, clock) as machine:
        assert guest.driver.retry_count == number_in(machine, "retry_count") == tries


# -- a balloon that is not what the hypervisor says ------------------------------------------


@pytest.mark.parametrize("is_counted", [False, True])
def test_a_guest_whose_frame_table_has_changed_behind_it_is_refused(
    host: XenHost, *, is_counted: bool
) -> None:
    host.create("a", guest_spec(100, 300))
    domain = host.hypervisor.domain("a")
    domain.decrease(frames(20_000))
    if not is_counted:  # as many pages as before, but not the same ones
        assert domain.populate(frames(30_000)) == 1
    with pytest.raises(StateRefusedError, match="the balloon is not what the frame table says"):
        host.attach("a")
    assert host.destroy_orphans() == []


def test_a_host_whose_frame_table_of_dom0_has_changed_is_refused(
    directory: Path, clock: Clock
) -> None:
    with XenHost(directory, now=clock) as host:
        host.hypervisor.domain("dom0").decrease(frames(20_000))
    before = (directory / "state.json").read_bytes()
    with pytest.raises(StateRefusedError, match="rbu machine off host"):
        VirtualMachine(directory)
    assert (directory / "state.json").read_bytes() == before


# -- whether the host is on ------------------------------------------------------------------


def test_a_host_that_is_on_is_found_on_whoever_has_it(host: XenHost, directory: Path) -> None:
    host.check_power()
    with VirtualMachine(directory) as machine:
        write(machine, "scrub_pages", b"0")  # from here on its power is that process's
        assert not (directory / "state.json").exists()
        host.check_power()
    host.check_power()


def test_a_host_that_lost_its_power_is_told_apart_from_one_that_was_restarted(
    directory: Path, clock: Clock
) -> None:
    with XenHost(directory, now=clock) as host:
        with VirtualMachine(directory) as machine:
            machine.restart()
        with pytest.raises(MachineError, match="'host' was restarted: all its guests are gone"):
            host.check_power()
        (directory / "state.json").rename(directory / "state.lost")
        (directory / "lock").unlink()
        with pytest.raises(MachineError, match="'host' is off; start it"):
            host.check_power()
        assert not (directory / "lock").exists()


# -- a host that is removed ------------------------------------------------------------------


def test_who_still_has_a_guest_of_a_machine_that_was_removed_leaves_the_next_one_alone(
    tmp_path: Path, directory: Path, clock: Clock
) -> None:
    with XenHost(directory, now=clock) as before:
        before.create("a", guest_spec())
        moved = before.attach("a")
        moved.begin_change()
        with store.locked(directory):
            remove_machine(directory)
        xen = XenConfig(dom0_bytes=128 * MIB, dom0_max_bytes=256 * MIB, profile="linux")
        again = make(tmp_path, name="host", ram_bytes=512 * MIB, xen=xen)
        with VirtualMachine(again) as machine:
            machine.power_on()
        with XenHost(again, now=clock) as host:
            host.create("a", guest_spec(70, 80))
            moved.driver.set_target_pages(1)
            with pytest.raises(MachineError, match="'a' was destroyed"):
                moved.driver.step(clock.now_s)
            moved.close()
            with pytest.raises(MachineError, match="switched off, or started again"):
                before.hypervisor.domains()
            assert host.destroy_orphans() == []
            with host.attach("a") as guest:
                assert guest.driver.current_pages == 70 * 256
            state = again / "xen" / "guests" / "a" / "state.json"
            state.rename(state.with_name("state.lost"))
            with pytest.raises(MachineError, match="switched off, or started again"):
                before.destroy_orphans()
            assert host.destroy_orphans() == ["a"]
            host.hypervisor.check()


def test_a_guest_that_was_only_looked_at_is_not_taken_from_the_next_machine(
    tmp_path: Path, directory: Path, clock: Clock
) -> None:
    """Where the old host was moved away and not ended."""
    with XenHost(directory, now=clock) as before:
        before.create("a", guest_spec())
        guest = before.attach("a")
        aside = directory.with_name("aside")
        directory.rename(aside)
        xen = XenConfig(dom0_bytes=128 * MIB, dom0_max_bytes=256 * MIB, profile="linux")
        again = make(tmp_path, name="host", ram_bytes=512 * MIB, xen=xen)
        with VirtualMachine(again) as machine:
            machine.power_on()
        with XenHost(again, now=clock) as host:
            host.create("a", guest_spec(70, 80))
            with pytest.raises(MachineError, match="'a' was destroyed"):
                guest.begin_change()
            guest.driver.max_retry_count = 1  # something to put away
            guest.close()
            host.attach("a").close()
