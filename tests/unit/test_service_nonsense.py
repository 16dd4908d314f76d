"""Programs and servers of a machine that make no sense: neither breaks the other."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import math
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from openrbu.drivers.sysfs import Change, Stat
from openrbu.errors import KernelError, MachineError, OpenRbuError
from openrbu.machine.base import Machine
from openrbu.sharing import wire
from openrbu.sharing.client import CALLS, MAX_OPEN_FILES
from openrbu.sharing.remote import RemoteFile, RemoteMachine, RemotePorts
from openrbu.sharing.wire import Message
from openrbu.system.home import state_home
from rigs.cli import Cli
from rigs.machines import DEVICE, ENTRY, REBOOT_MODE, make
from rigs.served import Server, answering, client, connected

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
    machine.load_module("dell_rbu", {})
    chance = random.Random(4)
    answers = {"result": 0, "error": 0, "refused": 0}
    for _ in range(60):
        with connected(directory) as raw:
            for _ in range(60):
                call = chance.choice(list(CALLS))
                if call in ("acquire", "kexec", "power_off", "restart"):
                    continue
                values = {
                    name: _fitting(kind, chance)
                    if chance.random() < 0.97
                    else chance.choice(_values())
                    for name, kind in CALLS[call].kinds.items()
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
    files = [machine.open(REBOOT_MODE, reading=True) for _ in range(MAX_OPEN_FILES)]
    with pytest.raises(KernelError) as refusal:
        machine.open(REBOOT_MODE, reading=True)
    assert refusal.value.errno == errno.EMFILE
    for file in files:
        file.close()
    assert machine.open(REBOOT_MODE, reading=True).read(0, 10) == b"cold\n"


# -- servers that make no sense ---------------------------------------------------------------

CALLS_OF_A_PROGRAM: dict[str, Callable[[RemoteMachine], object]] = {
    "is_on": lambda machine: machine.is_on,
    "status": lambda machine: machine.status(),
    "held_regions": lambda machine: machine.held_regions,
    "power_on": lambda machine: machine.power_on(),
    "restart": lambda machine: machine.restart(),
    "kexec": lambda machine: machine.kexec(),
    "load_kexec": lambda machine: machine.load_kexec(is_loaded=True),
    "power_off": lambda machine: machine.power_off(),
    "check_running": lambda machine: machine.ports,
    "in8": lambda machine: RemotePorts(machine._connection).in8(0x70),
    "out8": lambda machine: RemotePorts(machine._connection).out8(0x70, 1),
    "modules": lambda machine: machine.modules,
    "load_module": lambda machine: machine.load_module("dell_rbu", {}),
    "unload_module": lambda machine: machine.unload_module("dell_rbu"),
    "exists": lambda machine: machine.exists("/sys"),
    "stat": lambda machine: machine.files.stat("/sys"),
    "change": lambda machine: machine.files.change("/sys", Change(mode=0o700)),
    "list": lambda machine: machine.files.list("/sys"),
    "readlink": lambda machine: machine.files.readlink("/sys"),
    "open": lambda machine: machine.open("/sys", reading=True),
    "make_file": lambda machine: machine.make_file("/lib/firmware/x"),
    "remove_file": lambda machine: machine.remove_file("/lib/firmware/x"),
    "use_root": lambda machine: machine.use_root(0),
    "file_stat": lambda machine: RemoteFile(machine._connection, 1).stat(),
    "file_read": lambda machine: RemoteFile(machine._connection, 1).read(0, 4),
    "file_write": lambda machine: RemoteFile(machine._connection, 1).write(0, b"four"),
    "acquire": lambda machine: machine.path_lock("/x").__enter__(),
}

STAT = asdict(Stat(1, 2, 3, 4, 5.0))

POST = {
    "version_before": "A05",
    "version_after": "A06",
    "completion_code": 0,
    "reason": "",
    "mode": None,
    "extents": [[0, 4096]],
    "copies": 1,
}

STATUS = {
    "entry_point": "",
    "is_on": True,
    "lost_power": False,
    "is_armed": False,
    "flash_size_bytes": 1,
    "modules": [],
    "reboot_mode": "cold",
}

NONSENSE: list[tuple[str, Any]] = [
    ("is_on", 1),
    ("is_on", None),
    ("kexec", True),
    ("power_off", True),
    ("in8", 256),
    ("in8", -1),
    ("in8", True),
    ("open", "7"),
    ("open", 1 << 63),
    ("file_write", 5),
    ("readlink", 7),
    ("readlink", "a\0b"),
    ("readlink", "\ud800"),
    ("list", "sys"),
    ("list", {"sys": 1}),
    ("list", ["sys", 7]),
    ("list", ["a/b"]),
    ("list", [".."]),
    ("list", [""]),
    ("modules", [None]),
    ("stat", [1, 2, 3, 4, 5.0]),
    ("stat", STAT | {"x": 6}),
    ("stat", {"mode": 1}),
    ("stat", STAT | {"changed_at": "5"}),
    ("stat", STAT | {"changed_at": math.nan}),
    ("stat", STAT | {"mode": 1.5}),
    ("stat", STAT | {"mode": -1}),
    ("stat", STAT | {"accessed_ns": "now"}),
    ("change", 0),
    ("restart", None),
    ("restart", {}),
    ("restart", POST | {"more": 1}),
    ("restart", POST | {"completion_code": 0x7777}),
    ("restart", POST | {"extents": [[1]]}),
    ("restart", POST | {"extents": [7]}),
    ("restart", POST | {"extents": [["a", "b"]]}),
    ("power_on", POST | {"version_after": None}),
    ("held_regions", {"count": 1}),
    ("held_regions", {"count": -1}),
    ("held_regions", None),
    ("status", STATUS),
    ("status", STATUS | {"entry_point": "xy"}),
    ("status", STATUS | {"is_on": None}),
]


@pytest.mark.parametrize(("call", "result"), NONSENSE, ids=repr)
def test_an_answer_that_can_not_be_ends_the_connection_with_one_clear_line(
    directory: Path, call: str, result: Any
) -> None:
    with answering(directory, lambda request: Message({"result": result})):
        refused(directory, call)


@pytest.mark.parametrize(
    "error",
    [
        7,
        None,
        "kernel",
        ["class"],
        {},
        {"class": "SystemExit", "text": "x", "kind": None},
        {"class": ["MachineError"], "text": "x", "kind": "machine"},
        {"class": "MachineError", "text": 7, "kind": "machine"},
        {"class": "MachineError", "text": "x", "kind": 7},
        {"class": "MachineError", "text": "x"},
        {"kernel": 1 << 40, "path": None, "detail": ""},
        {"kernel": 0, "path": None, "detail": ""},
        {"kernel": -2, "path": None, "detail": ""},
        {"kernel": "EIO", "path": None, "detail": ""},
        {"kernel": 5, "path": 7, "detail": ""},
        {"kernel": 5, "path": None},
        {"errno": 5, "text": [], "path": None},
        {"damage": "x", "offset": "y", "kind": "document"},
    ],
    ids=repr,
)
def test_an_error_that_can_not_be_ends_the_connection_with_one_clear_line(
    directory: Path, error: Any
) -> None:
    with answering(directory, lambda request: Message({"error": error})):
        refused(directory, "is_on")


def test_more_bytes_than_were_asked_for_are_nonsense(directory: Path) -> None:
    with answering(directory, lambda request: Message({"result": {}}, b"12345")):
        refused(directory, "file_read")
    with (
        answering(directory, lambda request: Message({"result": {}}, b"1234")),
        client(directory) as machine,
    ):
        assert CALLS_OF_A_PROGRAM["file_read"](machine) == b"1234"


def refused(directory: Path, call: str) -> None:
    with client(directory) as machine:
        for _ in range(2):  # what the server says now is of no interest any more
            with pytest.raises(
                MachineError, match=rf"process {os.getpid()}, .* sends invalid replies"
            ) as refusal:
                CALLS_OF_A_PROGRAM[call](machine)
            assert "\n" not in str(refusal.value)


def test_each_call_takes_on_the_wire_what_its_method_takes() -> None:
    for call in CALLS.values():
        names = set(inspect.signature(call.method).parameters)
        assert names == {"self", *call.kinds}, call.name


def test_any_answers_to_any_calls_bring_results_or_errors_of_ours(directory: Path) -> None:
    chance = random.Random(5)
    assert CALLS_OF_A_PROGRAM.keys() == CALLS.keys() - {"release"}  # nobody waits for that one
    values = [*_values(), POST, STATUS, STAT, ["dell_rbu"], 300, 0.0]

    def answer(request: Message) -> Message:
        keys = chance.choice([["result"], ["result"], ["error"], [], ["result", "x"]])
        header = {key: chance.choice(values) for key in keys}
        return Message(header, chance.randbytes(chance.choice([0, 0, 3, 5000])))

    outcomes = {"result": 0, "error": 0}
    with answering(directory, answer):
        for _ in range(1500):
            with client(directory) as machine:
                try:
                    chance.choice(list(CALLS_OF_A_PROGRAM.values()))(machine)
                    outcomes["result"] += 1
                except OpenRbuError:
                    outcomes["error"] += 1
    assert min(outcomes.values()) > 20, outcomes


@pytest.mark.parametrize("result", [{"is_on": True}, [], None, STATUS], ids=repr)
def test_a_command_that_meets_a_broken_server_says_so_in_one_line(rbu: Cli, result: Any) -> None:
    directory = make(state_home())
    with answering(directory, lambda request: Message({"result": result})):
        for words in (
            ("status", "-m", "box"),
            ("machine", "reboot", "box"),
            ("machine", "show", "box"),
        ):
            line = rbu.fails(4, *words)
            assert line.startswith(
                f"rbu: process {os.getpid()}, which has machine 'box', sends invalid replies"
            )
            assert line.count("\n") == 1
