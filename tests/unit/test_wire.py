"""What goes over the wire comes out of it as it went in; a served machine answers as any other."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.bios.post_report import PostReport
from openrbu.drivers.sysfs import Caller
from openrbu.errors import (
    AddressError,
    DamagedInputError,
    KernelError,
    MachineError,
    NotForThisMachineError,
    ObstacleError,
    PowerCutError,
    UpdateFailedError,
    UsageError,
)
from openrbu.file_format import NewerFormatError
from openrbu.formats.dell import CompletionCode
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.base import Machine
from openrbu.machine.store import InUseError
from openrbu.memory.physical import Region
from openrbu.sharing import access, replies, wire
from openrbu.sharing.remote import RemoteMachine
from openrbu.sharing.wire import Message
from openrbu.units import MIB, PhysAddr
from openrbu.update.exclusion import BusyError
from rigs.machines import (
    DEVICE,
    ENTRY,
    REBOOT_MODE,
    make,
    running,
)
from rigs.served import serving

# -- one machine, two ways to it --------------------------------------------------------------


def deeds(machine: Machine) -> Iterator[Callable[[], Any]]:
    """What can be done with a machine, and what it answers."""
    host, files = VirtualHost(machine), machine.files
    yield lambda: (machine.name, machine.config)
    yield machine.status
    yield lambda: machine.load_module("dell_rbu", {"image_type": "packet"})
    yield lambda: machine.load_module("dell_rbu", {})
    yield lambda: machine.load_module("dell_rbu", {"x": "1"})
    yield lambda: machine.load_module("floppy", {})
    yield lambda: machine.load_module("dcdbas", {})
    yield lambda: machine.unload_module("dcdbas")
    yield lambda: machine.unload_module("dell_rbu")
    yield lambda: host.load_module("dell_rbu", {})
    yield lambda: machine.modules
    yield lambda: [files.list(path) for path in ("/", "/sys", DEVICE, ENTRY)]
    yield lambda: files.list("/nowhere")
    yield lambda: [files.stat(path).mode for path in ("/", "/sys", ENTRY, f"{ENTRY}/data")]
    yield lambda: files.stat(ENTRY + "/ä\udcff")
    yield lambda: files.readlink(ENTRY)
    yield lambda: files.readlink("/sys")
    yield lambda: [machine.exists(path) for path in (ENTRY, "/sys/x", "/proc/modules")]
    yield lambda: files.open(ENTRY, reading=True)
    yield lambda: files.open(f"{ENTRY}/data", writing=True, caller=Caller(1000, False))
    yield lambda: host.write(f"{ENTRY}/loading", b"7\n")
    yield lambda: host.write(f"{ENTRY}/data", b"early")
    yield lambda: host.write(f"{ENTRY}/loading", b"1\n")
    yield lambda: host.write(f"{ENTRY}/data", bytes(range(256)) * 40_000)
    yield lambda: [len(chunk) for chunk in host.chunks(f"{ENTRY}/data", 3 * MIB)]
    yield lambda: host.write(f"{ENTRY}/data", b"far", 1 << 40)
    yield lambda: files.open(f"{ENTRY}/data", writing=True).write(0, b"x", sys_rawio=False)
    yield lambda: host.write(f"{ENTRY}/loading", b"-1\n")
    yield lambda: read_text(host, REBOOT_MODE)
    yield lambda: host.write(REBOOT_MODE, b"sideways")
    yield lambda: (machine.ports.in8(0x70), machine.ports.in8(0x71), machine.ports.in8(0x99))
    yield machine.power_on
    yield lambda: machine.restart(cold=True)
    yield lambda: machine.last_post
    yield lambda: machine.ram.read(PhysAddr(MIB), 8)
    yield lambda: machine.ram.read(PhysAddr(1 << 40), 8)
    yield lambda: machine.load_kexec(is_loaded=True)
    yield lambda: read_text(host, "/sys/kernel/kexec_loaded")
    yield machine.kexec
    yield machine.power_off
    yield lambda: machine.is_on
    yield lambda: machine.exists("/sys")
    yield lambda: machine.open("/proc/modules", reading=True)
    yield lambda: files.open("/proc/modules", reading=True)
    yield lambda: files.list("/")
    yield lambda: machine.modules
    yield lambda: machine.ports
    yield machine.restart


def told(machine: Machine) -> Iterator[tuple[Any, ...]]:
    for deed in deeds(machine):
        try:
            yield ("done", deed())
        except Exception as error:  # noqa: BLE001  (which it is, is what is looked at)
            fields = [getattr(error, name, None) for name in ("errno", "filename", "exit_code")]
            yield (type(error), str(error), *fields)


@pytest.mark.parametrize("model", ["poweredge-2650", "precision-390"])
def test_a_served_machine_answers_as_one_of_this_process(tmp_path: Path, model: str) -> None:
    here, there = [make(tmp_path / side, model) for side in ("here", "there")]
    with running(here) as machine:
        expected = list(told(machine))
    with serving(there), access.open_or_connect(there) as machine:
        assert isinstance(machine, RemoteMachine)
        assert [_without_time(each) for each in told(machine)] == [
            _without_time(each) for each in expected
        ]
    kinds = {each[0] for each in expected}
    assert kinds >= {"done", KernelError, MachineError, UsageError, AddressError}


def _without_time(answer: tuple[Any, ...]) -> str:
    """Two machines are made in different seconds."""
    text = repr(answer)
    start = text.find("created_at=")
    return text if start < 0 else text[:start] + text[text.index(",", start) :]


@pytest.mark.parametrize(
    "error",
    [
        KernelError(errno.EINVAL),
        KernelError(errno.ENOMEM, "/sys/x"),
        KernelError(errno.ENODEV, "/sys/x", "the machine: is off"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EACCES, "Permission denied", "/a/file"),
        UsageError("u"),
        ObstacleError("o: ä\n\udcff"),
        MachineError("m"),
        NotForThisMachineError("n"),
        UpdateFailedError("f"),
        DamagedInputError("d", offset=7),
        PowerCutError("p"),
    ],
    ids=repr,
)
def test_an_error_comes_out_of_the_wire_as_it_went_in(error: Any) -> None:
    one, other = socket.socketpair()
    with one, other:
        wire.send(one, {"error": wire.error_document(error)}, b"beside")
        message = wire.receive(other)
    assert message is not None
    came = wire.error_of(message.header["error"])
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert message.payload == b"beside"
    for name in ("errno", "strerror", "filename", "exit_code", "offset", "kind"):
        assert getattr(came, name, None) == getattr(error, name, None)


def test_an_error_of_a_class_that_the_wire_does_not_know_comes_as_the_next_above_it() -> None:
    for error, known, kind in (
        (BusyError("b"), ObstacleError, "busy"),
        (InUseError("m", "1", is_served=True), MachineError, "in_use"),
        (NewerFormatError(3, 2), DamagedInputError, "newer_format"),
    ):
        came = wire.error_of(wire.error_document(error))
        assert isinstance(came, known)
        assert (type(came), str(came), came.kind) == (known, str(error), kind)
        assert known.kind != kind  # the class's own stays


def test_a_report_with_thousands_of_extents_goes_over_the_wire_whole() -> None:
    extents = tuple(Region(PhysAddr(n << 13), PhysAddr((n << 13) + 4096)) for n in range(20_000))
    code = CompletionCode.INCONSISTENT_IMAGE
    report = PostReport("A05", "A06", code, "because ä", "packet", extents, 3)
    one, other = socket.socketpair()
    with one, other:
        document = replies.post_document(report)
        sender = threading.Thread(target=wire.send, args=(one, document))
        sender.start()
        message = wire.receive(other)
        sender.join()
    assert message is not None
    assert replies.post(Message({"result": message.header})) == report
