"""The file of a trace: what a program under `rbu run --trace` did with the machine, as JSON lines.

The first line is a `TraceHead`, each other one a `TraceEvent`; docs/trace.md has the keys. In an
event a key is left out where it is null. A key that is not known is passed over, so a newer
openrbu may add some; it raises `SCHEMA` when it renames or removes one.

`read_trace` reads as far as it can. `folded` makes one `TraceStep` out of a run of equal events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.system.files import read_input
from openrbu.typed_json import Natural, known_part, read

SCHEMA = 1

CALLS = ("lookup", "open", "read", "write", "ioctl")
"""The events that are calls on a file."""

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class TraceHead:
    """What was traced: the first line.

    `began_at`: date and time, ISO 8601. `openrbu`: the version that wrote it.
    """

    schema: Natural
    openrbu: str
    began_at: str
    machine: str
    model: str
    profile: str
    bios_version: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that happened, `time_s` seconds after the begin. What does not belong to its kind
    is None.

    Of every call: `pid`, `program` (the process's name), and `errno` (a name, such as `ENOENT`;
    None: it went well).

    - `lookup`: a `path` was not found. Only failures are traced.
    - `open`: `access` is `read`, `write` or `read_write`.
    - `read`, `write`: `size_bytes` were asked for at `offset_bytes`, and `done_bytes` were done;
      `text` is what was read or written at the file's begin, where that is short and plain text.
    - `ioctl`: its `request`.
    - `port`: `access` to the I/O `port` of `size_bytes`, with `value`.
    - `command`: the machine carried out what a program asked it for by a command such as
      modprobe(8); `text` is the command, `exit_code` its.
    - `log`: a line of the machine's kernel, in `text`.
    - `restart`: the machine restarted; `text` says how, and what its BIOS did.
    - `end`: the program ended with `exit_code`, the negative number of a signal where one ended it.
    """

    event: Literal[
        "lookup", "open", "read", "write", "ioctl", "port", "command", "log", "restart", "end"
    ]
    time_s: float
    pid: Natural | None = None
    program: str | None = None
    path: str | None = None
    access: Literal["read", "write", "read_write"] | None = None
    offset_bytes: Natural | None = None
    size_bytes: Natural | None = None
    done_bytes: Natural | None = None
    port: Natural | None = None
    value: Natural | None = None
    request: Natural | None = None
    text: str | None = None
    errno: str | None = None
    exit_code: int | None = None

    @property
    def is_failure(self) -> bool:
        """Whether a call or a command failed. No file of the kernel answers an ioctl, and programs
        ask each file with one whether it is a terminal: that is none."""
        if self.event == "command":
            return self.exit_code != 0
        return self.errno is not None and self.event != "ioctl"


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A run of `count` equal events, the first of which is `event`: the same call of the same
    process on the same file, with the same result, each beginning where the one before it ended, or
    all at one place. `done_bytes`: of all together. `end_s`: the time of the last one."""

    event: TraceEvent
    count: int
    done_bytes: int
    end_s: float


@dataclass(frozen=True, slots=True)
class TraceReport:
    """A trace as it was read. `damage`: what is wrong with the file, of which the rest could be
    read; None: nothing."""

    head: TraceHead
    events: tuple[TraceEvent, ...]
    damage: DamagedInputError | None

    @property
    def first_failure(self) -> TraceEvent | None:
        """The call that failed first; None: none did.

        A path that was not found counts only where no other call failed, and where it was not found
        later on either: programs ask whether a file is there, and wait for one. A read that the
        process then makes in another way, with success, does not count.
        """
        failures = self._failures()
        opened = {each.path for each in self.events if each.event == "open" and not each.errno}
        for each in failures:
            if each.event != "lookup":
                return each
        return next((each for each in failures if each.path not in opened), None)

    def _failures(self) -> list[TraceEvent]:
        """The events that failed, without reads that are followed by one of the same process and
        file that went well: of a smaller part, for example."""
        failures = []
        following: dict[int | None, TraceEvent] = {}  # by process
        for event in reversed(self.events):
            after = following.get(event.pid)
            is_made_again = (
                event.event == "read"
                and after is not None
                and (after.event, after.path) == ("read", event.path)
                and not after.is_failure
            )
            if event.is_failure and not is_made_again:
                failures.append(event)
            following[event.pid] = event
        return failures[::-1]


def read_trace(path: Path | str) -> TraceReport:
    """Read the file of a trace, as far as that is possible.

    :raise DamagedInputError: when its first line is not that of a trace.
    :raise ObstacleError: when a newer openrbu wrote it.
    :raise UsageError: when it can't be read.
    """
    path = Path(path)
    data = read_input(path)
    lines = data.split(b"\n")
    head = _head(path, lines[0])
    events: list[TraceEvent] = []
    damage = None
    offset = len(lines[0]) + 1
    for number, line in enumerate(lines[1:-1], 2):
        try:
            events.append(_record(TraceEvent, line))
        except DamagedInputError as error:
            text = f"{path} is damaged in line {number}: {error}; what is before it is shown"
            damage = DamagedInputError(text, offset=offset)
            break
        offset += len(line) + 1
    if damage is None and not (events and events[-1].event == "end" and not lines[-1]):
        text = f"{path} has no end: the program still runs, or rbu run was killed, or it is cut"
        damage = DamagedInputError(text, offset=len(data))
    events.sort(key=lambda event: event.time_s)  # what the kernel said is at the file's end
    return TraceReport(head, tuple(events), damage)


def _head(path: Path, line: bytes) -> TraceHead:
    """
    :raise DamagedInputError | ObstacleError: as `read_trace`.
    """
    try:
        schema = json.loads(line)["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise ObstacleError(f"{path} was written by a newer openrbu: trace schema {schema}")
        return _record(TraceHead, line)
    except (ValueError, KeyError, TypeError, RecursionError, DamagedInputError):
        text = f"{path} is not a trace of rbu run --trace, or its first line is damaged"
        raise DamagedInputError(text, offset=0) from None


def _record(kind: type[_Record], line: bytes) -> _Record:
    """
    :raise DamagedInputError: when the line is not one of this kind.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise DamagedInputError("it is not JSON") from None
    return read(kind, known_part(kind, document))


