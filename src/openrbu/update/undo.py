"""Undo: the steps that take an update back, and the settings of Linux that it changes.

A process that fails or is interrupted takes its own steps back. One that is killed can't: `cancel`
or the next update does it. For that the journal knows what each setting was before it was changed
(`Undo.before_change`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from openrbu.errors import OpenRbuError, UpdateFailedError
from openrbu.hosts.base import Host, read_text
from openrbu.system.signals import signals_deferred
from openrbu.update.journal import Attempt, Change, Journal
from openrbu.update.kernel_refusals import kernel_refusal
from openrbu.update.restart import boot_id

LOST = "what was staged before this update was dropped for it"


@dataclass(slots=True)
class Undo:
    """The steps that undo what the update `attempt_id` did, in the order in which they were added;
    run in reverse."""

    host: Host
    journal: Journal
    attempt_id: str
    steps: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def add(self, what: str, step: Callable[[], None]) -> None:
        """Add a step. `what` names for people what it puts back."""
        self.steps.append((what, step))

    def before_change(self, what: str, path: str, after: str | None) -> None:
        """Call this before a setting is changed, the file at `path` with one line of text: what is
        there now goes into the journal, and undoing writes it back.

        `after` is what will be there. What another program writes later stays. None: it is not
        known before, and what is there is replaced whatever it is.

        :raise ObstacleError: when the journal can't be written.
        :raise OSError: when the file can't be read.
        """
        change = Change(path, read_text(self.host, path), after)
        self.note(change)
        self.add(what, lambda: put_back(self.host, change))

    def note(self, change: Change) -> None:
        """Put a change into the journal that somebody else will undo.

        :raise ObstacleError: when the journal can't be written.
        """
        self.journal.append_change(self.attempt_id, change, self.host.now())

    def run(self) -> list[str]:
        """Undo everything. Returns what could not be undone, and why."""
        left = []
        with signals_deferred():  # again: a second signal may have ended the first deferral
            for what, step in reversed(self.steps):
                try:
                    step()
                except (OSError, OpenRbuError) as error:
                    left.append(f"{what} ({error})")
        return left


def put_back(host: Host, change: Change) -> None:
    """Make a setting what it was before a change, unless another program has changed it since.

    :raise OSError: what the kernel returns.
    """
    now = read_text(host, change.path)
    if now != change.before and change.after in (None, now):
        host.write(change.path, change.before.encode("latin-1"))  # as `read_text` has it


def is_of_this_boot(host: Host, attempt: Attempt) -> bool:
    """Whether an update began in this boot of the machine.

    :raise OSError: what the kernel returns.
    """
    return bool(attempt.fields.get("boot_id") == boot_id(host))


def is_not_undone(host: Host, last: Attempt) -> bool:
    """Whether something of an update of this boot could not be undone, by itself or by a cancel.

    :raise OSError: what the kernel returns.
    """
    return bool(last.fields.get("left")) and is_of_this_boot(host, last)


def changes_to_put_back(host: Host, last: Attempt | None) -> tuple[Change, ...]:
    """What the last update, or an attempt to cancel it, has changed in this boot and not put back;
    the latest change first. (A restart sets all settings anew.)

    :raise OSError: what the kernel returns.
    """
    if last is None or not is_of_this_boot(host, last):
        return ()
    return tuple(reversed(last.changes)) if last.is_open or is_not_undone(host, last) else ()


def put_all_back(host: Host, changes: Iterable[Change]) -> list[str]:
    """Undo these changes. Returns what could not be undone, and why."""
    left = []
    for change in changes:
        try:
            put_back(host, change)
        except (OSError, OpenRbuError) as error:
            left.append(f"{change.path} ({error})")
    return left


def with_what_is_left(
    error: BaseException, left: list[str], *, lost: bool = False
) -> BaseException:
    """The error to raise after all was undone: an `OSError` becomes an `UpdateFailedError`, and the
    message says what is left, and whether what another program had staged was dropped (`lost`)."""
    if isinstance(error, OSError):
        error = kernel_refusal(error)
    if lost and isinstance(error, UpdateFailedError):
        error = UpdateFailedError(f"{error}; {LOST}")
    if left and isinstance(error, OpenRbuError):
        return UpdateFailedError(f"{error}; could not be undone: {', '.join(left)}")
    return error
