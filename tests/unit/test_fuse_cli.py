"""`rbu mount`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_rig import RBU, Cli
from machines import NOBODY, opened_up
from mounted import needs_fuse
from mounts import (
    AS_NOBODY,
    DEVICE,
    ENTRY,
    WITHOUT_RAWIO,
    are_mounted,
    machine_with_driver,
    needs_root,
    program,
    served,
    unmounted,
)
from openrbu.machine import store

DATA, LOADING, TIMEOUT = f"{ENTRY}/data", f"{ENTRY}/loading", "sys/class/firmware/timeout"


@pytest.fixture
def directory(rbu: Cli, tmp_path: Path) -> Iterator[Path]:
    """A machine called `box`, on, with its driver."""
    needs_fuse()
    path = machine_with_driver(tmp_path / "home")
    with unmounted(path):
        yield path


@pytest.fixture
def target(directory: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    opened_up(path / "x")
    return path


def detached(rbu: Cli, target: Path) -> int:
    """Mount the machine in the background; the number of the process that serves it."""
    ended = rbu.process("mount", target, "--machine", "box", "--detach", "--json")
    assert (ended.returncode, ended.stderr) == (0, b""), ended
    document = json.loads(ended.stdout)
    pid: int = document.pop("pid")
    assert document == {
        "schema": 1,
        "changed": True,
        "machine": "box",
        "directory": str(target),
    }
    return pid


def wait_for_end(pid: int) -> None:
    """Wait for a child of a child: there is no event to wait for."""
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


# -- in the foreground ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mount_is_served_until_it_is_told_to_stop(
    directory: Path, target: Path, number: signal.Signals
) -> None:
    with served(directory, target) as process:
        assert process.first_line == (
            f"machine box is mounted at {target}; Ctrl-C or umount {target} ends it\n"
        )
        assert (target / TIMEOUT).read_text() == "60\n"
        process.signal(number)
        assert process.ended() == (0, f"machine box is not mounted at {target} any more\n", "")
    assert are_mounted(directory) == []
    with store.locked(directory):
        assert (directory / "state.json").exists()


def test_a_terminal_that_is_closed_ends_it_in_order_too(directory: Path, target: Path) -> None:
    with served(directory, target) as process:
        process.signal(signal.SIGHUP)
        assert process.ended() == (128 + signal.SIGHUP, "", "rbu: interrupted\n")
    assert are_mounted(directory) == []
    assert (directory / "state.json").exists()


def test_a_mount_is_served_until_it_is_unmounted(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target) as process:
        subprocess.run(["umount", str(target)], check=True)
        code, out, err = process.ended()
        assert (code, err) == (0, "")
        assert out == f"machine box is not mounted at {target} any more\n"


def test_what_is_changed_on_a_mount_stays_when_it_has_ended(
    rbu: Cli, directory: Path, target: Path
) -> None:
    image = os.urandom(50_000)
    with served(directory, target) as process:
        (target / LOADING).write_text("1\n")
        (target / DATA).write_bytes(image)
        (target / LOADING).write_text("0\n")
        process.signal(signal.SIGINT)
        assert process.ended()[0] == 0
    assert rbu.json("status", "--machine", "box")["machine"]["name"] == "box"
    detached(rbu, target)
    assert (target / DEVICE / "data").read_bytes() == image
    rbu.json("mount", target, "--stop")


def test_other_commands_work_on_a_mounted_machine(rbu: Cli, directory: Path, target: Path) -> None:
    detached(rbu, target)
    rbu.json("module", "unload", "--abort", "--machine", "box")
    assert not (target / DEVICE).exists()
    rbu.json("module", "load", "--machine", "box")
    assert (target / LOADING).read_text() == "0\n"
    boot_id = (target / "proc/sys/kernel/random/boot_id").read_text()
    rbu.json("machine", "reboot", "box")
    assert (target / "proc/sys/kernel/random/boot_id").read_text() != boot_id
    rbu.json("machine", "off", "box")
    assert list(target.iterdir()) == []
    assert rbu.json("mount", target, "--stop")["changed"] is True


# -- in the background ----------------------------------------------------------------------


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
    (directory / "state.spare").unlink()
    (directory / "state.spare").mkdir()  # the state can't be written there
    line = rbu.fails(4, "mount", target, "--stop")
    assert "machine 'box'" in line
    assert "state.spare: Is a directory" in line
    wait_for_end(pid)
    assert (directory / "mount.log").read_text() == line
    assert are_mounted(directory) == []


# -- what stands in the way -----------------------------------------------------------------


def test_what_can_not_be_mounted_on_is_told_in_one_line(
    rbu: Cli, directory: Path, target: Path
) -> None:
    here = rbu.directory
    rbu.write("file", b"")
    assert rbu.fails(2, "mount", "nowhere", "--machine", "box") == (
        f"rbu: {here}/nowhere is not there; make it: mkdir {here}/nowhere\n"
    )
    assert rbu.fails(2, "mount", "file", "--machine", "box") == (
        f"rbu: {here}/file can't be mounted on: Not a directory\n"
    )
    assert rbu.fails(4, "mount", ".", "--machine", "box") == (
        f"rbu: {here} is not empty; a mount would hide what is in it\n"
    )
    assert rbu.fails(2, "mount", target) == ("rbu: which machine? name it with --machine NAME\n")
    assert rbu.fails(2, "mount", target, "--stop", "--machine", "box") == (
        "rbu: --stop takes DIR alone\n"
    )
    assert "there is no machine 'none'" in rbu.fails(4, "mount", target, "--machine", "none")
    detached(rbu, target)
    assert rbu.fails(4, "mount", target, "--machine", "box", "--detach") == (
        f"rbu: machine 'box' is mounted at {target} already; rbu mount --stop {target} ends that\n"
    )
    rbu.json("mount", target, "--stop")


def test_a_failure_of_a_detached_server_is_the_commands_own(
    rbu: Cli, directory: Path, target: Path
) -> None:
    with store.locked(directory):
        line = rbu.fails(4, "mount", target, "--machine", "box", "--detach")
    assert (
        line == f"rbu: machine 'box' is in use by process {os.getpid()}: wait for it, or end it\n"
    )
    assert are_mounted(directory) == []
    assert list(directory.glob("mount-*")) == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [("mfusepy", "pip install 'openrbu[fuse]'"), ("libfuse3", "install the package fuse3")],
)
def test_a_missing_library_is_told_with_what_to_install(
    rbu: Cli, directory: Path, target: Path, name: str, advice: str
) -> None:
    hide = {
        "mfusepy": "sys.modules['mfusepy'] = None",
        "libfuse3": (
            "import ctypes; real = ctypes.CDLL\n"
            "def missing(name, *more, **how):\n"
            "    if 'fuse' in str(name): raise OSError(name)\n"
            "    return real(name, *more, **how)\n"
            "ctypes.CDLL = missing"
        ),
    }[name]
    code = f"import sys\n{hide}\nfrom openrbu.cli.main import main\nsys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, "mount", str(target), "--machine", "box"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith("rbu: mounting needs ")
    assert advice in ended.stderr
    assert ended.stderr.count("\n") == 1


# -- other users, and capabilities ----------------------------------------------------------


def test_others_see_nothing_unless_they_are_let_in(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target):
        assert program(target.parent, f"print(os.listdir({str(target)!r}))", *AS_NOBODY) == "EACCES"


def test_others_who_are_let_in_are_held_to_the_modes(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target, "--allow-other"):
        code = f"""
