"""A mount under load, its server killed or stopped, and users who mean no good."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.system.fuse_mounts import unmount
from openrbu.system.libc import call
from rigs.cli import RBU, Cli
from rigs.machines import NOBODY, running
from rigs.mounts import ENTRY, needs_root, served

LOADING, DATA = f"{ENTRY}/loading", f"{ENTRY}/data"

LOAD_S = float(os.environ.get("OPENRBU_MOUNT_SECONDS", "8"))
"""`make mount-soak` says more."""

FEWEST_ROUNDS = 3

PROGRAMS = {"load": 6, "abort": 4, "kind": 2, "read": 8, "look": 6, "hold": 4, "status": 1}
MAX_GROWTH_KIB = 16 * 1024

TESTS = Path(__file__).parents[2]


def rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1])


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_until(is_so: Callable[[], bool]) -> None:
    """For what the kernel tells nobody: that another process waits, or has closed a file."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_asleep(pid: int) -> bool:
    """Whether a process waits until it looks again, or for an answer on a socket."""
    wchan = Path(f"/proc/{pid}/wchan").read_text()
    return any(word in wchan for word in ("nanosleep", "poll", "unix"))


# -- everything at once ---------------------------------------------------------------------


@pytest.mark.untraced
def test_32_programs_at_once_lose_nothing_and_leave_nothing(
    rbu: Cli, directory: Path, target: Path, tmp_path: Path
) -> None:
    with running(directory) as machine:
        free_before = machine.running_kernel().allocator.free_bytes
    kinds = [kind for kind, number in PROGRAMS.items() for _ in range(number)] + ["restart"]
    assert len(kinds) == 32
    with served(directory, target) as server, contextlib.ExitStack() as stack:
        fresh = descriptors(server.pid)
        programs = [
            stack.enter_context(load_program(kind, seed, target, tmp_path / "turn"))
            for seed, kind in enumerate(kinds)
        ]
        until = time.monotonic() + LOAD_S
        counts = [one_round(programs)]  # all have warmed up when each has told once
        warm = rss_kib(server.pid), descriptors(server.pid)
        while time.monotonic() < until or len(counts) < FEWEST_ROUNDS:
            counts.append(one_round(programs))
            assert descriptors(server.pid) <= warm[1] + 2 * len(programs)
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
        for kind, program in zip(kinds, programs, strict=True):
            assert program.wait(60) == 0, kind
        assert rss_kib(server.pid) - warm[0] < MAX_GROWTH_KIB
        # No restart from here on: it would bring back the pages that were lost.
        if not (target / ENTRY).is_dir():
            (target / "sys/devices/platform/dell_rbu/image_type").write_text("init")
        (target / LOADING).write_text("1")
        (target / DATA).write_bytes(b"still there")
        (target / LOADING).write_text("0")
        rbu.json("module", "unload", "dell_rbu", "--abort", "-m", "box")
        rbu.json("module", "load", "dell_rbu", "-m", "box")
        wait_until(lambda: descriptors(server.pid) <= fresh)  # connections end a moment later
        server.signal(signal.SIGTERM)
        assert server.ended()[0::2] == (0, "")
    with running(directory) as machine:
        assert machine.running_kernel().allocator.free_bytes == free_before
        assert machine.modules == ("dell_rbu",)


def one_round(programs: list[subprocess.Popen[str]]) -> int:
    """Have each program tell that it got on since it was last asked."""
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "on\n", program.args
    return len(programs)


