"""The command `rbu trace`: shows what a program did under `rbu run --trace`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.show import Answer, Block, Cell, Facts, Table, bad, good
from openrbu.ports import PC_PORTS
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.run.trace_file import TraceEvent, TraceReport, TraceStep
    from openrbu.run.trace_ports import CmosStep

_MARK = "first failure"

_REFUSED_WORDS = "a file of this computer, which is kept from programs"


def trace(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What rbu run --trace FILE has written.")
    ],
) -> Answer:
    """Show what a program did with a virtual machine's files under rbu run --trace.

    Equal calls that follow each other are one line. The first call that failed is marked. In JSON
    there is each call, and the number of the one that failed first.

    The exit code is 5 when the file is damaged or has no end; what can be read is shown.

    \b
    Example:  rbu trace run.jsonl
    """
    report = api.read_trace(file)
    return Answer(_document(report), list(_blocks(report)), report.damage)


def _document(report: TraceReport) -> dict[str, Any]:
    from openrbu.typed_json import to_document

    head = to_document(report.head)
    del head["schema"]  # this document has one of its own
    first = report.first_failure
    events = [
        {name: value for name, value in to_document(each).items() if value is not None}
        for each in report.events
    ]
    number = next((n for n, each in enumerate(report.events) if each is first), None)
    return {**head, "first_failure": number, "events": events}


def _blocks(report: TraceReport) -> Iterator[Block]:
    from openrbu.run.trace_file import folded
    from openrbu.run.trace_ports import CmosStep, with_cmos

    head = report.head
    yield Facts(
        "trace",
        [
            ("machine", f"{head.machine} ({head.model})"),
            ("BIOS", head.bios_version),
            ("driver profile", head.profile),
            ("program", shlex.join(head.command)),
            ("began", head.began_at),
        ],
    )
    steps = list(folded(report.events))
    first = report.first_failure
    shown = [step for number, step in enumerate(steps) if not _says_nothing(steps, number)]
    rows = [
        _cmos_row(step) if isinstance(step, CmosStep) else _row(step, is_first=step.event is first)
        for step in with_cmos(shown)
    ]
    if any(each.event != "end" for each in report.events):
        yield Table("", ("s", "program", "call", "file", "what", ""), rows)
    else:
        yield "it did nothing with the machine's files"
    if first is None and report.damage is None:
        yield good("no call failed")


def _says_nothing(steps: Sequence[TraceStep], number: int) -> bool:
    """Whether a step is left out for people: an open that the same file's next call shows to have
    gone well, the end of a file that was read before, and the question whether it is a terminal."""
    step, event = steps[number], steps[number].event
    if event.event == "ioctl":
        return True
    if event.errno is not None or event is steps[-1].event:
        return False
    if event.event == "open":
        after = steps[number + 1].event
        return (after.path, after.pid) == (event.path, event.pid)
    if event.event == "read" and not step.done_bytes and number:
        before = steps[number - 1].event
        return (before.event, before.path, before.pid) == ("read", event.path, event.pid)
    return False


def _row(step: TraceStep, *, is_first: bool) -> tuple[Cell, ...]:
    event = step.event
    who = "" if event.pid is None else f"{event.program or '?'}[{event.pid}]"
    mark: Cell = bad(_MARK) if is_first else ""
    words = _what(step)
    what: Cell = words
    if event.is_failure:
        what = bad(words if event.errno is None else f"{event.errno} {words}".rstrip())
    where = _REFUSED_WORDS if event.path == "/refused" else event.path or ""
    if event.port is not None:
        where = f"port {event.port:#x}"
    return (f"{event.time_s:.3f}", who, event.event, where, what, mark)


def _cmos_row(step: CmosStep) -> tuple[Cell, ...]:
    event, size = step.event, len(step.values)
    where = f"CMOS {step.index:#04x}"
    if step.index_port != PC_PORTS[0][0]:
        where += f" behind port {step.index_port:#x}"
    what = f"{size} bytes"
    if size == 1:
        what = f"{'<-' if event.access == 'write' else '->'} {step.values[0]:#04x}"
    who = f"{event.program or '?'}[{event.pid}]"
    return (f"{event.time_s:.3f}", who, event.access or "", where, what, "")


def _what(step: TraceStep) -> str:
    """What a step did, for people."""
    event = step.event
    times = f"{step.count} × " if step.count > 1 else ""
    if event.event in ("read", "write"):
        return _data_words(event, times, step)
    if event.event == "port" and event.value is not None:
        digits = 2 * (event.size_bytes or 1)
        arrow = "<-" if event.access == "write" else "->"
        return f"{times}{arrow} {event.value:#0{digits + 2}x}"
    if event.event == "end" and event.exit_code is not None:
        code = event.exit_code
        return f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    if event.event == "command":
        return f"{event.text}" + (f" (exit code {event.exit_code})" if event.exit_code else "")
    if event.event in ("log", "restart"):
        return event.text or ""
    return times.removesuffix(" × ") + (" times" if times else "")


def _data_words(event: TraceEvent, times: str, step: TraceStep) -> str:
    asked = event.size_bytes or 0
    if event.errno is not None:
        return f"{times}{asked} bytes"
    if event.text is not None:
        return times + repr(event.text.rstrip("\n"))
    if event.event == "read" and not step.done_bytes:
        return f"{times}nothing: end of file"
    size = f"{event.done_bytes} bytes"
    if event.event == "write" and event.done_bytes != asked and step.count == 1:
        size += f" of {asked}"
    total = f" = {human_size(step.done_bytes)}" if step.count > 1 else ""
    return f"{times}{size}{total}"
