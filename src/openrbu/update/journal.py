"""The journal: which updates were tried on a machine, when, by which version of the tool, and how
they ended.

A file of JSON lines, one event each. Lines are only appended, and each is on the disk before the
step that it announces begins. The events with one `id` are one update: `started`, then `armed`,
then `result` when the BIOS's own result is known; or `failed`, `interrupted`, `cancelled` instead.
`bypassed` before the result: Linux was started again without the BIOS, which is still armed.
`staged` before `armed`: it was staged and verified, and is armed later (`rbu arm`); once more when
that was begun and failed.

Other lines of an update are no events of their own, and add what has to be known if the tool is
killed: `verified`, right before the BIOS is armed, what was staged; `changing`, a setting of Linux
before it is changed.

A machine has one journal, whoever updates it. All users may read it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrbu import __version__
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.file_format import NewerFormatError, parse_object
from openrbu.linux.reboot import REBOOT_MODE
from openrbu.system.kept_files import open_kept, read_kept
from openrbu.system.last_lines import end_of_lines, line_number, lines_from_end
from openrbu.units import MIB
from openrbu.update.restart import WARM

if TYPE_CHECKING:
    from openrbu.hosts.base import Host

SCHEMA = 3
"""The newest of a line; a reader refuses newer ones. Most events have 1, as ever: an older openrbu
reads a journal in which no update has changed a setting, was verified or was left staged since."""

VERIFIED, CHANGING = "verified", "changing"
"""Lines that are no events."""

BYPASSED = "bypassed"

STAGED = "staged"

_SCHEMAS = {VERIFIED: 2, CHANGING: 2, STAGED: 3}
"""The schema of each line that an older openrbu must not pass over."""

_NO_EVENT = "a line that is no event"
"""Told by `Journal.attempts`, with the line's number."""

OPEN_EVENTS = ("started", STAGED, "armed", BYPASSED)
"""Events after which another one is expected."""

