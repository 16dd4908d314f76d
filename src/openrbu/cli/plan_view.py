"""How a plan, and an update that is staged or armed, are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from openrbu.api import Machine
from openrbu.cli import identity
from openrbu.cli.choices import Picked, choice_document
from openrbu.cli.extents import extents_document, extents_words
from openrbu.cli.images import image_document, systems_text
from openrbu.cli.show import Block, Cell, Sections, StyledText, bad, caution, good
from openrbu.units import human_size

if TYPE_CHECKING:
    from openrbu.update.checks.check import Check, Verdict
    from openrbu.update.outcome import Outcome
    from openrbu.update.plan import Plan


def plan_rows(machine: Machine, planned: Plan) -> list[tuple[str, Cell]]:
    """A plan for people."""
    header, packets = planned.image.header, planned.mode == "packet"
    pieces = f"{human_size(planned.staged_size_bytes)} in one piece"
    if packets:
        size = human_size(planned.options.packet_size_bytes)
        pieces = (
            f"{planned.packet_count} packets of {size}, {human_size(planned.staged_size_bytes)}"
        )
    return [
        ("machine", identity.machine_title(machine, planned.target)),
        ("BIOS", f"{planned.target.bios.version} → {header.version}"),
        ("image", f"for {systems_text(header)}, {human_size(planned.image.size_bytes)}"),
        ("mode", f"{planned.mode}: {planned.why_mode}"),
        *([("way", planned.way.how)] if planned.way.how else []),
        *_own_rules_row(machine, planned),
        ("BIOS rules", ", ".join(planned.possible_bioses.names)),
        ("staged", pieces),
        (
            "memory",
            f"blocks of {human_size(planned.block_size_bytes)}"
            if packets and not planned.way.in_one_block
            else f"one block of {human_size(planned.block_size_bytes)}",
        ),
    ]


def _own_rules_row(machine: Machine, planned: Plan) -> list[tuple[str, Cell]]:
    """The rules that a virtual machine's BIOS follows, where they are not the only ones that the
    update is checked with: outside of the machine it is not known which ones it follows."""
    if machine.virtual is None:
        return []
    rules = machine.virtual.config.bios_rules
    if planned.possible_bioses.names == (rules,):
        return []
    is_judge = rules in planned.possible_bioses.names
    own = rules if is_judge else caution(f"{rules}, which are not among those below")
    return [("its BIOS rules", own)]


def check_blocks(planned: Plan) -> list[Block]:
    """All that the plan looked at, by question, and how it looks as a whole."""
    from openrbu.update.checks.check import Question

    sections = [
        (question.text, [row for check in asked for row in _check_rows(check)])
        for question in Question
        if (asked := [each for each in planned.checks if each.question is question])
    ]
    return [Sections(sections), *_summary(planned)]


def _check_rows(check: Check) -> Iterator[tuple[Cell, Cell, Cell]]:
    """Verdict, name, and what was found; below it what to do."""
    paint = _paint(check.verdict)
    found = paint(check.found) if check.is_in_the_way else check.found
    yield paint(_words(check.verdict.value)), _words(check.name), found
    if check.advice:
        yield "", "", f"→ {check.advice}"


def _summary(planned: Plan) -> list[Block]:
    """How many checks have each verdict, the worst last, where the eye is when it is shown."""
    from openrbu.update.checks.check import Verdict

    blocks: list[Block] = []
    for verdict in (Verdict.FINE, Verdict.HANDLED, Verdict.UNKNOWN, Verdict.IN_THE_WAY):
        names = [_words(each.name) for each in planned.checks if each.verdict is verdict]
        if names:
            count = f"{len(names)} {_words(verdict.value)}"
            is_told = verdict is not Verdict.FINE
            text = f"{count}: {', '.join(dict.fromkeys(names))}" if is_told else count
            blocks.append(_paint(verdict)(text))
    return blocks


def _words(name: str) -> str:
    """A name for scripts as people read it."""
    return name.replace("_", " ")


def _paint(verdict: Verdict) -> Callable[[str], StyledText]:
    """The colour of a verdict."""
    from openrbu.update.checks.check import Verdict

    return {Verdict.IN_THE_WAY: bad, Verdict.UNKNOWN: caution}.get(verdict, good)


def hints(planned: Plan) -> list[Block]:
    """What an update can't know, and what is in its way, one line each. The obstacle that the
    update ends with is left out: it is the error."""
    from openrbu.update.checks.check import Verdict

    unknown = [each for each in planned.checks if each.verdict is Verdict.UNKNOWN]
    notes = [caution(f"note: {each.message}") for each in unknown]
    error = None if planned.refusal is None else planned.worst
    told = [each for each in planned.obstacles if each is not error]
    return [*notes, *(bad(f"obstacle: {each.message}") for each in told)]


def _check_document(check: Check) -> dict[str, Any]:
    """One check, for `--json`."""
    return {
        "question": check.question.value,
        "name": check.name,
        "verdict": check.verdict.value,
        "found": check.found,
        "advice": check.advice or None,
    }


def plan_document(machine: Machine, planned: Plan, picked: Picked) -> dict[str, Any]:
    """A plan for `--json`."""
    loaded = picked.loaded
    return {
        "machine": identity.machine_document(machine, planned.target),
        "image": {"found_at": loaded.found_at, **image_document(planned.image)},
        "current_version": planned.target.bios.version,
        "new_version": planned.image.header.version.text,
        "is_needed": planned.is_needed,
        "mode": planned.mode,
        "why_mode": planned.why_mode,
        "way": planned.way.name,
        "packet_size_bytes": planned.options.packet_size_bytes
        if planned.mode == "packet"
        else None,
        "packet_count": planned.packet_count,
        "staged_size_bytes": planned.staged_size_bytes,
        "block_size_bytes": planned.block_size_bytes,
        "bios_rules": list(planned.possible_bioses.names),
        "machine_bios_rules": None
        if machine.virtual is None
        else machine.virtual.config.bios_rules,
        "checks": [_check_document(each) for each in planned.checks],
        "notes": list(planned.notes),
        "table_problems": list(planned.target.tables.problems),
        **choice_document(picked),
        "obstacles": [
            {"kind": each.kind, "message": each.message, "exit_code": int(each.exit_code)}
            for each in planned.obstacles
        ],
    }


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """What was staged, verified and armed, for `--json`."""
    return {
        "staged": True,
        "armed": outcome.is_armed,
        "version": outcome.version,
        "attempt_id": outcome.attempt_id,
        "mode": outcome.mode,
        "way": outcome.way.name,
        "packet_size_bytes": outcome.packet_size_bytes,
        "tried": list(outcome.tried),
        "is_armed": outcome.is_armed,
        "token_way": outcome.token_way,
        "read_back": outcome.verified.read_back.value,
        "driver": outcome.driver,
        "seen_in_memory": outcome.verified.extents is not None,
        **extents_document(outcome.verified.places),
        "taken_by": [
            {
                "bios_rules": finding.rules,
                "mode": finding.mode,
                **extents_document(finding.extents),
            }
            for finding in outcome.verified.findings or ()
        ],
    }


def outcome_blocks(outcome: Outcome) -> list[Block]:
    """The same for people."""
    from openrbu.update.clearing import HAS_THE_BUG
    from openrbu.update.driver import ReadBack

    blocks: list[Block] = [caution(f"note: {what}; tried another way") for what in outcome.tried]
    extents = outcome.verified.extents
    if extents:
        seen = f"read back, and found in physical memory at {extents_words(extents)}"
    else:
        seen = "read back (physical memory can't be read here)"
    if outcome.verified.staged_in:
        where = extents_words(outcome.verified.staged_in)
        blocks.append(good(f"staged: by openrbu's own driver, at {where}"))
    blocks.append(good(f"verified: {seen}"))
    if outcome.verified.read_back is ReadBack.SKIPS_A_PACKET:
        blocks.append(caution(f"note: {HAS_THE_BUG}; found in memory they are right"))
    for finding in outcome.verified.findings or ():
        taken = f"{finding.mode}, {extents_words(finding.extents)}"
        blocks.append(good(f"  a BIOS with the {finding.rules} rules takes it: {taken}"))
    already = "" if outcome.changed else " already"
    if not outcome.is_armed:
        blocks.append(good(f"staged{already}, not armed: {outcome.version} waits for rbu arm"))
        return blocks
    blocks.append(good(f"armed{already}: the next restart hands {outcome.version} to the BIOS"))
    return blocks