@contextlib.contextmanager
def load_program(kind: str, seed: int, target: Path, turn: Path) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(
        [sys.executable, "-m", "rigs.mount_load", kind, str(seed), str(target), str(turn)],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield program
    finally:
        program.kill()
        program.wait()
        for stream in (program.stdin, program.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


# -- a server that is killed, or stopped ----------------------------------------------------


def next_commands_work(rbu: Cli, directory: Path, target: Path) -> None:
    """What every command finds after its server was killed: no mount, a machine that starts."""
    assert rbu.json("machine", "show", "box")["lost_power"] is True
    assert list(target.iterdir()) == []
    assert rbu.json("machine", "reboot", "box")["changed"] is True
    with served(directory, target) as server:
        assert (target / "sys/class").is_dir()
        server.signal(signal.SIGTERM)
        assert server.ended()[0::2] == (0, "")
    ended = rbu.process("run", "--machine", "box", "--", "true")
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_server_killed_in_the_middle_of_a_load_leaves_nothing(
    rbu: Cli, directory: Path, target: Path
) -> None:
    with served(directory, target) as server:
        (target / LOADING).write_text("1")
        with (target / DATA).open("wb", buffering=0) as held:
            held.write(bytes(100_000))
            server.signal(signal.SIGKILL)
            server.ended()
            with pytest.raises(OSError, match=r"not connected|abort"):
                held.write(bytes(100_000))
        next_commands_work(rbu, directory, target)


def test_a_command_that_waits_for_a_server_that_is_killed_ends_with_one_line(
    rbu: Cli, directory: Path, target: Path
) -> None:
    with served(directory, target) as server:
        (target / LOADING).write_text("1")  # what is changed is lost with its server
        server.signal(signal.SIGSTOP)
        waits = subprocess.Popen([*RBU, "status", "-m", "box"], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: is_asleep(waits.pid))
        server.signal(signal.SIGKILL)
        server.ended()
        _, said = waits.communicate(timeout=60)
        assert (waits.returncode, said.count("\n")) == (4, 1)
        next_commands_work(rbu, directory, target)


def test_a_killed_owners_second_mount_goes_by_itself(
    rbu: Cli, directory: Path, target: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with served(directory, target) as server, served(directory, second) as other:
        (second / LOADING).write_text("1")
        server.signal(signal.SIGKILL)
        server.ended()
        code, _, said = other.ended()  # it looks now and then, and nobody has to tell it
        assert code == 4
        assert "has ended, and the machine's power may be lost with it" in said
        assert list(second.iterdir()) == []
        next_commands_work(rbu, directory, target)


@pytest.mark.parametrize("words", [("--stop",), ("--machine", "box"), None])
def test_commands_that_meet_a_stopped_server_are_ended_by_ctrl_c(
    rbu: Cli, directory: Path, target: Path, words: tuple[str, ...] | None
) -> None:
    line = ["status", "-m", "box"] if words is None else ["mount", str(target), *words]
    with served(directory, target) as server:
        server.signal(signal.SIGSTOP)
        command = subprocess.Popen([*RBU, *line], stderr=subprocess.PIPE, text=True)
        try:
            if words == ("--machine", "box"):
                assert "is mounted at" in command.communicate(timeout=30)[1]
                assert command.returncode == 4
            else:
                wait_until(lambda: is_asleep(command.pid))
                command.send_signal(signal.SIGINT)
                assert command.communicate(timeout=30)[1] == "rbu: interrupted\n"
                assert command.returncode == 128 + signal.SIGINT
        finally:
            server.signal(signal.SIGCONT)
            command.kill()
            command.communicate()
        if words == ("--stop",):
            assert server.ended()[0::2] == (0, "")
        else:
            assert rbu.json("machine", "show", "box")["is_on"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_while_it_is_stopped_ends_a_server_when_it_goes_on(
    directory: Path, target: Path, number: signal.Signals
) -> None:
    """Any of its threads may be given the signal then."""
    for _ in range(3):
        with served(directory, target) as server:
            for each in (signal.SIGSTOP, number, signal.SIGCONT):
                server.signal(each)
            assert server.ended()[0] in (0, 128 + signal.SIGHUP)


# -- users who mean no good -----------------------------------------------------------------


def test_the_directories_that_are_made_are_their_users_alone(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a" / "home"
    monkeypatch.setenv("OPENRBU_HOME", str(home))
    before = os.umask(0)
    try:
        rbu.json("machine", "new", "box")
    finally:
        os.umask(before)
    for path in (home, home / "machines", home / "machines" / "box"):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("whose", [".", "machines", "machines/box"])
def test_another_users_machine_is_not_touched_not_even_by_root(
    rbu: Cli, directory: Path, target: Path, whose: str
) -> None:
    needs_root()
    home = directory.parent.parent
    victim = home.parent / "victim"
    victim.write_text("precious")
    (directory / "lock").unlink()
    (directory / "lock").symlink_to(victim)
    os.chown(home / whose, NOBODY, NOBODY)
    for line in (
        ("status", "-m", "box"),
        ("machine", "reboot", "box"),
        ("machine", "rm", "box", "--yes"),
        ("mount", target, "-m", "box"),
        ("run", "--machine", "box", "--", "true"),
    ):
        assert "belongs to nobody, and this is root" in rbu.fails(4, *line)
    assert victim.read_text() == "precious"
    os.chown(home / whose, 0, 0)


def test_a_link_that_another_user_put_in_a_machines_place_is_not_followed(
    rbu: Cli, directory: Path, tmp_path: Path
) -> None:
    needs_root()
    link = directory.parent / "link"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert "belongs to nobody, and this is root" in rbu.fails(4, "status", "-m", "link")
    assert list(elsewhere.iterdir()) == []


def test_another_users_mount_is_none_of_ours_whatever_it_says(
    rbu: Cli, directory: Path, target: Path
) -> None:
    """It has the machine's directory as its source, and a record that names a process to end."""
    needs_root()
    options = f"fd={{fd}},rootmode=40000,user_id={NOBODY},group_id={NOBODY}"
    fd = os.open("/dev/fuse", os.O_RDWR)
    call(
        "mount",
        os.fsencode(directory),
        os.fsencode(target),
        b"fuse.openrbu",
        6,
        options.format(fd=fd).encode(),
    )
    try:
        os.close(fd)
        with running(directory):
            pass
        rbu.json("machine", "show", "box")
        assert rbu.json("mount", target, "--stop")["changed"] is False
        mountinfo = Path("/proc/self/mountinfo").read_text()
        assert f" {target} " in mountinfo
    finally:
        unmount(str(target))
