"""A machine that one process has and others use: the socket, the wire, threads, bad ends."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machines import (
    DEVICE,
    ENTRY,
    REBOOT_MODE,
    FailAt,
    Watched,
    as_nobody,
    image,
    in_child,
    make,
    opened_up,
    update,
)
from needs import leave_out
from openrbu.bios.cmos import INDEX_PORTS
from openrbu.bios.power import PowerCutError, PowerRail
from openrbu.cli.interrupts import Stopped, signals_raised
from openrbu.errors import (
    KernelError,
    MachineError,
    ObstacleError,
)
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import holds, reach, wire
from openrbu.machine.base import Machine
from openrbu.machine.ports import OwnPorts
from openrbu.machine.remote import NotServedError, RemoteMachine
from openrbu.machine.service import Service
from openrbu.machine.store import InUseError, locked
from openrbu.machine.virtual import VirtualMachine
from openrbu.memory.scan import search
from openrbu.units import MIB, PhysAddr
from served import Server, serving


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Precision 390, off."""
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    return make(tmp_path)


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    """The machine, on and served by another process."""
    with serving(directory) as server:
        yield server


@pytest.fixture
def machine(server: Server, directory: Path) -> Iterator[Machine]:
    with reach.reach(directory) as machine:
        yield machine


def client(directory: Path) -> contextlib.closing[RemoteMachine]:
    """The machine as a program has it that another process serves."""
    return contextlib.closing(RemoteMachine(directory))


