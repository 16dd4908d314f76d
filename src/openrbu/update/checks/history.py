"""What else matters: the journal, into which an update writes each of its steps, and the update
before this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.units import KIB, human_sizes
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.exclusion import who_updates
from openrbu.update.restart import boot_id

if TYPE_CHECKING:
    from openrbu.hosts.base import Host
    from openrbu.update.journal import Attempt

NEEDED_BYTES = 64 * KIB
"""Far more than the lines of one update."""

_check = partial(Check, Question.REST)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the journal can be read and written, and how the update before this one ended."""
    path = seen.host.lasting_journal_path
    try:
        last = _last(seen.host)
    except (ObstacleError, DamagedInputError) as error:
        yield _check("journal", str(error), Verdict.IN_THE_WAY, exit_code=error.exit_code)
        return
    if path != seen.host.journal_path:  # the machine is only looked at (`machine.reading`)
        from openrbu.system.denied import why_denied  # noqa: PLC0415  (start-up time)

        problem = why_denied(path)
    else:
        problem = why_not_written(path)
    if problem:
        text = f"the journal {path} can't be written: {problem}"
        yield _check("journal", text, Verdict.IN_THE_WAY)
    else:
        yield _check("journal", f"the journal {path} can be written", Verdict.FINE)
    yield from _other(seen, last)


def why_not_written(path: Path) -> str:
    """Why a line can't be added to the file, which need not exist; empty: it can, as far as can be
    seen without writing."""
    there = next(each for each in (path, *path.parents) if _is_there(each))
    if not os.access(there, os.W_OK):
        is_read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        return "its file system is read-only" if is_read_only else "this user may not (run as root)"
    disk = os.statvfs(there)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < NEEDED_BYTES:
        left, needed = human_sizes(free_bytes, NEEDED_BYTES)
        return f"its disk has {left} left, {needed} are needed: free some space"
    return ""


def _is_there(path: Path) -> bool:
    """Whether it exists, as far as this user may see."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _last(host: Host) -> Attempt | None:
    """The update before; None where there is no journal yet.

    :raise ObstacleError | DamagedInputError: when the journal can't be read.
    """
    if not _is_there(host.journal_path) and not host.older_journal_paths:
        return None
    from openrbu.update.journal import Journal  # noqa: PLC0415  (start-up time)

    return Journal.of(host).last


def _other(seen: Situation, last: Attempt | None) -> Iterator[Check]:
    """An update that is under way, or was cut off in this boot."""
    if who := who_updates(seen.host):
        text = f"an update is under way: {who}"
        yield _check("other_update", text, Verdict.IN_THE_WAY, "wait for it")
    elif last is not None and last.outcome == "started":
        if last.fields.get("boot_id") != boot_id(seen.host):
            return  # the first command that may write records how it ended
        text = f"an update to {last.fields.get('to_version')} was cut off: its tool was killed"
        advice = "the update takes back what that one has changed"
        yield _check("other_update", text, Verdict.HANDLED, advice)
