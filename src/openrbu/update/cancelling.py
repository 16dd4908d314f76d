"""Cancel an update that is staged or armed: the token first, then memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from openrbu.errors import DamagedInputError, ObstacleError, OpenRbuError
from openrbu.hosts.base import Host
from openrbu.system.signals import signals_deferred
from openrbu.update import firmware_file, stage
from openrbu.update.arm import ActivationToken, activation_for, set_armed, unload_dcdbas
from openrbu.update.driver import RbuDriver
from openrbu.update.exclusion import BusyError, alone_on
from openrbu.update.journal import Change, Journal
from openrbu.update.kernel_refusals import kernel_refusal, kernel_refusals
from openrbu.update.report import record_result
from openrbu.update.target import Target, read_target
from openrbu.update.undo import changes_to_put_back, is_not_undone, put_back


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel undid.

    `left_staged`: what was staged is still in memory, because this kernel can't safely drop it, or
    because of the `problem`; it may be, where it can't be read. It is harmless without the token,
    and a power cycle clears it.

    `was_loading`: a load was begun and not ended; it was aborted.

    `took_back`: an update that was cut off, because its tool was killed, or that could not undo all
    that it had changed, was taken back, and is closed in the journal.

    `problem`: what could not be done after the token was clear, and why; or why the journal could
    not be read or written. Empty: all was done.

    `token_way`: the file through which the token was read, and cleared where it was set.
    """

    was_armed: bool
    was_staged: bool
    left_staged: bool = False
    problem: str = ""
    token_way: str = field(default="", compare=False)
    was_loading: bool = False
    took_back: bool = False

    @property
    def changed(self) -> bool:
        freed = self.was_staged and not self.left_staged
        return self.was_armed or self.was_loading or freed or self.took_back


def cancel(host: Host, password: str | None = None) -> Cancelled:
    """Cancel an armed or staged update: clear the token, then memory, then the kind of restart.
    `password` is the BIOS admin password: some BIOSes clear the token only with it.

    It goes on where the journal can't be read or written, and, once the token was cleared, where
    another step fails: `Cancelled.problem` says so.

    :raise BusyError: when another process updates this machine.
    :raise PasswordNeededError | WrongPasswordError: when the BIOS does not clear the token without
        its admin password, or with the one given; nothing was changed.
    :raise ObstacleError: when the token can't be accessed, or the SMBIOS tables can't be read.
    :raise DamagedInputError: when the SMBIOS tables are damaged.
    :raise UpdateFailedError: when the token stays set, or the kernel returns an error.
    :raise MachineError: when the disk of a virtual machine is full, and it was not armed.
    """
    journal = Journal.of(host)
    with kernel_refusals(), contextlib.ExitStack() as stack:
        target = read_target(host)
        last, problems = None, []
        try:
            stack.enter_context(alone_on(host))
            record_result(host, target)
            last = journal.last
        except BusyError:
            raise
        except (ObstacleError, DamagedInputError) as error:
            problems.append(str(error))
        stack.enter_context(signals_deferred())
        if last is None or not (last.is_open or is_not_undone(host, last)):
            return _take_back(host, target, password, (), problems)
        changes = changes_to_put_back(host, last)
        was_cut_off = last.outcome == "started" or is_not_undone(host, last)
        done = _take_back(host, target, password, changes, problems)
        done = replace(done, took_back=was_cut_off)
        left = [done.problem] if done.problem else []
        fields = {"left": left} if left or last.fields.get("left") else {}
        try:
            journal.append(last.id, "cancelled", host.now(), **fields)
        except ObstacleError as error:
            return replace(done, problem="; ".join([*left, str(error)]))
        return done


def _take_back(
    host: Host,
    target: Target,
    password: str | None,
    changes: Iterable[Change],
    problems: list[str],
) -> Cancelled:
    """Undo: the token, the staged data, the changes of settings; unload `dcdbas`, where it was
    loaded for this. `problems`: those that there are already."""
    had_dcdbas = host.module_is_loaded("dcdbas")
    token = activation_for(host, target, password)
    try:
        was_armed = token.is_armed
        undone: list[str] = []
        if was_armed:
            _disarm(token, undone)
        driver = RbuDriver(host)
        was_staged = left_staged = True  # unless it is known
        was_loading = False
        with _told("what is staged could not be freed", undone, is_enough=was_armed):
            was_staged = left_staged = driver.is_loaded and driver.has_staged_data
            was_loading = driver.is_loading
            if was_staged or was_loading:
                left_staged = not stage.clear(host) and was_staged
            if driver.is_loading:  # what is staged can't be dropped, but the load can be ended
                driver.abort_entry()
            own = host.own_rbu
            if own is not None and not own.is_kept and driver.is_loaded:
                driver.unload()  # an update has started it
        if undone:
            with contextlib.suppress(OSError, OpenRbuError):
                left_staged = was_staged and driver.is_loaded and driver.has_staged_data
        for change in changes:
            with _told(f"{change.path} could not be put back", undone, is_enough=was_armed):
                put_back(host, change)
        with _told("a file of the image could not be removed", undone, is_enough=was_armed):
            firmware_file.take_away(host)
    finally:
        if not had_dcdbas:
            with contextlib.suppress(OSError, ObstacleError):
                unload_dcdbas(host)
    if undone:
        problems = [*problems, f"disarmed, but {', and '.join(undone)}"]
    return Cancelled(
        was_armed, was_staged, left_staged, "; ".join(problems), token.way, was_loading
    )


def _disarm(token: ActivationToken, undone: list[str]) -> None:
    """Clear the token. An error after it was cleared is added to `undone`: what is left to do must
    not wait for it."""
    try:
        set_armed(token, armed=False)
    except (OSError, OpenRbuError) as error:
        if token.is_armed:
            raise
        undone.append(f"it could not be checked what else changed: {_why(error)}")


@contextlib.contextmanager
def _told(what: str, undone: list[str], *, is_enough: bool) -> Iterator[None]:
    """Add an error of the block to `undone`. `is_enough`: the BIOS was disarmed, which must not be
    hidden by an error; where it was not, the error is raised."""
    try:
        yield
    except (OSError, OpenRbuError) as error:
        if not is_enough:
            raise
        undone.append(f"{what}: {_why(error)}")


def _why(error: OSError | OpenRbuError) -> str:
    """An error as text; without an errno's number."""
    return str(kernel_refusal(error)) if isinstance(error, OSError) else str(error)
