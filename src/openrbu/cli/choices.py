"""Which image a plan or an update takes, by a directory or a package and by a policy; how that is
shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrbu.cli import identity
from openrbu.cli.show import Block, Cell, bad, caution, good
from openrbu.errors import ObstacleError, OpenRbuError

if TYPE_CHECKING:
    from openrbu.api import Choice, Decision, FoundImages, LoadedImage, Machine, Options
    from openrbu.policy.deciding import Step
    from openrbu.update.target import Target
    from openrbu.update.waiting import Waits


@dataclass(frozen=True, slots=True)
class Picked:
    """What was chosen for a machine. `choice` None: a policy has no step for it, or it waits for
    nothing. `decision` None: there is no policy. `waits`: the update that is staged or armed
    before; None: none is."""

    target: Target
    choice: Choice | None
    decision: Decision | None
    options: Options
    waits: Waits | None = None

    @property
    def loaded(self) -> LoadedImage:
        assert self.choice is not None
        return self.choice.image


def pick(machine: Machine, found: FoundImages, options: Options) -> Picked:
    """Choose an image for a machine; with a policy in `options` the one of its next step.

    :raise OpenRbuError: as `Machine.choose`.
    """
    from openrbu.update.target import read_target
    from openrbu.update.waiting import what_waits

    target = read_target(machine.host)
    waits = what_waits(machine.host, target)
    if options.policy is None:
        return Picked(target, machine.choose(found), None, options, waits)
    decision = machine.decide(options.policy)
    step = decision.next_step
    if step is None and found.only is None:
        return Picked(target, None, decision, options, waits)
    return Picked(target, machine.choose(found, step), decision, options, waits)


def choice_document(picked: Picked) -> dict[str, Any]:
    """What was chosen and why, for `--json`."""
    choice, decision, waits = picked.choice, picked.decision, picked.waits
    return {
        "waits": None if waits is None else {"is_armed": waits.is_armed, "version": waits.version},
        "choice": None
        if choice is None
        else {
            "path": str(choice.path),
            "found_at": choice.image.found_at,
            "why": choice.why,
            "passed_over": [
                {
                    "path": str(each.path),
                    "found_at": each.found_at,
                    "version": each.version,
                    "why": each.why,
                }
                for each in choice.passed_over
            ],
        },
        "policy": None if decision is None else _decision_document(decision),
        "next_step": None
        if decision is None or decision.next_step is None
        else _step_document(decision.next_step),
        "why_not": None if decision is None else decision.why_not or None,
    }


def without_image_document(machine: Machine, picked: Picked) -> dict[str, Any]:
    """The document where the policy has no step, so that no image was chosen."""
    return {
        "machine": identity.machine_document(machine, picked.target),
        "current_version": picked.target.bios.version,
        **choice_document(picked),
    }


def without_image_blocks(picked: Picked) -> list[Block]:
    """The same for people."""
    assert picked.decision is not None
    waits: list[Block] = []
    if picked.waits is not None:
        waits = [caution(f"note: {_waits_text(picked.waits)}")]
    if picked.decision.is_done and not picked.decision.why_not:
        runs = f"nothing to do: {picked.decision.target} runs, as the policy wants"
        return [good(runs), *waits]
    return [bad(f"no step: {picked.decision.why_not}"), *waits]


def _waits_text(waits: Waits) -> str:
    """What waits on the machine, for people."""
    if not waits.is_armed:
        return f"{waits.version} is staged, not armed"
    if waits.version is None:
        return "another program has armed the BIOS: it searches for an update at the next restart"
    return f"{waits.version} is armed: the next restart hands it to the BIOS"


def no_step(picked: Picked) -> OpenRbuError | None:
    """The error where the policy has no step for the machine; None: it runs its target."""
    why_not = "" if picked.decision is None else picked.decision.why_not
    return ObstacleError(why_not) if why_not else None


def choice_rows(picked: Picked) -> list[tuple[str, Cell]]:
    """What was chosen and why, and what was passed over, for people."""
    choice, decision = picked.choice, picked.decision
    rows: list[tuple[str, Cell]] = []
    if picked.waits is not None:
        rows.append(("waits", caution(_waits_text(picked.waits))))
    if choice is not None and not choice.is_given:
        where = f"{choice.path}: {choice.image.found_at}" if choice.image.found_at else choice.path
        rows.append(("chosen", f"{where}, because {choice.why}"))
        for each in choice.passed_over[:_MOST_SHOWN]:
            version = f" ({each.version})" if each.version else ""
            rows.append(("", f"not {each.path}{version}: {each.why}"))
        if len(choice.passed_over) > _MOST_SHOWN:
            rows.append(("", f"nor {len(choice.passed_over) - _MOST_SHOWN} more (--json)"))
    if decision is not None and decision.steps:
        way = " → ".join([str(decision.current), *(str(each.version) for each in decision.steps)])
        rows.append(("policy", caution(way) if decision.why_not else way))
    return rows


_MOST_SHOWN = 8
"""How many files that were passed over are shown to people."""


def _decision_document(decision: Decision) -> dict[str, Any]:
    window = decision.window
    opens_at, closes_at = window.opens_at, window.closes_at
    return {
        "target": None if decision.target is None else decision.target.text,
        "is_done": decision.is_done,
        "pinned": decision.pinned or None,
        "steps": [_step_document(each) for each in decision.steps],
        "window": {
            "is_open": window.is_open,
            "opens_at": None if opens_at is None else opens_at.isoformat(),
            "closes_at": None if closes_at is None else closes_at.isoformat(),
        },
    }


def _step_document(step: Step) -> dict[str, Any]:
    return {
        "from_version": step.from_version,
        "version": step.version.text,
        "sha256": step.sha256,
        "is_downgrade": step.is_downgrade,
        "by": step.by,
    }
