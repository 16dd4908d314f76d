"""Which update waits on a machine: staged for `rbu arm`, or armed for the next restart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from openrbu.errors import DamagedInputError, ObstacleError, OpenRbuError
from openrbu.hosts.base import Host

if TYPE_CHECKING:
    from openrbu.update.journal import Attempt
    from openrbu.update.target import Target


@dataclass(frozen=True, slots=True)
class Waits:
    """An update that waits, staged or armed. `version`: the image's; None: another program has
    armed the BIOS."""

    is_armed: bool
    version: str | None


def waiting(host: Host) -> Attempt | None:
    """The update that openrbu has staged or armed in this boot, as far as its journal tells. None:
    there is none, or the journal can't be read. Changes nothing.

    :raise OSError: what the kernel returns.
    """
    with contextlib.suppress(PermissionError):
        if not host.journal_path.exists() and not host.older_journal_paths:
            return None
    from openrbu.update.journal import Journal  # noqa: PLC0415  (start-up time)

    with contextlib.suppress(ObstacleError, DamagedInputError):
        last = Journal.of(host).last
        if is_waiting(last, host):
            return last
    return None


def is_waiting(last: Attempt | None, host: Host) -> TypeGuard[Attempt]:
    """Whether the last update, or None, was staged or armed in this boot.

    :raise OSError: what the kernel returns.
    """
    from openrbu.update.journal import STAGED  # noqa: PLC0415  (start-up time)
    from openrbu.update.undo import is_of_this_boot  # noqa: PLC0415  (as above)

    return last is not None and last.outcome in (STAGED, "armed") and is_of_this_boot(host, last)


def what_waits(host: Host, target: Target) -> Waits | None:
    """What waits on a machine; None: nothing, as far as can be seen. What is staged and not what
    was verified waits for nothing. Changes nothing."""
    from openrbu.update.arm import read_armed  # noqa: PLC0415  (start-up time)

    with contextlib.suppress(OSError, OpenRbuError):
        if read_armed(host, target):
            return _armed(host, target)
        last = waiting(host)
        if last is not None and last.outcome != "armed":
            return _staged(host, last)
    return None


def _armed(host: Host, target: Target) -> Waits | None:
    """:raise OSError | ObstacleError | DamagedInputError: when it can't be known."""
    from openrbu.update.ending import is_left_armed  # noqa: PLC0415  (start-up time)
    from openrbu.update.journal import Journal  # noqa: PLC0415  (as above)

    last = Journal.of(host).last
    if is_left_armed(host, target, last):
        return None
    if not is_waiting(last, host) or last.outcome != "armed":
        return Waits(is_armed=True, version=None)
    return Waits(is_armed=True, version=_version(last))


def _staged(host: Host, last: Attempt) -> Waits | None:
    """:raise OSError: what the kernel returns."""
    from openrbu.update.report import is_staged_as_verified  # noqa: PLC0415  (start-up time)

    if not is_staged_as_verified(host, last):
        return None
    return Waits(is_armed=False, version=_version(last))


def _version(last: Attempt) -> str:
    return str(last.fields.get("to_version"))
