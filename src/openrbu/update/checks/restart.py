"""Will the restart keep what is staged: its kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

_check = partial(Check, Question.RESTART)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the next restart keeps memory."""
    if seen.on_xen:
        yield _check(
            "xen",
            "on Xen the kernel's reboot mode has no effect",
            Verdict.UNKNOWN,
            "start Xen with reboot=warm, or the restart clears memory and the update with it",
        )
