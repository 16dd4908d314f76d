"""The command `rbu mount`: a virtual machine's files as files of this computer."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from openrbu.cli.options import machine_option
from openrbu.cli.show import Answer, complain, emit, good
from openrbu.errors import OpenRbuError, UsageError
from openrbu.system.interrupts import EXIT_SIGNAL, Stopped

LOG_NAME = "mount.log"

_READY = b"ready"
_TOLD_TO_STOP = {EXIT_SIGNAL + signum for signum in (signal.SIGINT, signal.SIGTERM)}

_Serve = Callable[[Callable[[], None]], None]
"""Serves a mount; calls what it is given when it is mounted."""

# No Path, which typer looks at: what is mounted there may answer no more. (The shell completes both
# in the same way, by itself.)
Directory = Annotated[str, typer.Argument(metavar="DIR", help="An empty directory to mount it at.")]
MachineName = Annotated[str | None, machine_option("The virtual machine.")]
Detach = Annotated[
    bool, typer.Option("--detach", help="Serve it in the background; return when it is there.")
]
AllowOther = Annotated[
    bool,
    typer.Option(
        "--allow-other",
        help="Let other users in, as far as the files' modes let them. For a plain user that "
        "takes user_allow_other in /etc/fuse.conf.",
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop", help="End the mount at DIR; return when the machine is free.")
]


def mount(
    directory: Directory,
    *,
    machine: MachineName = None,
    detach: Detach = False,
    allow_other: AllowOther = False,
    stop: Stop = False,
    as_json: bool,
) -> Answer:
    """Mount a virtual machine's /sys, /proc and /dev at a directory.

    They are files like a kernel's: read and write them with any program. Other commands reach the
    machine meanwhile. It is served until it is unmounted or told to stop, by Ctrl-C, SIGTERM or
    --stop; a machine that is off shows nothing until it is on.

    \b
    Examples:  rbu mount /mnt --machine demo
               rbu mount /mnt --machine demo --detach
               echo 1 > /mnt/sys/class/firmware/dell_rbu/loading
               rbu mount /mnt --stop
    """
    from openrbu.fuse import mounting
    from openrbu.machine.store import existing_directory
    from openrbu.system.fuse_mounts import real_path

    target = real_path(directory)
    if stop:
        if machine is not None or detach or allow_other:
            raise UsageError("--stop takes DIR alone")
        return _stop(target)
    if machine is None:
        raise UsageError("which machine? name it with --machine NAME")
    source = existing_directory(machine)
    mounting.check_target(target)

    def serve(ready: Callable[[], None]) -> None:
        mounting.serve(
            source,
            target,
            allow_other=allow_other,
            ready=ready,
            waiting=tell_waiting,
            log=complain,
        )

    document = {"changed": True, "machine": machine, "directory": target}
    is_at = f"machine {machine} is mounted at {target}"
    if detach:
        pid = _serve_detached(serve, source / LOG_NAME)
        line = good(f"{is_at}; rbu mount {target} --stop ends it")
        return Answer({**document, "pid": pid}, [line])
    told = [] if as_json else [good(f"{is_at}; Ctrl-C or umount {target} ends it")]
    _serve_here(serve, lambda: emit(told))
    return Answer(document, [f"machine {machine} is not mounted at {target} any more"])


def _stop(target: str) -> Answer:
    from openrbu.fuse import mounting

    document = {"directory": target}
    source = mounting.served_at(target)
    if source is None:
        nothing = f"nothing to do: no machine is mounted at {target}"
        return Answer({"changed": False, **document}, [nothing])
    mounting.stop(target, source, waiting=tell_waiting)
    name = Path(source).name
    line = good(f"machine {name} is not mounted at {target} any more")
    return Answer({"changed": True, "machine": name, **document}, [line])


def tell_waiting(programs: int) -> None:
    if programs:
        noun = "program that uses" if programs == 1 else "programs that use"
        complain(f"waiting for {programs} {noun} the machine")


def _serve_here(serve: _Serve, ready: Callable[[], None]) -> None:
    """Serve until it is unmounted. To be told to stop is no failure, once it is mounted."""
    is_ready = False

    def on_ready() -> None:
        nonlocal is_ready
        is_ready = True
        ready()

    try:
        serve(on_ready)
    except Stopped as stopped:
        if not is_ready or stopped.exit_code not in _TOLD_TO_STOP:
            raise


def _serve_detached(serve: _Serve, log: Path) -> int:
    """Serve in a process of its own, which is in no terminal's way; its number, when it is ready.

    :raise OpenRbuError: what that process fails with before.
    """
    import json

    from openrbu.machine.store import disk_errors
    from openrbu.sharing import wire

    with disk_errors(log.parent):
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _be_server(serve, log_fd, writing)
    os.close(writing)
    os.close(log_fd)
    try:
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read()
    except Stopped:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if message == _READY:
        return pid
    os.waitpid(pid, 0)
    if not message:
        raise OpenRbuError(f"the server has ended; what it said is in {log}")
    raise wire.error_of(json.loads(message))


def _be_server(serve: _Serve, log_fd: int, channel: int) -> NoReturn:
    """Serve in this process, and end with it. Tell through `channel` that it is ready, or why not;
    later troubles go to the log."""
    import json

    from openrbu.sharing import wire

    code = 1
    try:
        _leave_caller(log_fd, channel)

        def ready() -> None:
            nonlocal channel
            os.write(channel, _READY)
            os.close(channel)
            channel = -1

        _serve_here(serve, ready)
        code = 0
    except (OpenRbuError, OSError) as error:
        complain(str(error))
        code = int(error.exit_code) if isinstance(error, OpenRbuError) else code
        if channel >= 0:
            os.write(channel, json.dumps(wire.error_document(error)).encode())
    except Stopped as stopped:
        complain(stopped.text)
    except BaseException:  # noqa: BLE001  (this process ends here, whatever it is)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _leave_caller(log_fd: int, channel: int) -> None:
    """Keep nothing of what the caller has: its terminal, its directory, what it has open or locked.
    What is said goes to the log."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nowhere, log_fd, log_fd)):
        os.dup2(fd, number)
    for fd in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd != channel:
            with contextlib.suppress(OSError):  # that of the listing is closed already
                os.close(fd)
    if sys.stderr is None:  # the caller had closed it
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
