"""Guests of a host in a directory: put away and attached, their time, and what kills them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.errors import MachineError, ObstacleError, UsageError
from openrbu.kernel.balloon import CATCH_UP_S
from openrbu.machine.guest_spec import GuestSpec
from openrbu.machine.state import StateFile, StateRefusedError
from openrbu.machine.virtual import VirtualMachine
from openrbu.machine.xen_guests import GuestInUseError, run_due
from openrbu.machine.xen_host import XenHost, guest_names
from openrbu.units import MIB, PAGES_PER_MIB
from rigs.guests import TOTAL_MIB, Clock, current_mib, free_mib, guest_spec, look, tell
from rigs.machines import in_child, kill_self, make
from rigs.small_disks import no_writes

# -- come and go ----------------------------------------------------------------------------


def test_a_guest_has_its_memory_its_maximum_and_its_promise(host: XenHost) -> None:
    host.create("a", guest_spec(100, 300, claim_mib=50))
    info = host.domain_of("a")
    assert info.current_pages == 100 * PAGES_PER_MIB
    assert (info.frame_count, info.max_pages) == (300 * PAGES_PER_MIB,) * 2
    assert info.claim_pages == 50 * PAGES_PER_MIB
    assert free_mib(host) == TOTAL_MIB - 128 - 100
    assert host.guest_names() == ["a"]


def test_a_guest_that_is_removed_leaves_nothing(host: XenHost, directory: Path) -> None:
    before = free_mib(host)
    host.create("a", guest_spec(claim_mib=50))
    host.remove("a")
    assert (free_mib(host), host.hypervisor.claimed_pages) == (before, 0)
    assert guest_names(directory) == []
    with pytest.raises(MachineError, match="has no guest 'a'"):
        host.attach("a")


@pytest.mark.parametrize(
    ("name", "wanted", "error", "says"),
    [
        ("a", guest_spec(300, 400), ObstacleError, "it takes 300 MiB, and 267 MiB is free"),
        ("a", guest_spec(200, 300, claim_mib=80), ObstacleError, "it takes 280 MiB, and 267 MiB"),
        ("a", guest_spec(100, 600), ObstacleError, "has 495 MiB for all its guests"),
        ("a", guest_spec(100, 99), UsageError, "maximum"),
        ("a", guest_spec(100, 150, claim_mib=51), UsageError, "claim"),
        ("a", guest_spec(10, 20), UsageError, "64 MiB at least"),
        ("a", guest_spec(100, used_mib=90), UsageError, r"can use 8\d(\.\d)? MiB itself at most"),
        ("a", GuestSpec(100 * MIB + 1, 200 * MIB), UsageError, "whole pages"),
        ("a", guest_spec(profile="hurd"), UsageError, "no balloon profile 'hurd'"),
        ("dom0", guest_spec(), UsageError, "can't be a guest's name"),
        ("../a", guest_spec(), UsageError, "can't be a guest's name"),
        ("a" * 64, guest_spec(), UsageError, "at most 63"),
        ("there", guest_spec(), MachineError, "has a guest 'there' already"),
    ],
)
def test_a_guest_that_can_not_be_leaves_the_host_as_it_was(
    host: XenHost, name: str, wanted: GuestSpec, error: type[Exception], says: str
) -> None:
    host.create("there", guest_spec(100))
    before = host.hypervisor.domains(), host.guest_names(), free_mib(host)
    with pytest.raises(error, match=says):
        host.create(name, wanted)
    assert (host.hypervisor.domains(), host.guest_names(), free_mib(host)) == before


def test_a_machine_without_xen_and_one_that_is_off_have_no_guests(
    directory: Path, tmp_path: Path, clock: Clock
) -> None:
    with pytest.raises(MachineError, match="runs no Xen; make one that does"):
        XenHost(make(tmp_path, name="plain"), now=clock)
    with VirtualMachine(directory) as machine:
        machine.power_off()
    with pytest.raises(MachineError, match="'host' is off; start it: rbu machine reboot host"):
        XenHost(directory, now=clock)


# -- time -----------------------------------------------------------------------------------


def test_a_guest_put_away_goes_on_where_it_was(host: XenHost, clock: Clock) -> None:
    host.create("a", guest_spec(100, 300))
    tell(host, "a", 70)
    look(host, clock)
    assert current_mib(host, "a") == 70
    tell(host, "a", 300)
    look(host, clock)
    assert current_mib(host, "a") == 300
    with host.attach("a") as guest:
        assert guest.driver.current_pages == guest.driver.target_pages == 300 * PAGES_PER_MIB
        assert guest.driver.low_pages == 0


def test_what_a_guest_uses_itself_is_never_given_away(host: XenHost, clock: Clock) -> None:
    host.create("a", guest_spec(200, used_mib=100))
    tell(host, "a", 64)
    look(host, clock)
    least = current_mib(host, "a")
    assert 100 < least < 140
    look(host, clock, after_s=CATCH_UP_S)
    assert current_mib(host, "a") == least


def test_a_guest_left_alone_has_tried_at_each_of_its_times(host: XenHost, clock: Clock) -> None:
    """It tries after 2, 4 and 8 seconds more, and then gives up: not once in all that time."""
    host.create("a", guest_spec(200, 300))
    host.create("b", guest_spec(167, 167))  # that is all there is
    tell(host, "a", 300)
    look(host, clock)
    with host.attach("a") as guest:
        assert guest.driver.retry_count == 2
    look(host, clock, after_s=13.9)
    with host.attach("a") as guest:
        assert guest.driver.retry_count == 4
    look(host, clock, after_s=0.2)
    with host.attach("a") as guest:
        assert (guest.driver.due_s, guest.driver.credit_pages) == (None, 100 * PAGES_PER_MIB)
    host.remove("b")
    look(host, clock, after_s=CATCH_UP_S)
    assert current_mib(host, "a") == 200


def test_memory_that_came_free_in_time_is_found_much_later(host: XenHost, clock: Clock) -> None:
    host.create("a", guest_spec(200, 300))
    host.create("b", guest_spec(167, 167))
    tell(host, "a", 250)
    look(host, clock)
    look(host, clock, after_s=7)
    host.remove("b")
    look(host, clock, after_s=30 * 24 * 3600)
    assert current_mib(host, "a") == 250


def test_who_was_due_first_gets_the_memory_whoever_is_looked_at_first(
    host: XenHost, clock: Clock
) -> None:
    host.create("a", guest_spec(100, 200, "linux-2.6.18-xen"))
    host.create("b", guest_spec(100, 200, "linux-2.6.18-xen"))
    host.create("c", guest_spec(100, 100))
    host.create("d", guest_spec(67, 67))
    tell(host, "b", 150)
    look(host, clock)
    tell(host, "a", 150)
    look(host, clock, after_s=0.5)
    host.remove("d")  # 67 of the 100 MiB that they want
    look(host, clock, after_s=60)
    assert (current_mib(host, "a"), current_mib(host, "b")) == (117, 150)


def test_a_year_of_tries_every_second_is_looked_at_at_once(host: XenHost, clock: Clock) -> None:
    host.create("a", guest_spec(367, 400, "linux-2.6.18-xen"))
    tell(host, "a", 400)
    look(host, clock)
    clock.now_s += 365 * 24 * 3600
    steps = 0
    with host.attached() as (guest,):
        populate = guest.driver.step

        def counted(now_s: float) -> int:
            nonlocal steps
            steps += 1
            return populate(now_s)

        guest.driver.step = counted  # type: ignore[method-assign]
        run_due([guest], clock.now_s)
        assert clock.now_s < (guest.driver.due_s or 0) <= clock.now_s + 1
    assert steps == CATCH_UP_S + 1


def test_a_look_at_idle_guests_writes_nothing(host: XenHost, clock: Clock, directory: Path) -> None:
    host.create("a", guest_spec())
    state = directory / "xen" / "guests" / "a" / "state.json"
    before = state.stat()
    look(host, clock, after_s=3600)
    after = state.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# -- several processes ----------------------------------------------------------------------


def test_one_process_at_a_time_has_a_guest(host: XenHost) -> None:
    host.create("a", guest_spec())
    host.create("b", guest_spec(80))
    with host.attach("a"):
        with pytest.raises(GuestInUseError, match=f"in use by process {os.getpid()}") as caught:
            host.attach("a")
        assert (caught.value.owner, caught.value.is_kept_open) == (str(os.getpid()), False)
        with pytest.raises(GuestInUseError):
            host.remove("a")
        with host.attached() as others:
            assert [each.name for each in others] == ["b"]
        assert host.destroy_orphans() == []
    assert host.owner_of("a") is None
    host.attach("a").close()


def test_a_guest_that_did_nothing_is_let_go_of_on_a_disk_that_takes_nothing(host: XenHost) -> None:
    host.create("a", guest_spec())
    with no_writes() as refuse:
        guest = host.attach("a")
        refuse()
        guest.close()
    host.attach("a").close()


_CONTEND = """
import random, sys, time
from pathlib import Path
from openrbu.machine.xen_host import XenHost

