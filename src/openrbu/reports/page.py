"""A report as a page: one HTML file to filter and sort, with the history of each machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from openrbu.html.page import page_from
from openrbu.reports.outcomes import outcome_words, sense_of
from openrbu.reports.report import ReportRow, ReportStep, code_words
from openrbu.reports.table import utc

_FILES = resources.files("openrbu.reports") / "page_files"


def page_of(rows: Sequence[ReportRow]) -> str:
    """The page."""
    outcomes = {step.outcome for row in rows for step in row.steps} | {row.outcome for row in rows}
    data = {
        "machines": [_machine(row) for row in rows],
        "outcomes": {
            each: {"words": outcome_words(each), "sense": sense_of(each)}
            for each in sorted(outcomes - {""})
        },
        "codes": {
            code: code_words(code)
            for code in sorted({step.code for row in rows for step in row.steps} - {""})
        },
    }
    return page_from(_FILES, data)


def _machine(row: ReportRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "computer": row.computer,
        "tag": row.service_tag,
        "vendor": row.vendor,
        "model": row.model,
        "system": row.system_id,
        "version": row.bios_version,
        "target": row.target_version,
        "outcome": row.outcome,
        "code": row.code,
        "why": row.why,
        "at": utc(row.at),
        "seen": utc(row.seen_at),
        "steps": [_step(step) for step in row.steps],
    }


def _step(step: ReportStep) -> dict[str, str]:
    return {
        "at": utc(step.at),
        "what": step.what,
        "outcome": step.outcome,
        "from": step.from_version,
        "to": step.to_version,
        "code": step.code,
        "why": step.why,
        "source": step.source,
    }
