"""Port instructions of programs under `rbu run`: the machine's ports answer them."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openrbu.ports import PortCmos
from openrbu.sharing.access import open_machine
from rigs.cli import Cli
from rigs.needs import leave_out
from rigs.port_programs import INVALID, PERMISSIONS, program, static_32, static_64
from rigs.run import USERS, Runner, needs_x86_64, runner

SEGV = -signal.SIGSEGV


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    needs_x86_64()
    return runner(tmp_path / "home", request.param)


@pytest.fixture
def run_as_root(rbu: Cli, tmp_path: Path) -> Runner:
    needs_x86_64()
    return runner(tmp_path / "home", "root")


def said(run: Runner, script: str) -> Any:
    """What a script says in JSON; it ends well, and nothing is on standard error."""
    return json.loads(run.says(*program(script)))


FORMS = """
assert iopl(3) == 0
old = 0x1122334455667788
store(0x10, 0xA5)
OUT(0x72, 0x10)
found = {
    form: hex(code(form)(port, old))
    for form, port in (
        ('ec', 0x73), ('e473', 0), ('f3ec', 0x73), ('40ec', 0x73), ('66ec', 0x73),
        ('66ed', 0x72), ('66e572', 0), ('ed', 0x72), ('48ed', 0x72), ('e572', 0),
        ('ec', 0x378), ('66ed', 0x3F8), ('ed', 0xCF8),
    )
}
code('66ef')(0x72, 0xBEEF5A11)      # the index, and the byte at it
code('e672')(0, 0x12)
code('e673')(0, 0xFFC3)
code('ef')(0x72, 0x00FF3C13)        # the two ports after it are another index and byte, or none
code('66e772')(0, 0x2D14)
with open('/dev/port', 'r+b', buffering=0) as file:
    def through_the_file(index):
        os.pwrite(file.fileno(), bytes([index]), 0x72)
        return os.pread(file.fileno(), 1, 0x73)[0]
    stored = [through_the_file(index) for index in range(0x10, 0x15)]
say([found, stored, [load(index) for index in range(0x10, 0x15)]])
"""


def test_every_form_reaches_the_machines_own_ports(run: Runner) -> None:
    found, stored, loaded = said(run, FORMS)
    byte, word = "0x11223344556677a5", "0x112233445566a510"
    for form in ("e473", "f3ec", "40ec", "66ec"):
        assert found[form] == byte
    assert found["66e572"] == word
    assert found["48ed"] == found["e572"] == "0xffffa510"  # 32 bits clear the upper half
    # What no device is at reads as ones.
    assert found["ec"] == "0x11223344556677ff"
    assert found["66ed"] == "0x112233445566ffff"
    assert found["ed"] == "0xffffffff"
    assert stored == loaded == [0xA5, 0x5A, 0xC3, 0x3C, 0x2D]


def test_who_did_not_ask_or_may_not_gets_what_the_kernel_gives(run: Runner) -> None:
    found = said(run, INVALID + PERMISSIONS)
    outside = subprocess.check_output(program(INVALID + "say(invalid)"))
    assert json.loads(outside) in ([errno.EINVAL] * 7, [errno.ENOSYS] * 7)  # this computer's kernel
    assert found.pop("invalid") == [errno.EINVAL] * 7
    given = {name for name, status in found.items() if status == 0x3F}
    assert given == {"level 3", "the range", "all", "level 0, and the range"}
    assert found["the last port"] == 7
    assert found["in a namespace of its own"] == errno.EPERM
    assert found["without the capability"] == 1
    for name in ("never asked", "level 2", "level 3, then 0", "beside the range", "turned off",
                 "part of a wide access", "past the last port"):  # fmt: skip
        assert found[name] == SEGV, name


INHERITED = """
store(0x20, 0x21) if iopl(3) == 0 else None
found = {}
def from_a_thread(name):
    def work(): found[name] = load(0x20)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

from_a_thread('thread')
found['fork'] = status(lambda: load(0x20))
found['fork of a fork'] = status(lambda: status(lambda: load(0x20)))
def in_a_thread_of_a_child():
    from_a_thread('thread of a fork')
    return found['thread of a fork']
found['thread of a fork'] = status(in_a_thread_of_a_child)
again = [sys.executable, '-c', KIT + 'sys.exit(load(0x20))']
found['executed'] = subprocess.call(again)
found['shell'] = subprocess.call(['sh', '-c', '"$@"; exit $?', 'sh', *again])
def executes_in_a_thread():
    '''The thread has a permission, and the one whose number it gets has none.'''
    ready = threading.Event()
    def work():
        ready.wait()
        os.execv(again[0], again)
    thread = threading.Thread(target=work)
    thread.start()
    assert iopl(0) == 0
    ready.set()
    thread.join()
found['executed by a thread'] = status(executes_in_a_thread)
CLONE_UNTRACED = 0x00800000
def untraced():
    child = LIBC.syscall(56, CLONE_UNTRACED | signal.SIGCHLD, 0, 0, 0, 0)
    if not child:
        IN(0x73, 0)
        os._exit(9)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
found['untraced'] = status(untraced)

turn, go = threading.Event(), threading.Event()
def other():
    turn.set()
    go.wait()
    IN(0x73, 0)
def with_one_from_before():
    assert iopl(0) == 0
    thread = threading.Thread(target=other)
    thread.start()
    turn.wait()
    assert iopl(3) == 0
    go.set()
    thread.join()
found['thread from before'] = status(with_one_from_before)
many = [threading.Thread(target=from_a_thread, args=(str(each),)) for each in range(8)]
for each in many: each.start()
for each in many: each.join()
say(found)
"""


def test_threads_children_and_executed_programs_have_the_permission(run: Runner) -> None:
    script = INHERITED.replace("KIT", "sys.orig_argv[2].partition('store(0x20, 0x21)')[0]")
    found = said(run, script)
    assert found.pop("thread from before") == SEGV  # each thread has its own
    assert found.pop("untraced") == signal.SIGSEGV  # nobody can trace it: it just faults
    assert {name: value for name, value in found.items() if value != 0x21 and len(name) > 1} == {}


def test_static_programs_of_64_and_32_bits_reach_the_ports(run: Runner) -> None:
    said(run, "assert iopl(3) == 0; store(0x18, 0x5A); say(1)")
    assert run(static_64(run.directory / "wide", 0x18)).returncode == 0x5A
    narrow = run(static_32(run.directory / "narrow", 0x18))
    if narrow.returncode == 126:
        leave_out("this kernel has no 32-bit programs")
    assert (narrow.returncode, narrow.stderr) == (0x5A, "")


def test_a_program_beside_others_on_the_machine_has_an_index_of_its_own(
    run_as_root: Runner,
) -> None:
    with open_machine(run_as_root.name, serve=True) as machine:
        ports = machine.ports
        ports.out8(0x72, 0x30)
        assert said(run_as_root, "say([iopl(3), store(0x31, 0x66), load(0x31)])") == [0, None, 0x66]
        assert ports.in8(0x72) == 0x30
        assert PortCmos(ports, (0x72, 0x73)).read(0x31) == b"\x66"


def test_a_machine_that_is_locked_down_gives_no_ports(rbu: Cli, tmp_path: Path) -> None:
    needs_x86_64()
    run = runner(tmp_path / "home", "root", faults=("lockdown-integrity",))
    script = "say([iopl(3), ioperm(0x70, 2, 1), iopl(0), status(lambda: IN(0x70, 0))])"
    assert said(run, script) == [errno.EPERM, errno.EPERM, 0, SEGV]
