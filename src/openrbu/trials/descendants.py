"""A process that ends all that it has started, daemons included.

It is a subreaper (prctl(2)): a process whose parent has ended becomes its child. So everything that
a tool has started is below it.
"""

from __future__ import annotations

import contextlib
import os
import signal

from openrbu.system.libc import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, call
from openrbu.system.processes import descendants


def adopt_descendants() -> None:
    """Make this process the parent of all processes below it whose parents end."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def be_told_of_parents_end(signum: signal.Signals, parent: int) -> None:
    """Have the kernel send this signal when the parent ends; `parent` is its process ID. If it has
    ended already, the signal comes now."""
    call("prctl", PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(signum)


def kill_descendants() -> None:
    """Kill all processes below this one, and don't wait for their ends."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_descendants() -> None:
    """Kill all processes below this one until none is left."""
    while True:
        kill_descendants()
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
