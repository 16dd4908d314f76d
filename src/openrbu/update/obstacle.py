"""What stands in an update's way."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the way: a name for scripts, one line for people, how the command ends."""

    kind: str
    message: str
    exit_code: ExitCode = ExitCode.OBSTACLE
