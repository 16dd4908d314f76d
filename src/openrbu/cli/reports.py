"""The command report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu._vendor import typer
from openrbu.cli.files import save
from openrbu.cli.images import saved
from openrbu.cli.options import Force
from openrbu.cli.show import Answer, Block, Cell, Table, bad, caution, good
from openrbu.errors import UsageError
from openrbu.system.files import MAX_INPUT_BYTES, read_input
from openrbu.system.times import local_time
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.reports.answers import Answer as Told
    from openrbu.reports.report import ReportRow, ReportStep

STANDARD_INPUT = "standard input"


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
    several in a file. Of several answers of one machine the newest counts, and all are its history.

    \b
    Example:  rbu report *.json --html report.html
    """
    from openrbu.reports.report import counts, make_report

    if csv and as_json:
        raise UsageError("--csv and --json are two forms of one answer: choose one")
    answers = [answer for path in files or [Path("-")] for answer in _read(path)]
    rows = make_report(answers)
    document: dict[str, Any] = {
        "changed": False,
        "answer_count": len(answers),
        "outcomes": counts(rows),
        "machines": [_row_document(row) for row in rows],
        "html": None,
    }
    blocks: list[Block] = []
    if html is not None:
        from openrbu.reports.page import page_of

        data = page_of(rows).encode()
        changed = save(html, data, force=force)
        document |= {"changed": changed, "html": str(html)}
        blocks.append(saved(html, changed, human_size(len(data))))
    if csv:
        from openrbu.reports.table import csv_lines

        blocks = [*csv_lines(rows)]
    elif html is None:
        blocks = [_table(rows)]
    return Answer(document, blocks if csv else [*blocks, _summary(rows)])


def _read(path: Path) -> list[Told]:
    """The answers in a file.

    :raise UsageError: when it can't be read.
    :raise DamagedInputError: when it has none, or something else.
    """
    from openrbu.reports.answers import read_answers

    if str(path) != "-":
        return read_answers(read_input(path), str(path))
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("name files with answers of rbu --json, or pipe them into rbu report")
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{STANDARD_INPUT} has more than {human_size(MAX_INPUT_BYTES)}")
    return read_answers(data, STANDARD_INPUT)


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
        local_time(row.at),
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
        "at": row.at.isoformat(),
        "seen_at": row.seen_at.isoformat(),
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
