"""Accesses to CMOS in a trace, as `rbu trace` shows them."""

from __future__ import annotations

import json

import pytest

from openrbu.run.trace_file import TraceEvent, folded
from openrbu.run.trace_ports import CmosStep, with_cmos
from openrbu.typed_json import to_document
from rigs.cli import Cli

HEAD = {
    "schema": 1, "openrbu": "1", "began_at": "2026-01-01T00:00:00+00:00", "machine": "box",
    "model": "poweredge-2650", "profile": "linux", "bios_version": "A05", "command": ["tool"],
}  # fmt: skip
END = {"event": "end", "time_s": 9.0, "exit_code": 0}


def out(port: int, value: int, pid: int = 7) -> TraceEvent:
    return access("write", port, value, pid)


def into(port: int, value: int, pid: int = 7) -> TraceEvent:
    return access("read", port, value, pid)


def access(kind: str, port: int, value: int, pid: int) -> TraceEvent:
    values = {"access": kind, "port": port, "value": value, "size_bytes": 1}
    return TraceEvent("port", 1.0, pid, "tool", **values)  # type: ignore[arg-type]


def shown(*events: TraceEvent) -> list[tuple[object, ...]]:
    """What becomes of them: an access as its kind, index and bytes, another as port and value."""
    return [
        (step.event.access, step.index, step.values)
        if isinstance(step, CmosStep)
        else (step.event.port, step.event.value)
        for step in with_cmos(folded(events))
    ]


def read(index: int, value: int) -> list[TraceEvent]:
    return [out(0x70, index), out(0x80, index), into(0x71, value), out(0x80, value)]


def test_an_index_and_its_byte_are_one_access_and_delays_are_none() -> None:
    assert shown(*read(0x2E, 5)) == [("read", 0x2E, b"\5")]
    assert shown(out(0x72, 0x13), out(0x73, 9)) == [("write", 0x13, b"\t")]


def test_bytes_one_behind_the_other_are_one_line() -> None:
    events = [event for index in (0x10, 0x11, 0x12, 0x14) for event in read(index, index)]
    assert shown(*events) == [("read", 0x10, b"\x10\x11\x12"), ("read", 0x14, b"\x14")]
    written = [out(0x70, 0x11), out(0x71, 1)]
    assert shown(*read(0x10, 7), *written) == [("read", 0x10, b"\7"), ("write", 0x11, b"\1")]


@pytest.mark.parametrize(
    "events",
    [
        [out(0x70, 1), out(0x70, 2)],
        [out(0x70, 1), into(0x73, 2)],
        [out(0x70, 1), into(0x71, 2, pid=8)],
        [into(0x71, 1), out(0xB2, 2)],
    ],
)
def test_what_is_no_such_pair_stays_as_it_is(events: list[TraceEvent]) -> None:
    assert shown(*events) == [(each.port, each.value) for each in events]


def test_a_command_shows_them(rbu: Cli) -> None:
    events = [*read(0x2E, 5), *read(0x40, 1), *read(0x41, 2), out(0x72, 3), out(0x73, 4)]
    lines = [HEAD, *map(to_document, events), END]
    file = rbu.write("trace", "".join(json.dumps(line) + "\n" for line in lines).encode())
    rows = [line.split()[2:] for line in rbu("trace", file).out.splitlines() if "tool[7]" in line]
    assert rows == [
        ["read", "CMOS", "0x2e", "->", "0x05"],
        ["read", "CMOS", "0x40", "2", "bytes"],
        ["write", "CMOS", "0x03", "behind", "port", "0x72", "<-", "0x04"],
    ]
    assert len(rbu.json("trace", file)["events"]) == len(events) + 1
