"""Programs that have asked for I/O ports under `rbu run`: traced, and as if nobody traced them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigs.cli import Cli
from rigs.port_programs import program
from rigs.run import USERS, Runner, needs_x86_64, runner

SEGV = -signal.SIGSEGV


@pytest.fixture
def run(rbu: Cli, tmp_path: Path) -> Runner:
    needs_x86_64()
    return runner(tmp_path / "home", "root")


@pytest.fixture(params=USERS)
def run_as_each(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    needs_x86_64()
    return runner(tmp_path / "home", request.param)


def said(run: Runner, script: str) -> Any:
    """What a script says in JSON; it ends well, and nothing is on standard error."""
    return json.loads(run.says(*program(script)))


SIGNALS = """
assert iopl(3) == 0
store(0x11, 0x77)
found = {}

def child(work):
    '''A child that does it, and the end of a pipe at which it speaks.'''
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        os.setpgid(0, 0)  # SIGTSTP does nothing in an orphaned group, such as that of nohup
        try:
            work(lambda word: os.write(writing, word))
        finally:
            os._exit(99)
    os.close(writing)
    return number, reading

def changes(number, options):
    _, status = os.waitpid(number, options)
    if os.WIFSTOPPED(status): return 'stopped by %d' % os.WSTOPSIG(status)
    if os.WIFCONTINUED(status): return 'continued'
    return os.waitstatus_to_exitcode(status)

def busy(say):
    signal.signal(signal.SIGUSR1, lambda *_: say(b'u'))
    signal.signal(signal.SIGCONT, lambda *_: say(b'c'))
    say(b'r')
    while True:
        if load(0x11) != 0x77: os._exit(1)

for name in ('SIGSTOP', 'SIGTSTP', 'SIGTTIN'):
    number, pipe = child(busy)
    found[name] = [os.read(pipe, 1).decode()]
    for _ in range(2):
        os.kill(number, getattr(signal, name))
        found[name].append(changes(number, os.WUNTRACED))
        os.kill(number, signal.SIGUSR1)
        os.kill(number, signal.SIGCONT)
        found[name].append(changes(number, os.WCONTINUED))
        found[name].append(''.join(sorted((os.read(pipe, 1) + os.read(pipe, 1)).decode())))
    os.kill(number, signal.SIGSTOP)
    found[name].append(changes(number, os.WUNTRACED))
    os.kill(number, signal.SIGKILL)
    found[name].append(changes(number, 0))
    os.close(pipe)

