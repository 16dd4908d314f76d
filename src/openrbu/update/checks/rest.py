"""What else matters: what is broken in the tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation

_check = partial(Check, Question.REST)


def checks(seen: Situation) -> Iterator[Check]:
    """What else is worth knowing before an update."""
    problems = seen.target.tables.problems
    if problems:
        text = f"the SMBIOS tables are broken: {'; '.join(problems)}"
        yield _check("tables", text, Verdict.UNKNOWN)
