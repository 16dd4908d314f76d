"""Ctrl-C while a machine is used that another process has."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import MachineError
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.base import Machine
from openrbu.memory.scan import search
from openrbu.sharing import deadline
from openrbu.sharing.access import open_or_connect
from openrbu.sharing.wire import MAX_PAYLOAD_BYTES
from openrbu.system.interrupts import TerminatedBySignal, signals_raised
from openrbu.units import MIB, PhysAddr
from rigs.machines import DEVICE, ENTRY, FailAt, Watched, image, update
from rigs.served import A_DAY_S, Server


@pytest.mark.untraced
def test_ctrl_c_in_the_middle_of_calls_never_mixes_their_answers_up(machine: Machine) -> None:
    machine.load_module("dell_rbu", {})
    stop, interrupts, is_calling = threading.Event(), 0, False

    def interrupt(*_: object) -> None:
        """As Ctrl-C, but only during a call: one that comes later would end the test's process."""
        nonlocal interrupts, is_calling
        if is_calling:
            interrupts, is_calling = interrupts + 1, False
            raise KeyboardInterrupt

    def disturb() -> None:
        while not stop.wait(0.002):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=disturb)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        thread.start()
        for number in range(1500):
            try:
                is_calling = True
                exists = machine.exists(DEVICE if number % 2 else "/sys/nowhere")
                names = machine.files.list("/")
                is_calling = False
            except KeyboardInterrupt:
                continue
            assert exists == bool(number % 2)
            assert names == ["dev", "proc", "sys"]
    finally:
        is_calling = False
        stop.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert interrupts > 5


@pytest.mark.parametrize("what", ["asks", "sends more than a socket holds"])
def test_ctrl_c_ends_a_call_of_a_stopped_server_and_the_next_one_says_why(
    server: Server, machine: Machine, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.load_module("dell_rbu", {})
    file = machine.open(f"{ENTRY}/data", writing=True)
    call: Callable[[], object] = machine.status
    if what != "asks":
        call = partial(file.write, 0, bytes(MAX_PAYLOAD_BYTES))
    server.signal(signal.SIGSTOP)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # A call that does not end before gets its answer then, and the machine can be used on.
    answered = threading.Timer(30, server.signal, (signal.SIGCONT,))
    try:
        timer.start()
        answered.start()
        with monkeypatch.context() as patched:
            for name in ("REPLY_WITHIN_S", "STOPPED_S"):
                patched.setattr(deadline, name, A_DAY_S)
            with pytest.raises(KeyboardInterrupt):
                call()
        answered.cancel()
        with pytest.raises(MachineError, match=rf"{server.pid}, .*(does not reply|CONT \d+\))$"):
            machine.status()
    finally:
        server.signal(signal.SIGCONT)
        timer.join()


def test_a_server_that_does_not_answer_is_told_of_after_a_while(
    server: Server, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "REPLY_WITHIN_S", 1.0)
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(MachineError, match="does not reply for 1 s"):
                machine.status()
    finally:
        server.signal(signal.SIGCONT)


def test_a_server_that_is_stopped_is_told_of_at_once_and_how_it_goes_on(
    server: Server, machine: Machine, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.signal(signal.SIGSTOP)
    advice = (
        rf"process {server.pid}, .* is stopped: let it go on \(fg, or kill -CONT {server.pid}\)"
    )
    monkeypatch.setattr(deadline, "REPLY_WITHIN_S", A_DAY_S)
    try:
        with pytest.raises(MachineError, match=advice):
            machine.status()
        with pytest.raises(MachineError, match=advice), open_or_connect(directory):
            pass
    finally:
        server.signal(signal.SIGCONT)
    with open_or_connect(directory) as again:
        assert again.is_on


def test_an_update_interrupted_at_any_call_is_undone_on_a_served_machine(
    machine: Machine,
) -> None:
    host = VirtualHost(machine)
    before, number, was_stopped = machine.status(), 1, True
    while was_stopped:
        hook = SignalAt(number)
        was_stopped = False
        try:
            with signals_raised():
                update(Watched(host, hook), image())
        except TerminatedBySignal:
            was_stopped = True
            assert machine.status() == before, number
            seen = search(machine.ram, PhysAddr(0), PhysAddr(64 * MIB))
            assert seen.images == ()
        number += 7
    assert machine.status().is_armed
    assert number > 5 * 7


class SignalAt(FailAt):
    """A hook that sends SIGINT to this process at call number `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number, KeyboardInterrupt())

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls += 1
        if self.calls == self.number:
            os.kill(os.getpid(), signal.SIGINT)
