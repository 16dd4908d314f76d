"""Luck: whether a driver held what the BIOS took until the restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.bios.post_report import PostReport
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.kernel.held import held_regions
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.held import HeldPages
from openrbu.memory.physical import Region
from openrbu.sharing.access import open_machine
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update import stage
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.driver import Mode
from openrbu.update.stage import Payload, make_payload
from openrbu.update.target import read_target
from rigs.cli import Cli
from rigs.machines import ENTRY, NEWER, REBOOT_MODE, WAYS, image_bytes, make, running
from rigs.run import xen_order


def put(machine: VirtualMachine, model: str, mode: Mode) -> Payload:
    """Stage an image, and arm the BIOS."""
    host = VirtualHost(machine)
    image = image_bytes(model, NEWER[model])
    payload = make_payload(image, mode=mode, packet_size_bytes=4 * KIB, password=None)
    stage.load_driver(host, mode)
    stage.stage(host, payload, lambda _: None)
    arm(host)
    return payload


def arm(host: VirtualHost) -> None:
    host.write(REBOOT_MODE, b"warm")
    set_armed(activation_for(host, read_target(host)), armed=True)


def completed(report: PostReport) -> bool:
    return report.completion_code is CompletionCode.COMPLETED


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_what_the_driver_holds_is_found_in_held_memory(
    tmp_path: Path, model: str, mode: Mode
) -> None:
    with running(make(tmp_path, model)) as machine:
        put(machine, model, mode)
        report = machine.restart()
        assert completed(report)
        assert (report.found_in_held_memory, report.memory_was_kept) == (True, True)
        assert report.held_bytes


def test_a_cold_restart_loses_what_the_driver_held(tmp_path: Path) -> None:
    model = "precision-390"
    with running(make(tmp_path, model)) as machine:
        put(machine, model, "mono")
        report = machine.restart(cold=True)
        assert report.completion_code is CompletionCode.IMAGE_NOT_FOUND
        assert (report.found_in_held_memory, report.memory_was_kept) == (None, False)
        assert report.held_bytes


def test_a_freed_copy_that_is_taken_is_no_luck_while_a_driver_holds_another(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        payload = put(machine, "poweredge-2650", "mono")
        lowest = PhysAddr(2 * MIB)  # this BIOS searches from 1 MiB up
        machine.ram.write(lowest, bytes(payload.staged))
        report = machine.restart()
        assert completed(report)
        assert report.extents[0].start == lowest
        assert report.found_in_held_memory is True


@pytest.mark.parametrize(("model", "mode"), WAYS)
def test_an_update_that_only_freed_memory_has_is_luck(
    tmp_path: Path, model: str, mode: Mode
) -> None:
    with running(make(tmp_path, model)) as machine:
        payload = put(machine, model, mode)
        VirtualHost(machine).write(f"{ENTRY}/loading", b"-1")
        machine.unload_module("dell_rbu")
        machine.ram.write(PhysAddr(8 * MIB), bytes(payload.staged))  # as a freed buffer has it
        report = machine.restart()
        assert completed(report)
        assert (report.found_in_held_memory, report.held_bytes) == (False, 0)


def test_a_set_of_which_one_packet_is_only_in_free_memory_is_luck(tmp_path: Path) -> None:
    model = "precision-t7600"
    with running(make(tmp_path, model)) as machine:
        put(machine, model, "packet")
        assert machine.kernel is not None
        fourth = held_regions(machine.kernel, None)[3]
        packet = machine.ram.read(fourth.start, fourth.size_bytes)
        machine.ram.zero(fourth.start, fourth.size_bytes)
        machine.ram.write(PhysAddr(40 * MIB), packet)
        report = machine.restart()
        assert completed(report)
        assert report.found_in_held_memory is False


def test_after_kexec_nobody_holds_what_the_kernel_before_it_had_staged(tmp_path: Path) -> None:
    model = "precision-390"
    with running(make(tmp_path, model)) as machine:
        put(machine, model, "mono")
        machine.kexec()
        VirtualHost(machine).write(REBOOT_MODE, b"warm")
        report = machine.restart()
        assert completed(report)
        assert report.found_in_held_memory is False


def test_on_xen_the_machine_frames_of_the_drivers_pages_count(tmp_path: Path) -> None:
    model = "precision-390"
    with running(make(tmp_path, model, **xen_order("linux"))) as machine:
        put(machine, model, "packet")
        report = machine.restart()
        assert completed(report)
        assert report.found_in_held_memory is True


@pytest.mark.parametrize("is_armed", [True, False])
def test_where_nothing_was_taken_there_is_no_luck(tmp_path: Path, is_armed: bool) -> None:
    with running(make(tmp_path)) as machine:
        if is_armed:
            arm(VirtualHost(machine))
        report = machine.restart()
        assert report.attempted == is_armed
        assert report.found_in_held_memory is None


@pytest.mark.parametrize(
    ("address", "size_bytes", "is_held"),
    [
        (0x3000, PAGE_SIZE, True),
        (0x3010, 2 * PAGE_SIZE - 0x10, True),
        (0x2000, 2 * PAGE_SIZE, False),
        (0x4000, PAGE_SIZE + 1, False),
        (0x5000, PAGE_SIZE, False),
        (0x9000, PAGE_SIZE, True),
    ],
)
def test_bytes_are_held_when_all_of_their_pages_are(
    address: int, size_bytes: int, is_held: bool
) -> None:
    spans = ((0x9000, 0xA000), (0x4000, 0x5000), (0x3000, 0x4000))
    held = HeldPages(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)
    assert held.has_all(address, size_bytes) == is_held


def test_a_restart_says_whether_it_was_luck(rbu: Cli) -> None:
    rbu("machine", "new", "box", "--ram", "64M")
    image = rbu.image()
    rbu("update", image, "--machine", "box")
    rbu("machine", "reboot", "box", "--kexec")
    rbu("module", "load", "dell_rbu", "--machine", "box")
    with open_machine("box") as machine:
        VirtualHost(machine).write(REBOOT_MODE, b"warm")
    ended = rbu("machine", "reboot", "box")
    assert ended.out.count("luck: no driver held that memory") == 1
    rbu("update", rbu.image("A07"), "--machine", "box")
    assert rbu.json("machine", "reboot", "box")["found_in_held_memory"] is True