MAX_JOURNAL_BYTES = 64 * MIB
"""More than a hundred thousand updates write."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a setting, which is the text in the file at `path`. `after`: None where it was
    not known before. The same as `before`: the setting was put back, and earlier changes of it do
    not count any more."""

    path: str
    before: str
    after: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One update. `events`: each event's name and time, oldest first. `fields`: the fields of all
    its events, merged; those of later events win. `changes`: the settings that it changes, oldest
    first. `is_verified`: since the last event what is staged was verified, so that the next step
    was to arm the BIOS."""

    id: str
    events: tuple[tuple[str, dt.datetime], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    is_verified: bool = False

    @property
    def outcome(self) -> str:
        """The name of the last event."""
        return self.events[-1][0]

    @property
    def is_open(self) -> bool:
        return self.outcome in OPEN_EVENTS

    @property
    def may_be_armed(self) -> bool:
        """Whether the BIOS may be armed for it, as far as the journal tells."""
        return self.is_open and (self.outcome in ("armed", BYPASSED) or self.is_verified)


class Journal:
    """The journal in the file at `path`. Where there is none yet, the sound lines of the files
    `older` count, and the new file begins with them. Those files stay, and are not read again.
    Messages name the file at `told`, of which the one at `path` may be a copy."""

    def __init__(self, path: Path, older: Sequence[Path] = (), *, told: Path | None = None) -> None:
        self._path, self._older, self._told = path, older, told or path

    @classmethod
    def of(cls, host: Host) -> Journal:
        """The journal of a machine."""
        return cls(host.journal_path, host.older_journal_paths, told=host.lasting_journal_path)

    def append(self, attempt_id: str, event: str, when: dt.datetime, **fields: Any) -> None:
        """Add an event, or `VERIFIED`; it is on the disk when this returns.

        :raise ObstacleError: when it can't be written.
        """
        document = {
            "schema": _SCHEMAS.get(event, 1),
            "id": attempt_id,
            "event": event,
            "at": when.isoformat(timespec="seconds"),
            "openrbu": __version__,
            **fields,
        }
        line = json.dumps(document).encode() + b"\n"
        try:
            if self._path.exists() or not self._begin(line):
                fd = open_kept(self._path, os.O_RDWR | os.O_APPEND)
                try:
                    self._add_line(fd, line)
                finally:
                    os.close(fd)
        except OSError as error:
            raise self._unwritable(error) from None

    def append_change(self, attempt_id: str, change: Change, when: dt.datetime) -> None:
        """Add a change that is about to be made; it is on the disk when this returns.

        :raise ObstacleError: when it can't be written.
        """
        self.append(attempt_id, CHANGING, when, **dataclasses.asdict(change))

    def attempts(self, last: int | None = None) -> list[Attempt]:
        """All updates, oldest first; or the `last` of them, at least one. A last line without its
        end is ignored.

        The lines before those of the `last` updates are not read: the cost does not grow with the
        journal, and what is damaged there does not matter.

        :raise ObstacleError: when the journal can't be read.
        :raise DamagedInputError: when a whole line is not an event.
        """
        try:
            fd = open_kept(self._path, os.O_RDONLY)
        except FileNotFoundError:
            attempts = self._taken(enumerate(self._older_lines(), start=1), lambda number: number)
        except OSError as error:
            raise self._unreadable(error) from None
        else:
            try:
                lines = _lines(fd) if last is None else _last_lines(fd, last)
                attempts = self._taken(lines, lambda offset: line_number(fd, offset))
            except OSError as error:
                raise self._unreadable(error) from None
            finally:
                os.close(fd)
        return attempts[0 if last is None else -last :]

    def _taken(
        self, lines: Iterable[tuple[int, bytes]], number_of: Callable[[int], int]
    ) -> list[Attempt]:
        """The updates in these lines. `number_of`: a line's number, of what it comes with.

        :raise ObstacleError | DamagedInputError: for a line that is not understood.
        """
        attempts: dict[str, Attempt] = {}
        for where, line in lines:
            try:
                _take(line, attempts)
            except NewerFormatError as error:
                raise ObstacleError(
                    f"line {number_of(where)} of the journal {self._told} was written by a newer "
                    f"openrbu (schema {error.actual}; this one knows {SCHEMA}): update openrbu"
                ) from None
            except DamagedInputError:
                raise DamagedInputError(
                    f"line {number_of(where)} of the journal {self._told} is damaged: move the "
                    "file away; the next update begins a new one"
                ) from None
        return list(attempts.values())

    def _older_lines(self) -> list[bytes]:
        """The lines of the older files that are events."""
        lines = []
        for path in self._older:
            with contextlib.suppress(OSError):
                for line in read_kept(path, max_bytes=MAX_JOURNAL_BYTES).split(b"\n")[:-1]:
                    try:
                        _event_in(line)
                    except NewerFormatError:
                        pass  # to be told, not left out
                    except DamagedInputError:
                        continue
                    lines.append(line)
        return lines

    @property
    def last(self) -> Attempt | None:
        """The last update; None: there was none.

        :raise ObstacleError | DamagedInputError: as `attempts`, for its lines.
        """
        attempts = self.attempts(1)
        return attempts[0] if attempts else None

    def _begin(self, line: bytes) -> bool:
        """Make the file, whole, with `line` at its end; False: another process has just made it.

        :raise OSError: when it can't be made.
        """
        with contextlib.suppress(FileExistsError):
            self._path.parent.mkdir(parents=True)
            self._path.parent.chmod(0o755)  # whatever the umask is
        fresh = self._path.with_name(f".{self._path.name}.{os.urandom(6).hex()}.new")
        fd = open_kept(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(fd, "wb") as file:
                file.writelines(older + b"\n" for older in self._older_lines())
                file.write(line)
                file.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            try:
                self._path.hardlink_to(fresh)  # never over another one
            except FileExistsError:
                return False
        finally:
            fresh.unlink(missing_ok=True)
        return True

    def _unreadable(self, error: OSError) -> ObstacleError:
        return ObstacleError(f"the journal {self._told} can't be read: {error.strerror}")

    def _unwritable(self, error: OSError) -> ObstacleError:
        return ObstacleError(f"the journal {self._told} can't be written: {error.strerror}")

    @staticmethod
    def _add_line(fd: int, line: bytes) -> None:
        """Append a whole line, or nothing. It replaces a last line that a crash has cut off.

        :raise OSError: when the line can't be written.
        """
        size = end_of_lines(fd, MAX_JOURNAL_BYTES)
        if os.fstat(fd).st_size != size:
            os.ftruncate(fd, size)
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fd)


@dataclass(frozen=True, slots=True)
class _Event:
    """A line. `name`: the event's, or one of those that are no events."""

    attempt_id: str
    name: str
    at: dt.datetime
    fields: Mapping[str, Any]


