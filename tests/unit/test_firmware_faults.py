"""Faults of a machine's firmware, as programs and the BIOS see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu import api
from openrbu.errors import PowerFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import PC_BANKS
from openrbu.units import KIB
from rigs.cli import Cli
from rigs.machines import image, make, running, update

OPERATIONS = 6
"""Two blocks of a flash of 128 KiB and a block of the selector, each erased and programmed."""


def staged(machine: VirtualMachine) -> None:
    update(VirtualHost(machine), image())


@pytest.mark.parametrize("number", range(1, OPERATIONS + 2))
def test_a_cut_of_the_power_leaves_a_whole_bios(tmp_path: Path, number: int) -> None:
    """The old one until the selector is programmed; after the last operation, nothing is cut."""
    directory = make(tmp_path, faults=(f"power-cut={number}",))
    with running(directory) as machine:
        staged(machine)
        if number > OPERATIONS:
            assert machine.restart().version_after == "2.3.0"
            return
        with pytest.raises(PowerFailedError, match="while the BIOS wrote its flash"):
            machine.restart()
        assert not machine.is_on
        assert machine.lost_power
    with VirtualMachine(directory) as machine:
        assert machine.lost_power
        report = machine.power_on()
        assert (report.version_after, report.completion_code) == (
            "2.1.2",
            CompletionCode.FLASH_FAILURE,
        )


def test_the_power_can_fail_again_in_the_next_update(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("power-cut=2",))
    for _ in range(2):
        with running(directory) as machine:
            staged(machine)
            with pytest.raises(PowerFailedError):
                machine.restart()
        with VirtualMachine(directory) as machine:
            machine.power_on()


def test_ports_that_do_not_answer_are_all_ones_and_keep_nothing(tmp_path: Path) -> None:
    directory = make(tmp_path, faults=("ports-dont-answer",))
    before = (directory / "cmos").read_bytes()
    with running(directory) as machine:
        for data_port, index_port in PC_BANKS.items():
            machine.ports.out8(index_port, 0x78)
            machine.ports.out8(data_port, 0)
            assert machine.ports.in8(data_port) == 0xFF
        assert not machine.is_armed  # the BIOS reads it
    assert (directory / "cmos").read_bytes() == before


def test_a_token_that_does_not_stay_is_clear_when_it_is_read(tmp_path: Path) -> None:
    """By the raw ports: the token of these models is bit 6 at index 0x78. The index stays."""
    with running(make(tmp_path, faults=("token-does-not-stay",))) as machine:
        ports = machine.ports
        ports.out8(0x70, 0x78)
        before = ports.in8(0x71)
        ports.out8(0x71, before | 0x40)
        assert ports.in8(0x71) == before
        ports.out8(0x71, before | 0x01)  # other settings stay
        assert ports.in8(0x71) == before | 0x01
        assert not machine.is_armed


@pytest.mark.parametrize("fault", ["token-lost-at-restart", "restart-clears-memory"])
@pytest.mark.parametrize("model", ["poweredge-2650", "precision-t7600"])
def test_what_is_lost_at_a_restart_was_there_before(tmp_path: Path, model: str, fault: str) -> None:
    with running(make(tmp_path, model, faults=(fault,))) as machine:
        update(VirtualHost(machine), image(model))
        assert machine.is_armed
        report = machine.restart()
        assert report.version_after == report.version_before
        lost_memory = fault == "restart-clears-memory"
        assert report.completion_code == (CompletionCode.IMAGE_NOT_FOUND if lost_memory else None)
        assert not machine.is_armed


def test_a_process_that_serves_the_machine_tells_the_others_of_the_cut(rbu: Cli) -> None:
    """The error keeps its kind on the way, and the machine is off."""
    rbu.json("machine", "new", "box", "--ram", "64M", "--fault", "power-cut=1")
    with api.open_machine("box", serve=True) as machine, api.open_machine("box") as other:
        assert machine.virtual is not None
        update(VirtualHost(machine.virtual), image("poweredge-2650", flash_size_bytes=512 * KIB))
        with pytest.raises(PowerFailedError):
            other.restart()
        assert not machine.virtual.is_on


def test_wrong_check_values_of_cmos_can_be_mended(tmp_path: Path) -> None:
    with running(make(tmp_path, faults=("cmos-check-wrong",))) as machine:
        update(VirtualHost(machine), image(), mend_cmos=True)
        assert machine.is_armed
        assert machine.restart().version_after == "2.3.0"
        assert machine.restart().reason.startswith("in CMOS the check value over the indexes 0x40")
