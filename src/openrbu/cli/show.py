"""Prints a command's answer: a JSON document, rich text on a terminal, plain text in a pipe.

Commands say *what* to show (facts, tables, lines, and what is good or bad about them); only this
module decides how it looks. Text may come from damaged files, so characters that are not printable
are escaped.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

from openrbu.cli import letters
from openrbu.errors import OpenRbuError, OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

SCHEMA = 1


class Meaning(Enum):
    """The meaning of a text, and its colour."""

    GOOD = "green"
    CAUTION = "yellow"
    BAD = "red"


@dataclass(frozen=True, slots=True)
class StyledText:
    """Text with a meaning, shown as a colour."""

    text: str
    meaning: Meaning


Cell = str | StyledText


def good(text: str) -> StyledText:
    return StyledText(text, Meaning.GOOD)


def caution(text: str) -> StyledText:
    return StyledText(text, Meaning.CAUTION)


def bad(text: str) -> StyledText:
    return StyledText(text, Meaning.BAD)


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values. A row with an empty name continues the row before it."""

    title: str
    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Sections:
    """Titles with rows below each, all with the same columns and without a frame: for what is long.
    On a terminal the last cell of a row is folded."""

    sections: Sequence[tuple[str, Sequence[Sequence[Cell]]]]

    @property
    def rows(self) -> list[Sequence[Cell]]:
        """The rows of all sections."""
        return [row for _, rows in self.sections for row in rows]


@dataclass(frozen=True, slots=True)
class Picture:
    """Lines that are drawn as they are, each of texts with a style as rich writes it."""

    lines: Sequence[Sequence[tuple[str, str]]]


Block = Facts | Table | Sections | Picture | StyledText | str
"""A part of an answer; a string is one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a command: `document` for `--json`, `blocks` for people. `error`: the error
    with which it ends after these were shown."""

    document: Mapping[str, Any]
    blocks: Sequence[Block] = ()
    error: OpenRbuError | None = None


def prepare_streams() -> None:
    """Make standard output and error accept any text: what the locale can't encode is replaced by
    what it can."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            letters.prepare(stream)


def printable(text: str) -> str:
    """`text` on one line, in characters that standard output has; control characters and
    undecodable bytes are escaped."""
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
        )
    return letters.like(text, getattr(sys.stdout, "encoding", None))


def width() -> int:
    """How many characters fit in a line: on a terminal, or what COLUMNS says, or 80."""
    return shutil.get_terminal_size().columns


def hex_address(address: int) -> str:
    """An address as it is written in JSON documents."""
    return f"{address:#x}"


def os_error_text(error: OSError) -> str:
    """The file's name and the system's error text."""
    text = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {text}" if error.filename else text


def emit(blocks: Sequence[Block]) -> None:
    """Write blocks on standard output. A closed pipe is not an error.

    :raise OutputError: when they can't be written.
    """
    if blocks:
        draw = _draw_rich if _is_rich(sys.stdout) else _draw_plain
        _write_out(lambda: draw(blocks))


def emit_on_stderr(blocks: Sequence[Block]) -> None:
    """Write blocks on standard error: what is told beside the output of a program. A failure to
    write them is ignored."""
    if sys.stderr is not None:  # None: closed by the caller
        draw = _draw_rich if _is_rich(sys.stderr) else _draw_plain
        with contextlib.suppress(OSError), contextlib.redirect_stdout(sys.stderr):
            draw(blocks)
            sys.stderr.flush()


def emit_document(document: Mapping[str, Any]) -> None:
    """Write a JSON document on standard output. A closed pipe is not an error.

    :raise OutputError: when it can't be written.
    """
    text = json.dumps({"schema": SCHEMA, **document}, indent=2)
    _write_out(lambda: print(text))


def check_output() -> None:
    """Check that standard output can be written, before a command changes anything: write a blank
    line, which is allowed before a JSON document (RFC 8259, section 2).

    :raise OutputError: when it can't be written. A closed pipe is not an error.
    """
    _write_out(print)


def print_error(text: str) -> None:
    """Print an error as one line on standard error. A failure to write it is ignored."""
    _print_on_stderr(text, "31")


def print_note(text: str) -> None:
    """Print a note as one line on standard error: what is being done, or what was found."""
    _print_on_stderr(text, "2")


def _print_on_stderr(text: str, style: str) -> None:
    """Print a line on standard error, on a terminal in `style` (ECMA-48, SGR)."""
    if sys.stderr is None:  # closed by the caller
        return
    line = "rbu: " + printable(text)
    if _is_rich(sys.stderr) and not os.environ.get("NO_COLOR"):
        line = f"\x1b[{style}m{line}\x1b[0m"
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def write_through(stream: int, data: bytes) -> None:
    """Copy what a program wrote to its standard output (1) or error (2) to this process's own.

    :raise OutputError: as `emit`.
    """
    own = sys.stdout if stream == 1 else sys.stderr
    if own is not None:
        _write_out(lambda: own.buffer.write(data), own)


def _is_rich(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that can show more than plain lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in (None, "dumb")


def _write_out(write: Callable[[], object], stream: TextIO | None = None) -> None:
    """Write to `stream` (None: standard output)."""
    stream = stream or sys.stdout
    if stream is None:  # closed by the caller
        return
    try:
        write()
        stream.flush()
    except BrokenPipeError:
        _discard(stream)
    except OSError as error:
        raise output_error(error, stream) from None


def output_error(error: OSError, stream: TextIO | None = None) -> OutputError:
    """What is told of an error of `stream` (None: standard output). What is still in its buffer is
    discarded; Python would write it when it ends, and fail again."""
    _discard(stream or sys.stdout)
    return OutputError(f"the output can't be written: {error.strerror}")


def _discard(stream: TextIO) -> None:
    """Discard what is in the stream's buffer, and what is written to it later."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# -- plain ----------------------------------------------------------------------------------