@lru_cache(maxsize=32)  # the last lines are read again at each step of an update
def _event_in(line: bytes) -> _Event:
    """:raise NewerFormatError: when a newer openrbu wrote the line.
    :raise DamagedInputError: when it is not an event.
    """
    document = parse_object(line)
    if isinstance(schema := document.pop("schema", None), int) and schema > SCHEMA:
        raise NewerFormatError(schema, SCHEMA)
    try:
        attempt_id, name = document.pop("id"), document.pop("event")
        at = dt.datetime.fromisoformat(document.pop("at"))
        if not (isinstance(attempt_id, str) and isinstance(name, str)):
            raise TypeError("an update and an event have names")
        if name == CHANGING:
            _change_in(document)
    except (ValueError, KeyError, TypeError):
        raise DamagedInputError(_NO_EVENT) from None
    return _Event(attempt_id, name, at, document)


def _take(line: bytes, attempts: dict[str, Attempt]) -> None:
    """Add the event in a line to its update.

    :raise NewerFormatError | DamagedInputError: as `_event_in`.
    """
    event = _event_in(line)
    fields, before = event.fields, attempts.get(event.attempt_id, Attempt(event.attempt_id))
    if event.name == CHANGING:
        change = _change_in(fields)
        earlier = before.changes
        if change.before == change.after:
            earlier = tuple(each for each in earlier if each.path != change.path)
        attempts[event.attempt_id] = replace(before, changes=(*earlier, change))
        return
    changes = before.changes
    if isinstance(mode := fields.get("restart_before"), str):  # until 0.2 in `started`
        changes = (Change(REBOOT_MODE, mode, WARM),)
    is_verified = event.name == VERIFIED
    events = before.events if is_verified else (*before.events, (event.name, event.at))
    merged = {**before.fields, **fields}
    attempts[event.attempt_id] = Attempt(event.attempt_id, events, merged, changes, is_verified)


def _change_in(fields: Mapping[str, Any]) -> Change:
    """:raise KeyError | TypeError: when the fields are not those of a change."""
    change = Change(fields["path"], fields["before"], fields["after"])
    texts = (change.path, change.before, "" if change.after is None else change.after)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a change has texts")
    return change


def _lines(fd: int) -> Iterator[tuple[int, bytes]]:
    """All whole lines of an open journal, each with its offset.

    :raise OSError: when it can't be read.
    """
    return reversed(list(lines_from_end(fd, MAX_JOURNAL_BYTES)))


def _last_lines(fd: int, count: int) -> Iterator[tuple[int, bytes]]:
    """The lines of an open journal that have the last `count` updates in them, each with its
    offset. The first of them may be one that is damaged.

    An update is whole when its `started` was read: no line of it is before that. So all are read
    back to the `started` of an earlier update that a line between them belongs to.

    :raise OSError: when it can't be read.
    """
    lines, begun, waited_for = [], set[str](), set[str]()
    for offset, line in lines_from_end(fd, MAX_JOURNAL_BYTES):
        lines.append((offset, line))
        try:
            event = _event_in(line)
        except DamagedInputError:
            break
        if event.name == "started":
            begun.add(event.attempt_id)
        waited_for.add(event.attempt_id)
        if waited_for <= begun and len(begun) >= count:
            break
    return reversed(lines)
