"""A kernel that takes its time to make the firmware entry, and a client that waits for it."""

from __future__ import annotations

import datetime as dt
import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.buffers import Buffer
from openrbu.errors import KernelError, ObstacleError, OpenRbuError, UpdateFailedError, UsageError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.config import MAX_ENTRY_DELAY_S
from openrbu.machine.virtual import VirtualMachine
from openrbu.update import flow
from openrbu.update.cancelling import cancel
from openrbu.update.driver import DATA, ENTRY_WAIT_SECONDS, LOADING, STAGED, USE_COUNT, RbuDriver
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.all_cases import in_pairs
from rigs.cli import Cli
from rigs.machines import (
    DEVICE,
    ENTRY,
    NOT_NEEDED,
    PROFILES,
    FailAt,
    Quiet,
    Watched,
    image,
    make,
    running,
    status,
    update,
)

pytestmark = pytest.mark.untraced  # each fails at every call in turn: traced it takes minutes

DELAYS = (0.0, 0.3, 5.0)
ALL_MODES = [(profile, mode) for profile in PROFILES for mode in ("mono", "packet")]


class Clock:
    """A clock that only goes on when it is told to."""

    def __init__(self) -> None:
        self.at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += dt.timedelta(seconds=seconds)


class Patient(VirtualHost):
    """A host whose pauses only move the clock; `interrupt_at` is the pause that Ctrl-C ends."""

    def __init__(self, machine: VirtualMachine, clock: Clock) -> None:
        super().__init__(machine, clock=clock)
        self.clock = clock
        self.pauses: list[float] = []
        self.interrupt_at = 0

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        if len(self.pauses) == self.interrupt_at:
            raise KeyboardInterrupt


class Background(Patient):
    """A kernel that does what `0` and `-1` set off in the background, until the next pause.

    As seen on Debian's 6.1.192: the entry is gone at once, the module is in use until it is done,
    and `init` is lost meanwhile.
    """

    late: bytes | None = None

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if path == LOADING and data in (b"0\n", b"-1\n"):
            self.late = bytes(data)
        elif not (self.late and data == b"init\n"):
            super().write(path, data, offset)

    def exists(self, path: str) -> bool:
        return not (self.late and path.startswith(ENTRY)) and super().exists(path)

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        if self.late and path == USE_COUNT:
            return iter([b"1\n"])
        return super().chunks(path, size_bytes, offset)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.late:
            super().write(LOADING, self.late)
            self.late = None