def connected(directory: Path) -> socket.socket:
    """A connection to the machine's socket, greeted."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(60)
    with wire.socket_address(directory) as address:
        raw.connect(address)
    assert wire.receive(raw) is not None
    return raw


def test_an_error_of_the_disk_under_a_served_machine_names_what_to_do(
    directory: Path, machine: Machine
) -> None:
    machine.load_module("dell_rbu", {})
    (directory / "room").mkdir()  # where the owner has to make sure of room for a restart
    with pytest.raises(MachineError, match="room"):
        machine.restart()
    (directory / "room").rmdir()
    assert machine.modules == ("dell_rbu",)
    assert machine.restart().version_after


# -- the socket -------------------------------------------------------------------------------


def test_the_socket_is_the_owners_alone_and_gone_afterwards(
    directory: Path, server: Server
) -> None:
    path = directory / "socket"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert server.end() == 0
    assert not path.exists()


def test_a_machine_with_a_path_of_over_two_hundred_bytes_is_served(tmp_path: Path) -> None:
    directory = make(tmp_path / ("x" * 120) / ("y" * 120))
    with serving(directory), reach.reach(directory) as machine:
        assert machine.is_on


def test_the_socket_of_a_server_that_was_killed_is_replaced_by_the_next_one(
    directory: Path, server: Server
) -> None:
    server.kill()
    with pytest.raises(NotServedError):
        RemoteMachine(directory)
    with serving(directory), reach.reach(directory) as machine:
        assert machine.is_on


@pytest.mark.parametrize("what", ["a file", "a link to another place"])
def test_anything_in_the_sockets_place_makes_way(directory: Path, what: str) -> None:
    path = directory / "socket"
    if what == "a file":
        path.write_bytes(b"")
    else:
        path.symlink_to(directory.parent / "elsewhere")
    with serving(directory), reach.reach(directory) as machine:
        assert machine.is_on
        assert path.is_socket()
    assert not (directory.parent / "elsewhere").exists()


def test_another_user_is_not_answered_even_where_nothing_else_stands_in_the_way(
    directory: Path, server: Server
) -> None:
    if os.geteuid():
        leave_out("it takes root to be somebody else")
    directory.chmod(0o755)
    (directory / "socket").chmod(0o666)
    (directory / "machine.json").chmod(0o644)
    opened_up(directory)

    def knock() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            with wire.socket_address(directory) as address:
                raw.connect(address)
            with contextlib.suppress(BrokenPipeError):
                wire.send(raw, {"do": "power_off", "with": {}})
            with contextlib.suppress(ConnectionResetError):
                assert raw.recv(1) == b""
        with pytest.raises(MachineError, match="served to user 0 only"):
            RemoteMachine(directory)

    as_nobody(knock)
    with reach.reach(directory) as machine:
        assert machine.is_on


def test_a_server_of_a_third_user_is_not_trusted(directory: Path) -> None:
    if os.geteuid():
        leave_out("it takes root to be somebody else")
    os.chown(directory, 1000, 1000)
    opened_up(directory)
    directory.chmod(0o777)

    def impostor() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            with wire.socket_address(directory) as address:
                raw.bind(address)
            raw.listen()
            connection, _ = raw.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.recv(1)

    child = threading.Thread(target=lambda: as_nobody(impostor))
    child.start()
    path = directory / "socket"
    until = time.monotonic() + 60
    while True:
        try:
            with pytest.raises(MachineError, match="served by user 65534, who has no business"):
                RemoteMachine(directory)
            break
        except NotServedError:
            assert time.monotonic() < until
            time.sleep(0.01)
    child.join()
    path.unlink()


def test_a_server_of_another_version_is_told_of(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        with wire.socket_address(directory) as address:
            raw.bind(address)
        raw.listen()

        def answer() -> None:
            connection, _ = raw.accept()
            with connection:
                wire.send(connection, {"result": {"protocol": 2, "owner": 1}})

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(MachineError, match="another version of openrbu"):
            RemoteMachine(directory)
        thread.join()


# -- who has the machine ----------------------------------------------------------------------


def test_a_process_that_has_the_machine_and_does_not_serve_it_is_told_at_once(
    directory: Path,
) -> None:
    began = time.monotonic()
    with (
        locked(directory),
        pytest.raises(MachineError, match=f"in use by process {os.getpid()}: wait"),
        reach.reach(directory),
    ):
        pass
    assert time.monotonic() - began < reach.PATIENCE_S


def test_a_process_that_never_begins_to_serve_is_told_after_a_while(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "PATIENCE_S", 0.2)
    with (
        locked(directory, serving=True),
        pytest.raises(InUseError, match=f"is served by process {os.getpid()}: wait"),
        reach.reach(directory),
    ):
        pass


def test_a_server_that_is_just_starting_is_waited_for(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        owner = VirtualMachine(directory, serving=True)
        service = Service(owner)
        timer = threading.Timer(0.3, service.start)
        timer.start()
        stack.callback(owner.close)
        stack.callback(service.stop)
        stack.callback(service.leave)
        stack.callback(timer.join)
        with reach.reach(directory) as machine:
            assert machine.is_on is False


def test_an_owner_that_has_not_yet_said_who_it_is_is_waited_for(directory: Path) -> None:
    with contextlib.ExitStack() as lock:
        lock.enter_context(locked(directory))
        (directory / "lock").write_bytes(b" " * 32)
        timer = threading.Timer(0.3, lock.close)
        timer.start()
        with reach.reach(directory) as machine:
            assert machine.is_on is False
        timer.join()
    assert (directory / "lock").read_bytes() == b" " * 32  # nobody is taken for the next owner


def test_a_service_that_has_stopped_does_nothing_more(directory: Path) -> None:
    with VirtualMachine(directory, serving=True) as owner:
        before = set(threading.enumerate())
        service = Service(owner)
        service.start()
        assert owner.holds.take("/path", "somebody")
        raw = connected(directory)
        wire.send(raw, {"do": "take", "with": {"path": "/path", "holder": 1}})
        service.leave()
        service.stop()
        assert set(threading.enumerate()) == before
        raw.close()
    with pytest.raises(MachineError, match="not held by this process any more"):
        owner.restart()


def test_to_keep_a_machine_that_is_served_is_to_use_it(directory: Path, server: Server) -> None:
    with reach.keep(directory) as machine:
        assert isinstance(machine, RemoteMachine)
        assert read_text(VirtualHost(machine), REBOOT_MODE) == "cold"


def test_the_owner_waits_for_the_programs_that_use_its_machine_and_says_how_many(
    directory: Path, server: Server
) -> None:
    with client(directory) as one:
        with client(directory) as other:
            server.leave()
            assert server.line() == "waiting for 2"
            other.load_module("dell_rbu", {})
        assert server.line() == "waiting for 1"
        assert one.modules == ("dell_rbu",)
    assert [server.line(), server.line()] == ["gone", ""]
    with VirtualMachine(directory) as machine:
        assert machine.modules == ("dell_rbu",)


def test_ctrl_c_ends_the_owners_wait_and_the_machine_is_put_away(
    directory: Path, server: Server
) -> None:
    with client(directory) as machine:
        machine.load_module("dell_rbu", {})
        server.leave()
        assert server.line() == "waiting for 1"
        server.signal(signal.SIGINT)
        assert server.line() == ""
        with pytest.raises(MachineError, match=f"process {server.pid}, .* has ended"):
            machine.is_on  # noqa: B018
    with VirtualMachine(directory) as again:
        assert again.modules == ("dell_rbu",)


def test_a_server_that_is_killed_takes_the_power_with_it_and_every_call_says_so(
    directory: Path, server: Server
) -> None:
    with reach.reach(directory) as machine:
        file = machine.open(f"{REBOOT_MODE}", reading=True)
        machine.load_module("dell_rbu", {})
        server.kill()
        for _ in range(2):
            with pytest.raises(MachineError, match=f"process {server.pid}, .* has ended, and"):
                file.read(0, 100)
        file.close()
    with reach.reach(directory) as machine:
        standing = machine.standing()
        assert (standing.is_on, standing.lost_power) == (False, True)


def test_the_power_cut_of_a_served_machine_comes_as_one(directory: Path) -> None:
    rail = PowerRail()
    with VirtualMachine(directory, rail=rail, serving=True) as owner:
        owner.power_on()
        service = Service(owner)
        service.start()
        try:
            with client(directory) as machine:
                rail.cut_at = rail.operations + 1
                ports = machine.ports
                ports.out8(0x70, 0x40)
                with pytest.raises(PowerCutError, match="the power failed"):
                    ports.out8(0x71, ports.in8(0x71) ^ 0xFF)
                assert machine.is_on is False
        finally:
            service.leave()
            service.stop()
    with VirtualMachine(directory) as owner:
        assert owner.lost_power


# -- several at once --------------------------------------------------------------------------


def test_what_one_program_does_the_other_sees(directory: Path, machine: Machine) -> None:
    with reach.reach(directory) as other:
        machine.load_module("dell_rbu", {})
        file = other.open(f"{DEVICE}/image_type", reading=True)
        assert file.read(0, 100) == b"mono\n"
        machine.restart()
        with pytest.raises(KernelError) as gone:
            file.read(0, 100)
        assert gone.value.errno == errno.ENODEV


def test_two_programs_each_have_their_own_index_of_cmos(directory: Path, machine: Machine) -> None:
    with reach.reach(directory) as other:
        one, two = machine.ports, other.ports
        for index_port in INDEX_PORTS:
            one.out8(index_port, 0x40)
            two.out8(index_port, 0x41)
            one.out8(index_port + 1, 0xA0)
            two.out8(index_port + 1, 0xA1)
            assert (one.in8(index_port), two.in8(index_port)) == (0x40, 0x41)
            assert (one.in8(index_port + 1), two.in8(index_port + 1)) == (0xA0, 0xA1)


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

    with reach.reach(directory) as other:
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
    with reach.reach(directory) as other:

        def second() -> None:
            with other.exclusively(path):
                order.append("second")

        thread = threading.Thread(target=second)
        with machine.exclusively(path):
            thread.start()
            with machine.exclusively("/another/path"):
                thread.join(2 * holds.STEP_S)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]


def test_a_path_held_by_a_program_that_ends_is_free_again(
    directory: Path, machine: Machine
) -> None:
    other = RemoteMachine(directory)
    with contextlib.suppress(MachineError), other.exclusively("/path"):
        other.close()
        with machine.exclusively("/path"):
            pass


def test_a_wait_for_a_path_is_ended_by_ctrl_c_and_by_time(
    directory: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(directory) as other, other.exclusively("/path"):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), machine.exclusively("/path"):
            pass
        timer.join()
        monkeypatch.setattr(holds, "PATIENCE_S", 0.1)
        with pytest.raises(ObstacleError, match="held /path"), machine.exclusively("/path"):
            pass
    with machine.exclusively("/path"):
        pass


# -- signals ----------------------------------------------------------------------------------


def test_ctrl_c_in_the_middle_of_calls_never_mixes_their_answers_up(machine: Machine) -> None:
    machine.load_module("dell_rbu", {})
    stop, interrupts = threading.Event(), 0

    def disturb() -> None:
        while not stop.wait(0.002):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=disturb)
    try:
        thread.start()
        for number in range(1500):
            try:
                exists = machine.exists(DEVICE if number % 2 else "/sys/nowhere")
                names = machine.files.list("/")
            except KeyboardInterrupt:
                interrupts += 1
                continue
            assert exists == bool(number % 2)
            assert names == ["dev", "proc", "sys"]
    finally:
        while thread.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                stop.set()
                thread.join()
    assert interrupts > 5


def test_an_update_interrupted_at_any_call_is_undone_on_a_served_machine(
    machine: Machine,
) -> None:
    host = VirtualHost(machine)
    before, number, was_stopped = machine.standing(), 1, True
    while was_stopped:
        hook = SignalAt(number)
        was_stopped = False
        try:
            with signals_raised():
                update(Watched(host, hook), image())
        except Stopped:
            was_stopped = True
            assert machine.standing() == before, number
            seen = search(machine.ram, PhysAddr(0), PhysAddr(64 * MIB))
            assert seen.images == ()
        number += 7
    assert machine.standing().is_armed
    assert number > 5 * 7


class SignalAt(FailAt):
    """A hook that sends SIGINT to this process at call number `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number, KeyboardInterrupt())

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls += 1
        if self.calls == self.number:
            os.kill(os.getpid(), signal.SIGINT)


# -- programs that make no sense --------------------------------------------------------------


def test_any_bytes_at_all_harm_nobody(directory: Path, server: Server, machine: Machine) -> None:
    chance = random.Random(3)
    headers = [b"{}", b"[]", b"null", b"[" * 100_000, b'{"do":1}', b'{"do":"open","with":{}}']
    headers += [b'{"do":"_checked","with":{}}', b'{"do":"answer","with":{"request":1}}', b"\xff"]
    headers += [b'{"do":"is_on","with":{},"closed":[[]]}', b'{"do":"is_on","with":{"a":1}}']
    messages = [struct.pack(">II", len(header), 0) + header for header in headers]
    messages += [b"\xff" * 64, struct.pack(">II", 5, 1 << 31), struct.pack(">II", 1 << 22, 7)]
    messages += [chance.randbytes(chance.randrange(200)) for _ in range(200)]
    for message in messages:
        with connected(directory) as raw, contextlib.suppress(ConnectionError):
            raw.sendall(message)
            raw.shutdown(socket.SHUT_WR)
            assert wire.receive(raw) is None
    assert machine.is_on
    machine.close()  # type: ignore[attr-defined]
    assert server.end() == 0


@functools.cache
def _values() -> list[Any]:
    paths = ["", "/", "/sys", DEVICE, f"{ENTRY}/data", f"{ENTRY}/loading", "/dev/port", "x\0y"]
    numbers = [0, 1, 2, 4096, (1 << 63) - 1, 1 << 63, -1, 1 << 80]
    others: list[Any] = [True, False, None, 1.5, [], {}, {"image_type": "mono"}, {"x": 1}]
    return [*paths, *numbers, *others, "dell_rbu", "\udcff"]


def test_any_call_with_any_arguments_harms_nobody(
    directory: Path, server: Server, machine: Machine
) -> None:
    from openrbu.machine.connection import CALLS

    machine.load_module("dell_rbu", {})
    chance = random.Random(4)
    answers = {"result": 0, "error": 0, "refused": 0}
    for _ in range(60):
        with connected(directory) as raw:
            for _ in range(60):
                call = chance.choice(list(CALLS))
                if call in ("take", "power_off", "restart"):
                    continue
                values = {
                    name: _fitting(kind, chance)
                    if chance.random() < 0.97
                    else chance.choice(_values())
                    for name, kind in CALLS[call].items()
                    if name != "data"
                }
                data = chance.randbytes(chance.choice([0, 1, 4096]))
                wire.send(raw, {"do": call, "with": values}, data)
                with contextlib.suppress(ConnectionError):
                    answer = wire.receive(raw)
                if answer is None:
                    answers["refused"] += 1
                    break
                answers["error" if "error" in answer.header else "result"] += 1
    assert min(answers.values()) > 10, answers
    assert machine.restart().version_after
    machine.close()  # type: ignore[attr-defined]
    assert server.end() == 0


def _fitting(kind: Any, chance: random.Random) -> Any:
    fits = [value for value in _values() if isinstance(value, kind)]
    if kind is int:
        fits = [value for value in fits if not isinstance(value, bool) and 0 <= value < 1 << 63]
    return chance.choice(fits)


def test_a_file_that_was_opened_for_reading_is_not_written(machine: Machine) -> None:
    reader = machine.open(REBOOT_MODE, reading=True)
    writer = machine.open(REBOOT_MODE, writing=True)
    for wrong in (lambda: reader.write(0, b"warm"), lambda: writer.read(0, 10)):
        with pytest.raises(KernelError) as refusal:
            wrong()
        assert refusal.value.errno == errno.EBADF
    writer.close()
    with pytest.raises(KernelError):
        writer.write(0, b"warm")
    assert reader.read(0, 10) == b"cold\n"


def test_a_program_may_have_only_so_many_files_open(machine: Machine, directory: Path) -> None:
    from openrbu.machine.connection import MAX_OPEN_FILES

    files = [machine.open(REBOOT_MODE, reading=True) for _ in range(MAX_OPEN_FILES)]
    with pytest.raises(KernelError) as refusal:
        machine.open(REBOOT_MODE, reading=True)
    assert refusal.value.errno == errno.EMFILE
    for file in files:
        file.close()
    assert machine.open(REBOOT_MODE, reading=True).read(0, 10) == b"cold\n"


# -- looking at RAM while it is cleared -------------------------------------------------------


def test_ram_can_be_looked_at_while_its_owner_clears_it(directory: Path, machine: Machine) -> None:
    def look() -> None:
        with reach.reach(directory) as mine:
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
