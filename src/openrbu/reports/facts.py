"""What one answer says of its machine: each kind of answer, taken for the columns of a report.

A fact is None where the answer says nothing of it: what an earlier answer said counts then. A text
is empty where the answer says that there is none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from openrbu.reports import records
from openrbu.reports.answers import Answer, moment

NEXT_RESTART = {
    "changes_nothing": "the BIOS is not armed any more",
    "finds_nothing": "nothing is staged any more",
    "finds_another": "something else is staged than was verified",
    "memory_moved": "the kernel has moved pages of what is staged",
    "takes_no_packets": "the BIOS takes no packets",
    "skips_bios": "the next restart skips the BIOS",
    "clears_memory": "the next restart may clear memory",
    "ignores_token": "the BIOS will ignore its token",
}
"""Why an update that is armed will not be installed, by what the next restart will do."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a machine. `policy_target`: the version to which a policy brings it in the
    end; empty: there is no policy. `code` is a completion code; `at` is when the outcome was, where
    that is another time than that of the answer."""

    machine: records.Machine | None = None
    bios_version: str | None = None
    target_version: str | None = None
    policy_target: str | None = None
    code: str | None = None
    outcome: str | None = None
    why: str | None = None
    at: dt.datetime | None = None
    attempts: tuple[records.Attempt, ...] = ()


def facts_of(answer: Answer) -> Facts:
    """What an answer says of its machine.

    :raise DamagedInputError: when a time in it is none.
    """
    return _READERS[type(answer.body)](answer.body)


def attempt_facts(attempt: records.Attempt) -> Facts:
    """What a journal says of one update.

    :raise DamagedInputError: when a time in it is none.
    """
    return Facts(
        bios_version=attempt.version_now or attempt.from_version,
        target_version=attempt.to_version,
        code=attempt.completion_code or "",
        outcome=_outcome_of(attempt),
        why=attempt.likely_cause or attempt.why or "",
        at=moment(attempt.events[-1].at) if attempt.events else None,
        attempts=(attempt,),
    )


def _outcome_of(attempt: records.Attempt) -> str:
    """The update's ending; before it has one, the last event of its journal."""
    if attempt.ending is not None:
        return attempt.ending
    return {"started": "under_way", "armed": "pending"}.get(attempt.outcome, attempt.outcome)


def _of_status(status: records.Status) -> Facts:
    last = status.last_update
    if last is None:
        code = "" if status.completion is None else status.completion.code
        known = Facts(code=code, outcome="pending" if status.is_armed else "none", why="")
    else:
        known = attempt_facts(last)
        if known.outcome == "under_way" and status.update_under_way is None:
            why = "the tool was killed before it armed the BIOS"
            known = replace(known, outcome="interrupted", why=why)
    vain = NEXT_RESTART.get(status.next_restart)
    if vain is not None and (known.outcome == "pending" or status.is_armed):
        known = replace(known, outcome="armed_in_vain", why=vain)
    if status.state == "staged_changed":
        known = replace(known, outcome="staged_in_vain", why="rbu update stages it again")
    if status.error is not None:
        known = replace(known, outcome="prevented", why=status.error.message)
    return replace(known, machine=status.machine, bios_version=status.bios.version)


def _of_plan(plan: records.Plan) -> Facts:
    known = _planned(plan)
    if plan.error is not None:
        known = _prevented(known, plan.error, plan.policy)
    return _as_it_waits(known, plan.waits)


def _planned(plan: records.Plan) -> Facts:
    """The same without what waits already, or is in the way."""
    return Facts(
        machine=plan.machine,
        bios_version=plan.current_version,
        target_version=plan.new_version,
        policy_target="" if plan.policy is None else plan.policy.target or "",
        code="",
        outcome="ready" if plan.is_needed else "not_needed",
        why="",
    )


def _of_no_step(no_step: records.NoStep) -> Facts:
    known = Facts(
        machine=no_step.machine,
        bios_version=no_step.current_version,
        target_version=no_step.policy.target,
        policy_target=no_step.policy.target or "",
        code="",
        outcome="not_needed",
        why="",
    )
    if no_step.error is not None:
        known = _prevented(known, no_step.error, no_step.policy)
    return _as_it_waits(known, no_step.waits)


def _as_it_waits(known: Facts, waits: records.Waits | None) -> Facts:
    """The same where an update waits already: the machine is staged or armed, whatever a plan says
    of another image, or of this one. A policy that wants none installed counts more than one that
    is only staged."""
    if waits is None or (not waits.is_armed and known.outcome in ("pinned", "not_in_policy")):
        return known
    outcome = "pending" if waits.is_armed else "staged"
    return replace(known, outcome=outcome, target_version=waits.version or "")


def _prevented(known: Facts, error: records.Failure, policy: records.Policy | None) -> Facts:
    """What prevents an update, where it is the policy that wants none told apart."""
    if policy is not None and policy.pinned is not None:
        return replace(known, outcome="pinned", why=policy.pinned)
    system_id = None if known.machine is None else known.machine.system_id
    if policy is not None and policy.target is None and system_id is not None:
        why = f"the policy says nothing of system {system_id}"
        return replace(known, outcome="not_in_policy", why=why)
    return replace(known, outcome="prevented", why=error.message)


def _of_update(update: records.Update) -> Facts:
    planned = _planned(update.plan)
    if update.result is not None:
        ended = _of_post(update.result)
        ended = replace(ended, machine=planned.machine, target_version=planned.target_version)
        if update.error is None:
            return ended
        return replace(ended, outcome="refused", why=update.error.message)
    if update.changed:
        why = "" if update.error is None else update.error.message
        return replace(planned, outcome="pending" if update.armed else "staged", why=why)
    if update.error is not None:
        prevented = _prevented(planned, update.error, update.plan.policy)
        was_begun = not update.plan.obstacles  # and then took the place of what waited
        return prevented if was_begun else _as_it_waits(prevented, update.plan.waits)
    return _as_it_waits(replace(planned, outcome="not_needed"), update.plan.waits)


def _of_post(post: records.Post) -> Facts:
    if not post.attempted:
        return Facts(bios_version=post.version_after)
    failed = post.error is not None
    return Facts(
        bios_version=post.version_after,
        code=post.completion_code or "",
        outcome="refused" if failed else "updated",
        why=post.reason or (post.error.message if post.error is not None else ""),
    )


def _of_arm(arm: records.Arm) -> Facts:
    return Facts(
        machine=arm.machine,
        bios_version=arm.from_version,
        target_version=arm.version,
        code="",
        outcome="pending",
        why="",
    )


def _of_cancel(cancel: records.Cancel) -> Facts:
    if not cancel.changed:
        return Facts()
    return Facts(code="", outcome="cancelled", why=cancel.problem or "")


def _of_history(history: records.History) -> Facts:
    if not history.updates:
        return Facts(code="", outcome="none", why="")
    return replace(attempt_facts(history.updates[-1]), attempts=history.updates)


def _of_failure(failure: records.Failure) -> Facts:
    return Facts(code="", outcome="failed", why=failure.message)


_READERS: Mapping[type[Any], Callable[[Any], Facts]] = {
    records.Status: _of_status,
    records.Plan: _of_plan,
    records.NoStep: _of_no_step,
    records.Update: _of_update,
    records.Arm: _of_arm,
    records.Post: _of_post,
    records.Cancel: _of_cancel,
    records.History: _of_history,
    records.Failure: _of_failure,
}
