"""What a process under `rbu run` does until it becomes the program.

It enters namespaces of its own, mounts the machine's files there at their usual paths, guards this
computer, and executes the program. `openrbu.run.program` is the other end of its channel.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from openrbu.errors import ObstacleError
from openrbu.run import firmware_files, guard, module_files, namespace, own_stand_ins, stand_ins
from openrbu.run.overlay import RealEntry
from openrbu.system.fuse_mounts import RUN_TYPE, mount_device, open_device
from openrbu.system.processes import be_told_of_parents_end

# The same exit statuses as of env(1) and of shells.
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127

GO = b"go"
"""What the parent sends when it serves the files."""

LISTENER = b"listener "
"""What comes with the descriptor that tells of the program's notified calls (`run.filter`), before
the inode of the program's user namespace."""

ROOT = b"root"
"""What comes with the descriptor of the program's root directory."""

NO_LISTENER = b"no listener: "
"""What is sent where there is no such descriptor, before the reason."""

ENDED: Mapping[str, str | int] = {"text": "the process of the program was ended before it began"}
MAX_MESSAGE_BYTES = 16384
_MAX_WORD = 256
"""How many characters of the command a message quotes. A command may be longer than a message."""


Prepare = Callable[[socket.socket, int], None]
"""What the process does before it executes the program, such as `prepare`. It gets the channel, and
the process that has forked this one; it raises ObstacleError or OSError."""


def become(
    prepare: Prepare, command: Sequence[str], channel: socket.socket, parent: int
) -> NoReturn:
    """Execute the program, or send the error through `channel`. `parent`: the process that has
    forked this one.

    The error is a JSON document of less than `MAX_MESSAGE_BYTES`, with its `text` and, where the
    program can't be executed, the `status` that a shell would give.
    """
    document = dict(ENDED)
    try:
        prepare(channel, parent)
        document = _execute(command)
    except ObstacleError as error:
        document = {"text": str(error)}
    except OSError as error:
        document = {"text": _text(error)}
    except Exception:  # noqa: BLE001  (this process ends here, so a defect must be printed here)
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            channel.send(json.dumps(document).encode())
        os._exit(EXIT_CANNOT_RUN)


def _execute(command: Sequence[str]) -> dict[str, str | int]:
    """Execute the program. Returns only when that fails: the error, for the parent."""
    try:
        if not command[0]:  # a shell does not find it; Python would raise another error
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(command[0], list(command))
    except OSError as error:
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        status = EXIT_NOT_FOUND if is_missing else EXIT_CANNOT_RUN
        word = command[0] if len(command[0]) <= _MAX_WORD else f"{command[0][:_MAX_WORD]}…"
        return {"text": f"{word}: {error.strerror}", "status": status}


def _text(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"the program can't be given the machine's files: {where}{error.strerror}"


@contextlib.contextmanager
def served_over_sys(
    source: Path, channel: socket.socket, parent: int
) -> Iterator[tuple[Path, Path]]:
    """Enter a namespace, and mount a file system of `source` on `/sys` there, which the parent
    serves. In the block there are two pinned paths: the root of that, and what was at `/sys`.

    :raise ObstacleError: when this computer does not allow it.
    :raise OSError: the kernel's error.
    """
    namespace.enter()
    be_told_of_parents_end(signal.SIGKILL, parent)
    with namespace.pinned("/sys") as real_sys:
        fd = open_device()
        mount_device(fd, "/sys", str(source), kind=RUN_TYPE, allow_other=True)
        socket.send_fds(channel, [b"device"], [fd])
        os.close(fd)
        if channel.recv(len(GO)) != GO:  # the parent reports an error, and has closed it
            os._exit(EXIT_CANNOT_RUN)
        with namespace.pinned("/sys") as served:
            yield served, real_sys


def prepare(
    directory: Path, real: Mapping[str, RealEntry], channel: socket.socket, parent: int
) -> None:
    """Mount the machine's files in this process's namespace, and guard this computer.

    :raise ObstacleError: when this computer does not allow it.
    :raise OSError: the kernel's error.
    """
    with served_over_sys(directory, channel, parent) as (served, real_sys):
        namespace.install_files(served, real_sys, real)
        firmware_files.make_directories()
        module_files.install(served)
    namespace.show_history(directory)
    firmware_files.install()
    stand_ins.install()
    stand_ins.find_commands_of_root(os.environ)
    with namespace.opened_directory("/") as root:
        socket.send_fds(channel, [ROOT], [root])
    _guard(channel)


def prepare_own_driver(
    directory: Path, real: Mapping[str, RealEntry], channel: socket.socket, parent: int
) -> None:
    """Mount the files of openrbu's own driver in this process's namespace. The program acts on this
    computer, so nothing is kept away from it. `directory` is that of the driver.

    :raise ObstacleError: when this computer does not allow it.
    :raise OSError: the kernel's error.
    """
    with served_over_sys(directory, channel, parent) as (served, real_sys):
        namespace.install_own_driver(served, real_sys, real)
        own_stand_ins.install(os.environ)


def _guard(channel: socket.socket) -> None:
    """Guard this computer, and send the filter's listener, or why there is none.

    :raise OSError: the kernel's error.
    """
    try:
        listener = guard.guard(listening=True)
    except OSError as error:
        guard.guard()
        channel.send(NO_LISTENER + str(error.strerror).encode())
        return
    namespace_inode = Path("/proc/self/ns/user").stat().st_ino
    socket.send_fds(channel, [LISTENER + b"%d" % namespace_inode], [listener])
    os.close(listener)
