"""Which update waits on a machine: staged for `rbu arm`, or armed for the next restart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    from openrbu.update.journal import STAGED, Journal  # noqa: PLC0415  (start-up time)
    from openrbu.update.undo import is_of_this_boot  # noqa: PLC0415  (start-up time)

    with contextlib.suppress(ObstacleError, DamagedInputError):
        last = Journal.of(host).last
        if last is not None and last.outcome in (STAGED, "armed") and is_of_this_boot(host, last):
            return last
    return None


def what_waits(host: Host, target: Target) -> Waits | None:
    """What waits on a machine; None: nothing, as far as can be seen. What is staged and not what
    was verified waits for nothing. Changes nothing."""
    from openrbu.update.arm import read_armed  # noqa: PLC0415  (start-up time)
    from openrbu.update.ending import is_left_armed  # noqa: PLC0415  (as above)
    from openrbu.update.journal import Journal  # noqa: PLC0415  (as above)
    from openrbu.update.report import is_staged_as_verified  # noqa: PLC0415  (as above)

    with contextlib.suppress(OSError, OpenRbuError):
        last = waiting(host)
        version = None if last is None else str(last.fields.get("to_version"))
        if read_armed(host, target):
            if is_left_armed(host, target, Journal.of(host).last):
                return None
            is_ours = last is not None and last.outcome == "armed"
            return Waits(is_armed=True, version=version if is_ours else None)
        if last is not None and last.outcome != "armed" and is_staged_as_verified(host, last):
            return Waits(is_armed=False, version=version)
    return None
