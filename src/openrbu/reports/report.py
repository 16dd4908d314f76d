"""The report: one row for each machine. Of several answers of one machine the newest counts, and
what all of them say of its updates is its history.

What is no answer is a row of its own, too: it is not known of which machine it should be.

A computer is known by its name, and by its service tag where answers tell one: two computers of one
name are two rows. A virtual machine is known by its name and its computer's.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from openrbu.errors import DamagedInputError
from openrbu.formats.dell import describe_completion
from openrbu.reports import records
from openrbu.reports.answers import Answer, NoAnswer, no_answer
from openrbu.reports.facts import Facts, attempt_facts, facts_of
from openrbu.reports.outcomes import NO_ANSWER, outcome_words


@dataclass(frozen=True, slots=True)
class ReportStep:
    """One thing that happened on a machine: an update of its journal, or an answer of rbu."""

    at: dt.datetime
    what: str
    """`update`, or the command that answered."""
    outcome: str
    """Empty: the answer says nothing of it."""
    from_version: str
    to_version: str
    code: str
    why: str
    source: str
    """Where it was read."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A machine. Texts are empty where no answer says it. `at`: when its outcome was; `seen_at`:
    when the newest answer was given. `steps`: its history, oldest first. Where `outcome` is
    `no_answer`, `name` is that of the file, `why` is the reason, and all else is empty or None."""

    name: str
    computer: str
    service_tag: str
    vendor: str
    model: str
    system_id: str
    bios_version: str
    target_version: str
    outcome: str
    code: str
    why: str
    at: dt.datetime | None
    seen_at: dt.datetime | None
    steps: tuple[ReportStep, ...]

    @property
    def meaning(self) -> str:
        """The completion code in words."""
        return code_words(self.code)


def code_words(code: str) -> str:
    """A completion code, as documents have it, in words; empty: there is none.

    :raise DamagedInputError: when it is none.
    """
    if not re.fullmatch("(0x[0-9a-f]{4})?", code):
        raise DamagedInputError(f"{code[:40]!r} is no completion code")
    return describe_completion(int(code, 16)) if code else ""


def make_report(told: Iterable[Answer | NoAnswer]) -> list[ReportRow]:
    """A row for each machine, and one for each thing that is no answer, by name."""
    machines: dict[tuple[str, str | None], list[tuple[Answer, Facts]]] = {}
    lacking: list[NoAnswer] = []
    answers: list[Answer] = []
    for each in told:
        if isinstance(each, Answer):
            answers.append(each)
        else:
            lacking.append(each)
    for answer in sorted(answers, key=lambda each: each.at):
        try:
            facts = facts_of(answer)
            for code in (facts.code, *(attempt.completion_code for attempt in facts.attempts)):
                code_words(code or "")
        except DamagedInputError as error:
            lacking.append(no_answer(answer.source, error))
            continue
        name = (answer.said.computer, answer.said.machine)
        machines.setdefault(name, []).append((answer, facts))
    rows = [
        _row(told_of_one)
        for (_, machine), every in machines.items()
        for told_of_one in (_by_tag(every) if machine is None else [every])
    ]
    rows += map(_row_without_answer, lacking)
    return sorted(rows, key=lambda row: (row.name, row.computer, row.service_tag, row.why))


def _row_without_answer(lacking: NoAnswer) -> ReportRow:
    return ReportRow(
        name=lacking.name,
        computer="",
        service_tag="",
        vendor="",
        model="",
        system_id="",
        bios_version="",
        target_version="",
        outcome=NO_ANSWER,
        code="",
        why=lacking.why,
        at=None,
        seen_at=None,
        steps=(),
    )


_Told = Sequence[tuple[Answer, Facts]]


def _by_tag(every: _Told) -> list[_Told]:
    """The answers of computers with one name, apart by service tag. Answers that tell none belong
    to the only computer that there is; where there are several, they are a row of their own."""
    tags: dict[str, list[tuple[Answer, Facts]]] = {}
    for answer, facts in every:
        tag = "" if facts.machine is None else facts.machine.service_tag
        tags.setdefault(tag, []).append((answer, facts))
    return [every] if len(tags.keys() - {""}) < 2 else list(tags.values())


def _row(told: _Told) -> ReportRow:
    newest = told[-1][0]
    known, at = Facts(), newest.at
    steps: list[ReportStep] = []
    attempts: dict[str, tuple[records.Attempt, Answer]] = {}
    for answer, facts in told:
        known = _over(facts, known)
        if facts.outcome is not None:
            at = facts.at or answer.at
        attempts.update({each.id: (each, answer) for each in facts.attempts})
        steps.append(_answer_step(answer, facts))
    steps += [_attempt_step(attempt, answer) for attempt, answer in attempts.values()]
    machine = known.machine
    if known.outcome == "updated" and known.policy_target not in (None, "", known.bios_version):
        known = replace(known, outcome="step_made", target_version=known.policy_target)
    return ReportRow(
        name=newest.said.machine or newest.said.computer,
        computer=newest.said.computer,
        service_tag=machine.service_tag if machine else "",
        vendor=machine.vendor if machine else "",
        model=(machine.system_name or machine.product) if machine else "",
        system_id=(machine.system_id or "") if machine else "",
        bios_version=known.bios_version or "",
        target_version=known.target_version or "",
        outcome=known.outcome or "none",
        code=known.code or "",
        why=known.why or "",
        at=at,
        seen_at=newest.at,
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def _over(newer: Facts, older: Facts) -> Facts:
    """What is known after another answer."""
    return Facts(
        **{
            name: getattr(older if getattr(newer, name) is None else newer, name)
            for name in Facts.__dataclass_fields__
        }
    )


def _answer_step(answer: Answer, facts: Facts) -> ReportStep:
    return ReportStep(
        at=answer.at,
        what=f"rbu {answer.said.command}",
        outcome=facts.outcome or "",
        from_version=facts.bios_version or "",
        to_version=facts.target_version or "",
        code=facts.code or "",
        why=facts.why or "",
        source=answer.source,
    )


def _attempt_step(attempt: records.Attempt, answer: Answer) -> ReportStep:
    facts = attempt_facts(attempt)
    return ReportStep(
        at=facts.at or answer.at,
        what="update",
        outcome=facts.outcome or "",
        from_version=attempt.from_version or "",
        to_version=attempt.to_version or "",
        code=facts.code or "",
        why=facts.why or "",
        source=answer.source,
    )


def counts(rows: Iterable[ReportRow]) -> dict[str, int]:
    """How many machines there are of each outcome, the most first."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.outcome] = found.get(row.outcome, 0) + 1
    return dict(sorted(found.items(), key=lambda each: (-each[1], outcome_words(each[0]))))
