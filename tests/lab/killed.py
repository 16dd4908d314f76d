"""Runs in a lab's guest: an update of this computer that is killed before one of EVERY steps.

    python killed.py IMAGE MODE EVERY

Writes a line of JSON for each such step: what was there afterwards, and what a cancel left of it.
At the end the update is killed once more, between arming and the line in the journal that says so.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from openrbu.formats.hdr import Image
from openrbu.hosts.linux import LinuxHost
from openrbu.update.cancelling import cancel
from openrbu.update.report import read_status
from rigs.killed import killed_at_step
from rigs.machines import update

MOST_STEPS = 200


@contextlib.contextmanager
def this_computer() -> Iterator[LinuxHost]:
    yield LinuxHost()


def what_is_there() -> dict[str, Any]:
    now = read_status(LinuxHost())
    return {
        "is_armed": now.is_armed,
        "is_verified": now.is_verified,
        "next_restart": now.next_restart.value,
        "staged_size_bytes": now.staged_size_bytes,
        "restart_mode": now.restart_mode,
        "outcome": None if now.last is None else now.last.outcome,
        "was_cut_off": now.was_cut_off,
        "under_way": now.under_way,
    }


def main() -> None:
    image, mode = Image.parse(Path(sys.argv[1]).read_bytes()), sys.argv[2]
    every = int(sys.argv[3])
    first_armed = 0
    for number in range(1, MOST_STEPS, every):
        if not killed_at_step(number, this_computer, lambda host: update(host, image, mode=mode)):
            break
        before = what_is_there()
        done = cancel(LinuxHost())
        after = {**what_is_there(), "problem": done.problem}
        print(json.dumps({"step": number, "before": before, "after": after}), flush=True)
        if before["is_armed"] and not first_armed:
            first_armed = number
    cancel(LinuxHost())
    for number in range(first_armed - every + 1, first_armed + 1):
        killed_at_step(number, this_computer, lambda host: update(host, image, mode=mode))
        if read_status(LinuxHost()).is_armed:
            break
        cancel(LinuxHost())


if __name__ == "__main__":
    main()
