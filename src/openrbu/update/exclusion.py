"""One process at a time changes a machine: the lock, and who has it.

The lock belongs to the machine, not to the home, the user or the mounts of a process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from openrbu.errors import ObstacleError
from openrbu.system import flocks

if TYPE_CHECKING:
    from openrbu.hosts.base import Host
    from openrbu.system.flocks import Holder


_OWN: ContextVar[tuple[str, ...]] = ContextVar("own", default=())
"""The names of the machines that this thread has locked."""


class BusyError(ObstacleError):
    """Another process, or another thread of this one, updates the same machine. `holder`: that
    process; None where it can't be seen from here."""

    kind = "busy"

    def __init__(self, message: str, holder: Holder | None = None) -> None:
        super().__init__(message)
        self.holder = holder


@contextlib.contextmanager
def alone_on(host: Host) -> Iterator[None]:
    """Lock the machine for the block: no other process, and no other thread, can update it.

    :raise BusyError: when another one has locked it.
    :raise ObstacleError: when it can't be locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(flocks.hold(stack.enter_context(host.lock_files())))
        except flocks.HeldError as held:
            raise BusyError(
                f"an update is under way, wait for it: {flocks.holder_text(held.holder)}",
                held.holder,
            ) from None
        except OSError as error:
            raise ObstacleError(f"{host.name} can't be locked: {error.strerror}") from None
        own = _OWN.set((*_OWN.get(), host.name))
        stack.callback(_OWN.reset, own)
        yield


def has_locked(host: Host) -> bool:
    """Whether this thread has locked the machine."""
    return host.name in _OWN.get()


def who_updates(host: Host) -> str:
    """Which process updates the machine now, in words; empty: none does, as far as can be seen, or
    this thread itself."""
    if has_locked(host):
        return ""
    try:
        with host.lock_files() as fds:
            is_held, holder = flocks.find_holder(fds)
    except OSError:
        return ""
    return flocks.holder_text(holder) if is_held else ""
