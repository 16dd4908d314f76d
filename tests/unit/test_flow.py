"""Updates that work: every mode, every kind of kernel, every kind of machine; and cancelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import MachineError, ObstacleError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.buddy import Fragmentation
from openrbu.units import GIB, KIB, MIB, PhysAddr
from openrbu.update import flow
from openrbu.update.cancelling import Cancelled, cancel
from openrbu.update.driver import ReadBack
from openrbu.update.exclusion import BusyError, alone_on
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.ways import COMPACT_MEMORY
from rigs.machines import (
    DEVICE,
    NEWER,
    PROFILES,
    REBOOT_MODE,
    WAYS,
    PortsOnly,
    Quiet,
    Watched,
    hidden_memory,
    image,
    image_bytes,
    make,
    running,
    status,
    update,
)


def ends_well(machine: VirtualMachine, version: str) -> bool:
    report = machine.restart()
    return (report.version_after, report.completion_code) == (version, CompletionCode.COMPLETED)


# -- all the ways ---------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "mode"), WAYS)
@pytest.mark.parametrize("profile", PROFILES)
def test_an_update_is_staged_verified_armed_and_installed_by_the_next_restart(
    tmp_path: Path, model: str, mode: str, profile: str
) -> None:
    directory = make(tmp_path, model, profile=profile)
    with running(directory) as machine:
        host = VirtualHost(machine)
        outcome = update(host, image(model), mode=mode)
        assert (outcome.mode, outcome.tried) == (mode, ())
        assert machine.is_armed
        assert read_text(host, REBOOT_MODE) == "warm"
        broken = (profile, mode) == ("linux-5.7", "packet")
        wanted = ReadBack.SKIPS_A_PACKET if broken else ReadBack.RIGHT
        assert outcome.verified.read_back is wanted
        assert outcome.verified.extents
    with VirtualMachine(directory) as machine:
        assert ends_well(machine, NEWER[model])
        assert machine.flash.image() == bytes(image(model).flash_data)
        assert machine.last_post is not None
        assert machine.last_post.mode == mode


def test_a_machine_that_runs_the_version_already_is_left_alone(tmp_path: Path) -> None:
    """By the library, too: nothing is staged or armed, and the journal has nothing of it."""
    with running(make(tmp_path)) as machine:
        host, same = VirtualHost(machine), image(version="2.1.2")
        before = status(machine)
        planned = make_plan(host, same, Options())
        assert flow.perform(host, planned, Quiet()) is None
        assert status(machine) == before
        assert not host.journal_path.exists()
        update(host, same, reinstall=True)
        assert ends_well(machine, "2.1.2")


@pytest.mark.parametrize(("model", "mode"), WAYS)
@pytest.mark.parametrize("profile", ["documented", "linux-5.7", "linux"])
def test_it_works_where_physical_memory_can_not_be_seen(
    tmp_path: Path, model: str, mode: str, profile: str
) -> None:
    with running(make(tmp_path, model, profile=profile)) as machine:
        host = hidden_memory(VirtualHost(machine))
        if (profile, mode) == ("linux-5.7", "packet"):
            with pytest.raises(UpdateFailedError, match="restart, then use --mode mono or another"):
                update(host, image(model), mode=mode)
            assert not machine.is_armed
            machine.restart()
            mode = "mono"
        assert update(host, image(model), mode=mode).verified.extents is None
        assert ends_well(machine, NEWER[model])


@pytest.mark.parametrize("size", [1 * KIB, 3 * KIB, 8 * KIB, 64 * KIB, 1 * MIB])
def test_packets_of_any_size_get_there(tmp_path: Path, size: int) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        outcome = update(VirtualHost(machine), image(), mode="packet", packet_size_bytes=size)
        assert outcome.mode == "packet"
        assert ends_well(machine, "2.3.0")


@pytest.mark.parametrize("state", ["mono", "packet", "nothing", "no entry", "half loaded"])
@pytest.mark.parametrize("profile", ["documented", "linux"])
def test_a_driver_that_is_loaded_already_is_used_whatever_state_it_is_in(
    tmp_path: Path, state: str, profile: str
) -> None:
    with running(make(tmp_path, profile=profile)) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {"image_type": "packet" if state == "packet" else "mono"})
        host.write(f"{DEVICE}/image_type", b"init")
        if state == "packet":
            host.write(f"{DEVICE}/packet_size", b"2048")
        loading = "/sys/class/firmware/dell_rbu/loading"
        if state == "no entry":
            host.write(loading, b"-1")
        elif state != "nothing":
            host.write(loading, b"1")
            data = packet.split(b"something else" * 999, packet_size_bytes=2048, set_id=1)
            host.write("/sys/class/firmware/dell_rbu/data", data)
            if state != "half loaded":
                host.write(loading, b"0")
        if state == "half loaded":  # another program may be at work
            with pytest.raises(ObstacleError, match="begun and not ended"):
                update(host, image())
            assert cancel(host).was_loading
        update(host, image())
        assert ends_well(machine, "2.3.0")


def test_what_is_not_known_to_be_safe_to_drop_stops_an_update(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {"image_type": "packet"})
        host.write(f"{DEVICE}/packet_size", b"4096")
        host.write(f"{DEVICE}/image_type", b"init")
        host.write("/sys/class/firmware/dell_rbu/loading", b"1")
        host.write("/sys/class/firmware/dell_rbu/data", b"x" * 16 * KIB)
        host.write("/sys/class/firmware/dell_rbu/loading", b"0")
        with pytest.raises(ObstacleError, match="may crash when its driver drops"):
            update(host, image())
        assert cancel(host).left_staged
        assert not machine.running_kernel().is_dead


@pytest.mark.parametrize("size", [64 * KIB, 128 * KIB, 256 * KIB])
def test_cancel_on_5_7_leaves_sets_of_two_three_and_four_packets(tmp_path: Path, size: int) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        update(VirtualHost(machine), image(), mode="packet", packet_size_bytes=size)
        cancelled = cancel(VirtualHost(machine))
        assert cancelled.was_armed
        assert cancelled.left_staged
        assert not machine.running_kernel().is_dead


def test_a_password_gets_the_update_through(tmp_path: Path) -> None:
    directory = make(tmp_path, admin_password="secret")
    for password, installed in ((None, False), ("wrong", False), ("secret", True)):
        with running(directory) as machine:
            update(
                VirtualHost(machine),
                image(),
                mode="packet",
                password=password,
                without_password=password is None,
            )
            assert ends_well(machine, "2.3.0") == installed


def test_a_large_bios_on_a_large_machine_gets_there_in_packets(tmp_path: Path) -> None:
    directory = make(tmp_path, "precision-t7600", ram_bytes=6 * GIB, flash_size_bytes=10 * MIB)
    with running(directory) as machine:
        what = image("precision-t7600", flash_size_bytes=10 * MIB)
        assert update(VirtualHost(machine), what).mode == "packet"
        assert ends_well(machine, "A02")


def test_updates_go_on_one_after_the_other_for_good(tmp_path: Path) -> None:
    """Nothing leaks: memory, modules, files."""
    directory = make(tmp_path, profile="linux")
    for number in range(6):
        version = f"2.{3 + number}.0"
        with running(directory) as machine:
            mode = ("mono", "packet")[number % 2]
            update(VirtualHost(machine), image(version=version, seed=number), mode=mode)
            assert ends_well(machine, version)
            assert machine.running_kernel().allocator.snapshot().allocated == ()
    assert len(Journal(directory / "journal.jsonl").attempts()) == 6


def test_what_is_shown_on_the_way_is_what_is_done(tmp_path: Path) -> None:
    shown: list[str] = []

    class Noting:
        def step(self, text: str) -> None:
            shown.append(text)

        def delivering(self, total_bytes: int) -> Any:
            shown.append(f"delivering {total_bytes}")
            return lambda count: shown.append(f"{count} bytes")

    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        flow.perform(host, make_plan(host, image(), Options(mode="mono")), Noting())
    size = image().size_bytes
    assert shown == [
        "staging one block of 128.1 KiB (mono)",
        f"delivering {size}",
        f"{size} bytes",
        "verifying in the driver and in physical memory",
        "choosing a warm restart",
        "arming the BIOS",
    ]


def test_a_cold_restart_that_can_not_be_made_warm_is_in_the_way_of_an_update(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, has_reboot_files=False)) as machine:
        host = VirtualHost(machine)
        before = status(machine)
        planned = make_plan(host, image(), Options())
        assert [each.kind for each in planned.obstacles] == ["restart_is_cold"]
        with pytest.raises(ObstacleError, match=r"start Linux with reboot=w .*--allow-any-restart"):
            flow.perform(host, planned, Quiet())
        assert status(machine) == before


def test_an_operator_can_take_a_cold_restart_on_and_it_loses_the_update(tmp_path: Path) -> None:
    with running(make(tmp_path, has_reboot_files=False)) as machine:
        host = VirtualHost(machine)
        update(host, image(), allow_any_restart=True)
        assert machine.is_armed
        assert machine.restart().completion_code == CompletionCode.IMAGE_NOT_FOUND


def test_the_kernels_command_line_makes_the_restart_warm_where_no_file_does(tmp_path: Path) -> None:
    words = "quiet reboot=w"
    with running(make(tmp_path, has_reboot_files=False, kernel_words=words)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        assert not host.exists(REBOOT_MODE)
        machine.restart()
        assert machine.flash.current.version == "2.3.0"


# -- memory that is short -------------------------------------------------------------------


def test_fragmented_memory_makes_it_packets_and_the_journal_says_what_was_tried(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, ram_bytes=4 * GIB)) as machine:
        host = VirtualHost(machine)
        planned = make_plan(host, image(), Options())
        assert planned.mode == "mono"
        machine.running_kernel().allocator.fragment(keep_free_order=3)
        outcome = flow.perform(host, planned, Quiet())
        assert outcome is not None
        tried = (
            "no free block of 256 KiB for an image of 128.1 KiB",
            "no free block of 256 KiB for an image of 128.1 KiB (once more, memory compacted)",
        )
        assert (outcome.mode, outcome.tried) == ("packet", tried)
        last = Journal(host.journal_path).last
        assert last is not None
        assert (last.fields["mode"], tuple(last.fields["tried"])) == ("packet", tried)
        assert ends_well(machine, "2.3.0")


class Compacting(Watched):
    """A host whose kernel can compact memory: that gives back what fragments it."""

    def __init__(self, host: Any, fragmentation: Fragmentation) -> None:
        self.compacted = 0

        def write(path: str, data: bytes, offset: int = 0) -> None:
            if path == COMPACT_MEMORY:
                self.compacted += 1
                fragmentation.release()
            else:
                host.write(path, data, offset)

        exists = {"exists": lambda path: path == COMPACT_MEMORY or host.exists(path)}
        super().__init__(host, lambda *_: None, {"write": write} | exists)


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_compacting_memory_is_what_helps_first(tmp_path: Path, mode: str) -> None:
    with running(make(tmp_path)) as machine:
        fragments = machine.running_kernel().allocator.fragment(keep_free_order=1)
        host = Compacting(VirtualHost(machine), fragments)
        outcome = update(host, image(), mode=mode, packet_size_bytes=16 * KIB)
        assert (outcome.mode, len(outcome.tried), host.compacted) == (mode, 1, 1)
        assert ends_well(machine, "2.3.0")


def test_a_shortage_that_passes_is_no_failure(tmp_path: Path) -> None:
    for number in range(1, 5):
        directory = make(tmp_path, name=f"box{number}")
        with running(directory, faults=(f"allocation-fails={number}",)) as machine:
            update(VirtualHost(machine), image(), mode="mono")
            assert ends_well(machine, "2.3.0")


# -- one after the other --------------------------------------------------------------------

SIZES = [("mono", 4096), ("packet", 1024), ("packet", 4096), ("packet", 65536)]


@pytest.mark.parametrize("first", SIZES)
@pytest.mark.parametrize("second", SIZES)
@pytest.mark.parametrize("profile", ["documented", "linux"])
def test_a_cancelled_update_does_not_come_in_the_way_of_the_next_one(
    tmp_path: Path, first: tuple[str, int], second: tuple[str, int], profile: str
) -> None:
    """Without a power cycle in between: what the first left in memory is cleared."""
    with running(make(tmp_path, profile=profile)) as machine:
        host = VirtualHost(machine)
        update(host, image(), mode=first[0], packet_size_bytes=first[1])
        assert cancel(host).changed
        newest = image(version="2.4.0", seed=2)
        update(host, newest, mode=second[0], packet_size_bytes=second[1])
        assert ends_well(machine, "2.4.0")


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_a_failed_update_does_not_come_in_the_way_of_the_next_one(
    tmp_path: Path, mode: str
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        blocked = PortsOnly(host, Dead(machine.cmos))
        with pytest.raises(UpdateFailedError):
            update(blocked, image(), mode="packet")
        update(host, image(version="2.4.0", seed=2), mode=mode)
        assert ends_well(machine, "2.4.0")


class Dead:
    """Ports whose writes go nowhere."""

    def __init__(self, ports: Any) -> None:
        self._ports = ports

    def out8(self, port: int, value: int) -> None:
        if port == 0x70:
            self._ports.out8(port, value)

    def in8(self, port: int) -> int:
        return int(self._ports.in8(port))


@pytest.mark.parametrize("leftover", ["image", "packets"])
@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_a_stranger_in_memory_is_refused_before_arming_and_the_advice_works(
    tmp_path: Path, leftover: str, mode: str
) -> None:
    from openrbu.formats import packet

    data = image_bytes(version="2.2.0", seed=9)
    if leftover == "packets":
        data = bytes(packet.split(data, packet_size_bytes=4096, set_id=b"_220"))
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        machine.ram.write(PhysAddr(8 * MIB), data)
        before = status(machine)
        with pytest.raises(UpdateFailedError, match="power cycle the machine, which clears"):
            update(host, image(), mode=mode)
        assert status(machine) == before
        machine.restart(cold=True)
        update(host, image(), mode=mode)
        assert ends_well(machine, "2.3.0")


@pytest.mark.parametrize("leftover", ["image", "packets"])
@pytest.mark.parametrize("mode", ["mono", "packet"])
@pytest.mark.parametrize("profile", ["documented", "linux"])
def test_a_stranger_in_free_memory_that_the_kernel_hands_out_late_is_cleared(
    tmp_path: Path, leftover: str, mode: str, profile: str
) -> None:
    """As an update of another image leaves it that was killed: further away than what is always
    overwritten."""
    from openrbu.formats import packet

    data = image_bytes(version="2.2.0", seed=9)
    if leftover == "packets":
        data = bytes(packet.split(data, packet_size_bytes=4096, set_id=b"_220"))
    with running(make(tmp_path, profile=profile)) as machine:
        host = VirtualHost(machine)
        machine.ram.write(PhysAddr(50 * MIB), data)
        outcome = update(host, image(), mode=mode)
        assert [each for each in outcome.tried if each.endswith("cleared free memory")]
        assert ends_well(machine, "2.3.0")


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_ghosts_of_the_same_image_disturb_nobody(tmp_path: Path, mode: str) -> None:
    data = image_bytes()
    with running(make(tmp_path)) as machine:
        machine.ram.write(PhysAddr(50 * MIB), data)
        for number in range(0, len(data), 4096):
            page = data[number : number + 4096]
            machine.ram.write(PhysAddr(60 * MIB - 2 * number), page)
        update(VirtualHost(machine), image(), mode=mode)
        assert ends_well(machine, "2.3.0")


# -- cancel ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "mode"), WAYS)
@pytest.mark.parametrize("profile", PROFILES)
def test_cancelling_takes_token_memory_and_kind_of_restart_back(
    tmp_path: Path, model: str, mode: str, profile: str
) -> None:
    directory = make(tmp_path, model, profile=profile)
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.write(REBOOT_MODE, b"hard")
        update(host, image(model), mode=mode)
    with VirtualMachine(directory) as machine:
        host = VirtualHost(machine)
        stays = (profile, mode) == ("linux-5.7", "packet")
        assert cancel(host) == Cancelled(True, True, left_staged=stays)
        assert not machine.is_armed
        assert read_text(host, REBOOT_MODE) == "hard"
        last = Journal(host.journal_path).last
        assert last is not None
        assert last.outcome == "cancelled"
        again = cancel(host)
        assert (again.was_armed, again.was_staged, again.changed) == (False, stays, False)
        assert not machine.restart(cold=False).attempted


def test_there_may_be_nothing_to_cancel(tmp_path: Path) -> None:
    with running(make(tmp_path, "precision-t7600")) as machine:
        before = status(machine)
        done = cancel(VirtualHost(machine))
        assert done == Cancelled(False, False)
        assert not done.changed
        assert status(machine) == before


def test_what_was_staged_by_hand_is_freed_and_what_was_armed_by_hand_disarmed(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        host.load_module("dell_rbu", {})
        loading = "/sys/class/firmware/dell_rbu/loading"
        for text in (b"1", b"0"):
            host.write(loading, text)
            if text == b"1":
                host.write("/sys/class/firmware/dell_rbu/data", b"an image")
        assert cancel(host) == Cancelled(False, True)
        assert host.exists(loading)
        machine._activation.arm()  # type: ignore[union-attr]
        assert cancel(host) == Cancelled(True, False)
        assert not machine.is_armed


def test_the_token_goes_before_the_memory(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image(), mode="mono")
        armed_at_clearing: list[bool] = []

        def look(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "write" and arguments[0] == f"{DEVICE}/image_type":
                armed_at_clearing.append(machine.is_armed)

        cancel(Watched(host, look))
        assert armed_at_clearing[:1] == [False]


def test_a_kind_of_restart_that_somebody_chose_since_stays(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        host.write(REBOOT_MODE, b"gpio")
        cancel(host)
        assert read_text(host, REBOOT_MODE) == "gpio"


@pytest.mark.parametrize("damage", [b"junk\n", None])
def test_a_journal_that_is_broken_keeps_nobody_from_cancelling(
    tmp_path: Path, damage: bytes | None
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        if damage is None:
            host.journal_path.unlink()
            host.journal_path.mkdir()
        else:
            host.journal_path.write_bytes(damage)
        done = cancel(host)
        assert done.changed
        assert "journal" in done.problem
        assert not machine.is_armed


def test_an_update_that_the_bios_has_met_is_not_called_cancelled(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        update(host, image())
        machine.restart()
        assert not cancel(host).changed
        last = Journal(host.journal_path).last
        assert last is not None
        assert (last.outcome, last.fields["succeeded"]) == ("result", True)


def test_nothing_is_done_while_another_process_is_at_an_update(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        before, plan = status(machine), make_plan(host, image(), Options())
        with alone_on(host):
            for call in (lambda: cancel(host), lambda: flow.perform(host, plan, Quiet())):
                with pytest.raises(BusyError, match="an update is under way, wait for it: this ve"):
                    call()
        assert status(machine) == before


def test_a_machine_that_is_off_has_nothing_to_cancel_and_says_why(tmp_path: Path) -> None:
    with VirtualMachine(make(tmp_path)) as machine, pytest.raises(MachineError, match="is off"):
        cancel(VirtualHost(machine))