directory, name = Path(sys.argv[1]), sys.argv[2]
chance = random.Random(name)
with XenHost(directory, now=time.time) as host, host.attach(name) as guest:
    guest.begin_change()
    print("attached", flush=True)
    sys.stdin.readline()
    for _ in range(60):
        guest.driver.set_target_pages(chance.randrange(64, 301) * 256)
        for now_s in range(400):
            guest.driver.step(float(now_s))
print("put away", flush=True)
"""


def test_two_processes_with_a_guest_each_contend_and_lose_no_frame(
    host: XenHost, directory: Path, clock: Clock
) -> None:
    for name in ("a", "b"):
        host.create(name, guest_spec(100, 300))
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CONTEND, str(directory), name],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        assert process.stdin is not None
    with host.attached() as guests:
        assert guests == []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        host.hypervisor.check()
    assert [process.communicate()[0] for process in processes] == ["put away\n"] * 2
    with host.attached() as guests:
        for guest in guests:
            assert guest.driver.current_pages == host.domain_of(guest.name).current_pages
    tell(host, "a", 64)
    tell(host, "b", 300)
    look(host, clock)
    look(host, clock, after_s=60)
    assert current_mib(host, "b") == 300


_LOOK_ON = """
import sys, time
from pathlib import Path
from openrbu.machine.xen_host import XenHost

