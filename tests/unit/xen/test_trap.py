"""An update from inside a guest of Xen: what reads back right need not be where a BIOS finds it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openrbu.bios.post import Board, find_update, post
from openrbu.bios.post_report import PostReport
from openrbu.bios.rules import RejectedError
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.config import XenConfig
from openrbu.machine.dom0 import read_frame_table
from openrbu.machine.ram import RamGoneError
from openrbu.machine.removal import discard_state
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.scan import search
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update import stage
from openrbu.update.driver import Mode, ReadBack
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.stage import DriverState, Payload, make_payload
from openrbu.update.verify import read_free_pages
from openrbu.xen.hypervisor import Hypervisor
from rigs.machines import (
    FLASH_BYTES,
    REBOOT_MODE,
    Watched,
    hidden_memory,
    image,
    image_bytes,
    make,
    published,
    running,
    update,
)

MEMORY = "/sys/devices/system/xen_memory/xen_memory0"
XEN = XenConfig(dom0_bytes=96 * MIB, dom0_max_bytes=112 * MIB, profile="linux")
FULL_KIB, LOW_KIB = 96 * KIB, 40 * KIB
KERNEL_PROFILES = ("documented", "linux")


@pytest.fixture(params=KERNEL_PROFILES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualMachine]:
    """A host whose dom0 has never ballooned."""
    order = {"ram_bytes": 256 * MIB, "xen": XEN, "profile": request.param}
    with running(make(tmp_path, **order)) as machine:
        yield machine


def balloon_to(machine: VirtualMachine, size_kib: int) -> None:
    host = VirtualHost(machine)
    host.write(f"{MEMORY}/target_kb", f"{size_kib}\n".encode())
    reached = b"".join(host.chunks(f"{MEMORY}/info/current_kb", 100))
    assert int(reached) == size_kib


def down_and_up(machine: VirtualMachine) -> None:
    balloon_to(machine, LOW_KIB)
    balloon_to(machine, FULL_KIB)


def put(machine: VirtualMachine, mode: Mode, packet_bytes: int = PAGE_SIZE) -> Payload:
    """Stage an image, read it back, and find it right."""
    host = VirtualHost(machine)
    payload = make_payload(image_bytes(), mode=mode, packet_size_bytes=packet_bytes, password=None)
    stage.load_driver(host, payload.mode)
    stage.stage(host, payload, lambda _: None)
    assert stage.read_back(host, payload) is ReadBack.RIGHT
    return payload


def verify(machine: VirtualMachine, payload: Payload) -> object:
    host = VirtualHost(machine)
    return stage.verify(host, payload, ReadBack.RIGHT, published(image()))


def board(machine: VirtualMachine) -> Board:
    return Board(
        machine.ram, machine.flash, machine.nvram, None, machine.system_id, knows_packets=True
    )


def test_dom0_that_never_ballooned_has_its_memory_in_one_piece(machine: VirtualMachine) -> None:
    verify(machine, put(machine, "mono"))
    assert find_update(board(machine)).mode == "mono"


def test_after_ballooning_an_image_reads_back_right_and_no_bios_finds_it(
    machine: VirtualMachine,
) -> None:
    down_and_up(machine)
    payload = put(machine, "mono")
    with pytest.raises(UpdateFailedError, match="would not take what is staged"):
        verify(machine, payload)
    result = search(machine.ram, flash_size_bytes=FLASH_BYTES)
    assert result.headers  # its first page is there, and looks like an image
    with pytest.raises(RejectedError) as refusal:
        find_update(board(machine))
    assert refusal.value.code is CompletionCode.IMAGE_NOT_FOUND


def test_after_ballooning_its_pages_lie_in_descending_order(machine: VirtualMachine) -> None:
    """As was measured on Xen 4.17 with Debian's 6.1.192 as dom0."""
    down_and_up(machine)
    put(machine, "mono")
    assert machine.kernel is not None
    table = machine.frame_table
    assert table is not None
    frames = np.flatnonzero(np.diff(table.astype(np.int64)) == -1)
    assert len(frames) > 10_000


def test_packets_of_a_page_are_found_whole_after_ballooning(machine: VirtualMachine) -> None:
    down_and_up(machine)
    verify(machine, put(machine, "packet"))
    assert find_update(board(machine)).mode == "packet"


def test_packets_of_more_than_a_page_are_scattered_after_ballooning(
    machine: VirtualMachine,
) -> None:
    down_and_up(machine)
    payload = put(machine, "packet", 8 * KIB)
    with pytest.raises(UpdateFailedError):
        verify(machine, payload)
    with pytest.raises(RejectedError):
        find_update(board(machine))


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_is_staged_stays_where_it_is_while_its_guest_balloons(
    machine: VirtualMachine, mode: Mode
) -> None:
    payload = put(machine, mode)
    before = verify(machine, payload)
    down_and_up(machine)
    balloon_to(machine, LOW_KIB)
    assert stage.read_back(VirtualHost(machine), payload) is ReadBack.RIGHT
    assert verify(machine, payload) == before
    assert find_update(board(machine)).mode == mode


def test_an_update_on_xen_chooses_packets_and_the_bios_takes_it(machine: VirtualMachine) -> None:
    down_and_up(machine)
    host = VirtualHost(machine)
    plan = make_plan(host, image(), Options())
    assert (plan.mode, plan.obstacles) == ("packet", ())
    assert "Xen" in plan.why_mode
    outcome = update(host, image())
    assert outcome.verified.extents
    report = machine.restart(cold=False)
    assert (report.completion_code, report.mode) == (CompletionCode.COMPLETED, "packet")
    assert machine.flash.current.version == "2.3.0"


