"""Locks of the kernel (flock(2)) on open files, and which process has one.

A lock is on a file itself, not on its path: where a process has mounted something else over the
path, it does not see the lock. `one_for_all` opens a file that no mount can hide.

The kernel says in /proc/locks which process has locked which file, so nothing has to be written
anywhere for that.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrbu.system.lock_holders import flock_holders
from openrbu.system.lockfile import acquire_within, try_lock
from openrbu.system.times import local_time

LOCK_WITHIN_S = 0.5
"""How long to try. `holder` has a lock for a moment, too."""

_LONGEST_COMMAND = 100

# linux/mount.h and asm-generic/unistd.h: the same numbers on all machines, since Linux 5.2
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSCONFIG_CMD_CREATE, _FSMOUNT_CLOEXEC = 1, 6, 1


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a lock. `since`: when that process began; None where that can't be seen.
    `user`: its user, and who has logged in, where that is another one."""

    pid: int
    command: str
    since: dt.datetime | None
    user: str

    @property
    def text(self) -> str:
        """The process in words."""
        if self.pid == os.getpid():
            return "this very process, in another thread"
        since = "" if self.since is None else f", since {local_time(self.since)}"
        return f"process {self.pid} ({self.command}){since}, of {self.user}"


class HeldError(Exception):
    """Another process, or another thread of this one, has the lock. `holder` is None where it can't
    be seen from here, such as from within a container."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder_text(holder))
        self.holder = holder


def holder_text(holder: Holder | None) -> str:
    """The process that has a lock, in words."""
    return "a process that can't be seen from here" if holder is None else holder.text


@contextlib.contextmanager
def hold(fds: Sequence[int]) -> Iterator[None]:
    """Lock these open files for the block. Close them after it: that releases the locks.

    :raise HeldError: when another process has locked one of them.
    """
    for fd in fds:
        if not acquire_within(_trying(fd), LOCK_WITHIN_S):
            raise HeldError(_holder_of(fd))
    yield


def _trying(fd: int) -> Callable[[], bool]:
    return lambda: try_lock(fd)


def find_holder(fds: Sequence[int]) -> tuple[bool, Holder | None]:
    """Whether another process has locked one of these open files, and which one; None where it
    can't be seen. Close the files afterwards."""
    for fd in fds:
        if not try_lock(fd, fcntl.LOCK_SH):  # which several processes can have that only look
            return True, _holder_of(fd)
    return False, None


def one_for_all() -> int | None:
    """Open a directory that is the same one for all processes of this computer, whatever they have
    mounted and whichever namespaces they are in. None where that needs a newer kernel (5.2), or
    rights that this process does not have.

    debugfs and devtmpfs exist once in a kernel. They are opened here without being mounted at a
    path (fsopen(2), fsmount(2)). Only root can open debugfs's.
    """
    from openrbu.system.libc import call  # noqa: PLC0415  (start-up time)

    for name in (b"debugfs", b"devtmpfs"):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            context = call("syscall", _FSOPEN, name, _FSOPEN_CLOEXEC)
            stack.callback(os.close, context)
            call("syscall", _FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            mount = call("syscall", _FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
            stack.callback(os.close, mount)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    return None


def _holder_of(fd: int) -> Holder | None:
    """The process that has locked this file; None where it can't be seen."""
    pids = flock_holders(fd)
    return _process(pids[0]) if pids else None


def _process(pid: int) -> Holder | None:
    """A process, from its files in /proc; None when it has ended."""
    files = Path("/proc", str(pid))
    try:
        uid = files.stat().st_uid
        # the name is in parentheses, and may have any character
        name, _, rest = (files / "stat").read_text("utf-8", "replace").rpartition(")")
        words = (files / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        command = " ".join(filter(None, words)) or name.partition("(")[2]
        ticks = int(rest.split()[19])
    except (OSError, ValueError, IndexError):
        return None
    shown = "".join(each if each.isprintable() else "?" for each in command)
    if len(shown) > _LONGEST_COMMAND:
        shown = f"{shown[:_LONGEST_COMMAND]}…"
    return Holder(pid, shown, _began(ticks), _user_text(uid, files))


def _began(ticks: int) -> dt.datetime | None:
    """When a process began, from the ticks between the computer's start and that."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("btime "):
                seconds = int(line.split()[1]) + ticks // os.sysconf("SC_CLK_TCK")
                return dt.datetime.fromtimestamp(seconds).astimezone()
    return None


def _user_text(uid: int, files: Path) -> str:
    text = _user_name(uid)
    with contextlib.suppress(OSError, ValueError):
        login = int((files / "loginuid").read_text())
        if login not in (uid, 2**32 - 1):
            return f"{text} (logged in as {_user_name(login)})"
    return text


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