def by_alarm(say):
    count = []
    signal.signal(signal.SIGALRM, lambda *_: count.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while len(count) < 20:
        if load(0x11) != 0x77: os._exit(1)
    os._exit(7)

def own_fault(say):
    '''A fault of memory is the program's own, and so is a SIGSEGV that was sent.'''
    caught = []
    signal.signal(signal.SIGSEGV, lambda *_: caught.append(1))
    os.kill(os.getpid(), signal.SIGSEGV)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    if caught != [1] or load(0x11) != 0x77: os._exit(1)
    ctypes.string_at(8)

for work in (by_alarm, own_fault):
    found[work.__name__] = changes(child(work)[0], 0)
for name in ('SIGTERM', 'SIGKILL', 'SIGABRT', 'SIGILL'):
    number, pipe = child(busy)
    os.read(pipe, 1)
    os.kill(number, getattr(signal, name))
    found[name] = changes(number, 0)
found['hlt'] = status(lambda: code('f4')(0, 0))
found['ud2'] = status(lambda: code('0f0b')(0, 0))
found['exit'] = status(lambda: 42)
say(found)
"""


def test_signals_stops_and_exits_take_their_course(run: Runner) -> None:
    found = said(run, SIGNALS)
    for name in ("SIGSTOP", "SIGTSTP", "SIGTTIN"):
        stopped = f"stopped by {int(signal.Signals[name])}"
        steps = [stopped, "continued", "cu"] * 2
        last = [f"stopped by {int(signal.SIGSTOP)}", -signal.SIGKILL]
        assert found.pop(name) == ["r", *steps, *last]
    assert found == {
        "by_alarm": 7,
        "own_fault": SEGV,
        "hlt": SEGV,
        "ud2": -signal.SIGILL,
        "exit": 42,
    } | {name: -signal.Signals[name] for name in ("SIGTERM", "SIGKILL", "SIGABRT", "SIGILL")}


MANY = """
def use():
    for _ in range(8):
        load(0x11)

def work(number):
    threads = [threading.Thread(target=use) for _ in range(3)]
    for each in threads: each.start()
    if number % 3 == 0: os.kill(os.getpid(), signal.SIGKILL)
    for each in threads: each.join()
    return 7

def family():
    assert iopl(3) == 0
    ended = set()
    for first in range(0, 64, 8):
        children = []
        for number in range(first, first + 8):
            child = os.fork()
            if not child: os._exit(work(number))
            children.append(child)
        ended |= {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    return 0 if ended == {7, -signal.SIGKILL} else 1

say(status(family))
"""


def test_no_thread_begins_without_its_permission_while_others_end(run: Runner) -> None:
    """One that stops before its parent tells of it has to wait, whoever ends meanwhile. Before, one
    of ten such processes got SIGSEGV."""
    assert said(run, MANY) == 0


def test_how_a_traced_program_ends_is_how_rbu_ends(run: Runner) -> None:
    begin = "assert iopl(3) == 0\n"
    for end, status in (
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ("iopl(0); IN(0x70, 0)", 128 + signal.SIGSEGV),
    ):
        ended = run(*program(begin + end))
        assert (ended.returncode, ended.stderr) == (status, ""), end


def test_ctrl_c_ends_a_traced_program_and_a_stopped_one_goes_on(run: Runner) -> None:
    """As a terminal does it: the signal goes to the whole process group."""
    script = "assert iopl(3) == 0\nsay('ready')\nwhile True: load(1)"
    with run.start(*program(script), process_group=0, stderr=subprocess.PIPE) as rbu:
        assert rbu.stdout is not None
        assert rbu.stdout.readline() == '"ready"\n'
        for _ in range(3):
            os.killpg(rbu.pid, signal.SIGTSTP)
            os.waitid(os.P_PID, rbu.pid, os.WSTOPPED)
            os.killpg(rbu.pid, signal.SIGCONT)
            os.waitid(os.P_PID, rbu.pid, os.WCONTINUED)
        os.killpg(rbu.pid, signal.SIGINT)
        _, errors = rbu.communicate()
    assert rbu.returncode in (128 + signal.SIGINT, 1)
    assert "KeyboardInterrupt" in errors


STRINGS = """
assert iopl(3) == 0
buffer = ctypes.create_string_buffer(64)
address = ctypes.addressof(buffer)
insert = struct.pack('<Q', address).hex()
say([
    status(lambda: code('57 48bf' + insert + form + '5f')(0x71, 0))
    for form in ('6c', 'f36c', '666d', '6d')
] + [status(lambda: code('56 48be' + insert + form + '5e')(0x71, 0)) for form in ('6e', '6f')])
"""


def test_string_forms_are_refused_and_told(run: Runner) -> None:
    ended = run(*program(STRINGS))
    assert (ended.returncode, json.loads(ended.stdout)) == (0, [SEGV] * 6)
    lines = ended.stderr.splitlines()
    assert len(lines) == 6
    for line, form in zip(lines, ["ins"] * 4 + ["outs"] * 2, strict=True):
        assert f"used the instruction {form}, which `rbu run` can't do" in line
        assert line.startswith("rbu: process ")
        assert "`rbu lab shell`" in line


OUTLIVES = """
def begin():
    '''A watcher in a session of its own, whose child uses ports until it may not any more.'''
    if os.fork():
        return
    os.setsid()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        if iopl(3): os._exit(1)
        store(0x12, 0x34)
        if load(0x12) != 0x34: os._exit(2)
        os.write(writing, b'x')
        while True: IN(0x73, 0)
    os.read(reading, 1)
    say('at work')
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)

begin()
sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True], ids=["ended", "killed"])
def test_who_goes_on_after_the_run_faults_at_its_next_port(
    run_as_each: Runner, *, is_killed: bool
) -> None:
    """The call was never executed, so the instruction reaches nothing when nobody answers it."""
    with run_as_each.start(*program(OUTLIVES)) as rbu:
        assert rbu.stdin is not None
        assert rbu.stdout is not None
        assert rbu.stdout.readline() == '"at work"\n'
        if is_killed:
            rbu.kill()
        else:
            rbu.stdin.close()
        assert rbu.stdout.readline() == f"{SEGV}\n"
    assert rbu.returncode == (-signal.SIGKILL if is_killed else 0)


