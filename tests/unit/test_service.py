"""A machine that one process has and others use: the socket, and who has the machine."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.power import PowerRail
from openrbu.errors import (
    MachineError,
    PowerCutError,
)
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import turns
from openrbu.machine.base import Machine
from openrbu.machine.store import InUseError, locked
from openrbu.machine.virtual import VirtualMachine
from openrbu.sharing import access, wire
from openrbu.sharing.remote import NotServedError, RemoteMachine
from openrbu.sharing.service import Service
from openrbu.sharing.wire import Message
from openrbu.units import KIB, MIB
from rigs.machines import (
    REBOOT_MODE,
    as_nobody,
    make,
    opened_up,
)
from rigs.needs import leave_out
from rigs.served import A_DAY_S, Server, answering, client, connected, serving

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
    with serving(directory), access.open_or_connect(directory) as machine:
        assert machine.is_on


def test_the_socket_of_a_server_that_was_killed_is_replaced_by_the_next_one(
    directory: Path, server: Server
) -> None:
    server.kill()
    with pytest.raises(NotServedError):
        RemoteMachine(directory)
    with serving(directory), access.open_or_connect(directory) as machine:
        assert machine.is_on


@pytest.mark.parametrize("what", ["a file", "a link to another place"])
def test_anything_in_the_sockets_place_makes_way(directory: Path, what: str) -> None:
    path = directory / "socket"
    if what == "a file":
        path.write_bytes(b"")
    else:
        path.symlink_to(directory.parent / "elsewhere")
    with serving(directory), access.open_or_connect(directory) as machine:
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
        with pytest.raises(MachineError, match="served by user 0, and to that user only"):
            RemoteMachine(directory)

    as_nobody(knock)
    with access.open_or_connect(directory) as machine:
        assert machine.is_on


def test_a_server_of_another_user_is_not_trusted(directory: Path) -> None:
    if os.geteuid():
        leave_out("it takes root to be somebody else")
    opened_up(directory)
    directory.chmod(0o777)
    is_ready, say_so = os.pipe()

    def impostor() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            with wire.socket_address(directory) as address:
                raw.bind(address)
            raw.listen()
            os.write(say_so, b"x")
            connection, _ = raw.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.recv(1)

    child = threading.Thread(target=lambda: as_nobody(impostor))
    child.start()
    assert os.read(is_ready, 1) == b"x"
    with pytest.raises(MachineError, match="served by user 65534, and to that user only"):
        RemoteMachine(directory)
    child.join()
    os.close(is_ready)
    os.close(say_so)


@pytest.mark.parametrize(
    "greeting",
    [
        {"result": {"protocol": wire.PROTOCOL + 1, "owner": 1}},
        {"result": {"protocol": True, "owner": 1}},
        {"result": {"protocol": wire.PROTOCOL}},
        {"result": {"protocol": wire.PROTOCOL, "owner": "init"}},
        {"result": [1, 1]},
        {"welcome": {}},
    ],
    ids=repr,
)
def test_a_server_of_another_version_is_told_of(directory: Path, greeting: dict[str, Any]) -> None:
    with (
        answering(directory, lambda request: Message({}), Message(greeting)),
        pytest.raises(MachineError, match="another version of openrbu"),
    ):
        RemoteMachine(directory)


def test_a_server_that_can_have_no_more_threads_hangs_up_and_goes_on(
    directory: Path, server: Server
) -> None:
    before = resource.prlimit(server.pid, resource.RLIMIT_AS)
    status = Path(f"/proc/{server.pid}/status").read_text()
    (size_kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmSize:")]
    enough_but_for_a_stack = int(size_kib) * KIB + MIB
    resource.prlimit(server.pid, resource.RLIMIT_AS, (enough_but_for_a_stack, before[1]))
    for _ in range(3):
        with pytest.raises(NotServedError):
            RemoteMachine(directory)
    resource.prlimit(server.pid, resource.RLIMIT_AS, before)
    with client(directory) as machine:
        assert machine.is_on
    assert server.end() == 0


# -- who has the machine ----------------------------------------------------------------------


def test_a_process_that_has_the_machine_and_does_not_serve_it_is_told_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TIMEOUT_S", A_DAY_S)
    with (
        locked(directory),
        pytest.raises(MachineError, match=f"in use by process {os.getpid()}: wait"),
        access.open_or_connect(directory),
    ):
        pass


def test_a_process_that_never_begins_to_serve_is_told_after_a_while(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TIMEOUT_S", 0.2)
    with (
        locked(directory, serving=True),
        pytest.raises(InUseError, match=rf"is served by process {os.getpid()} \(rbu mount"),
        access.open_or_connect(directory),
    ):
        pass


def test_a_server_that_is_just_starting_is_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TIMEOUT_S", A_DAY_S)
    with contextlib.ExitStack() as stack:
        owner = VirtualMachine(directory, serving=True)
        service = Service(owner)
        timer = threading.Timer(0.3, service.start)
        timer.start()
        stack.callback(owner.close)
        stack.callback(service.stop)
        stack.callback(service.stop_accepting)
        stack.callback(timer.join)
        with access.open_or_connect(directory) as machine:
            assert machine.is_on is False


def test_an_owner_that_has_not_yet_said_who_it_is_is_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TIMEOUT_S", A_DAY_S)
    with contextlib.ExitStack() as lock:
        lock.enter_context(locked(directory))
        (directory / "lock").write_bytes(b" " * 32)
        timer = threading.Timer(0.3, lock.close)
        timer.start()
        with access.open_or_connect(directory) as machine:
            assert machine.is_on is False
        timer.join()
    assert (directory / "lock").read_bytes() == b" " * 32  # nobody is taken for the next owner


def test_a_service_that_has_stopped_does_nothing_more(directory: Path) -> None:
    with VirtualMachine(directory, serving=True) as owner:
        before = set(threading.enumerate())
        service = Service(owner)
        service.start()
        assert owner.path_locks.acquire("/path", "somebody")
        raw = connected(directory)
        wire.send(raw, {"do": "acquire", "with": {"path": "/path", "holder": 1}})
        service.stop_accepting()
        service.stop()
        assert set(threading.enumerate()) == before
        raw.close()
    with pytest.raises(MachineError, match="this process has closed the machine"):
        owner.restart()


def test_to_keep_a_machine_that_is_served_is_to_use_it(directory: Path, server: Server) -> None:
    with access.serve_or_connect(directory) as machine:
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
        with client(directory) as late:  # it is served until nobody uses it
            assert server.line() == "waiting for 2"
            assert late.modules == ("dell_rbu",)
        assert server.line() == "waiting for 1"
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
    with access.open_or_connect(directory) as machine:
        file = machine.open(f"{REBOOT_MODE}", reading=True)
        machine.load_module("dell_rbu", {})
        server.kill()
        for _ in range(2):
            with pytest.raises(MachineError, match=f"process {server.pid}, .* has ended, and"):
                file.read(0, 100)
        file.close()
    with access.open_or_connect(directory) as machine:
        status = machine.status()
        assert (status.is_on, status.lost_power) == (False, True)


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
            service.stop_accepting()
            service.stop()
    with VirtualMachine(directory) as owner:
        assert owner.lost_power


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
