"""A machine's status as metrics, in Prometheus' text format, such as for the textfile collector of
node_exporter.

Names follow https://prometheus.io/docs/practices/naming/, the format is that of
https://prometheus.io/docs/instrumenting/exposition_formats/. What is not known has no sample.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from openrbu import __version__
from openrbu.update.ending import Ending, ending_of
from openrbu.update.report import NextRestart, UpdateStatus

_RESULTS = ("result", "failed", "interrupted", "cancelled")
"""The events with which an update ends."""


class Metric(NamedTuple):
    """A gauge: its name, what it is, and its samples, each of labels and a value."""

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def metrics_text(now: UpdateStatus, machine: str | None) -> str:
    """The metrics of a machine. `machine`: the name of a virtual one, which each sample has as its
    label; None: this computer."""
    own = {} if machine is None else {"machine": machine}
    return "".join(line + "\n" for metric in _metrics(now) for line in _lines(metric, own))


def _lines(metric: Metric, own: Mapping[str, str]) -> Iterator[str]:
    if not metric.samples:
        return
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} gauge"
    for labels, value in metric.samples:
        text = ",".join(f'{name}="{_escaped(value)}"' for name, value in {**own, **labels}.items())
        yield f"{metric.name}{{{text}}} {value:.15g}" if text else f"{metric.name} {value:.15g}"


def _escaped(value: str) -> str:
    """A label's value, as the format has it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _metrics(now: UpdateStatus) -> Iterator[Metric]:
    target = now.target
    yield _info("openrbu_build_info", "The openrbu that made these metrics.", version=__version__)
    system_id = "" if target.system_id is None else f"{target.system_id:#06x}"
    yield _info(
        "openrbu_bios_info",
        "The BIOS that runs, and the machine, by its SMBIOS tables.",
        version=target.bios.version,
        release_date=target.bios.release_date,
        vendor=target.system.vendor,
        product=target.system.product,
        system_id=system_id,
    )
    yield from _completion(now)
    yield _one(
        "openrbu_update_armed",
        "1: the BIOS is armed, and looks for an update at the next restart.",
        now.is_armed,
    )
    yield _one("openrbu_update_staged_bytes", "What is staged in memory.", now.staged_size_bytes)
    states = tuple(
        ({"effect": each.value}, float(each is now.next_restart)) for each in NextRestart
    )
    yield Metric("openrbu_update_next_restart", "1: what the next restart will do.", states)
    yield from _last(now)


def _completion(now: UpdateStatus) -> Iterator[Metric]:
    rbu = now.target.rbu
    if rbu is None:
        return
    yield _one(
        "openrbu_bios_completion_code",
        "The BIOS's own code for its last update (0: complete; 65535: none was tried).",
        rbu.completion_code,
    )
    yield _one(
        "openrbu_bios_completion_timestamp_seconds",
        "When the BIOS recorded that code, its clock taken for UTC.",
        None if rbu.when is None else rbu.when.replace(tzinfo=dt.UTC).timestamp(),
    )


def _last(now: UpdateStatus) -> Iterator[Metric]:
    last = now.last
    if last is None:
        return
    ending, fields = ending_of(last), last.fields
    yield _info(
        "openrbu_update_last_info",
        "The last update that openrbu tried: its versions, and how it ended.",
        from_version=str(fields.get("from_version") or ""),
        to_version=str(fields.get("to_version") or ""),
        outcome=last.outcome if ending is None else ending.value,
    )
    yield _one(
        "openrbu_update_pending",
        "1: the last update is armed, and waits for its restart.",
        ending is Ending.PENDING,
    )
    succeeded = fields.get("succeeded")
    yield _one(
        "openrbu_update_last_succeeded",
        "1: the version of the last update runs since it; 0: it failed.",
        succeeded if isinstance(succeeded, bool) else None,
    )
    yield _one(
        "openrbu_update_last_started_timestamp_seconds",
        "When the last update was begun.",
        last.events[0][1].timestamp() if last.events else None,
    )
    yield _one(
        "openrbu_update_last_result_timestamp_seconds",
        "When it was known how the last update ended.",
        next((at.timestamp() for name, at in last.events if name in _RESULTS), None),
    )


def _info(name: str, text: str, **labels: str) -> Metric:
    return Metric(name, text, ((labels, 1.0),))


def _one(name: str, text: str, value: float | None) -> Metric:
    """A metric with one sample; None: it is not known."""
    samples: Iterable[tuple[Mapping[str, str], float]] = () if value is None else (({}, value),)
    return Metric(name, text, tuple(samples))
