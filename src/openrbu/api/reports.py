"""Reports on many machines, out of what `rbu --json` said on each.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.api.images import StrPath
    from openrbu.reports.report import ReportRow


def read_report(files: Iterable[StrPath]) -> list[ReportRow]:
    """A row for each machine of which the files tell, by name. A file has one document of
    `rbu --json`, or several. Of several answers of one machine the newest counts, and all of them
    are its history. What is no answer of rbu about an update is a row, too: its `outcome` is
    `no_answer`, its `why` names the file and the reason.

    :raise UsageError: when no file can be read.
    """
    from openrbu.reports.answers import read_files
    from openrbu.reports.report import make_report
    from openrbu.system.files import read_input

    paths = [Path(file) for file in files]
    return make_report(read_files((str(path), partial(read_input, path)) for path in paths))


def report_page(rows: Sequence[ReportRow]) -> str:
    """A page of HTML to filter and sort the rows, which asks for nothing from elsewhere."""
    from openrbu.reports.page import page_of

    return page_of(rows)
