"""Updates that fail, at every point: the machine is as it was, and the message says what to do."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import KernelError, ObstacleError, OpenRbuError, UpdateFailedError
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import PhysAddr
from openrbu.update import flow
from openrbu.update.cancelling import cancel
from openrbu.update.driver import RbuDriver
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import Plan, make_plan
from rigs.all_cases import ALL_CASES
from rigs.machines import (
    DEVICE,
    ENTRY,
    NOT_NEEDED,
    REBOOT_MODE,
    WAYS,
    FailAt,
    Quiet,
    Watched,
    hidden_memory,
    image,
    make,
    running,
    status,
    update,
)

pytestmark = pytest.mark.untraced  # each fails at every call in turn: traced it takes minutes

ERRORS: dict[str, Callable[[], BaseException]] = {
    "the disk is full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "an i/o error": lambda: OSError(errno.EIO, "Input/output error"),
    "no memory": lambda: KernelError(errno.ENOMEM, "/sys/somewhere"),
    "ctrl-c": KeyboardInterrupt,
    "a failed update": lambda: UpdateFailedError("it went wrong"),
}


def planned(machine: VirtualMachine, mode: Any, **options: Any) -> Plan:
    model = machine.config.model
    return make_plan(VirtualHost(machine), image(model), Options(mode=mode, **options))


def set_ground(machine: VirtualMachine, ground: str) -> None:
    """A driver that was there before: with an entry, with packets chosen, or not at all."""
    host = VirtualHost(machine)
    if ground == "loaded":
        host.load_module("dell_rbu", {})
    elif ground == "packets chosen":
        host.load_module("dell_rbu", {"image_type": "packet"})
        host.write(f"{DEVICE}/packet_size", b"12345")
        RbuDriver(host).abort_entry()


def take_back(machine: VirtualMachine, ground: str) -> None:
    """After an update that worked: back to the ground."""
    host = VirtualHost(machine)
    cancel(host)
    RbuDriver(host).unload()
    if host.module_is_loaded("dcdbas"):
        host.unload_module("dcdbas")
    set_ground(machine, ground)


# -- at every call --------------------------------------------------------------------------


IO_ERROR = "an i/o error"
OTHERS = [error for error in ERRORS if error != IO_ERROR]


def others(way: int) -> list[str]:
    """The errors besides that of a disk that a way of updating meets: one, and all of them between
    all ways; or all, each way."""
    return OTHERS if ALL_CASES else [OTHERS[way % len(OTHERS)]]


CASES = [
    (model, mode, ground, error)
    for way, (model, mode) in enumerate(WAYS)
    for ground, errors in (
        ("not loaded", [IO_ERROR, *others(way)]),
        ("loaded", [IO_ERROR]),
        ("packets chosen", [IO_ERROR]),
    )
    for error in errors
]


@pytest.mark.parametrize(("model", "mode", "ground", "error"), CASES)
def test_a_failure_at_any_call_leaves_the_machine_as_it_was(
    tmp_path: Path, model: str, mode: str, ground: str, error: str
) -> None:
    """The call with number 1, 2, 3 … fails, until an update has no more calls than that."""
    with running(make(tmp_path, model)) as machine:
        host, plan = VirtualHost(machine), planned(machine, mode)
        set_ground(machine, ground)
        before, number, failures = status(machine), 0, 0
        while True:
            number += 1
            fail = FailAt(number, ERRORS[error]())
            try:
                flow.perform(Watched(host, fail), plan, Quiet())
            except (OpenRbuError, KeyboardInterrupt) as ended:
                failures += 1
                assert isinstance(ended, KeyboardInterrupt) == (error == "ctrl-c")  # noqa: PT017
                assert "could not be undone" not in str(ended)  # noqa: PT017
                assert status(machine) == before
                continue
            if not fail.has_failed:
                break
            if error != "no memory":  # which is tried again, as a look at memory is
                assert NOT_NEEDED & set(fail.failed)
            take_back(machine, ground)
            assert status(machine) == before
        assert failures > 25
        assert machine.restart().completion_code == 0
        outcomes = {each.outcome for each in Journal(host.journal_path).attempts()}
        assert outcomes <= {"armed", "cancelled", "interrupted" if error == "ctrl-c" else "failed"}


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_where_undoing_fails_too_it_is_told_and_cancelling_later_helps(
    tmp_path: Path, model: str, mode: str
) -> None:
    """From some call on none works any more; then all do again."""
    with running(make(tmp_path, model)) as machine:
        host, plan, number = VirtualHost(machine), planned(machine, mode), 0
        before, told = status(machine), 0
        while True:
            number += 1
            fail = FailAt(number, OSError(errno.EIO, "Input/output error"), on=True)
            try:
                flow.perform(Watched(host, fail), plan, Quiet())
            except (UpdateFailedError, ObstacleError) as ended:  # or: no tables, at the start
                told += "could not be undone: " in str(ended)
                if "could not be undone: " not in str(ended):
                    assert status(machine) == before
            if not fail.has_failed:
                break
            cancel(host)
            assert not machine.is_armed
            assert not RbuDriver(host).is_loaded or not RbuDriver(host).has_staged_data
            assert read_text(host, REBOOT_MODE) == "cold"
            for module in machine.running_kernel().modules.copy():
                if module == "dell_rbu":
                    RbuDriver(host).unload()
                else:
                    host.unload_module(module)
            assert status(machine) == before
        assert told > 10


def test_a_kernel_that_dies_of_dropping_packets_is_not_killed_by_any_failure(
    tmp_path: Path,
) -> None:
    """linux-5.7: what can't be undone is told, and a restart is the way out."""
    directory, number, left = make(tmp_path, profile="linux-5.7"), 0, 0
    while True:
        number += 1
        with running(directory) as machine:
            before, fail = status(machine), FailAt(number, OSError(errno.EIO, "broken"))
            try:
                host = Watched(VirtualHost(machine), fail)
                flow.perform(host, planned(machine, "packet"), Quiet())
                if not fail.has_failed:
                    break
                assert NOT_NEEDED & set(fail.failed)
            except (UpdateFailedError, ObstacleError) as ended:  # or: no tables, at the start
                assert not machine.running_kernel().is_dead
                assert not machine.is_armed
                if "could not be undone" in str(ended):
                    left += 1
                    assert "restart the machine" in str(ended)  # noqa: PT017
                    with pytest.raises(ObstacleError, match="restart the machine first"):
                        update(VirtualHost(machine), image())
                    assert not machine.running_kernel().is_dead
                else:
                    assert status(machine) == before
            machine.restart(cold=True)
    assert left > 3


