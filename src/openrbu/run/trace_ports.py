"""Accesses to CMOS in a trace: what a program wants of its two ports is one byte behind an index.

A program writes the index to one port, and reads or writes the byte at the next. Some, such as
libsmbios, write to port 0x80 after each access, which only takes time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from openrbu.ports import PC_PORTS
from openrbu.run.trace_file import TraceEvent, TraceStep

_DELAY_PORT = 0x80

_DATA_PORTS = dict(PC_PORTS)
"""By the port of their index."""


@dataclass(frozen=True, slots=True)
class CmosStep:
    """A run of accesses, all reads or all writes, to bytes one behind the other, from `index` on.
    `event` is the first access; `values` are the bytes."""

    event: TraceEvent
    index_port: int
    index: int
    values: bytes


def with_cmos(steps: Iterable[TraceStep]) -> Iterator[TraceStep | CmosStep]:
    """The steps, with those that reach a byte of CMOS as one, and without delays."""
    run: CmosStep | None = None
    for step in _accesses(steps):
        longer = _together(run, step) if run and isinstance(step, CmosStep) else None
        if run is not None and longer is None:
            yield run
        run = longer or (step if isinstance(step, CmosStep) else None)
        if run is None:
            yield step
    if run is not None:
        yield run


def _accesses(steps: Iterable[TraceStep]) -> Iterator[TraceStep | CmosStep]:
    """The same with an access to one byte in each `CmosStep`."""
    waiting: TraceStep | None = None  # the last step, where that writes an index
    for step in steps:
        if _is_byte(step.event, "write") and step.event.port == _DELAY_PORT:
            continue
        access = None if waiting is None else _access(waiting.event, step.event)
        if waiting is not None and access is None:
            yield waiting
        waiting = step if access is None and _is_index(step.event) else None
        if access is not None:
            yield access
        elif waiting is None:
            yield step
    if waiting is not None:
        yield waiting


def _is_byte(event: TraceEvent, access: str) -> bool:
    """Whether it is an access of that kind to one port, which went well."""
    is_one = event.event == "port" and event.size_bytes == 1 and event.errno is None
    return is_one and event.access == access and event.value is not None


def _is_index(event: TraceEvent) -> bool:
    return _is_byte(event, "write") and event.port in _DATA_PORTS


def _access(index: TraceEvent, data: TraceEvent) -> CmosStep | None:
    """The access that an index and what comes after it make; None: none."""
    assert index.port is not None
    assert index.value is not None
    is_data = data.pid == index.pid and data.port == _DATA_PORTS[index.port]
    if not is_data or not (_is_byte(data, "read") or _is_byte(data, "write")):
        return None
    assert data.value is not None
    return CmosStep(data, index.port, index.value, bytes([data.value]))


def _together(run: CmosStep, access: CmosStep) -> CmosStep | None:
    """Both as one run; None where they are not."""
    first, more = run.event, access.event
    follows = access.index == run.index + len(run.values)
    is_same = (first.pid, first.port, first.access) == (more.pid, more.port, more.access)
    if not (follows and is_same):
        return None
    return CmosStep(first, run.index_port, run.index, run.values + access.values)
