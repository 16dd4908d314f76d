"""`rbu mount`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.machine import store
from rigs.cli import Cli
from rigs.mounts import (
    DEVICE,
    ENTRY,
    are_mounted,
    detached,
    needs_root,
    served,
)

DATA, LOADING, TIMEOUT = f"{ENTRY}/data", f"{ENTRY}/loading", "sys/class/firmware/timeout"


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


# -- obstacles ------------------------------------------------------------------------------


def test_what_can_not_be_mounted_on_is_told_in_one_line(
    rbu: Cli, directory: Path, target: Path
) -> None:
    here = rbu.directory
    rbu.write("file", b"")
    assert rbu.fails(2, "mount", "nowhere", "--machine", "box") == (
        f"rbu: {here}/nowhere does not exist; make it: mkdir {here}/nowhere\n"
    )
    assert rbu.fails(2, "mount", "file", "--machine", "box") == (
        f"rbu: {here}/file can't be mounted on: Not a directory\n"
    )
    assert rbu.fails(4, "mount", ".", "--machine", "box") == (
        f"rbu: {here} is not empty; a mount would hide what is in it\n"
    )
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
    [("mfusepy", "install 'mfusepy>=3.1'"), ("libfuse3", "install the package fuse3")],
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


def test_the_directory_is_completed_by_the_shell_itself(rbu: Cli) -> None:
    """It is where `rbu` proposes nothing: as a path, with `~`, and without a blank behind it."""
    (rbu.directory / "mount_here").mkdir()
    words = {"COMP_WORDS": "rbu mount mount_", "COMP_CWORD": "2"}
    proposed = rbu.process(env={**os.environ, **words, "_RBU_COMPLETE": "complete_bash"})
    assert (proposed.returncode, proposed.stdout.split(), proposed.stderr) == (0, [], b"")
    script = rbu.process(env={**os.environ, "_RBU_COMPLETE": "source_bash"})
    assert b"complete -o default -F" in script.stdout
