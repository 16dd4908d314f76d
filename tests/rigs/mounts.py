"""Mounts that `rbu mount` serves, and programs on them that this process can't be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrbu.system.descriptors import readable
from openrbu.system.fuse_mounts import mounts, unmount
from rigs.cli import RBU, Cli
from rigs.machines import NOBODY, make, opened_up, running
from rigs.needs import leave_out
from rigs.served import send

DEVICE = "sys/devices/platform/dell_rbu"
ENTRY = "sys/class/firmware/dell_rbu"

AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
WITHOUT_RAWIO = ("setpriv", "--bounding-set=-sys_rawio", "--inh-caps=-sys_rawio")


def needs_root() -> None:
    if os.geteuid():
        leave_out("only root can be another user")


def are_mounted(directory: Path) -> list[str]:
    """Where the machine in a directory is mounted."""
    return [mount.target for mount in mounts() if mount.source == str(directory)]


@contextlib.contextmanager
def unmounted(directory: Path) -> Iterator[None]:
    """See that the machine in a directory is mounted nowhere at the end, whatever happens."""
    try:
        yield
    finally:
        for target in are_mounted(directory):
            unmount(target)


class MountProcess:
    """`rbu mount` in the foreground: mounted when this is made."""

    def __init__(self, directory: Path, target: Path, *options: str) -> None:
        self.directory, self.target = directory, target
        self._process = subprocess.Popen(
            [*RBU, "mount", str(target), "--machine", directory.name, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.first_line = self._process.stdout.readline()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        send(self._process, number)

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end: its exit code, and what else it said on both streams."""
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out, err

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def served(directory: Path, target: Path, *options: str) -> Iterator[MountProcess]:
    """The machine in a directory, mounted by a process of its own; it is cleaned up after it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(unmounted(directory))
        process = MountProcess(directory, target, *options)
        stack.callback(process.close)
        assert process.first_line, process.ended()
        yield process


def machine_with_driver(home: Path, **spec: Any) -> Path:
    """The directory of a machine that is on, dell_rbu loaded; every user may pass to it."""
    directory = make(home, **spec)
    with running(directory) as machine:
        machine.load_module("dell_rbu", {})
    if not os.geteuid():
        opened_up(directory)
    return directory


def empty_directory(path: Path) -> Path:
    """Made, and every user may pass to it."""
    path.mkdir()
    opened_up(path / "x")
    return path


def detached(rbu: Cli, target: Path) -> int:
    """Mount the machine `box` in the background; the number of the process that serves it."""
    ended = rbu.process("mount", target, "--machine", "box", "--detach", "--json")
    assert (ended.returncode, ended.stderr) == (0, b""), ended
    document = json.loads(ended.stdout)
    pid: int = document.pop("pid")
    assert document.pop("said")["machine"] == "box"
    assert document == {
        "schema": 1,
        "changed": True,
        "machine": "box",
        "directory": str(target),
    }
    return pid


def wait_for_end(pid: int) -> None:
    """Wait for a process, be it a child of a child."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert readable([end], 30)
    finally:
        os.close(end)


def program(root: Path, code: str, *prefix: str) -> str:
    """What a Python program says that runs with `root` as its working directory: `code`.

    What the kernel does not give it, it says as the name of the errno.
    """
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    text = (
        "import ctypes, errno, mmap, os, stat, sys\ntry:\n"
        + lines
        + "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", text], cwd=root, capture_output=True, check=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.strip()
