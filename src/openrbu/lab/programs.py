"""Other programs, run to their end: no Ctrl-C leaves one behind."""

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

INSTALL_EXTRA = "pip install 'openrbu[lab]'"

_SYSTEM_PATH = ("/usr/sbin", "/sbin")
"""Where a plain user's PATH often does not lead."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a program ended: its exit status (negative: the signal), and what it said."""

    status: int
    out: str
    err: str


def find_program(name: str) -> Path | None:
    """Where a program is; None where it is not."""
    found = shutil.which(name, path=search_path())
    return None if found is None else Path(found)


def find_qemu() -> Path:
    """The program.

    :raise ObstacleError: when there is none.
    """
    found = find_program(QEMU)
    if found is None:
        raise ObstacleError(f"there is no {QEMU} here; rbu lab check says what gets it")
    return found


def search_path(*first: Path) -> str:
    """A PATH: the directories `first`, then the user's own, then the system's."""
    own = os.environ.get("PATH", os.defpath)
    return os.pathsep.join([*map(str, first), own, *_SYSTEM_PATH])


def killed_with_parent() -> list[str]:
    """The words before a command that have the kernel kill it when this thread ends, however that
    comes.

    :raise ObstacleError: when util-linux is not there.
    """
    setpriv = find_program("setpriv")
    if setpriv is None:
        raise ObstacleError("there is no setpriv here: apt-get install util-linux")
    return [str(setpriv), "--pdeathsig", "KILL"]


def run(
    command: Sequence[str | Path],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ProcessResult:
    """Run a program to its end, with nothing to read. `environment` is added to this process's own.

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
    """A program that runs as long as the block at most, and so do those that it starts. It speaks
    English.

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
    """The exit status, when there is one; None when there is none after `limit_s` seconds."""
    deadline = Deadline("a program", limit_s)
    for _ in deadline.looks(pause_s=0):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(deadline.left_s, SIGNAL_CHECK_S))
    return None