def test_on_xen_the_restart_is_xens_affair(machine: VirtualMachine) -> None:
    """As was seen on Xen 4.17: its `reboot=warm` decides, not the mode that dom0's kernel shows."""
    host = VirtualHost(machine)
    assert any("reboot=warm" in note for note in make_plan(host, image(), Options()).notes)
    update(host, image())
    host.write(REBOOT_MODE, b"cold")
    assert machine.restart().completion_code is CompletionCode.COMPLETED


def test_a_monolithic_update_after_ballooning_is_undone(machine: VirtualMachine) -> None:
    down_and_up(machine)
    with pytest.raises(
        UpdateFailedError, match=r"would not take what is staged.*--packet-size 4096"
    ):
        update(VirtualHost(machine), image(), mode="mono")
    assert not machine.is_armed
    report = machine.restart(cold=False)
    assert report.completion_code is None


def test_the_plan_says_that_one_piece_may_be_scattered(machine: VirtualMachine) -> None:
    plan = make_plan(VirtualHost(machine), image(), Options(mode="mono"))
    assert any("scattered" in note for note in plan.notes)
    plan = make_plan(VirtualHost(machine), image(), Options(mode="packet"))
    assert not any("scattered" in note for note in plan.notes)


@pytest.mark.parametrize(
    "options",
    [Options(mode="mono"), Options(mode="packet", packet_size_bytes=2 * PAGE_SIZE)],
    ids=["mono", "two pages"],
)
def test_where_memory_can_not_be_seen_more_than_a_page_stands_in_the_way(
    machine: VirtualMachine, options: Options
) -> None:
    host = hidden_memory(VirtualHost(machine))
    plan = make_plan(host, image(), options)
    assert [obstacle.kind for obstacle in plan.obstacles] == ["scattered_on_xen"]
    with pytest.raises(ObstacleError, match="--packet-size 4096"):
        update(host, image(), mode=options.mode, packet_size_bytes=options.packet_size_bytes)


def test_what_is_free_in_dom0_is_told_by_its_place_in_the_machine(
    machine: VirtualMachine,
) -> None:
    down_and_up(machine)
    payload = put(machine, "packet")
    host = VirtualHost(machine)
    verified = stage.verify(host, payload, ReadBack.RIGHT, published(image()))
    assert verified.extents
    places = np.array([part.start for part in verified.extents], np.int64)
    free = read_free_pages(host, places)
    assert free is not None
    assert not any(free.any_in(part.start, part.size_bytes) for part in verified.extents)
    stage.restore(host, DriverState(was_loaded=False), delivered_bytes=len(payload.staged))
    free = read_free_pages(host, places)
    assert free is not None
    assert all(free.any_in(part.start, part.size_bytes) for part in verified.extents)


def test_without_a_frame_table_nobody_says_what_is_free_on_xen(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    blind = Watched(host, lambda name, arguments: None, {"frame_table": None})
    nowhere = np.empty(0, np.int64)
    assert read_free_pages(host, nowhere) is not None
    assert read_free_pages(blind, nowhere) is None


def test_dom0_has_no_more_frames_than_the_machine(tmp_path: Path) -> None:
    """As was seen on Xen 4.17: dom0's frames end where the machine's RAM ends."""
    xen = XenConfig(dom0_bytes=96 * MIB, dom0_max_bytes=64 * GIB, profile="linux")
    with running(make(tmp_path, ram_bytes=256 * MIB, xen=xen)) as machine:
        balloon_to(machine, 200 * KIB)
        host = VirtualHost(machine)
        low_kib = int(b"".join(host.chunks(f"{MEMORY}/info/low_kb", 100)))
        assert 200 * KIB + low_kib == (256 - 17) * KIB


def is_under_xen(machine: VirtualMachine) -> bool:
    return machine.frame_table is not None


def test_a_machine_that_is_off_has_no_frame_table(tmp_path: Path) -> None:
    directory = make(tmp_path, ram_bytes=256 * MIB, xen=XEN)
    assert read_frame_table(directory) is None
    with VirtualMachine(directory) as machine:
        assert not is_under_xen(machine)
        machine.power_on()
        shown, kept = machine.frame_table, read_frame_table(directory)
        assert shown is not None
        assert kept is not None
        assert np.array_equal(shown, kept)
        machine.power_off()
        assert not is_under_xen(machine)


def test_while_the_bios_searches_no_guest_is_there_any_more(
    machine: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes may have guests of this host, and do not know that it restarts."""
    other = Hypervisor.open(machine.directory / "xen", backing=machine.ram)
    dom0 = other.domain("dom0")
    seen: list[bool] = []

    def look(board: Board, now: dt.datetime) -> PostReport:
        seen.append(dom0.is_there)
        return post(board, now)

    monkeypatch.setattr("openrbu.machine.bios_start.post", look)
    machine.restart()
    assert seen == [False]


def test_ram_that_is_gone_is_told_and_made_anew_once_the_machine_is_off(tmp_path: Path) -> None:
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    directory = make(tmp_path, ram_bytes=256 * MIB, xen=XEN, ram_directory=kept)
    with running(directory):
        pass
    (ram,) = kept.iterdir()
    ram.unlink()  # as when the tmpfs is not mounted
    with pytest.raises(RamGoneError, match=r"mount .*elsewhere again, or .* rbu machine off box"):
        VirtualMachine(directory)
    assert not ram.exists()
    discard_state(directory)
    with running(directory) as machine:
        assert machine.ram.read(PhysAddr(17 * MIB), 4) == bytes(4)
    assert ram.exists()
