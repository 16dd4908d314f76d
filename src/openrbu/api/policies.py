"""Policies: which version each system is to have, by which steps, and when.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, UsageError

if TYPE_CHECKING:
    from openrbu.policy.model import Policy
    from openrbu.policy.reading import Problem, ReadPolicy
    from openrbu.update.choosing import FoundImages

StrPath = str | os.PathLike[str]


def read_policy(path: StrPath) -> Policy:
    """Read a policy from a TOML file (docs/how-to/policy.md).

    :raise UsageError: when the file can't be read.
    :raise DamagedInputError: when something is wrong with it; `check_policy` has all of it.
    """
    read = _read(path)
    if not read.problems:
        return read.policy
    more = len(read.problems) - 1
    told = f" (and {more} more: rbu policy check {path})" if more else ""
    raise DamagedInputError(f"{path}: {read.problems[0]}{told}")


def check_policy(path: StrPath) -> tuple[Problem, ...]:
    """Everything that is wrong with a policy's file; nothing: it can be used.

    :raise UsageError: when the file can't be read.
    """
    return _read(path).problems


def find_images(path: StrPath) -> FoundImages:
    """The images in a file, or in all files below a directory, of which `Machine.choose` chooses
    one.

    :raise UsageError: when it can't be read, a directory has very many files, or the path is empty.
    :raise DamagedInputError | NotForRbuError | ObstacleError: as `read_image`, for a file.
    """
    from openrbu.update import choosing

    if path == "":  # `Path` would make the working directory of it
        raise UsageError("the path is empty")
    return choosing.find_images(Path(path))


def _read(path: StrPath) -> ReadPolicy:
    from zoneinfo import ZoneInfo

    from openrbu.policy.reading import MAX_POLICY_BYTES, read_policy
    from openrbu.system.files import read_input

    return read_policy(read_input(Path(path), max_size_bytes=MAX_POLICY_BYTES), ZoneInfo)
