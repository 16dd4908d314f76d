"""The command report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.images import saved
from openrbu.cli.options import Force
from openrbu.cli.show import Answer, Block, Cell, Table, bad, caution, good
from openrbu.errors import DamagedInputError, UsageError
from openrbu.system.files import MAX_INPUT_BYTES, read_input
from openrbu.system.times import local_time
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.reports.report import ReportRow, ReportStep

STANDARD_INPUT = "standard input"
MOST_NAMED = 10
"""So many files that have no answer are named in the error; the rows name all."""


def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILES]...",
            help="Files with answers of rbu --json; none or -: standard input.",
            allow_dash=True,
        ),
    ] = None,
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page to filter and sort it, which needs no other file.",
            readable=False,
        ),
    ] = None,
    force: Force = False,
    as_json: bool,
) -> Answer:
    """Show what many answers of rbu --json say of many machines, as one table.

    Answers are those of status, plan, update, arm, cancel, history and machine reboot, one or
    several in a file. Of several of one machine the newest counts, and all are its history. A file
    without an answer is a row "no answer", and the exit code is 5.

    \b
    Example:  rbu report *.json --html report.html
    """
    from openrbu.reports import answers
    from openrbu.reports.report import make_report

    if csv and as_json:
        raise UsageError("--csv and --json are two forms of one answer: choose one")
    told = answers.read_files(map(_source, files or [Path("-")]))
    rows = make_report(told)
    lacking = [row for row in rows if row.outcome == "no_answer"]
    error = _no_answers(lacking)
    document = _document(rows, len(told) - len(lacking))
    if html is not None:
        from openrbu.reports.page import page_of

        data = page_of(rows).encode()
        changed = save(html, data, force=force)
        document |= {"changed": changed, "html": str(html)}
    if csv:
        from openrbu.reports.table import csv_lines

        return Answer(document, csv_lines(rows), error)
    if html is None:
        return Answer(document, [_table(rows), _summary(rows)], error)
    blocks = [saved(html, changed, human_size(len(data))), *([_table(lacking)] if lacking else [])]
    return Answer(document, [*blocks, _summary(rows)], error)


def _no_answers(lacking: list[ReportRow]) -> DamagedInputError | None:
    """The error of a report that lacks answers: the rows have all, it the first ones."""
    if not lacking:
        return None
    parts = [row.why for row in lacking[:MOST_NAMED]]
    if (more := len(lacking) - MOST_NAMED) > 0:
        parts.append(f"and {more} more")
    return DamagedInputError("; ".join(parts))


def _source(path: Path) -> tuple[str, Callable[[], bytes]]:
    """A file's name for people, and what reads it."""
    if str(path) == "-":
        return STANDARD_INPUT, _standard_input
    return str(path), partial(read_input, path)


def _standard_input() -> bytes:
    """:raise UsageError: when it is a terminal, or too large."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("name files with answers of rbu --json, or pipe them into rbu report")
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{STANDARD_INPUT} has more than {human_size(MAX_INPUT_BYTES)}")
    return data


def _table(rows: list[ReportRow]) -> Block:
    columns = ("machine", "model", "BIOS", "outcome", "BIOS says", "because", "when")
    return Table("BIOS updates", columns, [_cells(row) for row in rows])


def _cells(row: ReportRow) -> list[Cell]:
    wanted = row.target_version not in ("", row.bios_version) and row.outcome != "updated"
    return [
        row.name,
        row.model,
        f"{row.bios_version} ({row.target_version} wanted)" if wanted else row.bios_version,
        _outcome_cell(row.outcome),
        f"{row.code}: {row.meaning}" if row.code else "",
        row.why,
        local_time(row.at) if row.at else "",
    ]


def _outcome_cell(outcome: str, count: str = "") -> Cell:
    from openrbu.reports.outcomes import Sense, outcome_words, sense_of

    paint = {Sense.GOOD: good, Sense.OPEN: caution, Sense.BAD: bad}[sense_of(outcome)]
    return paint(count + outcome_words(outcome))


def _summary(rows: list[ReportRow]) -> Block:
    from openrbu.reports.outcomes import outcome_words
    from openrbu.reports.report import counts

    parts = [f"{count} {outcome_words(outcome)}" for outcome, count in counts(rows).items()]
    machines = "1 machine" if len(rows) == 1 else f"{len(rows)} machines"
    return f"{machines}: {', '.join(parts)}"


def _document(rows: list[ReportRow], answer_count: int) -> dict[str, Any]:
    from openrbu.reports.report import counts

    return {
        "changed": False,
        "answer_count": answer_count,
        "outcomes": counts(rows),
        "machines": [_row_document(row) for row in rows],
        "html": None,
    }


def _row_document(row: ReportRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "computer": row.computer,
        "service_tag": row.service_tag,
        "vendor": row.vendor,
        "model": row.model,
        "system_id": row.system_id or None,
        "bios_version": row.bios_version or None,
        "target_version": row.target_version or None,
        "outcome": row.outcome,
        "completion_code": row.code or None,
        "meaning": row.meaning or None,
        "why": row.why or None,
        "at": row.at.isoformat() if row.at else None,
        "seen_at": row.seen_at.isoformat() if row.seen_at else None,
        "history": [_step_document(step) for step in row.steps],
    }


def _step_document(step: ReportStep) -> dict[str, Any]:
    return {
        "at": step.at.isoformat(),
        "what": step.what,
        "outcome": step.outcome or None,
        "from_version": step.from_version or None,
        "to_version": step.to_version or None,
        "completion_code": step.code or None,
        "why": step.why or None,
        "source": step.source,
    }
