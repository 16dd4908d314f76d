"""What a restart brought: the BIOS's own result, held against what was armed.

Only a virtual machine tells it at once. A real one is asked after it came up: `report.read_status`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from openrbu.bios.post_report import PostReport
from openrbu.errors import UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import Host
from openrbu.update.journal import Journal
from openrbu.update.report import UpdateStatus
from openrbu.update.restart import REBOOT_MODE, WARM


@dataclass(frozen=True, slots=True)
class Restarted:
    """`post` is what the BIOS did, `status` how the machine is now. `failure`: what went wrong with
    an update that the BIOS tried, or that openrbu had armed; None: nothing."""

    post: PostReport
    status: UpdateStatus
    failure: UpdateFailedError | None


def armed_version(host: Host) -> BiosVersion | None:
    """The version that openrbu has armed, for the next restart to bring; None: none.

    :raise ObstacleError | DamagedInputError: when the journal can't be read.
    """
    last = Journal(host.journal_path).last
    if last is None or last.outcome != "armed":
        return None
    return BiosVersion.parse(str(last.fields.get("to_version", "")))


def explained(post: PostReport, mode: str | None, *, on_xen: bool) -> PostReport:
    """What a start did, with what a BIOS can't know: that memory was cleared before it looked.

    `mode` is the kind of restart that it was, None where the machine was off.
    """
    if post.completion_code is not CompletionCode.IMAGE_NOT_FOUND or mode in (None, WARM):
        return post
    why = f"memory was cleared: the restart was {mode}; a warm one keeps it"
    return replace(post, reason=why if on_xen else f"{why}: echo {WARM} > {REBOOT_MODE}")


def post_failure(post: PostReport) -> UpdateFailedError | None:
    """The error that a start ends with, where an update was tried in it and did not work."""
    code = post.completion_code
    if code is None or code is CompletionCode.COMPLETED:
        return None
    did = "did not install the update"
    if post.version_after != post.version_before:
        did = f"installed {post.version_after}, but reports a failure"
    return UpdateFailedError(f"the BIOS {did}: {post.reason or code.text} (code {code:#06x})")


def update_failure(post: PostReport, wanted: BiosVersion | None) -> UpdateFailedError | None:
    """The error that a start ends with which was to bring an update to `wanted`, and did not; as
    `post_failure` where it was to bring none."""
    failure = post_failure(post)
    if failure is not None or wanted is None:
        return failure
    runs = post.version_after
    if post.completion_code is None:
        why = post.reason or "the BIOS found none armed"
        return UpdateFailedError(f"the restart brought no update: {why}; {runs} runs")
    if not BiosVersion.parse(runs).same_as(wanted):
        return UpdateFailedError(f"the BIOS says completed, but {runs} runs, not {wanted}")
    return None
