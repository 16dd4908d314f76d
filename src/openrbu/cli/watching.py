"""What rbu status does for others that watch a machine: units of systemd, entries of its journal,
and metrics for Prometheus.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu._vendor import typer
from openrbu.cli.show import Block
from openrbu.cli.unit import METRICS_TIMER, METRICS_UNIT, RESULT_TIMER, RESULT_UNIT
from openrbu.errors import ObstacleError, OpenRbuError, UsageError

if TYPE_CHECKING:
    from openrbu.api import Machine
    from openrbu.update.journal import Attempt
    from openrbu.update.report import UpdateStatus

MESSAGE_ID = "5f5c3f2b4f8b4d0aa0b2a94a3c8e7d16"
"""That of each entry in systemd's journal about how an update ended: it is always the same."""

TOLD = "told-journald"
"""The file beside the machine's history with what systemd's journal was told last."""

_ERROR, _WARNING, _NOTICE = "3", "4", "5"
"""Priorities, as syslog(3) has them."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The options of `rbu status` for what watches a machine."""

    prometheus: Annotated[
        bool,
        typer.Option("--prometheus", help="Print metrics, in the text format of Prometheus."),
    ] = False
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the metrics to a file, whole; one that is there is overwritten.",
            readable=False,
        ),
    ] = None
    journald: Annotated[
        bool,
        typer.Option(
            "--journald",
            help="Tell systemd's journal how the last update ended, with fields, once for each.",
        ),
    ] = False
    unit: Annotated[
        bool,
        typer.Option("--unit", help="Print a systemd unit that runs this at boot, and do no more."),
    ] = False
    timer: Annotated[
        bool,
        typer.Option("--timer", help="Print a systemd timer for that unit, and do no more."),
    ] = False

    def unit_asked(self, *, machine: str | None, as_json: bool) -> str | None:
        """The unit that is to be printed; None: none is.

        :raise UsageError: when what is asked for does not go together.
        """
        if self.unit and self.timer:
            raise UsageError("--unit and --timer are two files: choose one")
        if self.unit:
            return METRICS_UNIT if self.prometheus else RESULT_UNIT
        if self.timer:
            return METRICS_TIMER if self.prometheus else RESULT_TIMER
        if self.output is not None and not self.prometheus:
            raise UsageError("--output is the file for metrics: it goes with --prometheus")
        if self.prometheus and as_json:
            raise UsageError("--prometheus and --json are two forms of one answer: choose one")
        if self.journald and machine is not None:
            raise UsageError("--journald tells this computer's journal of this computer only")
        return None


def metrics_blocks(watch: WatchOptions, machine: Machine, now: UpdateStatus) -> list[Block]:
    """The metrics; where they are written to a file, that they are."""
    from openrbu.cli.files import unwritable, would_change
    from openrbu.cli.images import saved
    from openrbu.system.files import write_whole
    from openrbu.units import human_size
    from openrbu.update.metrics import metrics_text

    text = metrics_text(now, None if machine.virtual is None else machine.virtual.name)
    if watch.output is None:
        return [*text.splitlines()]
    data = text.encode(errors="backslashreplace")
    would_change(watch.output, data, force=True)  # is it a file that can be overwritten?
    try:
        write_whole(watch.output, data)  # also with the same content: its time says how old it is
    except OSError as error:
        raise unwritable(watch.output, error) from None
    return [saved(watch.output, True, human_size(len(data)))]


def journald_problem(machine: Machine, now: UpdateStatus) -> OpenRbuError | None:
    """Tell systemd's journal how the last update ended, unless that was told already. The error
    with which the command ends after it has shown what it has to show; None: it was told."""
    try:
        _tell_journald(machine, now)
    except OpenRbuError as error:
        return error
    return None


def _tell_journald(machine: Machine, now: UpdateStatus) -> None:
    """
    :raise ObstacleError | OutputError: when there is no journal, or what was told can't be kept.
    """
    from openrbu.cli.files import unwritable
    from openrbu.system.files import write_whole
    from openrbu.system.journald import write_entry
    from openrbu.system.kept_files import read_kept
    from openrbu.update.journal import BYPASSED

    last = now.last
    if last is None or (last.is_open and last.outcome != BYPASSED):
        return
    told = machine.host.lasting_journal_path.with_name(TOLD)
    mark = f"{last.id} {last.outcome}\n".encode()
    try:
        with contextlib.suppress(FileNotFoundError):
            if read_kept(told) == mark:
                return
    except OSError as error:
        raise ObstacleError(f"{told} can't be read: {error.strerror}") from None
    try:
        write_entry(_entry(now, last))
    except OSError as error:
        raise ObstacleError(f"systemd's journal can't be told: {error.strerror or error}") from None
    try:
        write_whole(told, mark, lasting=True)  # last: rather told twice than never
    except OSError as error:
        raise unwritable(told, error) from None


def _entry(now: UpdateStatus, last: Attempt) -> dict[str, str]:
    """The fields of an entry. Those that are not known are empty."""
    from openrbu.cli.history import how_it_ended
    from openrbu.cli.show import Meaning
    from openrbu.update.ending import ending_of

    ended, ending = how_it_ended(last), ending_of(last)
    priority = {Meaning.GOOD: _NOTICE, Meaning.CAUTION: _WARNING, Meaning.BAD: _ERROR}
    versions = {name: str(last.fields.get(f"{name}_version") or "") for name in ("from", "to")}
    code = last.fields.get("completion_code")
    return {
        "MESSAGE": f"BIOS {versions['from']} → {versions['to']}: {ended.text}",
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": priority[ended.meaning],
        "SYSLOG_IDENTIFIER": "rbu",
        "RBU_OUTCOME": last.outcome if ending is None else ending.value,
        "RBU_CODE": f"{code:#06x}" if isinstance(code, int) else "",
        "RBU_FROM_VERSION": versions["from"],
        "RBU_TO_VERSION": versions["to"],
        "RBU_VERSION": now.target.bios.version,
        "RBU_UPDATE_ID": last.id,
    }
