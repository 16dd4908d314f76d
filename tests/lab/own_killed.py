"""Runs in a lab's guest: openrbu's own driver is killed at its steps, and looked at afterwards.

    python own_killed.py GO EVERY CASE CASE

In a process of its own the driver is started, stages one image, then the other one, and is stopped;
the process is killed before each step, or each EVERY-th one. A step is what changes a file or the
kernel: a call of Python's C functions for that, or of the C library. Then, each time, a line of
JSON: what a look at the driver says; and another one after a process has opened it for changes.
After each line it waits, as `own_driver.py` does. At last the driver is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from lab.own_driver import BACKEND, Case, stage, told, wait_for_go
from openrbu.own_driver.driver import look_at_own_driver, open_own_driver
from openrbu.system import libc
from rigs.machines import in_child

MOST_STEPS = 4000

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
NUMBERS = ("nr_hugepages", "nr_overcommit_hugepages", "free_hugepages", "surplus_hugepages")

CHANGING = {
    *("write", "pwrite", "writelines", "truncate", "ftruncate", "unlink", "remove", "rename"),
    *("replace", "mkdir", "rmdir", "link", "posix_fallocate", "flock", "flush", "close", "madvise"),
}
"""Names of Python's C functions."""


def kill_at(number: int) -> None:
    """Kill this process before its step `number`."""
    left = number

    def seen(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        is_ours = event == "call" and frame.f_code is libc.call.__code__
        if is_ours or (event == "c_call" and argument.__name__ in CHANGING):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(seen)


def a_life(cases: Sequence[Case]) -> Callable[[], None]:
    """What the process does that is killed."""

    def live() -> None:
        with open_own_driver(BACKEND) as driver:
            driver.load(is_kept=True)
            for case in cases:
                stage(driver, case)
        with open_own_driver(BACKEND) as driver:
            driver.stop()

    return live


def say(line: int, step: int, *, opened: bool) -> None:
    """Write what a look at the driver says."""
    seen = look_at_own_driver(BACKEND)
    said: dict[str, Any] = {"image_type": "", "staged": []}
    if seen is not None:
        said = {"image_type": seen.image_type, **told(seen)}
    print(json.dumps({"line": line, "step": step, "opened": opened, **said}), flush=True)


def stop() -> None:
    """Stop the driver, where it is there."""
    with open_own_driver(BACKEND) as driver:
        if driver.is_loaded:
            driver.stop()


def do(work: Callable[[], None]) -> int:
    """Do it in a process of its own: 0, or the signal that killed it, negative."""
    code = in_child(work)
    assert code in (0, -signal.SIGKILL), code
    return code


def open_it() -> None:
    with open_own_driver(BACKEND):
        pass


def main(go: Path, every: int, cases: Sequence[Case]) -> None:
    assert np.__version__, "it is imported once, and not in each process"
    live = a_life(cases)
    line = 0
    for step in range(1, MOST_STEPS, every):

        def killed(step: int = step) -> None:
            kill_at(step)
            live()

        code = do(killed)
        for opened in (False, True):
            if opened:
                do(open_it)
            do(partial(say, line, step, opened=opened))
            wait_for_go(go, line)
            line += 1
        do(stop)
        taken = [(POOL / name).read_text().strip() for name in NUMBERS]
        assert set(taken) == {"0"}, (step, taken)
        if not code:
            return
    raise AssertionError(f"there are more than {MOST_STEPS} steps")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [Case.parse(each) for each in sys.argv[3:]])
