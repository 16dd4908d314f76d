"""The command status, and how a BIOS's results are shown."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli import identity
from openrbu.cli.armed_view import armed_cell
from openrbu.cli.extents import extents_document, extents_words
from openrbu.cli.history import attempt_document, how_it_ended, transition, when_tried
from openrbu.cli.identity import machine_words
from openrbu.cli.options import OnMachine
from openrbu.cli.show import (
    Answer,
    Block,
    Cell,
    Facts,
    StyledText,
    bad,
    caution,
    good,
)
from openrbu.cli.watching import WatchOptions, journald_problem, metrics_blocks
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.api import Machine
    from openrbu.bios.post_report import PostReport
    from openrbu.errors import OpenRbuError
    from openrbu.formats.dell import RbuInformation
    from openrbu.formats.smbios import Tables
    from openrbu.update.begun_loads import BegunLoad
    from openrbu.update.journal import Attempt
    from openrbu.update.report import UpdateStatus

NOT_HELD = "luck: no driver held that memory until the restart, so it could have been overwritten"


def status(
    *,
    machine: OnMachine = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", help="One line only: how the last update ended. Nothing where there is none."
        ),
    ] = False,
    watch: WatchOptions,
    as_json: bool,
) -> Answer:
    """Show a machine's status: its BIOS, what is staged and armed.

    After a restart, this also records the BIOS's own result in the history. The exit code is 3 on
    a computer that is no Dell.

    \b
    Example:  rbu status --machine demo
    """
    unit = watch.unit_asked(machine=machine, as_json=as_json)
    if unit is not None:
        from openrbu.cli.unit import show_unit

        return show_unit(unit)
    with api.open_machine(machine, reading=True) as opened:
        now = opened.status()
        untold = journald_problem(opened, now) if watch.journald else None
        refusal = _refusal(opened, now) or untold
        if watch.prometheus:
            return Answer({}, metrics_blocks(watch, opened, now), refusal)
        document = _status_document(opened, now)
        if quiet:
            return Answer(document, _last_line(now), untold)
        return Answer(document, [Facts("Status", _status_rows(opened, now))], refusal)


def _status_document(machine: Machine, now: UpdateStatus) -> dict[str, Any]:
    """A machine's status, for `--json`."""
    from openrbu.update.clearing import BUG

    return {
        "machine": identity.machine_document(machine, now.target),
        "bios": {
            "vendor": now.target.bios.vendor,
            "version": now.target.bios.version,
            "release_date": now.target.bios.release_date,
        },
        "module_is_loaded": now.module_is_loaded,
        "driver": "own" if now.has_own_driver else "kernel",
        "staged_in": extents_document(now.staged_regions),
        "moved_from": extents_document(now.moved),
        "staged_size_bytes": now.staged_size_bytes,
        "staged_version": now.staged_version or None,
        "load_under_way": begun_document(now.begun_load),
        "is_armed": now.is_armed,
        "token_way": now.token_way or None,
        "token_problem": now.token_problem or None,
        "state": now.state.value,
        "next_restart": now.next_restart.value,
        "cmos_doubt": now.cmos_doubt or None,
        "restart_mode": now.restart_mode,
        "modes": list(now.modes),
        "memory_view": "physical" if now.sees_memory else "read_back",
        "lockdown": now.lockdown,
        "boot": {"id": now.boot.id, "by_kexec": now.boot.is_by_kexec},
        "completion": completion_document(now.target.rbu),
        "driver_bug": BUG if now.has_driver_bug else None,
        "update_under_way": now.under_way or None,
        "last_update": None if now.last is None else attempt_document(now.last),
        "table_problems": list(now.target.tables.problems),
    }


def _refusal(machine: Machine, now: UpdateStatus) -> OpenRbuError | None:
    """The error for a computer that is no Dell; None: it is one, or a virtual machine."""
    if machine.virtual is not None or now.target.is_dell:
        return None
    from openrbu.update.target import no_dell

    return no_dell(machine.host, now.target.system.vendor, now.target.system.product)


def _last_line(now: UpdateStatus) -> list[Block]:
    if now.last is None:
        return []
    ended = how_it_ended(now.last)
    return [replace(ended, text=f"{transition(now.last)}: {ended.text}")]


def _status_rows(machine: Machine, now: UpdateStatus) -> list[tuple[str, Cell]]:
    from openrbu.update.clearing import HAS_THE_BUG

    bios = now.target.bios
    rows: list[tuple[str, Cell]] = [
        ("machine", identity.machine_title(machine, now.target)),
        ("BIOS", f"{bios.version} of {bios.release_date}"),
        ("staged", _staged_text(now)),
        ("armed", armed_cell(machine, now)),
    ]
    if now.token_way:
        rows.append(("", f"the token is read through {now.token_way}"))
    if now.begun_load is not None:
        cancel = f"rbu cancel{machine_words(machine)} ends it"
        rows.insert(3, ("load", caution(f"begun and not ended, {now.begun_load.text}; {cancel}")))
    if now.boot.is_by_kexec:
        rows.append(("boot", caution("by another kernel (kexec): the BIOS did not run")))
    if now.has_driver_bug:
        rows.append(("driver", bad(f"{HAS_THE_BUG}; nothing makes it drop them but a restart")))
    if now.cmos_doubt:
        rows.append(("in doubt", bad(now.cmos_doubt)))
    rows += table_rows(now.target.tables)
    if now.target.rbu is not None:
        rows.append(("BIOS says", completion_words(now.target.rbu.completion_code)))
    if now.last is not None:
        rows.append(("last update", f"{transition(now.last)}, {when_tried(now.last)}"))
        rows.append(("", _how_it_stands(machine, now, now.last)))
    if now.under_way:
        rows.append(("in use", caution(f"by {now.under_way}")))
    return rows


