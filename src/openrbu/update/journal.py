"""The journal: which updates were tried on a machine, when, by which version of the tool, and how
they ended.

A file of JSON lines, one event each. Lines are only appended, and each is on the disk before the
step that it announces begins. The events with one `id` are one update: `started`, then `armed`,
then `result` when the BIOS's own result is known; or `failed`, `interrupted`, `cancelled` instead.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrbu import __version__
from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.file_format import parse_object
from openrbu.system.kept_files import open_kept, read_kept
from openrbu.units import MIB

SCHEMA = 1
"""Of a line; a reader refuses newer ones."""

OPEN_EVENTS = ("started", "armed")
"""Events after which another one is expected."""

MAX_JOURNAL_BYTES = 64 * MIB
"""More than a hundred thousand updates write."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One update. `events`: each event's name and time, oldest first. `fields`: the fields of all
    its events, merged; those of later events win."""

    id: str
    events: tuple[tuple[str, dt.datetime], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The name of the last event."""
        return self.events[-1][0]

    @property
    def is_open(self) -> bool:
        return self.outcome in OPEN_EVENTS


class BusyError(ObstacleError):
    """Another process, or another thread of this one, updates the same machine."""

    kind = "busy"


class Journal:
    """The journal in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, attempt_id: str, event: str, when: dt.datetime, **fields: Any) -> None:
        """Add an event; it is on the disk when this returns.

        :raise ObstacleError: when it can't be written.
        """
        document = {
            "schema": SCHEMA,
            "id": attempt_id,
            "event": event,
            "at": when.isoformat(timespec="seconds"),
            "openrbu": __version__,
            **fields,
        }
        line = json.dumps(document).encode() + b"\n"
        with self._opened() as fd:
            try:
                self._add_line(fd, line)
            except OSError as error:
                raise self._unwritable(error) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the journal for the block: no other process, and no other thread, can update the
        same machine.

        :raise BusyError: when another one has locked it.
        :raise ObstacleError: when the journal can't be written.
        """
        with self._opened() as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"another process or thread has locked the journal {self._path}: an update is "
                    "under way, wait for it"
                ) from None
            yield

    def attempts(self) -> list[Attempt]:
        """All updates, oldest first. A last line without its end is ignored.

        :raise ObstacleError: when the journal can't be read.
        :raise DamagedInputError: when a whole line is not an event.
        """
        try:
            lines = read_kept(self._path, max_bytes=MAX_JOURNAL_BYTES).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ObstacleError(
                f"the journal {self._path} can't be read: {error.strerror}"
            ) from None
        attempts: dict[str, Attempt] = {}
        for number, line in enumerate(lines[:-1], start=1):
            try:
                document = parse_object(line)
                if isinstance(schema := document.get("schema"), int) and schema > SCHEMA:
                    raise ObstacleError(
                        f"line {number} of the journal {self._path} was written by a newer openrbu "
                        f"(schema {schema}; this one knows {SCHEMA}): update openrbu"
                    )
                self._take(document, attempts)
            except (DamagedInputError, ValueError, KeyError, TypeError):
                raise DamagedInputError(
                    f"line {number} of the journal {self._path} is damaged: move the file away; "
                    "the next update begins a new one"
                ) from None
        return list(attempts.values())

    @property
    def last(self) -> Attempt | None:
        attempts = self.attempts()
        return attempts[-1] if attempts else None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The descriptor of the open file, which is made where it does not exist.

        :raise ObstacleError: when it can't be opened for writing.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = open_kept(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield fd
        finally:
            os.close(fd)

    def _unwritable(self, error: OSError) -> ObstacleError:
        return ObstacleError(f"the journal {self._path} can't be written: {error.strerror}")

    @staticmethod
    def _add_line(fd: int, line: bytes) -> None:
        """Append a whole line, or nothing. It replaces a last line that a crash has cut off.

        :raise OSError: when the line can't be written.
        """
        size = os.fstat(fd).st_size
        tail = os.pread(fd, min(size, 1 << 16), max(0, size - (1 << 16)))
        if not tail.endswith(b"\n"):
            size += tail.rfind(b"\n") + 1 - len(tail)
            os.ftruncate(fd, size)
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fd)

    @staticmethod
    def _take(document: Mapping[str, Any], attempts: dict[str, Attempt]) -> None:
        attempt_id, event = document["id"], document["event"]
        if not (isinstance(attempt_id, str) and isinstance(event, str)):
            raise TypeError("an update and an event have names")
        before = attempts.get(attempt_id, Attempt(attempt_id))
        known = ("schema", "id", "event", "at")
        fields = {name: value for name, value in document.items() if name not in known}
        attempts[attempt_id] = Attempt(
            attempt_id,
            (*before.events, (event, dt.datetime.fromisoformat(document["at"]))),
            {**before.fields, **fields},
        )
