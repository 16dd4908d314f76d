"""Which update waits on a machine: staged for `rbu arm`, or armed for the next restart."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.hosts.base import Host

if TYPE_CHECKING:
    from openrbu.update.journal import Attempt


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