def is_trace(path: Path) -> bool:
    """Whether a file begins as a trace does.

    :raise OSError: when it can't be read.
    """
    with path.open("rb") as file:
        return file.read(len(FIRST_BYTES)) == FIRST_BYTES


FIRST_BYTES = b'{"schema": '
"""What the file of a trace begins with."""


def folded(events: Iterable[TraceEvent]) -> Iterator[TraceStep]:
    """The events, with runs of equal ones as one step."""
    run: list[TraceEvent] = []
    for event in events:
        if run and not _continues(run, event):
            yield _step(run)
            run.clear()
        run.append(event)
    if run:
        yield _step(run)


def _continues(run: Sequence[TraceEvent], event: TraceEvent) -> bool:
    """Whether an event is one more of a run."""
    last = run[-1]
    if event.event not in CALLS or _sameness(event) != _sameness(last):
        return False
    if event.offset_bytes is None or last.offset_bytes is None:
        return True
    follows = event.offset_bytes == last.offset_bytes + (last.done_bytes or 0)
    if follows and (len(run) == 1 or last.offset_bytes != run[0].offset_bytes):
        return True
    return all(each.offset_bytes == event.offset_bytes for each in (run[0], last))


def _sameness(event: TraceEvent) -> tuple[object, ...]:
    """What is equal in all events of a run. How much was asked for is not: a file that takes 4096
    bytes at a time is asked for the rest again and again."""
    is_end_of_file = event.event == "read" and event.errno is None and not event.done_bytes
    return (
        event.event, event.pid, event.program, event.path, event.access, event.request,
        event.done_bytes, event.text, event.errno, is_end_of_file,
    )  # fmt: skip


def _step(run: Sequence[TraceEvent]) -> TraceStep:
    done_bytes = sum(each.done_bytes or 0 for each in run)
    return TraceStep(run[0], len(run), done_bytes, run[-1].time_s)
