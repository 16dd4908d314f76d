"""A load of firmware into the driver that was begun and never ended.

Its process was killed between `1` and `0`, or is another program's that is still at work. Until it
is ended the module can't be unloaded, and the image is in the kernel's memory.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.hosts.base import Host
from openrbu.units import human_size
from openrbu.update.driver import RbuDriver
from openrbu.update.journal import Journal
from openrbu.update.undo import is_not_undone, is_of_this_boot

ADVICE = "wait for the program that does it, or end it: rbu cancel"


@dataclass(frozen=True, slots=True)
class BegunLoad:
    """`size_bytes`: what was loaded until now; None where it can't be read. `is_ours`: the last
    update of openrbu in this boot was killed before it armed the BIOS, or could not undo all that
    it did: it has probably begun this load."""

    size_bytes: int | None
    is_ours: bool

    @property
    def message(self) -> str:
        return f"a load of firmware into dell_rbu was begun and not ended, {self.text}"

    @property
    def text(self) -> str:
        """How far it is, and whose, in words."""
        whose = "an update of openrbu that was killed" if self.is_ours else "another program"
        far = "" if self.size_bytes is None else f"{human_size(self.size_bytes)} so far, "
        return f"{far}by {whose}"


def begun_load(host: Host) -> BegunLoad | None:
    """The load under way; None: there is none.

    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    if not driver.is_loading:
        return None
    return BegunLoad(driver.loading_size_bytes, _is_ours(host))


def refuse_foreign(host: Host) -> None:
    """Check that no other program loads firmware into the driver now.

    :raise ObstacleError: when one does.
    :raise OSError: what the kernel returns.
    """
    begun = begun_load(host)
    if begun is not None and not begun.is_ours:
        raise ObstacleError(f"{begun.message}: {ADVICE}")


def _is_ours(host: Host) -> bool:
    with contextlib.suppress(ObstacleError, DamagedInputError, OSError):
        last = Journal.of(host).last
        if last is not None:
            was_killed = last.outcome == "started" and is_of_this_boot(host, last)
            return was_killed or is_not_undone(host, last)
    return False
