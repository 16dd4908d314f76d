"""The command `rbu machine log`: what the kernel of a virtual machine said."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from openrbu._vendor import typer
from openrbu.cli.options import MachineName
from openrbu.cli.show import Answer, Block, emit
from openrbu.errors import UsageError
from openrbu.system.times import local_time

if TYPE_CHECKING:
    from openrbu.machine.kernel_log import LogLine

_LOOK_S = 0.2
"""How often --follow looks for new lines."""


def log(
    name: MachineName,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show new lines as they come, until Ctrl-C.")
    ] = False,
    as_json: bool = False,
) -> Answer:
    """Show the log of a virtual machine's kernel: what its drivers said, such as why an image was
    not staged.

    It goes on over restarts, each of which has a line. The words are openrbu's own.

    \b
    Example:  rbu machine log demo
    """
    from openrbu.machine.kernel_log import read_log
    from openrbu.machine.store import existing_directory

    if follow and as_json:
        raise UsageError("--follow and --json don't go together")
    directory = existing_directory(name)
    lines = read_log(directory)
    shown, was_read = 0, not _is_discarded()
    while follow and was_read != _is_discarded():
        fresh = [line for line in lines if line.number > shown]
        emit([_block(line) for line in fresh])
        shown = fresh[-1].number if fresh else shown
        time.sleep(_LOOK_S)
        lines = read_log(directory)
    nothing: list[Block] = [f"the kernel of {name} has said nothing"]
    document = {"name": name, "lines": [_document(line) for line in lines]}
    return Answer(document, [_block(line) for line in lines] or nothing)


def _is_discarded() -> bool:
    """Whether nobody reads standard output: `emit` puts /dev/null there when a pipe is closed."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.stat(os.devnull))  # noqa: PTH116
    return False


def _document(line: LogLine) -> dict[str, Any]:
    from openrbu.typed_json import to_document

    document: dict[str, Any] = to_document(line)
    return document


def _block(line: LogLine) -> Block:
    """A line for people; the start of a kernel stands out."""
    mark = "==" if line.event == "boot" else "  "
    return f"{local_time(line.when, 'milliseconds')} {mark} {line.text}"
