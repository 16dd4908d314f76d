"""Cancel an update that is staged or armed: the token first, then memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.hosts.base import Host
from openrbu.system.signals import signals_deferred
from openrbu.update import restart, stage
from openrbu.update.arm import activation_for, set_armed, unload_dcdbas
from openrbu.update.driver import RbuDriver
from openrbu.update.journal import Attempt, BusyError, Journal
from openrbu.update.kernel_refusals import kernel_refusals
from openrbu.update.report import record_result
from openrbu.update.restart import boot_id
from openrbu.update.target import Target, read_target


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel undid. `left_staged`: this kernel can't safely drop the staged packets; they
    are harmless without the token, and a power cycle clears them. `problem`: why the journal could
    not be read or written; empty: it could."""

    was_armed: bool
    was_staged: bool
    left_staged: bool = False
    problem: str = ""

    @property
    def changed(self) -> bool:
        return self.was_armed or (self.was_staged and not self.left_staged)


def cancel(host: Host) -> Cancelled:
    """Cancel an armed or staged update: clear the token, then memory, then the kind of restart.

    It goes on where the journal can't be read or written; `Cancelled.problem` says so.

    :raise BusyError: when another process updates this machine.
    :raise ObstacleError: when the token can't be accessed, or the SMBIOS tables can't be read.
    :raise DamagedInputError: when the SMBIOS tables are damaged.
    :raise UpdateFailedError: when the token stays set, or the kernel returns an error.
    """
    journal = Journal(host.journal_path)
    with kernel_refusals(), contextlib.ExitStack() as stack:
        target = read_target(host)
        last, problem = None, ""
        try:
            stack.enter_context(journal.locked())
            record_result(host, target)
            last = journal.last
        except BusyError:
            raise
        except (ObstacleError, DamagedInputError) as error:
            problem = str(error)
        stack.enter_context(signals_deferred())
        if last is None or not (last.is_open or _is_not_undone(host, last)):
            return replace(_take_back(host, target, None), problem=problem)
        done = _take_back(host, target, last.fields.get("restart_before"))
        try:
            journal.append(last.id, "cancelled", host.now())
        except ObstacleError as error:
            problem = str(error)
        return replace(done, problem=problem)


def _is_not_undone(host: Host, last: Attempt) -> bool:
    """Whether an update failed in this boot and something of it could not be undone."""
    return bool(last.fields.get("left")) and last.fields.get("boot_id") == boot_id(host)


def _take_back(host: Host, target: Target, restart_before: str | None) -> Cancelled:
    """Undo: the token, the staged data, the kind of restart; unload `dcdbas`, where it was loaded
    for this."""
    had_dcdbas = host.module_is_loaded("dcdbas")
    token = activation_for(host, target)
    try:
        was_armed = token.is_armed
        if was_armed:
            set_armed(token, armed=False)
        driver = RbuDriver(host)
        was_staged = driver.is_loaded and driver.has_staged_data
        left_staged = was_staged and not stage.clear(host)
        restart.restore(host, restart_before)
    finally:
        if not had_dcdbas:
            with contextlib.suppress(OSError, ObstacleError):
                unload_dcdbas(host)
    return Cancelled(was_armed, was_staged, left_staged)
