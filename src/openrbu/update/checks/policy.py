"""What the operator's policy says: whether this image is the machine's next step, is the one that
the policy means, and may be installed now.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from openrbu.formats.hdr import sha256_of
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.checks.situation import Situation
from openrbu.update.waiting import waiting

if TYPE_CHECKING:
    from openrbu.policy.deciding import Decision
    from openrbu.policy.model import Policy, PowerRule

_check = partial(Check, Question.REST)
_in_the_way = partial(_check, verdict=Verdict.IN_THE_WAY)


def checks(seen: Situation) -> Iterator[Check]:
    """Whether the policy allows this update, on this machine, now; nothing without a policy."""
    policy = seen.options.policy
    if policy is None:
        return
    decision = decision_for(seen, policy)
    yield from _step(seen, policy, decision)
    yield from _window(seen, decision)
    yield from _power(seen, policy.power_of(seen.target.system_id))


def decision_for(seen: Situation, policy: Policy) -> Decision:
    """What the policy says of the machine now."""
    from openrbu.policy.deciding import decide  # noqa: PLC0415  (start-up time)

    return decide(
        policy,
        system_id=seen.target.system_id,
        version=seen.target.version,
        service_tag=seen.target.system.service_tag,
        now=seen.host.now(),
    )


def _step(seen: Situation, policy: Policy, decision: Decision) -> Iterator[Check]:
    """Whether the image's version is the next step; or the target once more, where that runs."""
    version, step = seen.image.header.version, decision.next_step
    if step is not None and version.same_as(step.version):
        text = f"{step.from_version} → {step.version} is the policy's next step ({step.by})"
    elif step is None and not decision.refusal_of(version):
        text = f"{version} is the policy's target"
    else:
        yield _in_the_way("policy", decision.refusal_of(version))
        return
    yield _check("policy", text, Verdict.FINE)
    yield from _image(seen, policy)


def _image(seen: Situation, policy: Policy) -> Iterator[Check]:
    """Whether the image is the one that the policy means by its version."""
    version, system_id = seen.image.header.version, seen.target.system_id
    rule = None if system_id is None else policy.systems.get(system_id)
    wanted = None if rule is None else rule.digest_of(version)
    if wanted is None:
        return
    digest = sha256_of(seen.image)
    if digest == wanted:
        yield _check("policy_image", "the image is the one of the policy", Verdict.FINE)
    else:
        yield _in_the_way(
            "policy_image",
            f"the image has another SHA-256 than the policy says of {version} ({digest})",
            advice="use the image that the policy means, or correct the policy",
        )


def _window(seen: Situation, decision: Decision) -> Iterator[Check]:
    window = decision.window
    if window.closes_at is None:
        return
    if window.is_open:
        until = window.closes_at.isoformat(timespec="minutes")
        yield _check("policy_window", f"a window of the policy is open until {until}", Verdict.FINE)
        return
    assert window.opens_at is not None
    opens_at = window.opens_at.isoformat(timespec="minutes")
    yield _in_the_way(
        "policy_window",
        f"no window of the policy is open; the next one opens at {opens_at}",
        advice=_until_then(seen),
    )


def _until_then(seen: Situation) -> str:
    """What can be done while no window is open."""
    from openrbu.update.journal import STAGED  # noqa: PLC0415  (start-up time)

    waits = waiting(seen.host)
    if waits is None or waits.fields.get("sha256") != sha256_of(seen.image):
        return "wait for it, or only stage the image (--no-arm)"
    if waits.outcome == STAGED:
        return "wait for it, then rbu arm: the image is staged, and stays so until a restart"
    return "restart only then"


def _power(seen: Situation, rule: PowerRule) -> Iterator[Check]:
    """Whether the power is as the policy wants it."""
    supplies = seen.linux.supplies or ()
    if rule.needs_mains:
        online = [each.name for each in supplies if not each.is_battery and each.is_online]
        if online:
            text = f"mains power is connected ({online[0]}), as the policy wants"
            yield _check("policy_mains", text, Verdict.FINE)
        else:
            text = "the policy wants mains power, and none is known to be connected"
            yield _in_the_way("policy_mains", text, advice="connect it")
    least = rule.minimum_battery_percent
    batteries = [each for each in supplies if each.is_battery and each.is_present]
    if least is None or not batteries:
        return
    level = max((each.percent for each in batteries if each.percent is not None), default=None)
    if level is not None and level >= least:
        text = f"the battery has {level} %, and the policy wants {least} %"
        yield _check("policy_battery", text, Verdict.FINE)
    else:
        told = "an unknown level" if level is None else f"{level} %"
        text = f"the battery has {told}, and the policy wants {least} %"
        yield _in_the_way("policy_battery", text, advice="charge it")
