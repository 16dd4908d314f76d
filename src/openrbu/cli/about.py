"""The commands help and version."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from openrbu import __version__
from openrbu._vendor import typer
from openrbu.cli.show import Answer
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from openrbu.cli.app import Group, Row

_MOST_NEAR = 3
"""How many names are suggested at most for one that does not exist."""


def complete_commands(context: typer.Context, incomplete: str) -> list[str]:
    """The words that can come next in the name of a command, as far as it is typed."""
    from openrbu.cli.app import COMMANDS, Group

    rows: Mapping[str, Row | Group] = COMMANDS
    for word in context.params.get("command") or ():
        row = rows.get(word)
        rows = row.rows if isinstance(row, Group) else {}
    return [name for name in rows if name.startswith(incomplete)]


def show_help(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]",
            help="A command, of one word or of two.",
            autocompletion=complete_commands,
        ),
    ] = None,
) -> int:
    """Show the help of a command, or without one the list of all commands.

    \b
    Examples:  rbu help update
               rbu help machine new
    """
    from openrbu.cli.app import COMMANDS, build_command

    words = command or []
    _check(words, COMMANDS)
    build_command().main([*words, "--help"], prog_name="rbu", standalone_mode=False)
    return 0


def _check(words: Sequence[str], commands: Mapping[str, Row | Group]) -> None:
    """Check that there is such a command.

    :raise UsageError: when there is none; the message has the names that are near.
    """
    from openrbu.cli.app import Group

    rows: Mapping[str, Row | Group] = commands
    for place, word in enumerate(words):
        before = " ".join(["rbu", *words[:place]])
        if not rows:
            raise UsageError(f"{before} has no commands of its own; see: {before} --help")
        row = rows.get(word)
        if row is None:
            near = _near(words[place:], words[:place], rows)
            hint = f"did you mean {' or '.join(near)}? See" if near else "see"
            raise UsageError(f"there is no command {before} {word}; {hint}: {before} --help")
        rows = row.rows if isinstance(row, Group) else {}


def _near(
    words: Sequence[str], before: Sequence[str], rows: Mapping[str, Row | Group]
) -> list[str]:
    """The commands whose names are like the first of these words, as they are called; also those
    of two words of which it is the second one."""
    word = words[0]
    named = [[*before, name] for name in difflib.get_close_matches(word, rows, _MOST_NEAR)]
    named += _second(word, rows)
    return [" ".join(["rbu", *each]) for each in named][:_MOST_NEAR]


def _second(word: str, rows: Mapping[str, Row | Group]) -> Iterator[list[str]]:
    from openrbu.cli.app import Group

    for name, row in rows.items():
        if isinstance(row, Group) and word in row.rows:
            yield [name, word]


def version() -> Answer:
    """Show the version of openrbu; with --json that of Python, too.

    \b
    Example:  rbu version --json
    """
    document = {"version": __version__, "python_version": platform.python_version()}
    return Answer(document, [f"rbu {__version__}"])
