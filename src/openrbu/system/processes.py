"""The processes of this computer: which of them a process has started, and how they are ended.

A subreaper (prctl(2)) is the parent of each process below it whose own parent has ended. So all
that it has started is below it, daemons too, and `descendants` finds it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from openrbu.system.libc import call
from openrbu.system.waiting import PAUSE_S

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_descendants() -> None:
    """Make this process a subreaper."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def be_told_of_parents_end(signum: signal.Signals, parent: int) -> None:
    """Have the kernel send this signal when the parent ends; `parent` is its process ID. If it has
    ended already, the signal comes now."""
    call("prctl", _PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(signum)


def signal_descendants(pid: int, signum: int) -> int:
    """Send a signal to all processes below a process, parents first: so none of them sees a child
    end before it gets the signal itself. Those of other users may not get it. Returns how many got
    it."""
    count = 0
    for each in descendants(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signum)
            count += 1
    return count


def kill_descendants(pid: int) -> None:
    """Kill all processes below another one, which has to be a subreaper, until none is left: one
    that is killed may have started another."""
    while signal_descendants(pid, signal.SIGKILL):
        time.sleep(PAUSE_S)


def end_descendants() -> None:
    """Kill all processes below this one until none is left. It has to be a subreaper."""
    while True:
        signal_descendants(os.getpid(), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def process_ids(proc: Path = Path("/proc")) -> list[int]:
    """All processes that this one can see."""
    return [int(name) for name in os.listdir(proc) if name.isdecimal()]  # noqa: PTH208  (names)


def descendants(pid: int, proc: Path = Path("/proc")) -> Iterator[int]:
    """The processes that a process has started, and those that they have started; parents first.

    From `/proc/PID/stat`, proc(5): the number of the parent is the second word after the name,
    which is in brackets. The files are not found by a pattern: where a process ends meanwhile,
    Linux says ESRCH, which `Path.glob` and `Path.exists` raise (in Python 3.11).
    """
    children = defaultdict(list)
    for each in process_ids(proc):
        # It has ended; or it is somebody else's, where /proc shows only one's own (hidepid).
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            words = (proc / str(each) / "stat").read_bytes().rpartition(b")")[2].split()
            children[int(words[1])].append(each)
    generation = [pid]
    while generation:
        generation = [child for each in generation for child in children[each]]
        yield from generation
