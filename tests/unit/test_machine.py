"""A virtual machine: power, RAM, one owner at a time, and life after a process that dies."""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError, PowerCutError
from openrbu.formats.dell import BiosInformation, CompletionCode, RbuInformation
from openrbu.hosts.base import read_file, read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.typed_json import to_document
from openrbu.units import GIB, MIB, PhysAddr
from rigs.all_cases import ALL_CASES
from rigs.machines import (
    DEVICE,
    ENTRY,
    REBOOT_MODE,
    Watched,
    files,
    image,
    image_bytes,
    in_child,
    kill_self,
    killed_at_line,
    make,
    running,
    status,
    update,
)

MARK_AT = PhysAddr(48 * MIB)
MARK = b"still here"
OLD, NEW = "2.1.2", "2.3.0"


def marked(machine: VirtualMachine) -> bool:
    return machine.ram.read(MARK_AT, len(MARK)) == MARK


# -- power ----------------------------------------------------------------------------------


def test_a_new_machine_is_off_and_its_first_start_changes_nothing(tmp_path: Path) -> None:
    with VirtualMachine(make(tmp_path)) as machine:
        assert (machine.is_on, machine.lost_power) == (False, False)
        report = machine.power_on()
        assert (report.version_before, report.version_after) == (OLD, OLD)
        assert not report.attempted
        assert machine.is_on


@pytest.mark.parametrize(
    ("cold", "mode", "kept"),
    [
        (False, "cold", True),
        (True, "warm", False),
        (None, "warm", True),
        (None, "cold", False),
        (None, "hard", False),
    ],
)
def test_a_warm_restart_keeps_ram_and_a_cold_one_clears_it(
    tmp_path: Path, cold: bool | None, mode: str, kept: bool
) -> None:
    with running(make(tmp_path)) as machine:
        VirtualHost(machine).write(REBOOT_MODE, mode.encode())
        machine.ram.write(MARK_AT, MARK)
        machine.restart(cold=cold)
        assert marked(machine) == kept
        assert machine.is_on


