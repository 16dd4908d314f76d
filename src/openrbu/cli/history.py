"""The command history, and how one update of the journal is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.options import OnMachine
from openrbu.cli.show import Answer, StyledText, Table, bad, caution, good
from openrbu.system.times import local_time

if TYPE_CHECKING:
    from openrbu.update.journal import Attempt


def history(
    *,
    machine: OnMachine = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="Only the last N updates."),
    ] = None,
) -> Answer:
    """List the updates that were tried on a machine, oldest first.

    \b
    Example:  rbu history --machine demo --json
    """
    with api.open_machine(machine, reading=True) as opened:
        attempts = opened.history(last=last)
        document = {"updates": [attempt_document(attempt) for attempt in attempts]}
        if not attempts:
            return Answer(document, [f"the journal of {opened.host.name} has no update"])
        rows = [
            (
                when_tried(attempt),
                transition(attempt),
                str(attempt.fields.get("mode")),
                how_it_ended(attempt),
                str(attempt.fields.get("openrbu")),
            )
            for attempt in attempts
        ]
        columns = ("when", "BIOS", "mode", "how it ended", "openrbu")
        return Answer(document, [Table(f"Updates of {opened.host.name}", columns, rows)])


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    """One update of the journal, for `--json`."""
    from openrbu.update.ending import ending_of

    fields = attempt.fields
    code = fields.get("completion_code")
    return {
        "id": attempt.id,
        "outcome": attempt.outcome,
        "succeeded": fields.get("succeeded"),
        "from_version": fields.get("from_version"),
        "to_version": fields.get("to_version"),
        "version_now": fields.get("version_now"),
        "mode": fields.get("mode"),
        "sha256": fields.get("sha256"),
        "size_bytes": fields.get("size_bytes"),
        "completion_code": f"{code:#06x}" if isinstance(code, int) else None,
        "ending": None if (ending := ending_of(attempt)) is None else ending.value,
        "likely_cause": fields.get("likely_cause") or None,
        "why": fields.get("why"),
        "openrbu_version": fields.get("openrbu"),
        "events": [{"event": event, "at": at.isoformat()} for event, at in attempt.events],
    }


def how_it_ended(attempt: Attempt) -> StyledText:
    """How an update ended, or its state, in words."""
    from openrbu.update.ending import Ending, ending_of

    version, ending = attempt.fields.get("version_now"), ending_of(attempt)
    if ending in (Ending.REFUSED, Ending.NOT_LOOKED):
        return bad(_failure_words(attempt))
    words = {
        Ending.UPDATED: good("done: the BIOS says completed, and the new version runs"),
        Ending.NOT_KNOWN: caution(
            f"not known: {version} runs as before, and the BIOS's record has not changed"
        ),
        Ending.PENDING: caution("armed: waiting for a restart"),
        Ending.BYPASSED: bad(
            "never looked at: Linux was started again without the BIOS; still armed"
        ),
    }
    if ending is not None:
        return words[ending]
    if attempt.outcome == "staged":
        return caution("staged, not armed")
    if attempt.outcome == "started":
        return caution("in progress, or ended without a result")
    why = attempt.fields.get("why")
    text = f"{attempt.outcome}: {why}" if why else attempt.outcome
    return caution(text) if attempt.outcome == "cancelled" else bad(text)


def _failure_words(attempt: Attempt) -> str:
    code, version = attempt.fields.get("completion_code"), attempt.fields.get("version_now")
    from openrbu.formats.dell import CompletionCode, describe_completion
    from openrbu.update.ending import Ending, ending_of

    cause = attempt.fields.get("likely_cause")
    likely = f"; likely cause: {cause}" if cause else ""
    if ending_of(attempt) is Ending.NOT_LOOKED:
        return f"never looked at: the BIOS did not try it; {version} runs{likely}"
    if not isinstance(code, int):
        return f"failed: the BIOS has no record of it; {version} runs"
    if code == CompletionCode.COMPLETED:
        return f"failed: the BIOS says completed ({code:#06x}), but {version} runs{likely}"
    return f"failed: {describe_completion(code)} ({code:#06x}); {version} runs{likely}"


def transition(attempt: Attempt) -> str:
    """From which BIOS version to which."""
    return f"{attempt.fields.get('from_version')} → {attempt.fields.get('to_version')}"


def when_tried(attempt: Attempt) -> str:
    """The local time at which it began."""
    return local_time(attempt.events[0][1])
