"""Several programs that use one machine at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from openrbu.bios.cmos_file import CmosFile, cmos_file_bytes
from openrbu.errors import (
    KernelError,
    MachineError,
    ObstacleError,
)
from openrbu.machine import path_locks
from openrbu.machine.base import Machine
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import PC_PORTS, OwnPorts
from openrbu.sharing import access
from openrbu.sharing.remote import RemoteMachine
from openrbu.units import MIB, PhysAddr
from rigs.machines import (
    DEVICE,
    ENTRY,
    in_child,
)
from rigs.served import client


def test_what_one_program_does_the_other_sees(directory: Path, machine: Machine) -> None:
    with access.open_or_connect(directory) as other:
        machine.load_module("dell_rbu", {})
        file = other.open(f"{DEVICE}/image_type", reading=True)
        assert file.read(0, 100) == b"mono\n"
        machine.restart()
        with pytest.raises(KernelError) as gone:
            file.read(0, 100)
        assert gone.value.errno == errno.ENODEV


def test_two_programs_each_have_their_own_index_of_cmos(directory: Path, machine: Machine) -> None:
    with access.open_or_connect(directory) as other:
        one, two = machine.ports, other.ports
        for index_port, data_port in PC_PORTS:
            one.out8(index_port, 0x40)
            two.out8(index_port, 0x41)
            one.out8(data_port, 0xA0)
            two.out8(data_port, 0xA1)
            assert (one.in8(index_port), two.in8(index_port)) == (0x40, 0x41)
            assert (one.in8(data_port), two.in8(data_port)) == (0xA0, 0xA1)


def test_two_programs_each_have_their_own_index_of_a_bank_that_the_tables_name(
    tmp_path: Path,
) -> None:
    """Index port 0x74 and data port 0x79, which is not the next one."""
    path, banks = tmp_path / "cmos", {0x71: 0x70, 0x79: 0x74}
    path.write_bytes(bytes(cmos_file_bytes(banks)))
    cmos, lock = CmosFile(path, banks=banks), threading.RLock()
    one, two = OwnPorts(cmos, lock), OwnPorts(cmos, lock)
    one.out8(0x74, 0x40)
    two.out8(0x74, 0x41)
    one.out8(0x79, 0xA0)
    two.out8(0x79, 0xA1)
    assert (one.in8(0x79), two.in8(0x79)) == (0xA0, 0xA1)
    assert (one.in8(0x74), two.in8(0x74), cmos.in8(0x74)) == (0x40, 0x41, 0)
    assert one.in8(0x75) == 0xFF


def test_a_programs_own_index_is_not_seen_by_who_has_the_port_itself(directory: Path) -> None:
    with VirtualMachine(directory) as machine:
        machine.cmos.out8(0x70, 0x11)
        own = OwnPorts(machine.cmos, machine.lock)
        assert own.in8(0x70) == 0x11
        own.out8(0x70, 0x42)
        own.out8(0x71, 0x99)
        assert machine.cmos.in8(0x70) == 0x11
        assert machine.cmos.in8(0x71) != 0x99
        machine.cmos.out8(0x70, 0x42)
        assert machine.cmos.in8(0x71) == 0x99


def test_sixteen_threads_of_two_programs_get_their_own_answers(
    directory: Path, machine: Machine
) -> None:
    machine.load_module("dell_rbu", {})
    wrong: list[object] = []

    def work(mine: Machine, number: int) -> None:
        paths = [ENTRY, f"/sys/nothing/{number}", DEVICE, "/proc/modules"]
        expected = [True, False, True, True]
        file = mine.open("/proc/modules", reading=True)
        for _ in range(60):
            seen = [mine.exists(path) for path in paths]
            text = file.read(0, 4096)
            if seen != expected or not text.startswith(b"dell_rbu "):
                wrong.append((number, seen, text))
            try:
                mine.files.list(f"/sys/{number}")
                wrong.append(number)
            except KernelError as error:
                if error.filename != f"/{number}":
                    wrong.append(error)
        file.close()

    with access.open_or_connect(directory) as other:
        threads = [
            threading.Thread(target=work, args=((machine, other)[number % 2], number))
            for number in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_path_that_is_held_keeps_other_programs_waiting(
    directory: Path, machine: Machine
) -> None:
    path, order = "/sys/devices/platform/dcdbas/smi_request", []
    with access.open_or_connect(directory) as other:

        def second() -> None:
            with other.path_lock(path):
                order.append("second")

        thread = threading.Thread(target=second)
        with machine.path_lock(path):
            thread.start()
            with machine.path_lock("/another/path"):
                thread.join(2 * path_locks.STEP_S)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]


def test_a_path_locked_by_a_program_that_ends_is_free_again(
    directory: Path, machine: Machine
) -> None:
    other = RemoteMachine(directory)
    with contextlib.suppress(MachineError), other.path_lock("/path"):
        other.close()
        with machine.path_lock("/path"):
            pass


def test_a_wait_for_a_path_is_ended_by_ctrl_c_and_by_time(
    directory: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(directory) as other, other.path_lock("/path"):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), machine.path_lock("/path"):
            pass
        timer.join()
        monkeypatch.setattr(path_locks, "TIMEOUT_S", 0.1)
        with pytest.raises(ObstacleError, match="/path locked"), machine.path_lock("/path"):
            pass
    with machine.path_lock("/path"):
        pass


def test_ram_can_be_looked_at_while_its_owner_clears_it(directory: Path, machine: Machine) -> None:
    def look() -> None:
        with access.open_or_connect(directory) as mine:
            ram = mine.ram
            view = ram.view(PhysAddr(32 * MIB), 32 * MIB)
            looks = 0
            while not (directory / "enough").exists():
                assert len(bytes(view)) == 32 * MIB  # every page is touched
                looks += 1
            assert looks

    outcome: list[int] = []
    child = threading.Thread(target=lambda: outcome.append(in_child(look)))
    child.start()
    for _ in range(150):
        machine.restart(cold=True)
    (directory / "enough").touch()
    child.join()
    assert outcome == [0]
