"""A report as a table of texts, for a terminal, a spreadsheet and a page."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Sequence

from openrbu.reports.report import ReportRow

CSV_COLUMNS = (
    *("name", "computer", "service_tag", "vendor", "model", "system_id", "bios_version"),
    *("target_version", "outcome", "code", "meaning", "why", "at", "seen_at"),
)
"""The columns of CSV: fields of a row. Times are RFC 3339, in UTC; empty: none is known."""


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet may take for the begin of a formula: these and their wide forms (OWASP, "CSV
injection")."""


def csv_lines(rows: Sequence[ReportRow]) -> list[str]:
    """The table as CSV (RFC 4180), a line for each machine and one with the names of the columns.
    A line that has a line break in one of its texts has it here, too. A text that a spreadsheet
    would take for a formula has an apostrophe before it: names and reasons come from many machines.
    """
    return [_csv_line(CSV_COLUMNS), *(_csv_line(_cells(row)) for row in rows)]


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    safe = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
    csv.writer(text, lineterminator="").writerow(safe)
    return text.getvalue()


def _cells(row: ReportRow) -> list[str]:
    values = (getattr(row, name) for name in CSV_COLUMNS)
    return [value if isinstance(value, str) else utc(value) for value in values]


def utc(when: dt.datetime | None) -> str:
    """A moment as RFC 3339 in UTC, to the second; empty: none is known."""
    if when is None:
        return ""
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