DEBUGGED = """
PTRACE_TRACEME, PTRACE_CONT = 0, 7
child = os.fork()
if not child:
    assert error('ptrace', PTRACE_TRACEME, 0, 0, 0) == 0
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(iopl(3))
seen = []
while True:
    _, change = os.waitpid(child, 0)
    if not os.WIFSTOPPED(change):
        break
    seen.append(os.WSTOPSIG(change))
    error('ptrace', PTRACE_CONT, child, 0, 0)
say([seen, os.waitstatus_to_exitcode(change), status(lambda: iopl(3))])
"""


def test_who_is_under_a_debugger_gets_no_ports_and_a_line_says_so(run_as_each: Runner) -> None:
    ended = run_as_each(*program(DEBUGGED))
    assert json.loads(ended.stdout) == [[signal.SIGSTOP], 1, 0]
    (line,) = ended.stderr.splitlines()
    assert "traces it" in line
    assert "`rbu lab shell`" in line


UNDER_A_FILTER = """
import os, sys
from openrbu.run import filter
from openrbu.run.filter import NUMBERS, X86_64, Rule, Verdict, install
NUMBERS[X86_64]["ptrace"] = 101
{install}
os.execvp(sys.argv[1], sys.argv[1:])
"""
NO_TRACING = 'install([Rule("ptrace", Verdict.REFUSE)])'
A_LISTENER = 'os.set_inheritable(install([Rule("reboot", Verdict.NOTIFY)], listening=True), True)'


@pytest.mark.parametrize(
    ("install", "why"),
    [
        (NO_TRACING, "does not allow rbu to trace it (ptrace: Operation not permitted)"),
        (A_LISTENER, "(seccomp: Device or resource busy)"),
    ],
    ids=["no tracing", "no notification"],
)
def test_where_this_computer_does_not_allow_it_a_line_says_so_and_the_program_runs(
    run: Runner, install: str, why: str
) -> None:
    around = [sys.executable, "-c", UNDER_A_FILTER.format(install=install)]
    line = run.line(*program("say([iopl(3), ioperm(0x70, 2, 1), status(lambda: IN(0x70, 0))])"))
    ended = subprocess.run([*around, *line], capture_output=True, text=True, check=False)
    assert (ended.returncode, json.loads(ended.stdout)) == (0, [1, 1, SEGV])
    (said,) = ended.stderr.splitlines()
    assert why in said
    assert "`rbu lab shell`" in said


def test_a_trace_has_the_port_instructions(run: Runner) -> None:
    path = run.directory / "trace"
    script = "assert iopl(3) == 0; store(0x13, 0x99); code('66ed')(0x72, 0)"
    traced = replace(run, options=("--trace", str(path)))
    assert traced.says(*program(script)) == ""
    events = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    found = [
        (each["access"], each["port"], each["size_bytes"], each["value"])
        for each in events
        if each["event"] == "port"
    ]
    assert found == [("write", 0x72, 1, 0x13), ("write", 0x73, 1, 0x99), ("read", 0x72, 2, 0x9913)]
