"""Verdicts: what became of a machine's BIOS after an update tool had run and the machine restarted.

A verdict is derived from what is seen on the machine: its driver, its token, what its BIOS did, the
version that runs. What the tool says, its exit code included, changes none (docs/ci.md has a table
of all verdicts).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from openrbu.bios.post_report import PostReport
from openrbu.errors import UsageError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.units import human_size


class Verdict(StrEnum):
    """What became of it: a closed set, in JSON by value."""

    UPDATED = "updated"
    """The new version runs."""

    LUCK = "luck"
    """The new version runs, but nobody held what the BIOS took: it could have been overwritten."""

    OTHER_VERSION = "other_version"
    """The BIOS completed an update, and a version runs that is not the image's."""

    REFUSED = "refused"
    """The BIOS looked at what was staged, or tried to write its flash, and recorded a failure."""

    ARMED_WITH_NOTHING = "armed_with_nothing"
    """The BIOS was armed, and the driver held nothing for it."""

    MEMORY_CLEARED = "memory_cleared"
    """The BIOS was armed and the driver held an update, but the restart cleared memory."""

    TOKEN_LOST = "token_lost"
    """The token was set, but not any more when the BIOS looked, or its check value was wrong."""

    LEFT_ARMED = "left_armed"
    """The token is still set, because the BIOS has not run since: it tries at a later start."""

    LEFT_STAGED = "left_staged"
    """The driver held an update at the restart, and the BIOS was not armed."""

    NOT_TRIED = "not_tried"
    """Nothing was staged, and the BIOS was not armed."""

    KERNEL_CRASHED = "kernel_crashed"
    """The machine's kernel crashed in a call of the tool."""

    TIMED_OUT = "timed_out"
    """The tool did not end in time, and was killed."""


def verdict_named(name: str) -> Verdict:
    """The verdict of that name.

    :raise UsageError: when there is none; the message names all.
    """
    try:
        return Verdict(name)
    except ValueError:
        raise UsageError(f"there is no verdict {name!r}; there are: {', '.join(Verdict)}") from None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a machine.

    After the tool: `version_before`; `was_armed`, the token; `was_loading`, a load into the
    driver that had begun and not ended; `was_off`, the tool had switched the machine off. At the
    restarts: `posts`, what the BIOS did at each. Afterwards: `version_after`, and `is_armed`.
    """

    version_before: str
    version_after: str
    was_armed: bool
    was_loading: bool
    was_off: bool
    is_armed: bool
    has_crashed: bool
    has_timed_out: bool
    posts: tuple[PostReport, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the line that says why."""

    verdict: Verdict
    why: str


def judge(seen: Seen, wanted: BiosVersion, *, strict: bool) -> Judgement:
    """The verdict on an update to version `wanted`. `strict`: luck does not count as updated."""
    if seen.has_timed_out:
        return Judgement(Verdict.TIMED_OUT, "the tool was killed, and the machine not restarted")
    if seen.has_crashed:
        return Judgement(Verdict.KERNEL_CRASHED, "the machine was not restarted")
    tried = [post for post in seen.posts if post.attempted]
    if tried:
        return _of_attempt(seen, tried[-1], wanted, strict=strict)
    return _without_attempt(seen)


def _of_attempt(seen: Seen, post: PostReport, wanted: BiosVersion, *, strict: bool) -> Judgement:
    if post.completion_code is not CompletionCode.COMPLETED:
        return _of_failure(seen, post)
    runs = seen.version_after
    if not BiosVersion.parse(runs).same_as(wanted):
        return Judgement(
            Verdict.OTHER_VERSION, f"the BIOS says completed, but {runs} runs, not {wanted}"
        )
    how = f"{seen.version_before} → {runs}"
    if post.found_in_held_memory is False:
        where = f", from {post.extents[0].start:#x}" if post.extents else ""
        lucky = f"{how}{where}: no driver held that memory until the restart"
        return Judgement(Verdict.LUCK if strict else Verdict.UPDATED, lucky)
    return Judgement(Verdict.UPDATED, how if post.mode is None else f"{how} ({post.mode})")


def _of_failure(seen: Seen, post: PostReport) -> Judgement:
    code = post.completion_code
    assert code is not None
    found_nothing = code in (CompletionCode.IMAGE_NOT_FOUND, CompletionCode.INCONSISTENT_IMAGE)
    if found_nothing and not post.extents:
        if seen.was_off:
            return Judgement(Verdict.MEMORY_CLEARED, "the tool switched the machine off")
        if not post.held_bytes:
            begun = ", and a load had begun and not ended" if seen.was_loading else ""
            return Judgement(
                Verdict.ARMED_WITH_NOTHING, f"the driver held nothing at the restart{begun}"
            )
        if not post.memory_was_kept:
            held = human_size(post.held_bytes)
            return Judgement(
                Verdict.MEMORY_CLEARED,
                f"the restart cleared the {held} of memory in which an update was staged",
            )
    did = ""
    if post.version_after != post.version_before:
        did = f"{post.version_before} → {post.version_after}, but "
    return Judgement(Verdict.REFUSED, f"{did}{post.reason or code.text} (code {code:#06x})")


def _without_attempt(seen: Seen) -> Judgement:
    held_bytes = max((post.held_bytes or 0 for post in seen.posts), default=0)
    dropped = next((post.reason for post in seen.posts if post.reason), "")
    if seen.is_armed:
        return Judgement(Verdict.LEFT_ARMED, "the token is set, and the BIOS has not run since")
    was_armed = seen.was_armed or any(post.was_armed for post in seen.posts)
    if was_armed or dropped:
        return Judgement(Verdict.TOKEN_LOST, dropped or "the BIOS found the token cleared")
    if held_bytes:
        held = human_size(held_bytes)
        return Judgement(
            Verdict.LEFT_STAGED,
            f"an update was staged in {held} of memory, and the BIOS was not armed: it is lost",
        )
    begun = "a load had begun and not ended" if seen.was_loading else "nothing was staged"
    return Judgement(Verdict.NOT_TRIED, f"{begun}, and the BIOS was not armed")
