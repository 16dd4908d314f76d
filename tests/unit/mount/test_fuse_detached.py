"""`rbu mount --detach` and `--stop`: the process that serves a mount in the background."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.machine import store
from openrbu.system.descriptors import readable
from rigs.cli import RBU, Cli
from rigs.mounts import (
    are_mounted,
    detached,
    empty_directory,
    wait_for_end,
)

TIMEOUT = "sys/class/firmware/timeout"


# -- begun, and stopped ---------------------------------------------------------------------


def test_a_detached_mount_is_there_at_once_and_ends_when_told(
    rbu: Cli, directory: Path, target: Path
) -> None:
    pid = detached(rbu, target)
    assert (target / TIMEOUT).read_text() == "60\n"
    assert os.getsid(pid) == pid
    with pytest.raises(store.InUseError), store.locked(directory):
        pass
    assert rbu.json("mount", target, "--stop") == {
        "schema": 1,
        "changed": True,
        "machine": "box",
        "directory": str(target),
    }
    with store.locked(directory):
        pass
    assert list(target.iterdir()) == []
    assert list(directory.glob("mount-*")) == []
    assert rbu.json("mount", target, "--stop")["changed"] is False


def test_a_detached_mount_is_in_no_ones_way(rbu: Cli, directory: Path, target: Path) -> None:
    """A pipe that it would hold open would keep its reader waiting for ever."""
    ended = rbu.process("mount", target, "--machine", "box", "--detach", timeout=60)
    expected = f"machine box is mounted at {target}; rbu mount {target} --stop ends it\n"
    assert (ended.returncode, ended.stdout.decode(), ended.stderr) == (0, expected, b"")
    ended = rbu.process("mount", target, "--stop", timeout=60)
    expected = f"machine box is not mounted at {target} any more\n"
    assert (ended.returncode, ended.stdout.decode(), ended.stderr) == (0, expected, b"")


def test_a_mount_is_stopped_while_somebody_is_in_it(
    rbu: Cli, directory: Path, target: Path
) -> None:
    detached(rbu, target)
    fd = os.open(target / "sys", os.O_RDONLY)
    try:
        assert rbu.json("mount", target, "--stop")["changed"] is True
        with store.locked(directory):
            pass
    finally:
        os.close(fd)


def test_two_mounts_of_one_machine_show_the_same(
    rbu: Cli, directory: Path, target: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    detached(rbu, target)
    detached(rbu, second)
    (target / TIMEOUT).write_text("7\n")
    assert (second / TIMEOUT).read_text() == "7\n"
    rbu.json("mount", second, "--stop")
    assert (target / TIMEOUT).read_text() == "7\n"
    rbu.json("mount", target, "--stop")


def test_a_killed_servers_mount_is_gone_with_the_next_command(
    rbu: Cli, directory: Path, target: Path
) -> None:
    pid = detached(rbu, target)
    (target / TIMEOUT).write_text("7\n")
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    with pytest.raises(OSError, match=r"not connected|abort"):
        list(target.iterdir())
    assert rbu.json("machine", "show", "box")["lost_power"] is True
    assert list(target.iterdir()) == []
    rbu.json("machine", "reboot", "box")
    detached(rbu, target)
    assert (target / TIMEOUT).read_text() == "60\n"
    rbu.json("mount", target, "--stop")


@pytest.mark.parametrize("words", [("--stop",), ("--machine", "box", "--detach")])
def test_a_killed_servers_mount_is_no_trouble_to_mount(
    rbu: Cli, directory: Path, target: Path, words: tuple[str, ...]
) -> None:
    pid = detached(rbu, target)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert rbu.json("mount", target, *words)["changed"] is True
    if "--detach" in words:
        assert (target / "sys").is_dir()
        rbu.json("mount", target, "--stop")
    assert list(target.iterdir()) == []


def test_a_server_that_fails_in_the_end_says_so_to_who_stops_it(
    rbu: Cli, directory: Path, target: Path
) -> None:
    pid = detached(rbu, target)
    (target / TIMEOUT).write_text("7\n")
    (directory / "state.json").mkdir()  # the state can't be saved there
    line = rbu.fails(4, "mount", target, "--stop")
    assert "machine 'box'" in line
    assert "state.spare: Is a directory" in line
    wait_for_end(pid)
    assert (directory / "mount.log").read_text() == line
    assert are_mounted(directory) == []


def test_stopping_asks_nobody_elses_server(directory: Path, target: Path, rbu: Cli) -> None:
    """The record of a mount names a process; without the lock on it, that process is none of it."""
    pid = detached(rbu, target)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (record,) = directory.glob("mount-*.json")
        record.write_text(f'{{"pid": {bystander.pid}}}')
        rbu.json("mount", target, "--stop")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_stop_that_waits_for_other_programs_says_so_and_so_does_the_next_one(
    rbu: Cli, directory: Path, target: Path, tmp_path: Path
) -> None:
    second = empty_directory(tmp_path / "second")
    first_pid, second_pid = detached(rbu, target), detached(rbu, second)
    command = [*RBU, "mount", str(target), "--stop"]
    with contextlib.ExitStack() as stack:
        stops = []
        for _ in range(2):
            stop = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.enter_context(stop)
            stack.callback(stop.kill)
            assert stop.stderr is not None
            assert readable([stop.stderr], 30)
            assert stop.stderr.readline() == b"rbu: waiting for 1 program that uses the machine\n"
            stops.append(stop)
        assert are_mounted(directory) == [str(second)]
        assert (second / TIMEOUT).read_text() == "60\n"
        rbu.json("mount", second, "--stop")
        for stop in stops:
            expected = f"machine box is not mounted at {target} any more\n".encode()
            assert stop.communicate(timeout=60) == (expected, b"")
            assert stop.returncode == 0
    assert rbu.json("mount", target, "--stop")["changed"] is False
    assert list(directory.glob("mount-*")) == []
    for pid in (first_pid, second_pid):
        wait_for_end(pid)


# -- what it has of its caller, and what it leaves ----------------------------------------------


def test_the_server_keeps_nothing_that_its_caller_has_open(
    rbu: Cli, directory: Path, target: Path, tmp_path: Path
) -> None:
    """A lock, a pipe of a make or of a CI job, a directory to be unmounted."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    reading, writing = os.pipe()
    ended = rbu.process(
        *("mount", target, "--machine", "box", "--detach", "--json"), pass_fds=[lock, writing]
    )
    pid = json.loads(ended.stdout)["pid"]
    os.close(lock)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, (tmp_path / "lock").open() as again:
        assert readable([pipe], 0), "somebody can still write there"
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert (target / TIMEOUT).read_text() == "60\n"
    rbu.json("mount", target, "--stop")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_has_closed_are_no_trouble(
    rbu: Cli, directory: Path, target: Path, closed: str
) -> None:
    words = ["mount", str(target), "--machine", "box", "--detach"]
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *RBU, *words],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    (target / TIMEOUT).write_text("7\n")
    (directory / "state.json").mkdir()  # the state can't be saved there
    line = rbu.fails(4, "mount", target, "--stop")
    assert (directory / "mount.log").read_text() == line


def test_a_defect_of_the_server_is_in_its_log(rbu: Cli, directory: Path, target: Path) -> None:
    code = """
import sys
from openrbu.cli.main import main
from openrbu.fuse import mounting

def serve(*arguments, **options):
    raise AssertionError("a defect")

mounting.serve = serve
sys.exit(main(sys.argv[1:]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, "mount", target, "--machine", "box", "--detach"],
        capture_output=True,
        check=False,
        text=True,
    )
    log = directory / "mount.log"
    expected = f"rbu: the server has ended; its messages are in {log}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", expected)
    said = log.read_text()
    assert said.startswith("Traceback")
    assert said.endswith("AssertionError: a defect\n")
