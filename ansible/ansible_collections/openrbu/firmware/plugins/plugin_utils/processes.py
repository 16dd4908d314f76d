# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""Which process it was. Its number alone does not say: numbers are used again."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """This process, by its number and the time when it began."""
    return f"{os.getpid()} {_stat(os.getpid())[1]}"


def is_there(pid: int) -> bool:
    """Whether a process has this number, whose ever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def is_alive(process: str) -> bool:
    """Whether a process that `this_process` named runs still. Where there is no /proc, the number
    is all that is compared."""
    pid, _dummy, began = process.partition(" ")
    if not is_there(int(pid)):
        return False
    state, begins = _stat(int(pid))
    return state != "Z" and begins == began


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process and when it began, in ticks since the boot; empty: not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
