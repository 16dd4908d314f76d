"""The commands of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.show import Answer, bad, good
from openrbu.errors import DamagedInputError


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy, in TOML.")],
) -> Answer:
    """Check a policy file: everything that is wrong in it, one line each.

    Each line begins with the place in the file, as keys, and says what is allowed there. The exit
    code is 5 when something is wrong.

    \b
    Example:  rbu policy check fleet.toml
    """
    problems = api.check_policy(file)
    document = {
        "changed": False,
        "path": str(file),
        "is_right": not problems,
        "problems": [{"path": each.path, "message": each.message} for each in problems],
    }
    if not problems:
        policy = api.read_policy(file)
        count = len(policy.systems)
        told = f"right: {count} {'system' if count == 1 else 'systems'}"
        return Answer(document, [good(f"{told}, {len(policy.pinned)} pinned")])
    counted = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    error = DamagedInputError(f"{file} can't be used: {counted}")
    return Answer(document, [bad(str(each)) for each in problems], error)
