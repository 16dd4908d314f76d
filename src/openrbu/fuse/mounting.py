"""A machine mounted at a directory: what `rbu mount` runs, and how another process ends it.

The process that serves has a record in the machine's directory, `mount-….json`, and keeps it
locked. The record says which process serves the mount; the lock says that the process still runs
and has the machine. When the mount is being ended, the record also says how many programs that
waits for, and what went wrong: another process that waits for the end reads it there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from openrbu.errors import MachineError, ObstacleError, OpenRbuError, UsageError
from openrbu.machine import store
from openrbu.own_driver.store import DIRECTORY as OWN_DRIVER
from openrbu.system.fuse_mounts import (
    mount_device,
    mount_with_helper,
    mounts,
    open_device,
    unmount,
)
from openrbu.system.lockfile import LockFile
from openrbu.system.signals import signals_deferred
from openrbu.system.waiting import Deadline

if TYPE_CHECKING:
    from openrbu.kernel.files import Files
    from openrbu.own_driver.own_memory import Backend


class Served(Protocol):
    """What a mount needs of what it shows. A virtual machine is one."""

    @property
    def files(self) -> Files: ...

    def check_connection(self) -> None:
        """Called every now and then; an exception ends the mount."""

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a path in the block against programs that do not use this mount."""


Waiting = Callable[[int], None]
"""Called with the number of programs that the end of the mount waits for."""

Open = Callable[[Waiting], AbstractContextManager[Served]]
"""Opens what is to be mounted."""


def open_machine(directory: Path) -> Open:
    """What opens the virtual machine in a directory, as `access.serve_or_connect`."""

    def opened(waiting: Waiting) -> AbstractContextManager[Served]:
        from openrbu.sharing.access import serve_or_connect  # noqa: PLC0415  (start-up time)

        return serve_or_connect(directory, waiting=waiting)

    return opened


def open_own_driver(backend: Callable[[], Backend], log: Callable[[str], None]) -> Open:
    """What opens openrbu's own driver, as `opened_and_loaded`, on memory that `backend` makes.
    Nobody else uses it meanwhile, so nothing is waited for."""

    @contextlib.contextmanager
    def opened(_waiting: Waiting) -> Iterator[Served]:
        from openrbu.fuse.tree_files import ServedTree  # noqa: PLC0415  (start-up time)
        from openrbu.own_driver.serving import opened_and_loaded  # noqa: PLC0415  (start-up time)

        with opened_and_loaded(backend(), log=log) as driver:
            yield ServedTree(driver)

    return opened


def serve(
    directory: Path,
    target: str,
    opened: Open,
    *,
    allow_other: bool = False,
    ready: Callable[[], None],
    waiting: Waiting,
    log: Callable[[str], None],
) -> None:
    """Mount what `opened` opens at `target`, and serve it until it is unmounted. The record of the
    mount is in `directory`, where the machine is.

    `ready` is called when it is mounted. `waiting` is called as `access.serve_or_connect` says.
    An exception that a signal raises ends the mount in the same way as unmounting does.

    :raise ObstacleError: when it can't be mounted or served.
    :raise MachineError: when the machine can't be opened, or its state not be saved.
    """
    # First of all, because libfuse may be missing. Unmounting does not need it.
    from openrbu.fuse.callers import CallerMap  # noqa: PLC0415  (start-up time)
    from openrbu.fuse.session import FuseSession  # noqa: PLC0415  (start-up time)

    with (
        _recorded(directory, target) as record,
        opened(_recorded_waiting(record, waiting)) as machine,
    ):
        with signals_deferred():
            fd = _mount(target, str(directory), allow_other=allow_other)
            session = FuseSession(
                machine.files,
                fd,
                CallerMap.of_this_process(),
                log=log,
                path_lock=machine.path_lock,
            )
        try:
            session.start()
            ready()
            session.wait(machine.check_connection)
        finally:
            with signals_deferred():
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


def served_at(target: str) -> str | None:
    """The directory of the machine that is mounted at `target`, or that was mounted there by a
    process that has not ended yet; None when there is none.

    :raise MachineError: when this user's machines can't be listed.
    """
    if (source := source_of(target)) is not None:
        return source
    if _is_served(target, OWN_DRIVER):
        return OWN_DRIVER
    for name in store.machine_names():
        with contextlib.suppress(MachineError):  # another user's
            directory = str(store.existing_directory(name))
            if _is_served(target, directory):
                return directory
    return None


