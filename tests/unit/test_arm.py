"""Arming: the token of each kind of machine, read back, and what prevents it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.cmos import IndexedActivation
from openrbu.drivers.dcdbas import Dcdbas
from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.tokens import SmiCall
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.update.arm import SmiActivation, activation_for, read_armed, set_armed
from openrbu.update.target import read_target
from rigs.machines import PortsOnly, Watched, image, make, running, status, update

DCDBAS = "/sys/devices/platform/dcdbas"


@pytest.fixture(params=sorted(MODELS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, request.param)) as machine:
        yield machine


@pytest.fixture
def smi(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, "precision-t7600")) as machine:
        yield machine


def test_the_token_is_set_and_cleared_and_the_bios_sees_it(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    switch = activation_for(host, read_target(host))
    for armed in (True, True, False, False, True):
        set_armed(switch, armed=armed)
        assert switch.is_armed == armed == machine.is_armed


def test_it_stays_set_in_the_next_process(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    set_armed(activation_for(host, read_target(host)), armed=True)
    machine.close()
    with VirtualMachine(machine.directory) as again:
        assert again.is_armed


def test_arming_and_disarming_leaves_cmos_and_settings_as_they_were(
    machine: VirtualMachine,
) -> None:
    host = VirtualHost(machine)
    switch = activation_for(host, read_target(host))
    set_armed(switch, armed=False)
    before = status(machine)
    set_armed(switch, armed=True)
    assert status(machine) != before
    set_armed(switch, armed=False)
    assert status(machine) == before


def test_where_the_token_is_decides_how_it_is_set(tmp_path: Path) -> None:
    kinds = {}
    for name in MODELS:
        with running(make(tmp_path, name, name=name)) as machine:
            host = VirtualHost(machine)
            kinds[name] = type(activation_for(host, read_target(host)))
    assert kinds == {
        "poweredge-2650": IndexedActivation,
        "precision-390": IndexedActivation,
        "precision-t7600": SmiActivation,
        "poweredge-2950": IndexedActivation,
        "latitude-d500": IndexedActivation,
    }


def test_asking_whether_it_is_armed_loads_no_module(smi: VirtualMachine) -> None:
    host = VirtualHost(smi)
    target = read_target(host)
    assert read_armed(host, target) is None
    assert not host.module_is_loaded("dcdbas")
    host.load_module("dcdbas", {})
    assert read_armed(host, target) is False


def test_a_machine_without_a_token_can_not_be_armed(machine: VirtualMachine) -> None:
    from dataclasses import replace

    host = VirtualHost(machine)
    target = replace(read_target(host), tokens=None)
    with pytest.raises(ObstacleError, match="has no token that activates an update"):
        activation_for(host, target)
    assert read_armed(host, target) is None


def test_without_a_way_to_cmos_a_token_in_it_can_not_be_had(tmp_path: Path) -> None:
    with running(make(tmp_path)) as machine:
        host = PortsOnly(VirtualHost(machine), None)
        target = read_target(host)
        with pytest.raises(
            ObstacleError, match=r"can't be reached from here \(it takes root\): .*nvmem: No such"
        ):
            activation_for(host, target)
        assert read_armed(host, target) is None


class Stuck:
    """CMOS behind ports that take no writes."""

    def __init__(self, ports: Any) -> None:
        self._ports = ports

    def out8(self, port: int, value: int) -> None:
        if not port & 1:
            self._ports.out8(port, value)

    def in8(self, port: int) -> int:
        return int(self._ports.in8(port))


def test_a_token_that_does_not_stay_set_is_an_error_and_the_update_is_undone(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path)) as machine:
        host = VirtualHost(machine)
        stuck = PortsOnly(host, Stuck(machine.cmos))
        switch = activation_for(stuck, read_target(host))
        with pytest.raises(UpdateFailedError, match="the BIOS's token does not stay set"):
            set_armed(switch, armed=True)
        before = status(machine)
        with pytest.raises(UpdateFailedError, match=r"token does not stay set$"):
            update(stuck, image())
        assert status(machine) == before


def test_a_token_that_does_not_stay_clear_is_an_error(machine: VirtualMachine) -> None:
    class Jammed:
        is_armed, way = True, ""

        def arm(self) -> None: ...

        def disarm(self) -> None: ...

    with pytest.raises(UpdateFailedError, match="does not stay clear"):
        set_armed(Jammed(), armed=False)


# -- the calling interface ------------------------------------------------------------------


def test_an_smi_is_size_reset_command_fire_and_reset_under_the_lock(smi: VirtualMachine) -> None:
    calls: list[tuple[Any, ...]] = []
    host = Watched(VirtualHost(smi), lambda name, arguments: calls.append((name, *arguments)))
    switch = activation_for(host, read_target(host))
    host.load_module("dcdbas", {})
    calls.clear()
    switch.arm()
    wanted = [call[:3] for call in calls if call[0] in ("write", "path_lock")][-6:]
    assert [call[:2] for call in wanted] == [
        ("path_lock", f"{DCDBAS}/smi_request"),
        ("write", f"{DCDBAS}/smi_data_buf_size"),
        ("write", f"{DCDBAS}/smi_request"),
        ("write", f"{DCDBAS}/smi_data"),
        ("write", f"{DCDBAS}/smi_request"),
        ("write", f"{DCDBAS}/smi_request"),
    ]
    assert [call[2] for call in (*wanted[2::2], wanted[5])] == [b"0", b"1", b"0"]
    command = SmiCall.unpack(wanted[3][2])
    assert (command.smi_class, command.smi_select) == (1, 0)
    assert command.arguments[:3] == (0x5C, 1, 0)


@pytest.mark.parametrize("answer", [-1, -2])
def test_an_smi_that_the_bios_refuses_is_an_error(smi: VirtualMachine, answer: int) -> None:
    from dataclasses import replace

    host = VirtualHost(smi)
    switch = activation_for(host, read_target(host))

    def refusing(buffer: bytes) -> bytes:
        call = SmiCall.unpack(buffer)
        return replace(call, results=(answer, 0, 0, 0)).pack() + buffer[52:]

    host.load_module("dcdbas", {})
    module = smi.running_kernel().modules["dcdbas"]
    assert isinstance(module, Dcdbas)
    module._smi = refusing  # a BIOS of another mind
    with pytest.raises(UpdateFailedError, match=f"returned error {answer} to a token request"):
        switch.arm()


def test_a_machine_whose_dcdbas_can_not_be_had_says_so_before_anything_is_staged(
    smi: VirtualMachine,
) -> None:
    def no_dcdbas(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "load_module" and arguments[0] == "dcdbas":
            raise ObstacleError("module dcdbas can't be loaded: no such module")

    before = status(smi)
    with pytest.raises(ObstacleError, match=r"dcdbas can't be loaded: no such module$"):
        update(Watched(VirtualHost(smi), no_dcdbas), image("precision-t7600"))
    assert status(smi) == before
