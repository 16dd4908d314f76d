"""Will the restart keep what is staged: its mode, and the way in which the machine is reset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.restart import TAKE_IT_ON, WARM, NextKind, next_kind

_check = partial(Check, Question.RESTART)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the next restart keeps memory."""
    if seen.on_xen:
        yield _check(
            "xen",
            "on Xen the kernel's reboot mode has no effect",
            Verdict.UNKNOWN,
            "start Xen with reboot=warm (xl info xen_commandline shows whether it was), or the "
            "restart clears memory and the update with it",
        )
        return
    kind = next_kind(seen.host)
    may_lose = Verdict.UNKNOWN if seen.options.allow_any_restart else Verdict.IN_THE_WAY
    yield _mode(kind, may_lose)
    if kind.way is not None:
        yield _way(kind, may_lose)


def _mode(kind: NextKind, may_lose: Verdict) -> Check:
    if not kind.loses_by_mode:
        if kind.mode is None:
            text = "this kernel does not say whether the restart is warm or cold"
            return _check("restart_mode", text, Verdict.UNKNOWN)
        chosen = "" if kind.files.mode is not None else ", by the kernel's command line"
        return _check("restart_mode", f"the next restart is {WARM}{chosen}", Verdict.FINE)
    if kind.files.mode is not None:
        text = f"the next restart is {kind.mode}"
        return _check("restart_mode", text, Verdict.HANDLED, "the update makes it warm")
    return _lost("restart_mode", kind.unchangeable_mode, may_lose)


def _way(kind: NextKind, may_lose: Verdict) -> Check:
    if not kind.loses_by_way:
        return _check("restart_type", f"the machine is reset through {kind.way}", Verdict.FINE)
    if kind.files.type is not None:
        text = "the machine is reset through ACPI, with a power cycle, which clears memory"
        return _check("restart_type", text, Verdict.HANDLED, "the update chooses another way")
    return _lost("restart_type", kind.unchangeable_way, may_lose)


def _lost(name: str, why: str, may_lose: Verdict) -> Check:
    found, _, advice = why.rpartition(": ")
    return _check(name, found, may_lose, f"{advice}, {TAKE_IT_ON}", obstacle="restart_is_cold")