def cell_text(cell: Cell) -> str:
    """A cell as plain text."""
    return printable(cell.text if isinstance(cell, StyledText) else cell)


def _draw_plain(blocks: Sequence[Block]) -> None:
    for block in blocks:
        if isinstance(block, Facts):
            rows = [(name and f"{name}:", cell) for name, cell in block.rows]
            _print_columns([block.title], rows)
        elif isinstance(block, Sections):
            widths = _widths(block.rows)
            for title, below in block.sections:
                _print_columns([title], below, widths)
        elif isinstance(block, Table):
            rows_with_head = [[name.upper() for name in block.columns], *block.rows]
            _print_columns([], rows_with_head)
        elif isinstance(block, Picture):
            for line in block.lines:
                print("".join(printable(text) for text, _ in line).rstrip())
        else:
            print(cell_text(block))


def _print_columns(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], widths: Sequence[int] = ()
) -> None:
    """Print rows in aligned columns, indented below a head. `widths`: of the columns, where others
    than these rows have them, too."""
    indent = "  " if head else ""
    for line in head:
        print(printable(line))
    widths = widths or _widths(rows)
    for row in rows:
        columns = zip(row, widths, strict=True)
        cells = [cell_text(cell).ljust(width) for cell, width in columns]
        print((indent + "  ".join(cells)).rstrip())


def _widths(rows: Sequence[Sequence[Cell]]) -> list[int]:
    """How wide each column has to be."""
    return [max(len(cell_text(cell)) for cell in column) for column in zip(*rows, strict=True)]


# -- on a terminal --------------------------------------------------------------------------


def _draw_rich(blocks: Sequence[Block]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    for block in blocks:
        is_line = isinstance(block, (str, StyledText, Picture))
        console.print(_renderable(block), soft_wrap=is_line)


def _renderable(block: Block) -> RenderableType:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table as RichTable

    if isinstance(block, Facts):
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, cell in block.rows:
            grid.add_row(name, _rich_text(cell))
        return Panel(grid, title=_rich_text(block.title), title_align="left", expand=False)
    if isinstance(block, Sections):
        return _rich_sections(block)
    if isinstance(block, Picture):
        return _rich_picture(block)
    if isinstance(block, Table):
        table = RichTable(title=_rich_text(block.title), title_justify="left", box=box.ROUNDED)
        for column in block.columns:
            table.add_column(column, overflow="fold")
        for row in block.rows:
            table.add_row(*map(_rich_text, row))
        return table
    return _rich_text(block)


def _rich_sections(block: Sections) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = []
    for title, rows in block.sections:
        grid = RichTable.grid(padding=(0, 2))
        for width in _widths(block.rows)[:-1]:
            grid.add_column(no_wrap=True, min_width=width)
        grid.add_column(overflow="fold")
        for row in rows:
            grid.add_row(*map(_rich_text, row))
        parts += [Text(printable(title), style="bold"), Padding(grid, (0, 0, 0, 2))]
    return Group(*parts)


def _rich_picture(block: Picture) -> RenderableType:
    from rich.text import Text

    lines = (
        Text.assemble(*((printable(text), style) for text, style in line)) for line in block.lines
    )
    return Text("\n").join(lines)


def _rich_text(cell: Cell) -> Text:
    from rich.text import Text

    return Text(cell_text(cell), style=cell.meaning.value if isinstance(cell, StyledText) else "")


def error_console() -> Console | None:
    """A console on standard error for progress; None where that is not a terminal."""
    if not _is_rich(sys.stderr):
        return None
    from rich.console import Console

    return Console(stderr=True, highlight=False)