def _staged_text(now: UpdateStatus) -> str:
    if now.staged_size_bytes:
        version = f", BIOS {now.staged_version}" if now.staged_version else ""
        where = ", by openrbu's own driver" if now.has_own_driver else ""
        return f"{human_size(now.staged_size_bytes)}{version}{where}"
    if now.module_is_loaded:
        return "nothing"
    if now.has_own_driver:
        return "nothing (openrbu's own driver is not started)"
    return "nothing (the dell_rbu module is not loaded)"


def _how_it_stands(machine: Machine, now: UpdateStatus, last: Attempt) -> StyledText:
    from openrbu.update.journal import BYPASSED

    if last.outcome == "started" and now.under_way:
        return caution("under way")
    if now.was_cut_off:
        return bad(
            "cut off before it was armed: the tool was killed; "
            f"rbu cancel{machine_words(machine)} takes back what it did"
        )
    if last.outcome == BYPASSED:
        how = " (kexec)" if last.fields.get("by_kexec") else ""
        again = f"rbu update tries it again, rbu cancel{machine_words(machine)} disarms"
        return bad(
            f"never looked at: Linux was started again without the BIOS{how}; still armed, and "
            f"what was staged is lost; {again}"
        )
    return how_it_ended(last)


def begun_document(begun: BegunLoad | None) -> dict[str, Any] | None:
    """A load of firmware that was begun and not ended, for `--json`."""
    if begun is None:
        return None
    return {"size_bytes": begun.size_bytes, "is_of_killed_update": begun.is_ours}


def table_rows(tables: Tables) -> list[tuple[str, Cell]]:
    """A row that says that a machine's SMBIOS tables are broken, where they are."""
    return [("tables", bad(f"broken: {'; '.join(tables.problems)}"))] if tables.problems else []


def completion_document(rbu: RbuInformation | None) -> dict[str, Any] | None:
    """The BIOS's record of the last update, for `--json`; None: the tables have none."""
    return None if rbu is None else record_document(rbu.completion_code, rbu.when)


def record_document(code: int, when: dt.datetime | None) -> dict[str, Any]:
    """The same, of its code and time. It has no zone: a computer's clock is taken for UTC, as Linux
    keeps it."""
    from openrbu.formats.dell import describe_completion

    return {
        "code": f"{code:#06x}",
        "meaning": describe_completion(code),
        "completed_at": None if when is None else when.replace(tzinfo=dt.UTC).isoformat(),
    }


def completion_words(code: int) -> Cell:
    """A completion code and what it means."""
    from openrbu.formats.dell import CompletionCode, describe_completion

    text = f"{code:#06x}: {describe_completion(code)}"
    if code == CompletionCode.COMPLETED:
        return good(text)
    return text if code == CompletionCode.NEVER_TRIED else bad(text)


def post_rows(post: PostReport) -> list[tuple[str, Cell]]:
    """What a virtual machine's BIOS did at one start."""
    same = post.version_before == post.version_after
    version = f"{post.version_before} → {post.version_after}"
    rows: list[tuple[str, Cell]] = [("BIOS", post.version_after if same else good(version))]
    if post.completion_code is None:
        why: list[tuple[str, Cell]] = [("because", bad(post.reason))] if post.reason else []
        return [*rows, ("update", "none was armed"), *why]
    rows.append(("BIOS says", completion_words(post.completion_code)))
    if post.reason:
        rows.append(("because", bad(post.reason)))
    if post.extents:
        among = f", the lowest of {post.copies} copies" if post.copies > 1 else ""
        rows.append(("image lay at", f"{extents_words(post.extents)} ({post.mode}{among})"))
    if post.found_in_held_memory is False:
        rows.append(("caution", caution(NOT_HELD)))
    return rows


def post_document(post: PostReport) -> dict[str, Any]:
    """The same for `--json`."""
    code = post.completion_code
    return {
        "version_before": post.version_before,
        "version_after": post.version_after,
        "attempted": post.attempted,
        "completion_code": None if code is None else f"{code:#06x}",
        "meaning": None if code is None else code.text,
        "reason": post.reason or None,
        "mode": post.mode,
        "copies": post.copies,
        "found_in_held_memory": post.found_in_held_memory,
        "held_bytes": post.held_bytes,
        "memory_was_kept": post.memory_was_kept,
        **extents_document(post.extents),
    }