def test_an_interrupt_on_such_a_kernel_does_not_kill_it_either(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:

        class Interrupting(Quiet):
            def step(self, text: str) -> None:
                if text.startswith("choosing"):
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            flow.perform(VirtualHost(machine), planned(machine, "packet"), Interrupting())
        assert not machine.running_kernel().is_dead
        last = Journal(VirtualHost(machine).journal_path).last
        assert last is not None
        assert "restart the machine" in last.fields["left"][0]


# -- memory that runs out -------------------------------------------------------------------


def with_fault(directory: Path, plan_mode: str | None, fault: str) -> str:
    """How an update ends with this fault: `worked`, or the message; as it was in that case."""
    with running(directory, faults=(fault,)) as machine:
        before = status(machine)
        try:
            outcome = flow.perform(VirtualHost(machine), planned(machine, plan_mode), Quiet())
        except UpdateFailedError as error:
            assert status(machine) == before
            message = str(error)
        else:
            assert machine.is_armed
            assert outcome is not None
            message = f"worked: {outcome.mode}"
        machine.power_off()
    return message


@pytest.mark.parametrize("profile", ["documented", "linux"])
@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_allocation_that_fails_once_is_tried_again(
    tmp_path: Path, model: str, mode: str, profile: str
) -> None:
    directory = make(tmp_path, model, profile=profile)
    for number in range(1, 5 if mode == "mono" else 12):
        ended = with_fault(directory, mode, f"allocation-fails={number}")
        if (model, number) == ("precision-t7600", 1):  # dcdbas's buffer, which is not asked twice
            assert ended.startswith("the kernel refused: Cannot allocate memory")
        else:
            assert ended == f"worked: {mode}"


@pytest.mark.parametrize("mode", ["mono", "packet", None])
def test_memory_that_runs_out_for_good_is_a_failure_that_says_what_was_tried(
    tmp_path: Path, mode: str | None
) -> None:
    directory, ends = make(tmp_path), set()
    for number in itertools.count(step=1 if ALL_CASES or mode == "mono" else 4):
        ended = with_fault(directory, mode, f"allocations-fail-after={number}")
        if ended.startswith("worked"):
            break
        assert ended.endswith(
            "free some memory or restart the machine"
            if mode == "mono"
            else "free some memory, try --drop-caches or restart the machine"
        )
        assert " (once more, memory compacted)" in ended
        ends.add(ended.partition(";")[0])
    assert "the kernel has no memory to receive" in "".join(ends)
    driver = "no free block of 256 KiB" if mode == "mono" else "no free memory for 34 blocks"
    assert driver in "".join(ends)


@pytest.mark.parametrize("order", range(10))
def test_blocks_that_are_not_to_be_had_make_it_packets_or_a_failure(
    tmp_path: Path, order: int
) -> None:
    """The image takes a block of order 6."""
    directory = make(tmp_path)
    expected = (
        "worked: mono" if order >= 6 else "no free block of 256 KiB for an image of 128.1 KiB"
    )
    fault = f"allocations-fail-above={order}"
    assert with_fault(directory, "mono", fault).startswith(expected)
    assert with_fault(directory, "packet", fault) == "worked: packet"


def test_the_poweredge_says_what_it_tried_and_a_restart_helps(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        host = VirtualHost(machine)
        machine.running_kernel().allocator.fragment(keep_free_order=4)
        with pytest.raises(UpdateFailedError) as failed:
            update(host, image("poweredge-2650"))
        assert str(failed.value) == (
            "no free block of 256 KiB for an image of 128.1 KiB (once more, memory compacted): "
            "free some memory, try --drop-caches or restart the machine"
        )
        machine.restart()
        update(host, image("poweredge-2650"))
        assert machine.restart().version_after == "A06"


def test_large_packets_that_find_no_block_become_smaller_ones(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        machine.running_kernel().allocator.fragment(keep_free_order=0)
        plan = make_plan(VirtualHost(machine), image(), Options("packet", 8192))
        outcome = flow.perform(VirtualHost(machine), plan, Quiet())
        assert outcome is not None
        assert outcome.packet_size_bytes == 4096
        assert [each.partition(" (")[0] for each in outcome.tried] == [
            "no free memory for 18 blocks of 8 KiB"
        ] * 2
        assert machine.restart().version_after == "2.3.0"


def test_a_kernel_of_5_7_that_runs_out_of_memory_half_way_dies_and_that_is_told(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, profile="linux-5.7"), faults=("allocation-fails=50",)) as machine:
        with pytest.raises(OpenRbuError, match=r"kernel has crashed .*: restart the machine"):
            flow.perform(VirtualHost(machine), planned(machine, "packet"), Quiet())
        machine.restart()
        update(VirtualHost(machine), image(), mode="mono")
        assert machine.restart().version_after == "2.3.0"


# -- memory that changes --------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before reading back", "behind reading back"])
@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_memory_that_was_changed_after_staging_is_noticed_and_not_armed(
    tmp_path: Path, mode: str, moment: str
) -> None:
    """Every copy of a byte, the leftovers' included."""
    with running(make(tmp_path)) as machine:
        before = status(machine)
        needle = bytes(image().flash_data[70_000:70_016])

        def flip(name: str, arguments: tuple[Any, ...]) -> None:
            reads_back = name == "chunks" and arguments[0] == f"{DEVICE}/data"
            driver = machine.running_kernel().modules.get("dell_rbu")
            due = reads_back if moment.startswith("before") else name == "physical_memory"
            if not (due and driver and driver.staged_size_bytes):  # type: ignore[union-attr]
                return
            for region in machine.ram.populated(PhysAddr(0), machine.ram.regions[-1].end):
                data = machine.ram.read(region.start, region.size_bytes)
                at = data.find(needle)
                while at >= 0:
                    machine.ram.write(PhysAddr(region.start + at), b"\x00\xff\x00")
                    at = data.find(needle, at + 1)

        says = "gives back something else" if moment.startswith("before") else "a BIOS would|would"
        with pytest.raises(UpdateFailedError, match=says):
            flow.perform(Watched(VirtualHost(machine), flip), planned(machine, mode), Quiet())
        assert status(machine) == before


def test_what_the_driver_gives_back_is_compared_where_memory_is_hidden(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        before, host = status(machine), VirtualHost(machine)

        class Corrupting(Quiet):
            def step(self, text: str) -> None:
                if text.startswith("verifying"):
                    driver: Any = machine.running_kernel().modules["dell_rbu"]
                    machine.ram.write(PhysAddr(driver.staged_blocks[0].address + 99), b"\x99\x99")

        with pytest.raises(UpdateFailedError, match="gives back something else"):
            flow.perform(hidden_memory(host), planned(machine, "mono"), Corrupting())
        assert status(machine) == before


# -- the token and the kind of restart ------------------------------------------------------


def test_a_kernel_that_keeps_a_cold_restart_is_an_obstacle(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        before = status(machine)

        def write(path: str, data: bytes, offset: int = 0) -> None:
            if path != REBOOT_MODE:
                host.write(path, data, offset)

        stubborn = Watched(host, lambda *_: None, {"write": write})
        with pytest.raises(ObstacleError, match=r"keeps a cold restart.*boot with reboot=w"):
            flow.perform(stubborn, planned(machine, None), Quiet())
        assert status(machine) == before


@pytest.mark.parametrize("model", ["precision-390", "precision-t7600"])
def test_what_was_armed_after_the_plan_was_made_is_not_touched(tmp_path: Path, model: str) -> None:
    with running(make(tmp_path, model)) as machine:
        host = VirtualHost(machine)
        late = planned(machine, None)
        update(host, image(model), mode="packet")
        before = status(machine)
        with pytest.raises(ObstacleError, match="armed already: restart, or `rbu cancel` first"):
            flow.perform(host, late, Quiet())
        assert status(machine) == before
        assert machine.restart().completion_code == 0


# -- signals --------------------------------------------------------------------------------

SCRIPT = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rigs.machines import *
from openrbu.hosts.virtual import VirtualHost
from openrbu.update.options import Options
from openrbu.update.plan import make_plan

class Stop(BaseException):
    pass

def stop(signum, frame):
    raise Stop

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)

class Waiting(Quiet):
    def delivering(self, total):
        def wait(count):
            print("delivering", flush=True)
            sys.stdin.readline()
        return wait

with VirtualMachine(Path(sys.argv[1])) as machine:
    host = VirtualHost(machine)
    try:
        flow.perform(host, make_plan(host, image(), Options(mode=sys.argv[3])), Waiting())
    except Stop:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_a_real_signal_during_staging_is_undone(
    tmp_path: Path, signum: signal.Signals, mode: str
) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        before = status(machine)
    tool = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(directory), str(Path(__file__).parents[1]), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tool.stdout is not None
    assert tool.stdout.readline() == "delivering\n"
    tool.send_signal(signum)
    assert tool.communicate()[0] == "stopped\n"
    assert tool.returncode == 0
    with VirtualMachine(directory) as machine:
        assert status(machine) == before
        last = Journal(directory / "journal.jsonl").last
        assert last is not None
        assert last.outcome == "interrupted"


def test_a_second_ctrl_c_during_the_undoing_waits_until_it_is_through(tmp_path: Path) -> None:
    """One at each call that undoes; numpy's threads are there, too."""
    with running(make(tmp_path, "precision-t7600")) as machine:
        before, interrupts = status(machine), 0

        class First(Quiet):
            def step(self, text: str) -> None:
                if text.startswith("arming"):
                    hook.armed = True
                    os.kill(os.getpid(), signal.SIGINT)

        class Hook:
            armed = False

            def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
                nonlocal interrupts
                if self.armed:
                    interrupts += 1
                    os.kill(os.getpid(), signal.SIGINT)

        hook = Hook()
        with pytest.raises(KeyboardInterrupt):
            flow.perform(Watched(VirtualHost(machine), hook), planned(machine, "packet"), First())
        assert interrupts > 20
        assert status(machine) == before
        last = Journal(VirtualHost(machine).journal_path).last
        assert last is not None
        assert (last.outcome, last.fields["left"]) == ("interrupted", [])


def test_a_ctrl_c_that_comes_when_it_is_armed_finds_it_armed_and_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(make(tmp_path)) as machine:
        plain = Journal.append

        def append(self: Journal, attempt_id: str, event: str, *more: Any, **fields: Any) -> None:
            if event == "armed":
                os.kill(os.getpid(), signal.SIGINT)
            plain(self, attempt_id, event, *more, **fields)

        monkeypatch.setattr(Journal, "append", append)
        with pytest.raises(KeyboardInterrupt):
            update(VirtualHost(machine), image())
        assert machine.is_armed
        last = Journal(VirtualHost(machine).journal_path).last
        assert last is not None
        assert last.outcome == "armed"
        assert machine.restart().version_after == "2.3.0"


# -- the journal ----------------------------------------------------------------------------


def test_without_a_journal_nothing_is_begun(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.journal_path.mkdir()
        before, calls = status(machine), []
        watched = Watched(host, lambda name, arguments: calls.append(name))
        with pytest.raises(ObstacleError, match=r"journal .* can't be read: it is"):
            flow.perform(watched, planned(machine, None), Quiet())
        assert status(machine) == before
        assert set(calls) <= {
            "chunks",
            "chunk",
            "hardware_revision",
            "lock_files",
        }  # it is read, no more


def test_an_update_that_can_not_be_written_down_as_armed_is_undone(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        before = status(machine)

        class Breaking(Quiet):
            def step(self, text: str) -> None:
                if text.startswith("arming"):
                    host.journal_path.unlink()
                    host.journal_path.mkdir()

        with pytest.raises(ObstacleError, match=r"journal .* can't be written: it is a directory"):
            flow.perform(host, planned(machine, None), Breaking())
        assert status(machine) == before


def test_a_damaged_journal_stops_an_update_before_it_begins(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.journal_path.write_bytes(b"junk\n")
        before = status(machine)
        with pytest.raises(OpenRbuError, match=r"line 1 of the journal .* move the file away"):
            update(host, image())
        assert status(machine) == before
        host.journal_path.rename(tmp_path / "away")
        update(host, image())
        assert machine.is_armed


def test_an_update_whose_tool_died_is_closed_by_the_next_one(tmp_path: Path) -> None:
    """As on a real machine, which goes on when the tool is killed."""
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        journal = Journal(host.journal_path)
        boot = read_text(host, "/proc/sys/kernel/random/boot_id")
        journal.append("dead", "started", host.now(), boot_id=boot)
        host.load_module("dell_rbu", {"image_type": "packet"})
        host.write(f"{ENTRY}/loading", b"1")
        host.write(f"{ENTRY}/data", b"half of something")
        update(host, image())
        assert [each.outcome for each in journal.attempts()] == ["interrupted", "armed"]
        assert machine.restart().version_after == "2.3.0"
