"""What a policy says of one machine: its next step, or why there is none.

Theory of operation. The version that a machine runs decides alone what is next: where it lies in
the range of a step, that step's `via`; else the target. So from each version there is one way, and
it is followed to its end before its first step is allowed: a step that leads nowhere is none.

A way has no end at the target when it comes to
- a version that can't be read, or that is not comparable with the next one: which of them is newer
  would be a guess (a step of the policy that names both is none);
- a downgrade that the policy does not allow;
- a version that it came by before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from openrbu.formats.version import BiosVersion, VersionStyle
from openrbu.policy.model import Policy, SystemRule, are_comparable
from openrbu.policy.windows import WindowState, window_state


@dataclass(frozen=True, slots=True)
class Step:
    """One update of a machine. `sha256`: the digest that its image has to have, in hexadecimal
    digits; None: the policy does not say. `by`: what of the policy says so, as a path in it."""

    from_version: str
    version: BiosVersion
    sha256: str | None
    is_downgrade: bool
    by: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says of a machine. `steps`: all that are left to `target`, the next one first.
    `why_not`: why the next one must not be made now, or why there is none; empty: it may, or
    nothing is left to do. `target` None: the policy has none for it. `pinned`: why the policy
    leaves this machine alone; empty: it does not."""

    current: BiosVersion
    target: BiosVersion | None
    steps: tuple[Step, ...]
    why_not: str
    window: WindowState
    pinned: str = ""

    @property
    def next_step(self) -> Step | None:
        """The update that is to be made next."""
        return self.steps[0] if self.steps else None

    @property
    def is_done(self) -> bool:
        """Whether the machine runs its target."""
        return self.target is not None and self.current.same_as(self.target)

    def refusal_of(self, version: BiosVersion) -> str:
        """Why an image of this version must not be installed now; empty: it is the next step, and
        nothing keeps it."""
        step = self.next_step
        if step is not None and not version.same_as(step.version):
            return (
                f"{self.current} → {version} is not a step of the policy: from {self.current} "
                f"the next one is {step.version} ({step.by})"
            )
        if self.is_done and not version.same_as(self.current):
            return f"the policy's target is {self.target}, which runs already, and not {version}"
        return self.why_not


def decide(
    policy: Policy,
    *,
    system_id: int | None,
    version: BiosVersion,
    service_tag: str,
    now: dt.datetime,
) -> Decision:
    """What a policy says of the machine with this system ID (None: not known) and service tag
    (empty: not known), which runs `version`, at the moment `now`, which has a zone."""
    window = window_state(policy.windows_of(system_id), now)
    rule = None if system_id is None else policy.systems.get(system_id)
    if rule is None:
        which = "a system that is not known" if system_id is None else f"system {system_id:#06x}"
        return Decision(version, None, (), f"the policy says nothing of {which}", window)
    pin = next((tag for tag in policy.pinned if tag.upper() == service_tag.strip().upper()), None)
    if pin is not None:
        pinned = policy.pinned[pin]
        why_not = f"pinned: {pinned} (pinned.{pin})"
        return Decision(version, rule.target, (), why_not, window, pinned)
    steps, why_not = way_to_target(rule, version)
    if steps and not window.is_open:
        assert window.opens_at is not None
        opens_at = window.opens_at.isoformat(timespec="minutes")
        why_not = f"no window of the policy is open; the next one opens at {opens_at}"
    return Decision(version, rule.target, steps, why_not, window)


def names_step(policy: Policy, system_id: int | None, start: BiosVersion, to: BiosVersion) -> bool:
    """Whether a policy has it that machines of this system (None: not known) that run `start`
    install `to` next, whichever of the two is newer."""
    rule = None if system_id is None else policy.systems.get(system_id)
    steps = () if rule is None else way_to_target(rule, start)[0]
    return bool(steps) and to.same_as(steps[0].version)


def way_to_target(rule: SystemRule, start: BiosVersion) -> tuple[tuple[Step, ...], str]:
    """All steps from a version to the target. None, and a text that says why: it is not reached.
    None, and no text: it runs already."""
    way = _way(rule, start)
    return ((), way.why) if isinstance(way, _DeadEnd) else (way, "")


@dataclass(frozen=True, slots=True)
class _DeadEnd:
    """Where a way ends that does not reach the target: at the one version of `at`, or in the circle
    that these are. `why`: for people, as seen from the start of the way."""

    at: tuple[BiosVersion, ...]
    why: str

    def has(self, version: BiosVersion) -> bool:
        return any(version.same_as(each) for each in self.at)


def _way(rule: SystemRule, start: BiosVersion) -> tuple[Step, ...] | _DeadEnd:
    steps: list[Step] = []
    current, seen = start, [start]
    while not current.same_as(rule.target):
        step = _next(rule, current)
        if isinstance(step, str):
            return _DeadEnd((current,), _because(step, start, current))
        steps.append(step)
        current = step.version
        again = [place for place, each in enumerate(seen) if each.same_as(current)]
        if again:
            told = " → ".join(map(str, [*seen, current]))
            why = f"the policy goes in a circle ({rule.path}): {told}"
            return _DeadEnd(tuple(seen[again[0] :]), why)
        seen.append(current)
    return tuple(steps)


def _next(rule: SystemRule, current: BiosVersion) -> Step | str:
    """The step from a version that is not the target; or why there is none."""
    if current.style is VersionStyle.UNREADABLE:
        return f"the version '{current}' can't be read, so no step is known to be an update"
    found = [place for place, each in enumerate(rule.steps) if each.start.has(current)]
    if found:
        version, by = rule.steps[found[0]].via, f"{rule.path}.steps[{found[0]}]"
    else:
        version, by = rule.target, f"{rule.path}.target"
    if not are_comparable(version, current):
        if not found:
            return (
                f"{current} and the target {version} are versions of two styles, and which is "
                f"newer would be a guess: add a step from {current} to {rule.path}.steps"
            )
        return Step(current.text, version, rule.digest_of(version), is_downgrade=False, by=by)
    is_downgrade = not version.is_newer_than(current)
    if is_downgrade and not rule.allow_downgrade:
        return (
            f"{current} → {version} is a downgrade ({by}), and {rule.path}.allow_downgrade is not "
            "set"
        )
    return Step(current.text, version, rule.digest_of(version), is_downgrade, by)


def _because(why: str, start: BiosVersion, current: BiosVersion) -> str:
    return why if current is start else f"from {start} the policy leads to {current}, where {why}"


def unreachable(rules: Sequence[SystemRule]) -> list[tuple[str, str]]:
    """Where ways end that begin at a version that the rules name and don't reach the target: the
    path of a step, and why. Each end, or circle, once, however many ways lead there."""
    found = []
    for rule in rules:
        ends: list[tuple[tuple[bool, bool], str, _DeadEnd]] = []
        for place, step in enumerate(rule.steps):
            starts = [each for each in (step.start.first, step.start.last) if each is not None]
            for version in [*starts, step.via]:
                if isinstance(end := _way(rule, version), _DeadEnd):
                    rank = (not end.has(version), version is step.via)
                    ends.append((rank, f"{rule.path}.steps[{place}]", end))
        ends.sort(key=lambda each: each[0])  # a way that begins there has no lead to be read over
        told: list[_DeadEnd] = []
        for _, path, end in ends:
            if not any(each.has(end.at[0]) for each in told):
                told.append(end)
                found.append((path, end.why))
    return found
