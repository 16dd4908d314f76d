"""System calls that the kernel does not execute, and that a parent answers."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from openrbu.fuse.capabilities import CAP_SYS_BOOT, Capabilities
from openrbu.run.filter import I386, NUMBERS, X86_64, Rule, Verdict, install, program_of
from openrbu.run.notifications import Call
from openrbu.run.supervisor import Supervisor
from openrbu.system.libc import call
from rigs.needs import leave_out
from rigs.run import needs_root, needs_x86_64

RULES = (
    Rule("reboot", Verdict.NOTIFY),
    Rule("delete_module", Verdict.REFUSE),
    Rule("kill", Verdict.REFUSE, first_arguments=(1,)),
)
REBOOT, DELETE_MODULE = (NUMBERS[X86_64][name] for name in ("reboot", "delete_module"))


def error_of(number: int, *arguments: int) -> str:
    """How a system call ends: the name of its errno, or "done"."""
    try:
        call("syscall", number, *arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


@contextmanager
def filtered(work: Callable[[], list[str]]) -> Iterator[tuple[int, Callable[[], str]]]:
    """A process with `RULES` that does `work`: its listener, and what it says at its end."""
    needs_root()
    needs_x86_64()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            Capabilities().drop(CAP_SYS_BOOT)  # nothing of this test may restart a computer
            listener = install(RULES, listening=True)
            socket.send_fds(theirs, [b"x"], [listener])
            os.close(listener)  # else its calls would wait for ever for an answer
            theirs.send(" ".join(work()).encode())
        finally:
            os._exit(0)
    theirs.close()

    def said() -> str:
        words = ours.recv(1000).decode()
        os.waitpid(child, 0)
        ours.close()
        return words

    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        said()
        leave_out("this kernel has no notification of system calls")
    yield fds[0], said


def test_a_handler_answers_what_it_is_told_of_and_nothing_else() -> None:
    told: list[Call] = []

    def reboot(told_of: Call) -> int:
        told.append(told_of)
        return 0 if told_of.arguments[2] == 7 else errno.EBUSY

    def work() -> list[str]:
        calls = [(REBOOT, 1, 2, 7), (REBOOT, 0, 0, 0), (DELETE_MODULE, 0), (62, 1, 0)]
        return [error_of(*each) for each in calls] + [error_of(62, os.getpid(), 0)]

    supervisor = Supervisor({"reboot": reboot}, pytest.fail)
    with filtered(work) as (listener, said):
        supervisor.listen(listener)
        assert said() == "done EBUSY EPERM EPERM done"
        supervisor.close()
    assert [(each.name, each.arguments[:3]) for each in told] == [
        ("reboot", (1, 2, 7)),
        ("reboot", (0, 0, 0)),
    ]


def test_a_handler_that_raises_refuses_the_call_and_is_told() -> None:
    lines: list[str] = []

    def reboot(told_of: Call) -> int:
        raise ValueError("a defect")

    supervisor = Supervisor({"reboot": reboot}, lines.append)
    with filtered(lambda: [error_of(REBOOT, 0, 0, 0)]) as (listener, said):
        supervisor.listen(listener)
        assert said() == "EPERM"
        supervisor.close()
    assert lines == ["reboot: ValueError: a defect"]


def test_a_handler_that_looks_for_a_caller_who_was_killed_meanwhile_is_no_defect() -> None:
    lines, handled = list[str](), threading.Event()

    def reboot(told_of: Call) -> int:
        os.kill(told_of.thread, signal.SIGKILL)
        os.waitid(os.P_PID, told_of.thread, os.WEXITED | os.WNOWAIT)
        handled.set()
        raise ProcessLookupError

    supervisor = Supervisor({"reboot": reboot}, lines.append)
    with filtered(lambda: [error_of(REBOOT, 0, 0, 0)]) as (listener, said):
        supervisor.listen(listener)
        assert handled.wait(60)
        supervisor.close()
        assert said() == ""
    assert lines == []


def test_a_call_that_nobody_answers_any_more_returns_and_is_not_executed() -> None:
    answered, closed = threading.Event(), os.eventfd(0)

    def reboot(told_of: Call) -> int:
        answered.set()
        return 0

    def work() -> list[str]:
        first = error_of(REBOOT, 0, 0, 0)
        os.eventfd_read(closed)
        return [first, error_of(REBOOT, 0, 0, 0)]

    supervisor = Supervisor({"reboot": reboot}, pytest.fail)
    with filtered(work) as (listener, said):
        supervisor.listen(listener)
        answered.wait()
        supervisor.close()
        os.eventfd_write(closed, 1)
        assert said() == "done ENOSYS"
    os.close(closed)


def test_without_a_listener_what_would_be_told_is_refused() -> None:
    needs_root()
    needs_x86_64()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        Capabilities().drop(CAP_SYS_BOOT)
        install(RULES)
        os.write(writing, error_of(REBOOT, 0, 0, 0).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "EPERM"
    os.waitpid(child, 0)


def test_every_jump_of_the_filter_stays_inside_of_it() -> None:
    """What the kernel checks, too, for the largest table there can be."""
    names = {*NUMBERS[X86_64], *NUMBERS[I386]}
    rules = [Rule(name, Verdict.NOTIFY, first_arguments=(1,)) for name in names]
    program = program_of(rules, listening=True)
    count = len(program) // 8
    assert count < 256
    assert program[-8:-6] == b"\x06\x00"  # it ends with a return
