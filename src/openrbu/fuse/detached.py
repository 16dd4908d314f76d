"""Serve a mount in this process, or in a new process in the background."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from openrbu.errors import OpenRbuError
from openrbu.machine.store import disk_errors
from openrbu.sharing import wire
from openrbu.system.interrupts import EXIT_SIGNAL, TerminatedBySignal
from openrbu.system.kept_files import open_kept

_READY = b"ready"
_STOP_EXIT_CODES = {EXIT_SIGNAL + signum for signum in (signal.SIGINT, signal.SIGTERM)}

Serve = Callable[[Callable[[], None]], None]
"""A function that serves a mount. It calls its argument when the mount is ready."""


def serve_in_foreground(serve: Serve, ready: Callable[[], None]) -> None:
    """Serve until it is unmounted. SIGINT or SIGTERM is not a failure once it is mounted."""
    is_ready = False

    def on_ready() -> None:
        nonlocal is_ready
        is_ready = True
        ready()

    try:
        serve(on_ready)
    except TerminatedBySignal as stopped:
        if not is_ready or stopped.exit_code not in _STOP_EXIT_CODES:
            raise


def serve_detached(serve: Serve, log: Path, complain: Callable[[str], None]) -> int:
    """Serve in a new process without a terminal; its PID, when the mount is ready. Later errors
    there are passed to `complain`. Standard error of that process is the file `log`, which is not
    made for an error before.

    :raise OpenRbuError: the error with which that process fails before the mount is ready.
    """
    with disk_errors(log.parent):
        is_new = not os.path.lexists(log)
        log_fd = open_kept(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _run_server(serve, log_fd, writing, complain)
    os.close(writing)
    os.close(log_fd)
    try:
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read()
    except TerminatedBySignal:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if message == _READY:
        return pid
    os.waitpid(pid, 0)
    if not message:
        raise OpenRbuError(f"the server has ended; its messages are in {log}")
    with contextlib.suppress(OSError):
        if is_new and not log.stat().st_size:
            log.unlink()
    raise wire.error_of(json.loads(message))


def _run_server(
    serve: Serve, log_fd: int, channel: int, complain: Callable[[str], None]
) -> NoReturn:
    """Serve in this process, then exit. Send through `channel` that it is ready, or the error;
    later errors go to the log."""
    code = 1
    try:
        _detach_from_caller(log_fd, channel)

        def ready() -> None:
            nonlocal channel
            os.write(channel, _READY)
            os.close(channel)
            channel = -1

        serve_in_foreground(serve, ready)
        code = 0
    except (OpenRbuError, OSError) as error:
        code = int(error.exit_code) if isinstance(error, OpenRbuError) else code
        if channel < 0:
            complain(str(error))
        else:
            os.write(channel, json.dumps(wire.error_document(error)).encode())
    except TerminatedBySignal as stopped:
        complain(stopped.text)
    except BaseException:  # noqa: BLE001  (this process ends here, whatever it is)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _detach_from_caller(log_fd: int, channel: int) -> None:
    """Give up the caller's terminal, working directory, open files and locks. Output goes to the
    log."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nowhere, log_fd, log_fd)):
        os.dup2(fd, number)
    for fd in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd != channel:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
                os.close(fd)
    if sys.stderr is None:  # the caller had closed it
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