def words_for(source: str) -> str:
    """What is mounted from a directory, in words."""
    return "openrbu's own driver" if source == OWN_DRIVER else f"machine {Path(source).name!r}"


def check_target(target: str) -> None:
    """Check that a machine can be mounted at `target`. A dead mount there is removed.

    :raise UsageError: when it is not a directory that this user can read.
    :raise ObstacleError: when a machine is mounted there, or the directory is not empty.
    """
    while source := source_of(target):
        if _is_served(target, source) or not _is_dead(target):
            raise ObstacleError(
                f"{words_for(source)} is mounted at {target} already; rbu mount --stop {target} "
                "ends that"
            )
        unmount(target)
    try:
        is_empty = not any(Path(target).iterdir())
    except FileNotFoundError:
        raise UsageError(f"{target} does not exist; make it: mkdir {target}") from None
    except OSError as error:
        raise UsageError(f"{target} can't be mounted on: {error.strerror}") from None
    if not is_empty:
        raise ObstacleError(f"{target} is not empty; a mount would hide what is in it")


def _is_served(target: str, source: str) -> bool:
    """Whether a process has the record locked. That process may be stopped (Ctrl-Z)."""
    try:
        with LockFile(_record(Path(source), target), create=False) as record:
            return record.is_locked()
    except OSError:
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
def _recorded(directory: Path, target: str) -> Iterator[LockFile]:
    """Have the record of the mount at `target`, locked, until the end of the block."""
    with contextlib.ExitStack() as stack:
        with store.disk_errors(directory):
            record = stack.enter_context(LockFile(_record(directory, target), create=True))
            if not record.acquire():
                raise ObstacleError(
                    f"another process is about to mount at {target}, or to end: try again"
                )
            stack.callback(record.remove)
            _write(record, {"pid": os.getpid()})
        try:
            yield record
        except OpenRbuError as error:
            with contextlib.suppress(OSError):  # for `stop`, which has the file open
                _write(record, {"error": str(error)})
            raise


def _recorded_waiting(record: LockFile, waiting: Callable[[int], None]) -> Callable[[int], None]:
    """`waiting`, and a call of it also writes the number into the record."""

    def report(programs: int) -> None:
        with contextlib.suppress(OSError):
            _write(record, {"pid": os.getpid(), "waiting": programs})
        waiting(programs)

    return report


def _write(record: LockFile, document: dict[str, int | str]) -> None:
    record.write(json.dumps(document))


def _read(record: LockFile) -> dict[str, int | str]:
    try:
        document = json.loads(record.read())
    except ValueError:  # it has not written anything yet, or was killed before
        return {}
    return document if isinstance(document, dict) else {}


def stop(target: str, source: str, *, waiting: Callable[[int], None]) -> None:
    """End the server of the mount at `target` of the machine in `source`, and wait until it has
    saved the machine's state. A mount that has no server is removed.

    The server ends when no other program uses the machine through it. `waiting` is called with the
    number of these programs, first when the wait begins and then at each change.

    :raise ObstacleError: when the mount is another user's, or the server failed while it ended.
    """
    try:
        record = LockFile(_record(Path(source), target), create=False)
    except FileNotFoundError:
        unmount(target)
        return
    except OSError as error:
        raise ObstacleError(f"the mount at {target} can't be stopped: {error.strerror}") from None
    with record:
        failure = _end_server(record, waiting)
    if source_of(target) == source:
        unmount(target)
    if failure is not None:
        raise ObstacleError(failure)


def _end_server(record: LockFile, waiting: Callable[[int], None]) -> str | None:
    """End the process that has the record locked; what went wrong in that process."""
    is_signalled, programs = False, 0
    for _ in Deadline("the process that serves the mount").checks():
        if not record.is_locked():
            break
        document = _read(record)
        pid, now = document.get("pid"), document.get("waiting", 0)
        # A process that waits had the signal already. A second signal would end the programs' use.
        if isinstance(pid, int) and not is_signalled and not now:
            is_signalled = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if isinstance(now, int) and now != programs:
            programs = now
            waiting(now)
    failure = _read(record).get("error")
    with contextlib.suppress(OSError):  # usually the server has removed it
        if record.acquire():  # its server was killed
            record.remove()
    return None if failure is None else str(failure)