with XenHost(Path(sys.argv[1]), now=time.time) as host:
    lost = []
    print("there", flush=True)
    while not Path(sys.argv[2]).exists():
        lost += host.destroy_orphans()
    print(lost)
"""


def test_who_looks_for_lost_guests_takes_none_that_is_just_being_made(
    host: XenHost, directory: Path, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    command = [sys.executable, "-c", _LOOK_ON, str(directory), str(end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        try:
            for _ in range(60):
                host.create("a", guest_spec(64, 64))
                while True:
                    with contextlib.suppress(GuestInUseError):  # it looks at it just now
                        host.remove("a")
                        break
        finally:
            end.touch()
        assert process.stdout.readline() == "[]\n"


# -- death ----------------------------------------------------------------------------------

_HOLD = """
import sys, time
from pathlib import Path
from openrbu.machine.xen_host import XenHost

with XenHost(Path(sys.argv[1]), now=time.time) as host, host.attach("a") as guest:
    if sys.argv[2] == "changing":
        guest.begin_change()
        guest.driver.set_target_pages(20_000)
        guest.driver.step(0.0)
    print("there", flush=True)
    sys.stdin.read()
"""


def killed_while_it_has_a(directory: Path, what: str) -> None:
    command = [sys.executable, "-c", _HOLD, str(directory), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)


def test_a_guest_dies_with_the_process_that_moved_it(
    host: XenHost, directory: Path, clock: Clock
) -> None:
    before = free_mib(host)
    host.create("a", guest_spec())
    killed_while_it_has_a(directory, "changing")
    with pytest.raises(MachineError, match="lost its power"):
        host.attach("a")
    look(host, clock)  # who looks at the others is not kept from it
    assert host.destroy_orphans() == ["a"]
    assert (host.guest_names(), free_mib(host)) == ([], before)
    assert host.destroy_orphans() == []
    host.create("a", guest_spec())


def test_a_guest_outlives_a_process_that_only_looked_at_it(host: XenHost, directory: Path) -> None:
    host.create("a", guest_spec())
    killed_while_it_has_a(directory, "looking")
    assert host.destroy_orphans() == []
    host.attach("a").close()


def test_a_guest_whose_making_was_cut_short_leaves_nothing(
    host: XenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = free_mib(host)
    with monkeypatch.context() as patched:
        patched.setattr(StateFile, "save", lambda *_: kill_self())
        assert in_child(lambda: host.create("a", guest_spec())) == -signal.SIGKILL
    assert free_mib(host) == before - 100
    assert host.destroy_orphans() == ["a"]
    assert (host.guest_names(), free_mib(host)) == ([], before)


def test_guests_are_gone_with_a_restart_of_their_host(directory: Path, clock: Clock) -> None:
    with XenHost(directory, now=clock) as before:
        before.create("a", guest_spec())
    with VirtualMachine(directory) as machine:
        machine.restart()
    with XenHost(directory, now=clock) as again:
        assert again.guest_names() == []
        assert free_mib(again) == TOTAL_MIB - 128


def test_who_still_has_a_guest_of_a_host_that_restarted_can_do_no_harm(
    directory: Path, clock: Clock
) -> None:
    with XenHost(directory, now=clock) as before:
        before.create("a", guest_spec())
        with before.attach("a") as guest:
            guest.begin_change()
            guest.driver.set_target_pages(80 * PAGES_PER_MIB)
            with VirtualMachine(directory) as machine:
                machine.restart()
            with XenHost(directory, now=clock) as again:
                again.create("a", guest_spec())
            with pytest.raises(MachineError, match="'a' was destroyed"):
                guest.driver.step(clock.now_s)
    with XenHost(directory, now=clock) as again:
        assert again.destroy_orphans() == []
        assert current_mib(again, "a") == 100
        again.hypervisor.check()


def test_a_guest_whose_state_is_damaged_is_refused_and_stays(
    host: XenHost, directory: Path
) -> None:
    host.create("a", guest_spec())
    state = directory / "xen" / "guests" / "a" / "state.json"
    state.write_bytes(state.read_bytes().replace(b'"boot_id"', b'"bootid"'))
    before = state.read_bytes()
    for _ in range(2):
        with pytest.raises(StateRefusedError, match=r"'a' of 'host' .* damaged.* host a --rm"):
            host.attach("a")
        assert host.destroy_orphans() == []
    assert state.read_bytes() == before
    host.remove("a")


def test_what_a_guest_was_made_as_is_told_when_it_is_damaged_or_newer(
    host: XenHost, directory: Path
) -> None:
    host.create("a", guest_spec())
    path = directory / "xen" / "guests" / "a" / "guest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(MachineError, match="newer openrbu"):
        host.attach("a")
    path.write_text("[]")
    with pytest.raises(MachineError, match="is damaged"):
        host.attach("a")