class Lingering(Patient):
    """A kernel whose entry is still there right after `0`, until the next pause; and the driver
    gets what was delivered when it goes."""

    is_late = False

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if (path, data) == (LOADING, b"0\n"):
            self.is_late = True
        else:
            super().write(path, data, offset)

    def chunks(self, path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        if self.is_late and path == STAGED:
            raise KernelError(errno.ENOMEM, path)
        return super().chunks(path, size_bytes, offset)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.is_late:
            super().write(LOADING, b"0\n")
            self.is_late = False


class HalfMade(Patient):
    """A kernel that has made `loading` and not yet `data`, until the next pause."""

    lacks_data = True

    def exists(self, path: str) -> bool:
        return not (self.lacks_data and path == DATA) and super().exists(path)

    def write(self, path: str, data: Buffer, offset: int = 0) -> None:
        if self.lacks_data and path == DATA:
            raise KernelError(errno.ENOENT, path)
        super().write(path, data, offset)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.lacks_data = False


@pytest.fixture(autouse=True)
def nothing_sleeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> None:
        pytest.fail("this waits in earnest")

    if "rbu" not in request.fixturenames:
        monkeypatch.setattr(time, "sleep", refuse)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def settled(machine: VirtualMachine, clock: Clock) -> dict[str, Any]:
    """How the machine stands when all entries that were on their way are there."""
    clock.advance(machine.config.entry_delay_s)
    machine.running_kernel().exists(ENTRY)
    stands: dict[str, Any] = status(machine)
    return stands


def load(host: Patient, ground: str) -> None:
    """`loaded`: with the entry there; `just loaded`: with the entry on its way, where the profile
    makes one; `not loaded`."""
    if ground != "not loaded":
        host.load_module("dell_rbu", {})
    if ground == "loaded":
        RbuDriver(host).ensure_entry()


# -- updates and taking them back -------------------------------------------------------------


@pytest.mark.parametrize("way", ALL_MODES)
@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("ground", ["not loaded", "just loaded"])
def test_an_update_works_however_long_the_entry_takes(
    tmp_path: Path, clock: Clock, way: tuple[str, str], delay: float, ground: str
) -> None:
    profile, mode = way
    directory = make(tmp_path, profile=profile, entry_delay_s=delay)
    with running(directory, clock=clock) as machine:
        host = Patient(machine, clock)
        load(host, ground)
        assert update(host, image(), mode=mode).tried == ()
        host.restart()
        assert machine.last_post is not None
        assert machine.last_post.version_after == "2.3.0"
        assert bool(host.pauses) == bool(delay)


@pytest.mark.parametrize(("profile", "mode"), ALL_MODES)
def test_an_entry_without_its_data_is_still_being_made(
    tmp_path: Path, clock: Clock, profile: str, mode: str
) -> None:
    with running(make(tmp_path, profile=profile), clock=clock) as machine:
        host = HalfMade(machine, clock)
        load(host, "not loaded")
        assert update(host, image(), mode=mode).tried == ()
        assert host.pauses


@pytest.mark.parametrize(("profile", "mode"), ALL_MODES)
@pytest.mark.parametrize("delay", DELAYS)
def test_cancelling_and_unloading_right_after_an_update_leave_the_machine_as_it_was(
    tmp_path: Path, clock: Clock, profile: str, mode: str, delay: float
) -> None:
    directory = make(tmp_path, profile=profile, entry_delay_s=delay)
    with running(directory, clock=clock) as machine:
        host, before = Patient(machine, clock), status(machine)
        update(host, image(), mode=mode)
        done = cancel(host)
        assert done.was_armed
        if done.left_staged:  # by a kernel that would die of it, and of unloading
            assert (profile, mode) == ("linux-5.7", "packet")
            return
        assert not RbuDriver(host).has_staged_data
        RbuDriver(host).unload()
        assert status(machine) == before


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("ground", ["just loaded", "loaded"])
def test_cancelling_leaves_an_entry_where_one_was_or_was_to_come(
    tmp_path: Path, clock: Clock, delay: float, ground: str
) -> None:
    with running(make(tmp_path, entry_delay_s=delay), clock=clock) as machine:
        host = Patient(machine, clock)
        load(host, ground)
        before = settled(machine, clock)
        update(host, image(), mode="mono")
        cancel(host)
        assert RbuDriver(host).is_in_use
        assert settled(machine, clock) == before


@pytest.mark.parametrize(
    ("profile", "ground", "error"),
    in_pairs(("documented", "linux"), ("not loaded", "loaded"), ("ctrl-c", "an i/o error")),
)
def test_a_failure_at_any_call_is_undone_in_spite_of_the_delay(
    tmp_path: Path, clock: Clock, profile: str, ground: str, error: str
) -> None:
    directory = make(tmp_path, profile=profile, entry_delay_s=5.0)
    with running(directory, clock=clock) as machine:
        host = Patient(machine, clock)
        load(host, ground)
        before, number = settled(machine, clock), 0
        while True:
            number += 1
            what = OSError(errno.EIO, "Input/output error")
            fail = FailAt(number, KeyboardInterrupt() if error == "ctrl-c" else what)
            plan = make_plan(host, image(), Options(mode="packet"))
            try:
                flow.perform(Watched(host, fail), plan, Quiet())
            except (OpenRbuError, KeyboardInterrupt) as ended:
                assert "could not be undone" not in str(ended)  # noqa: PT017
                assert settled(machine, clock) == before
                continue
            if not fail.has_failed:
                break
            is_load = fail.failed[:2] == ("chunks", LOADING)  # whether one is under way
            assert is_load or NOT_NEEDED & set(fail.failed)  # which is looked at again
            cancel(host)
            if ground == "not loaded":
                RbuDriver(host).unload()
            before = settled(machine, clock)
        assert number > 25


@pytest.mark.parametrize(
    ("profile", "ground"),
    [("documented", "not loaded"), ("documented", "loaded"), ("linux", "not loaded")],
)
def test_ctrl_c_in_any_pause_undoes_what_was_begun(
    tmp_path: Path, clock: Clock, profile: str, ground: str
) -> None:
    directory = make(tmp_path, profile=profile, entry_delay_s=5.0)
    with running(directory, clock=clock) as machine:
        host = Patient(machine, clock)
        load(host, ground)
        before, interrupts = settled(machine, clock), 0
        while True:
            host.pauses, host.interrupt_at = [], interrupts + 1
            plan = make_plan(host, image(), Options(mode="mono"))
            try:
                flow.perform(host, plan, Quiet())
            except KeyboardInterrupt:
                interrupts += 1
                assert settled(machine, clock) == before
                continue
            break
        assert interrupts > 5


def test_an_entry_that_was_on_its_way_still_is_when_an_update_has_failed(
    tmp_path: Path, clock: Clock
) -> None:
    with running(make(tmp_path, entry_delay_s=5.0), clock=clock) as machine:
        host = Patient(machine, clock)
        load(host, "just loaded")
        host.interrupt_at = 1
        with pytest.raises(KeyboardInterrupt):
            update(host, image(), mode="mono")
        assert RbuDriver(host).is_in_use
        clock.advance(5)
        assert RbuDriver(host).has_entry


@pytest.mark.parametrize(("profile", "mode"), ALL_MODES)
@pytest.mark.parametrize("ground", ["not loaded", "just loaded"])
def test_an_entry_that_takes_too_long_ends_the_update_and_nothing_is_changed(
    tmp_path: Path, clock: Clock, profile: str, mode: str, ground: str
) -> None:
    directory = make(tmp_path, profile=profile, entry_delay_s=20.0)
    with running(directory, clock=clock) as machine:
        host, before = Patient(machine, clock), status(machine)
        load(host, ground)
        with pytest.raises(ObstacleError, match=r"did not appear within 10 s after init .* try"):
            update(host, image(), mode=mode)
        assert sum(host.pauses) < 3 * (ENTRY_WAIT_SECONDS + 1)
        if ground == "just loaded":
            clock.advance(20)
            RbuDriver(host).unload()
        assert status(machine) == before


def test_an_entry_that_takes_far_too_long_to_be_given_up_is_told(
    tmp_path: Path, clock: Clock
) -> None:
    with running(make(tmp_path, entry_delay_s=100.0), clock=clock) as machine:
        host, before = Patient(machine, clock), status(machine)
        with pytest.raises(UpdateFailedError, match=r"undone: the driver \(dell_rbu is still in"):
            update(host, image(), mode="mono")
        assert sum(host.pauses) < 4 * (ENTRY_WAIT_SECONDS + 1)
        clock.advance(100)
        RbuDriver(host).unload()
        assert status(machine) == before


def test_an_entry_that_is_there_needs_no_waiting_for_the_next_one(
    tmp_path: Path, clock: Clock
) -> None:
    with running(make(tmp_path, entry_delay_s=20.0), clock=clock) as machine:
        host = Patient(machine, clock)
        host.load_module("dell_rbu", {})
        clock.advance(20)
        update(host, image(), mode="packet")
        assert machine.is_armed


# -- the driver's files -----------------------------------------------------------------------


def test_unloading_waits_for_an_entry_that_is_on_its_way(tmp_path: Path, clock: Clock) -> None:
    with running(make(tmp_path, entry_delay_s=5.0), clock=clock) as machine:
        host = Patient(machine, clock)
        driver = RbuDriver(host)
        host.load_module("dell_rbu", {})
        assert (driver.has_entry, driver.is_in_use) == (False, True)
        assert read_text(host, USE_COUNT) == "1"
        driver.unload()
        assert not driver.is_loaded
        assert 5 <= sum(host.pauses) < 5.6


def test_nothing_is_waited_for_where_no_entry_is_on_its_way(tmp_path: Path, clock: Clock) -> None:
    directory = make(tmp_path, profile="linux", entry_delay_s=5.0)
    with running(directory, clock=clock) as machine:
        host = Patient(machine, clock)
        host.load_module("dell_rbu", {})
        assert read_text(host, USE_COUNT) == "0"
        RbuDriver(host).unload()
        assert host.pauses == []


def test_what_the_kernel_hands_over_in_the_background_is_waited_for(
    tmp_path: Path, clock: Clock
) -> None:
    with running(make(tmp_path, profile="linux"), clock=clock) as machine:
        host = Background(machine, clock)
        assert update(host, image(), mode="packet").tried == ()
        assert host.pauses


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_an_entry_that_is_still_there_after_a_delivery_is_no_shortage_of_memory(
    tmp_path: Path, clock: Clock, mode: str
) -> None:
    with running(make(tmp_path, profile="linux"), clock=clock) as machine:
        host = Lingering(machine, clock)
        assert update(host, image(), mode=mode).tried == ()
        assert host.pauses


def test_an_entry_is_asked_for_again_where_the_one_before_was_still_going(
    tmp_path: Path, clock: Clock
) -> None:
    with running(make(tmp_path, profile="linux"), clock=clock) as machine:
        host = Background(machine, clock)
        driver = RbuDriver(host)
        host.load_module("dell_rbu", {})
        driver.ensure_entry()
        host.write(LOADING, b"-1\n")
        assert (driver.has_entry, driver.is_in_use) == (False, True)
        driver.ensure_entry()
        assert driver.has_entry


def test_a_refused_abort_is_told_at_once(tmp_path: Path, clock: Clock) -> None:
    def refuse(name: str, arguments: tuple[Any, ...]) -> None:
        if (name, arguments[:1]) == ("write", (LOADING,)):
            raise PermissionError(errno.EACCES, "Permission denied", LOADING)

    with running(make(tmp_path), clock=clock) as machine:
        host = Patient(machine, clock)
        host.load_module("dell_rbu", {})
        with pytest.raises(PermissionError):
            RbuDriver(Watched(host, refuse)).abort_entry()
        assert host.pauses == []


def test_what_is_staged_stays_while_an_entry_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    with running(make(tmp_path, entry_delay_s=5.0), clock=clock) as machine:
        host = Patient(machine, clock)
        driver = RbuDriver(host)
        host.load_module("dell_rbu", {})
        driver.deliver(b"an image", lambda _: None)
        machine.running_kernel().write(LOADING, b"1", 0)
        machine.running_kernel().write(LOADING, b"0", 0)  # no data: the entry goes for good
        assert not driver.is_in_use
        driver.deliver(b"another one", lambda _: None)
        driver.abort_entry()
        assert b"".join(host.chunks(STAGED, 4096)) == b"another one"


# -- the setting ------------------------------------------------------------------------------


def test_the_delay_goes_on_between_two_commands(tmp_path: Path, clock: Clock) -> None:
    directory = make(tmp_path, entry_delay_s=5.0)
    with running(directory, clock=clock) as machine:
        VirtualHost(machine).load_module("dell_rbu", {})
    for wait, is_there in ((4.9, False), (0.1, True), (0, True)):
        clock.advance(wait)
        with VirtualMachine(directory, clock=clock) as machine:
            assert VirtualHost(machine).exists(f"{ENTRY}/loading") is is_there


def test_a_restart_in_the_meantime_takes_the_request_with_it(tmp_path: Path, clock: Clock) -> None:
    with running(make(tmp_path, entry_delay_s=5.0), clock=clock) as machine:
        VirtualHost(machine).load_module("dell_rbu", {})
        machine.restart()
        clock.advance(5)
        assert not VirtualHost(machine).exists(ENTRY)


def test_the_command_line_makes_and_shows_a_machine_with_a_delay(rbu: Cli) -> None:
    made = rbu.json("machine", "new", "slow", "--ram", "64M", "--entry-delay", "0.05")
    assert made["entry_delay_s"] == 0.05
    assert rbu.json("machine", "show", "slow")["entry_delay_s"] == 0.05
    assert "0.05 s" in rbu("machine", "show", "slow").out
    rbu.json("module", "load", "--machine", "slow")
    assert rbu.json("module", "unload", "--abort", "--machine", "slow")["is_loaded"] is False
    assert rbu.json("machine", "new", "usual", "--ram", "64M")["entry_delay_s"] == 0
    assert "entry delay" not in rbu("machine", "show", "usual").out


def test_a_module_whose_entry_is_on_its_way_is_not_unloaded_without_abort(rbu: Cli) -> None:
    rbu.json("machine", "new", "slow", "--ram", "64M", "--entry-delay", "3600")
    rbu.json("module", "load", "--machine", "slow")
    assert "in use" in rbu.fails(4, "module", "unload", "--machine", "slow")
    assert rbu.json("machine", "show", "slow")["modules"] == ["dell_rbu"]


@pytest.mark.parametrize("delay", ["-1", "-0.001", "3600.1", "nan", "inf"])
def test_a_delay_that_nobody_would_wait_for_is_a_usage_error(rbu: Cli, delay: str) -> None:
    said = rbu.fails(2, "machine", "new", "slow", "--ram", "64M", "--entry-delay", delay)
    assert f"0 to {MAX_ENTRY_DELAY_S:.0f} seconds" in said
    assert rbu.json("machine", "list")["machines"] == []


def test_the_longest_delay_is_an_hour(tmp_path: Path) -> None:
    make(tmp_path, entry_delay_s=MAX_ENTRY_DELAY_S)
    with pytest.raises(UsageError):
        make(tmp_path, name="other", entry_delay_s=MAX_ENTRY_DELAY_S + 1)


def test_the_files_of_the_device_do_not_wait(tmp_path: Path, clock: Clock) -> None:
    with running(make(tmp_path, entry_delay_s=5.0), clock=clock) as machine:
        host = VirtualHost(machine, clock=clock)
        host.load_module("dell_rbu", {})
        assert read_text(host, f"{DEVICE}/image_type") == "mono"