def answer(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

print(os.getuid(), answer(os.chdir, "sys"))
os.chdir("..")
print(answer(lambda: open("{LOADING}").read()))
print(answer(os.open, "{LOADING}", os.O_WRONLY))
print(answer(os.open, "{LOADING}", os.O_RDONLY | os.O_TRUNC))
print(answer(os.open, "{DATA}", os.O_RDWR))
print(answer(os.open, "sys/firmware/dmi/tables/DMI", os.O_RDONLY))
print([os.access("{LOADING}", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)])
print([os.access("sys/firmware/dmi/tables/DMI", mode) for mode in (os.F_OK, os.R_OK)])
print([os.access("sys", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
print(answer(os.truncate, "{LOADING}", 0))
print(answer(os.unlink, "{LOADING}"), answer(os.mkdir, "sys/x"), answer(os.mkfifo, "sys/x"))
print(answer(os.rename, "{LOADING}", "sys/x"), answer(os.symlink, "x", "sys/x"))
print(answer(os.link, "{LOADING}", "sys/x"), answer(os.open, "sys/x", os.O_CREAT))
"""
        assert program(target, code, *AS_NOBODY).splitlines() == [
            f"{NOBODY} None",
            "0",
            "",
            *["EACCES"] * 4,
            "[True, True, False, False]",
            "[True, False]",
            "[True, False, True]",
            "EACCES",
            "EACCES EACCES EACCES",
            "EACCES EACCES",
            "EPERM EACCES",
        ]
        code = f"""
print([os.access("{DEVICE}/data", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
print([os.access("sys", mode) for mode in (os.R_OK, os.W_OK, os.X_OK)])
"""
        assert program(target, code).splitlines() == ["[True, True, False]", "[True, True, True]"]


def test_only_firmware_data_takes_the_capability(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target):
        code = f"""
open("{TIMEOUT}", "w").write("9")
open("{LOADING}", "w").write("1")
fd = os.open("{DATA}", os.O_RDWR)
print(os.read(fd, 10))
os.write(fd, b"x")
"""
        assert program(target, code, *WITHOUT_RAWIO).splitlines() == ["b''", "EPERM"]
        assert (target / TIMEOUT).read_text() == "9\n"
        assert (target / DATA).read_bytes() == b""
        assert program(target, f'open("{DATA}", "wb", 0).write(b"x")') == ""
        assert (target / DATA).read_bytes() == b"x"


def test_the_capability_counts_at_the_moment_of_the_write(directory: Path, target: Path) -> None:
    needs_root()
    with served(directory, target, "--allow-other"):
        (target / LOADING).write_text("1\n")
        code = f"""
fd = os.open("{DATA}", os.O_RDWR)
print(os.write(fd, b"x"))
os.seteuid({NOBODY})
try:
    os.write(fd, b"y")
except OSError as error:
    print(errno.errorcode[error.errno])
os.seteuid(0)
print(os.write(fd, b"z"))
"""
        assert program(target, code).splitlines() == ["1", "EPERM", "1"]
        assert (target / DATA).read_bytes() == b"xz"


def test_a_plain_user_mounts_a_machine_of_ones_own(tmp_path: Path) -> None:
    """With a /dev/fuse for everybody, as most computers have it."""
    needs_root()
    needs_fuse()
    node = tmp_path / "fuse"
    os.mknod(node, 0o020666, Path("/dev/fuse").stat().st_rdev)
    node.chmod(0o666)
    home = tmp_path / "home"
    path = machine_with_driver(home)
    mount = home / "mount"
    mount.mkdir()
    opened_up(mount)
    for each in (home, *home.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    script = f"""
mount --bind {node} /dev/fuse
nobody="{" ".join(AS_NOBODY)}"
$nobody "$@" mount {mount} --machine {path.name} --detach > /dev/null
$nobody stat -c "%u %a" {mount}/{LOADING}
$nobody sh -c "echo 1 > {mount}/{LOADING}; echo data > {mount}/{DATA}; cat {mount}/{DATA}"
cat {mount}/{LOADING} 2>&1 || true
$nobody "$@" mount {mount} --stop
ls {mount} | wc -l
$nobody "$@" mount {mount} --machine {path.name} --allow-other || echo $?
"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", *RBU],
        capture_output=True,
        check=False,
        text=True,
        cwd="/",
        env={**os.environ, "OPENRBU_HOME": str(home)},
    )
    assert done.stdout.splitlines() == [
        f"{NOBODY} 644",
        "data",
        f"cat: {mount}/{LOADING}: Permission denied",
        f"machine box is not mounted at {mount} any more",
        "0",
        "4",
    ], done
    assert done.stderr.startswith("rbu: fusermount3: option allow_other only allowed if")
    assert done.stderr.count("\n") == 1


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
