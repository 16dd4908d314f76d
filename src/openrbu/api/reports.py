"""Reports on many machines, out of what `rbu --json` said on each.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.api.images import StrPath
    from openrbu.reports.report import ReportRow


def read_report(files: Iterable[StrPath]) -> list[ReportRow]:
    """A row for each machine of which the files tell, by name. A file has one document of
    `rbu --json`, or several. Of several answers of one machine the newest counts, and all of them
    are its history.

    :raise UsageError: when a file can't be read.
    :raise DamagedInputError: when one is no answer of rbu about an update; the message names it.
    """
    from openrbu.reports.answers import read_answers
    from openrbu.reports.report import make_report
    from openrbu.system.files import read_input

    return make_report(
        answer for path in map(Path, files) for answer in read_answers(read_input(path), str(path))
    )


def report_page(rows: Sequence[ReportRow]) -> str:
    """A page of HTML to filter and sort the rows, which asks for nothing from elsewhere."""
    from openrbu.reports.page import page_of

    return page_of(rows)
