"""Why an update can't be done."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why an update can't be done: `kind` for scripts, `message` (one line) for people,
    and the exit code of the command."""

    kind: str
    message: str
    exit_code: ExitCode = ExitCode.OBSTACLE
