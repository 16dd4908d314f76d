# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""One controller at a time: the lock on the directory of a roll-out.

Theory of operation. Ansible's actions run in workers, which end with their task, and so would a
lock that one of them holds. The worker that begins a run takes the lock (flock), and hands the open
file to a small process, the keeper, which waits for the end of the controller and then ends, too.
The kernel takes a lock back when nobody has its file open any more, so that none outlives its
controller, whatever that dies of.
"""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.openrbu.firmware.plugins.plugin_utils.processes import is_there

LOCK = "controller.lock"
PATIENCE_S = 5.0
LOOK_AGAIN_S = 0.02

_KEEPER = """
import os, select, sys, time
controller = int(sys.argv[1])
try:
    watched = os.pidfd_open(controller)
except ProcessLookupError:
    sys.exit()
except (AttributeError, OSError):  # no such call here
    while True:
        try:
            os.kill(controller, 0)
        except ProcessLookupError:
            sys.exit()
        except PermissionError:
            pass
        time.sleep(0.5)
poll = select.poll()
poll.register(watched, select.POLLIN)
poll.poll()
"""


class OtherControllerError(ValueError):
    """Another controller has the roll-out."""


def claim(directory: Path) -> None:
    """Take the lock of this directory for the controller of this worker, until that ends. A
    controller that has it already keeps it.

    :raise OtherControllerError: when another one has it.
    :raise OSError: when the directory can't be written or locked.
    """
    path = directory / LOCK
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        began = time.monotonic()
        while not _is_locked(file):
            pid, _dummy, host = (
                os.pread(file, 300, 0).decode("utf-8", "replace").strip().partition(" ")
            )
            if (pid, host) == (str(_controller()), socket.gethostname()):
                return
            # The keeper of a controller that has just ended needs a moment.
            if _may_be_alive(pid, host) or time.monotonic() - began > PATIENCE_S:
                raise OtherControllerError(
                    f"another controller, pid {pid or 'unknown'} on {host or 'some computer'}, has "
                    f"the roll-out of {directory}"
                )
            time.sleep(LOOK_AGAIN_S)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{_controller()} {socket.gethostname()}\n".encode(), 0)
        _keep(file)
    finally:
        os.close(file)


def _controller() -> int:
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _is_locked(file: int) -> bool:
    """Lock it for this process, if nobody else has it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def _may_be_alive(pid: str, host: str) -> bool:
    """Whether a controller lives, as far as it can be known: no other computer's can be seen."""
    if not pid.isdigit():  # it is just being written
        return False
    return host != socket.gethostname() or is_there(int(pid))


def _keep(file: int) -> None:
    """Start the keeper of a lock."""
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _KEEPER, str(_controller())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=[file],
        start_new_session=True,
    )
