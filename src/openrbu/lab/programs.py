"""Runs other programs to their end. After Ctrl-C none of them is left running."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from openrbu.errors import ObstacleError
from openrbu.system.signals import SIGNAL_CHECK_S, signals_deferred
from openrbu.system.waiting import Deadline

QEMU = "qemu-system-x86_64"

_SYSTEM_PATH = ("/usr/sbin", "/sbin")
"""Directories that are often not in a plain user's PATH."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a process ended: its exit status (negative: the signal's number), and its output."""

    status: int
    out: str
    err: str


def find_program(name: str) -> Path | None:
    """The path of a program; None when it is not installed."""
    found = shutil.which(name, path=search_path())
    return None if found is None else Path(found)


def find_qemu() -> Path:
    """The path of QEMU.

    :raise ObstacleError: when it is not installed.
    """
    found = find_program(QEMU)
    if found is None:
        raise ObstacleError(f"{QEMU} is not installed; rbu lab check says how to get it")
    return found


def search_path(*first: Path) -> str:
    """A PATH: the directories `first`, then the user's own, then the system's."""
    own = os.environ.get("PATH", os.defpath)
    return os.pathsep.join([*map(str, first), own, *_SYSTEM_PATH])


def killed_with_parent() -> list[str]:
    """The words in front of a command with which the kernel kills it when this thread ends, for any
    reason.

    :raise ObstacleError: when util-linux is not installed.
    """
    setpriv = find_program("setpriv")
    if setpriv is None:
        raise ObstacleError("setpriv is not installed: apt-get install util-linux")
    return [str(setpriv), "--pdeathsig", "KILL"]


def run(
    command: Sequence[str | Path],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ProcessResult:
    """Run a program to its end, without input. `environment` is added to this process's own.

    :raise OSError: when it can't be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with running(command, out, err, directory=directory, environment=environment) as process:
            wait(process)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return ProcessResult(process.returncode, *texts)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    out: IO[bytes],
    err: IO[bytes],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in English. It is killed at the end of the block, with all that it started.

    :raise OSError: when it can't be started.
    """
    with signals_deferred() as deferred:
        process = subprocess.Popen(
            [*killed_with_parent(), *map(str, command)],
            cwd=directory,
            env={**os.environ, "PATH": search_path(), "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            with deferred.deliver_pending():
                yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(process: subprocess.Popen[bytes], limit_s: float = math.inf) -> int | None:
    """Wait for the exit status; None when the program still runs after `limit_s` seconds."""
    deadline = Deadline("a program", limit_s)
    for _ in deadline.checks(pause_s=0):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(deadline.left_s, SIGNAL_CHECK_S))
    return None