def test_ram_is_kept_from_one_opening_to_the_next(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        machine.ram.write(MARK_AT, MARK)
    with VirtualMachine(directory) as machine:
        assert machine.is_on
        assert marked(machine)


def test_power_off_clears_ram_and_nothing_runs_until_the_machine_is_started(
    tmp_path: Path,
) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        machine.ram.write(MARK_AT, MARK)
        machine.power_off()
    with VirtualMachine(directory) as machine:
        assert (machine.is_on, machine.lost_power) == (False, False)
        with pytest.raises(MachineError, match="'box' is off; start it: rbu machine reboot box"):
            machine.running_kernel()
        machine.restart()
        assert machine.is_on
        assert not marked(machine)


def test_a_machine_that_is_on_is_not_switched_on_again(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine, pytest.raises(MachineError, match="'box' is on"):
        machine.power_on()


def test_each_start_is_another_boot_and_the_kernel_says_so(tmp_path: Path) -> None:
    directory = make(tmp_path)

    def boot_id(machine: VirtualMachine) -> str:
        return read_text(VirtualHost(machine), "/proc/sys/kernel/random/boot_id")

    with running(directory) as machine:
        first = boot_id(machine)
    with VirtualMachine(directory) as machine:
        assert boot_id(machine) == first
        machine.restart(cold=False)
        assert boot_id(machine) != first


def test_the_tables_show_the_bios_that_runs_and_the_last_update(tmp_path: Path) -> None:
    now = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    with running(make(tmp_path), clock=lambda: now) as machine:
        update(VirtualHost(machine), image())
        machine.restart()
        bios, rbu = BiosInformation.of(machine.tables), RbuInformation.of(machine.tables)
        assert (bios.version, bios.release_date) == (NEW, "03/04/2026")
        assert rbu is not None
        assert (rbu.completion_code, rbu.when) == (0, now.replace(second=0, tzinfo=None))


def test_a_power_cut_at_any_operation_of_a_restart_leaves_a_machine_that_starts(
    tmp_path: Path,
) -> None:
    ended, cut_at = [], 0
    while True:
        cut_at += 1
        directory = make(tmp_path, name=f"box{cut_at}")
        with running(directory) as machine:
            update(VirtualHost(machine), image())
        try:
            with VirtualMachine(directory, rail=PowerRail(cut_at)) as machine:
                machine.restart()
            break
        except PowerCutError:
            with VirtualMachine(directory) as machine:
                assert machine.lost_power
                ended.append(machine.power_on().version_after)
    assert ended == sorted(ended)
    assert set(ended) == {OLD, NEW}


def test_a_signal_during_a_restart_waits_until_the_bios_is_through(tmp_path: Path) -> None:
    directory = make(tmp_path)

    class Interrupting(PowerRail):
        def operation(self) -> bool:
            os.kill(os.getpid(), signal.SIGINT)
            return super().operation()

    with running(directory) as machine:
        update(VirtualHost(machine), image())
    with (
        pytest.raises(KeyboardInterrupt),
        VirtualMachine(directory, rail=Interrupting()) as machine,
    ):
        machine.restart()
    with VirtualMachine(directory) as machine:
        assert machine.is_on
        assert machine.flash.current.version == NEW
        assert machine.nvram.contents.completion_code == CompletionCode.COMPLETED


# -- between two commands -------------------------------------------------------------------


def stage_by_hand(machine: VirtualMachine) -> None:
    """Packets staged and half read, another load begun, both modules, a warm restart chosen."""
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {"image_type": "packet", "allocation_floor": "0x2100000"})
    host.load_module("dcdbas", {})
    host.write("/sys/devices/platform/dcdbas/smi_data_buf_size", b"100")
    host.write("/sys/class/firmware/timeout", b"7")
    host.write(f"{DEVICE}/packet_size", b"4096")
    host.write(f"{ENTRY}/loading", b"1")
    host.write(f"{ENTRY}/data", image_bytes()[: 20 * 4096])
    host.write(f"{ENTRY}/loading", b"0")
    host.write(f"{ENTRY}/loading", b"1")
    host.write(f"{ENTRY}/data", b"half an image", 5000)
    host.write(REBOOT_MODE, b"warm")
    assert len(next(iter(host.chunks(f"{DEVICE}/data", 12345)))) == 12345


def test_the_kernel_is_the_same_in_the_next_process(tmp_path: Path) -> None:
    directory = make(tmp_path, "precision-t7600")
    with running(directory) as machine:
        stage_by_hand(machine)
        before = status(machine)
    script = (
        "import sys; from pathlib import Path\n"
        "from openrbu.typed_json import to_text\n"
        "from openrbu.machine.virtual import VirtualMachine\n"
        "with VirtualMachine(Path(sys.argv[1])) as machine:\n"
        "    print(to_text(machine.kernel.snapshot()))\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, check=True
    )
    assert json.loads(seen.stdout) == to_document(before["kernel"])
    with VirtualMachine(directory) as machine:
        assert status(machine) == before
        host = VirtualHost(machine)
        expected = image_bytes()[12345 : 20 * 4096]
        assert machine.running_kernel().read(f"{DEVICE}/data", 12345, 1 << 20) == expected
        assert machine.running_kernel().read(f"{DEVICE}/data", 0, 5) == image_bytes()[:5]
        assert read_text(host, f"{ENTRY}/loading") == "1"
        assert read_file(host, f"{ENTRY}/data") == bytes(5000) + b"half an image"
        assert read_text(host, "/sys/class/firmware/timeout") == "7"
        assert read_text(host, REBOOT_MODE) == "warm"
        assert sorted(machine.running_kernel().modules) == ["dcdbas", "dell_rbu"]


def test_looking_at_a_machine_changes_no_file_of_it(tmp_path: Path) -> None:
    directory = make(tmp_path, "precision-t7600")
    with running(directory) as machine:
        stage_by_hand(machine)
    before = files(directory, leave_out=("lock", "summary"))
    with VirtualMachine(directory) as machine:
        host = VirtualHost(machine)
        for path in (f"{DEVICE}/packet_size", "/proc/buddyinfo", "/sys/firmware/dmi/tables/DMI"):
            assert read_file(host, path)
    assert files(directory, leave_out=("lock", "summary")) == before


def test_a_dead_kernel_stays_dead_until_the_restart(tmp_path: Path) -> None:
    directory = make(tmp_path, profile="linux-5.7")
    with running(directory) as machine:
        host = VirtualHost(machine)
        update(host, image(), mode="packet")
        with pytest.raises(MachineError, match=r"kernel has crashed.*restart the machine"):
            host.write(f"{DEVICE}/image_type", b"mono")
    with VirtualMachine(directory) as machine:
        for look in (
            lambda: read_text(VirtualHost(machine), REBOOT_MODE),
            lambda: VirtualHost(machine).exists(DEVICE),
            lambda: VirtualHost(machine).load_module("dcdbas", {}),
        ):
            with pytest.raises(MachineError, match="kernel has crashed: restart the machine"):
                look()
        machine.restart()
        assert read_text(VirtualHost(machine), REBOOT_MODE) == "cold"


# -- one owner ------------------------------------------------------------------------------


def test_two_processes_can_not_have_a_machine_at_once(tmp_path: Path) -> None:
    directory = make(tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        "from openrbu.machine.virtual import VirtualMachine\n"
        "with VirtualMachine(Path(sys.argv[1])):\n"
        "    print('mine', flush=True); sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(MachineError, match=f"'box' is in use by process {owner.pid}: wait"):
            VirtualMachine(directory)
        owner.stdin.close()
    assert owner.returncode == 0
    with running(directory) as machine:
        assert machine.is_on


def test_a_closed_machine_is_let_go_and_closing_again_does_nothing(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        pass
    with VirtualMachine(directory) as other:
        other.power_off()
        machine.running_kernel().is_dead = True
        machine.close()
    with VirtualMachine(directory) as again:
        assert not again.is_on


# -- processes that die ---------------------------------------------------------------------


def test_a_process_that_only_looked_dies_and_the_machine_stays_on(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        stage_by_hand_without_smi(machine)
        before = status(machine)

    def look() -> None:
        with VirtualMachine(directory) as machine:
            read_file(VirtualHost(machine), "/proc/buddyinfo")
            kill_self()

    assert in_child(look) == -signal.SIGKILL
    with VirtualMachine(directory) as machine:
        assert status(machine) == before


def stage_by_hand_without_smi(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {})
    host.write(f"{ENTRY}/loading", b"1")
    host.write(f"{ENTRY}/data", image_bytes())
    host.write(f"{ENTRY}/loading", b"0")


def test_a_process_that_dies_after_a_change_takes_the_power_with_it(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory):
        pass

    def change() -> None:
        with VirtualMachine(directory) as machine:
            machine.ram.write(MARK_AT, MARK)
            VirtualHost(machine).write(REBOOT_MODE, b"warm")
            kill_self()

    assert in_child(change) == -signal.SIGKILL
    with VirtualMachine(directory) as machine:
        assert machine.lost_power
        with pytest.raises(MachineError, match="lost its power when the process that ran it ended"):
            machine.running_kernel()
        machine.restart()
        assert not marked(machine)
        assert not machine.lost_power


def test_a_process_that_dies_in_the_first_start_has_lost_power_too(tmp_path: Path) -> None:
    directory = make(tmp_path)

    def start() -> None:
        with VirtualMachine(directory) as machine:
            machine.power_on()
            kill_self()

    assert in_child(start) == -signal.SIGKILL
    with VirtualMachine(directory) as machine:
        assert machine.lost_power


MACHINE_CODE = ("machine/", "bios/")


def bios_of(directory: Path, bioses: dict[str, bytes]) -> str:
    """That the machine is on or starts, and runs one of these BIOSes whole; which."""
    with VirtualMachine(directory) as machine:
        if not machine.is_on:
            machine.power_on()
        version = machine.flash.current.version
        assert machine.flash.image() == bioses[version]
        assert BiosInformation.of(machine.tables).version == version
        machine.restart(cold=True)
        assert machine.is_on
    return version


@pytest.mark.untraced  # it traces itself; so traced it would take minutes
@pytest.mark.parametrize(
    ("model", "every"), [("precision-390", 37 if ALL_CASES else 131), ("precision-t7600", 37)]
)
def test_a_process_killed_anywhere_in_a_restart_leaves_the_old_bios_or_the_new_one(
    tmp_path: Path, model: str, every: int
) -> None:
    """At every so manieth line."""
    directory = make(tmp_path, model)
    with running(directory) as machine:
        current = machine.flash.current.version
        bioses = {current: machine.flash.image()}
    one, other = ("A06", "A07") if model == "precision-t7600" else ("2.3.0", "2.4.0")
    images = {version: image(model, version, seed=n) for n, version in enumerate([one, other])}
    bioses |= {version: bytes(each.flash_data) for version, each in images.items()}
    ended = set()

    def restart() -> None:
        with VirtualMachine(directory) as machine:
            machine.restart()

    number = 1
    while True:
        new = other if current == one else one
        with running(directory) as machine:
            update(VirtualHost(machine), images[new], allow_downgrade=True)
        if not killed_at_line(number, MACHINE_CODE, restart):
            break
        now = bios_of(directory, {version: bioses[version] for version in (current, new)})
        ended.add("new" if now == new else "old")
        current, number = now, number + every
    assert ended == {"old", "new"}


@pytest.mark.untraced
def test_a_process_killed_at_any_call_of_an_update_leaves_a_machine_that_starts(
    tmp_path: Path,
) -> None:
    directory = make(tmp_path)
    with running(directory) as machine:
        bioses = {OLD: machine.flash.image()}
    left = number = 0

    def count(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        left -= 1
        if not left:
            kill_self()

    def stage() -> None:
        nonlocal left
        left = number
        with VirtualMachine(directory) as machine:
            update(Watched(VirtualHost(machine), count), image(), mode="packet")

    while True:
        number += 2
        if in_child(stage) == 0:
            break
        assert bios_of(directory, bioses) == OLD
    assert number > 50
    with VirtualMachine(directory) as machine:
        assert machine.is_armed


def test_a_process_killed_anywhere_leaves_the_kernel_as_it_was_or_changed_or_without_power(
    tmp_path: Path,
) -> None:
    """And in that order: it never comes back half changed, or as it was after a change."""
    directory = make(tmp_path)

    def change() -> None:
        with VirtualMachine(directory) as machine:
            VirtualHost(machine).write(REBOOT_MODE, b"warm")

    ended, number = [], 1
    while True:
        with running(directory) as machine:
            VirtualHost(machine).write(REBOOT_MODE, b"hard")
        if not killed_at_line(number, ("machine/",), change):
            break
        with VirtualMachine(directory) as machine:
            if machine.is_on:
                ended.append(read_text(VirtualHost(machine), REBOOT_MODE))
            else:
                assert machine.lost_power
                ended.append("no power")
        number += 4
    order = ["hard", "no power", "warm"]
    assert ended == sorted(ended, key=order.index)
    assert set(ended) == set(order)


# -- size -----------------------------------------------------------------------------------


def test_a_machine_with_a_tebibyte_of_ram_costs_nothing(tmp_path: Path) -> None:
    def whole_life() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with running(make(tmp_path, ram_bytes=1024 * GIB)) as machine:
            update(VirtualHost(machine), image())
            assert machine.restart().version_after == NEW
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 200 * 1024

    assert in_child(whole_life) == 0
    used = sum(512 * path.stat().st_blocks for path in (tmp_path / "machines" / "box").iterdir())
    assert used < 4 * MIB
