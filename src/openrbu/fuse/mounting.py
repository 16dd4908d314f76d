"""A machine mounted at a directory: what `rbu mount` runs, and how another process ends it.

While it runs it holds a file in the machine's directory, `mount-….json`, locked. That says which
process serves which directory; the lock says that it still does, machine and all. What goes wrong
in the end is written there, too, for whoever waits for that end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from openrbu.errors import ObstacleError, OpenRbuError, UsageError
from openrbu.fuse.device import (
    mount_device,
    mount_with_helper,
    mounts,
    open_device,
    unmount,
)
from openrbu.machine import store
from openrbu.signals import signals_held


def serve(
    directory: Path,
    target: str,
    *,
    allow_other: bool = False,
    ready: Callable[[], None],
    waiting: Callable[[int], None],
    log: Callable[[str], None],
) -> None:
    """Mount the machine in `directory` at `target`, and serve it until it is unmounted.

    `ready` is called when it is mounted, `waiting` as `machine.reach.keep` does. An exception that
    a signal raises ends it in order.

    :raise ObstacleError: when it can't be mounted or served.
    :raise MachineError: when the machine can't be had, or not be put away.
    """
    # The imports of a library that may be missing come before anything is begun.
    from openrbu.fuse.callers import Callers  # noqa: PLC0415
    from openrbu.fuse.session import Session  # noqa: PLC0415
    from openrbu.machine.reach import keep  # noqa: PLC0415

    with _recorded(directory, target), keep(directory, waiting=waiting) as machine:
        with signals_held():
            fd = _mount(target, str(directory), allow_other=allow_other)
            session = Session(machine.files, fd, Callers.of_this_process(), log=log)
        try:
            session.start()
            ready()
            session.wait()
        finally:
            with signals_held():
                session.stop()
                if source_of(target) == str(directory):
                    unmount(target)


def _mount(target: str, source: str, *, allow_other: bool) -> int:
    if os.geteuid():
        return mount_with_helper(target, source, allow_other=allow_other)
    fd = open_device()
    try:
        mount_device(fd, target, source, allow_other=allow_other)
    except ObstacleError:
        os.close(fd)
        raise
    return fd


def source_of(target: str) -> str | None:
    """The directory of the machine that is mounted at `target`; None when none is."""
    return next((mount.source for mount in mounts() if mount.target == target), None)


def check_target(target: str) -> None:
    """See that a machine can be mounted at `target`. A dead mount there is removed.

    :raise UsageError: when it is no directory that can be read.
    :raise ObstacleError: when something is mounted there, or in it.
    """
    while source := source_of(target):
        if _is_served(target, source) or not _is_dead(target):
            name = Path(source).name
            raise ObstacleError(
                f"machine {name!r} is mounted at {target} already; rbu mount --stop {target} ends "
                "that"
            )
        unmount(target)
    try:
        is_empty = not any(Path(target).iterdir())
    except FileNotFoundError:
        raise UsageError(f"{target} is not there; make it: mkdir {target}") from None
    except OSError as error:
        raise UsageError(f"{target} can't be mounted on: {error.strerror}") from None
    if not is_empty:
        raise ObstacleError(f"{target} is not empty; a mount would hide what is in it")


def _is_served(target: str, source: str) -> bool:
    """Whether a process holds the record. It need not answer: it may be a stopped one."""
    try:
        fd = os.open(_record(Path(source), target), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_dead(target: str) -> bool:
    try:
        os.stat(target)  # noqa: PTH116  (its errno is all that counts)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


# -- the record -----------------------------------------------------------------------------


def _record(directory: Path, target: str) -> Path:
    return directory / f"mount-{zlib.crc32(os.fsencode(target)):08x}.json"


@contextlib.contextmanager
def _recorded(directory: Path, target: str) -> Iterator[None]:
    """Be known as the server of `target` until the end of the block."""
    path = _record(directory, target)
    with store.disk_errors(directory):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with store.disk_errors(directory):
            _lock(fd, target)
            _write(fd, {"pid": os.getpid()})
        try:
            yield
        except OpenRbuError as error:
            with contextlib.suppress(OSError):  # for `stop`, which has the file open
                _write(fd, {"error": str(error)})
            raise
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _lock(fd: int, target: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(fd).st_nlink > 0  # else its last owner has just removed it
    except BlockingIOError:
        is_ours = False
    if not is_ours:
        raise ObstacleError(f"another process is about to mount at {target}, or to end: try again")


def _write(fd: int, document: dict[str, int | str]) -> None:
    os.pwrite(fd, json.dumps(document).encode().ljust(os.fstat(fd).st_size), 0)


def _read(fd: int) -> dict[str, int | str]:
    try:
        document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    except ValueError:  # it was killed before it wrote anything
        return {}
    return document if isinstance(document, dict) else {}


def stop(target: str, source: str) -> None:
    """End the server of the mount at `target` of the machine in `source`, and wait until it has put
    the machine away. A mount that has no server is removed.

    :raise ObstacleError: when it is another user's, or the server failed in the end.
    """
    path = _record(Path(source), target)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        unmount(target)
        return
    except OSError as error:
        raise ObstacleError(f"the mount at {target} can't be stopped: {error.strerror}") from None
    try:
        failure = _end_server(fd, path)
    finally:
        os.close(fd)
    if source_of(target) == source:
        unmount(target)
    if failure is not None:
        raise ObstacleError(failure)


def _end_server(fd: int, record: Path) -> str | None:
    """End the process that holds the record; what went wrong in that process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _read(fd).get("pid")
    else:  # it was killed
        record.unlink(missing_ok=True)
        return None
    if isinstance(pid, int):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    fcntl.flock(fd, fcntl.LOCK_EX)
    failure = _read(fd).get("error")
    return None if failure is None else str(failure)
