"""The result of a restart: the BIOS's own result, compared with what was armed.

Only a virtual machine gives it at once. For a real one, call `report.read_status` after it has
restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from openrbu.bios.post_report import PostReport
from openrbu.errors import UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import Host
from openrbu.linux.reboot import REBOOT_MODE
from openrbu.machine.base import Machine
from openrbu.update.journal import Journal
from openrbu.update.report import UpdateStatus, read_status
from openrbu.update.restart import WARM


@dataclass(frozen=True, slots=True)
class Restarted:
    """The result of a restart. `post` is what the BIOS did, `status` the machine's status now.
    `failure`: why an update failed that the BIOS tried, or that openrbu had armed; None: none
    failed."""

    post: PostReport
    status: UpdateStatus
    failure: UpdateFailedError | None


def restart(host: Host, virtual: Machine, *, cold: bool = False) -> Restarted:
    """Restart a virtual machine, as its kernel's reboot mode says; `cold`: with a power cycle. One
    that is off is switched on. `host`: the same machine, as programs on it see it.

    :raise MachineError: as `Machine.restart`.
    :raise ObstacleError | DamagedInputError: when its journal or its tables can't be read.
    """
    mode = "cold" if cold else virtual.status().reboot_mode
    wanted = armed_version(host)
    config = virtual.config
    can_choose = config.xen is None and config.has_reboot_files
    post = explained(virtual.restart(cold=cold or None), mode, can_choose=can_choose)
    return Restarted(post, read_status(host), update_failure(post, wanted))


def armed_version(host: Host) -> BiosVersion | None:
    """The version that openrbu has armed for the next restart; None: none.

    :raise ObstacleError | DamagedInputError: when the journal can't be read.
    """
    last = Journal.of(host).last
    if last is None or last.outcome != "armed":
        return None
    return BiosVersion.parse(str(last.fields.get("to_version", "")))


def explained(post: PostReport, mode: str | None, *, can_choose: bool) -> PostReport:
    """The report of a start, with a reason that a BIOS can't know: memory was cleared before it
    searched.

    `mode` is the kind of the restart, None where the machine was off. `can_choose`: the kernel has
    a file for it, and that has an effect.
    """
    if post.completion_code is not CompletionCode.IMAGE_NOT_FOUND or mode in (None, WARM):
        return post
    why = f"memory was cleared: the restart was {mode}; a warm one keeps it"
    return replace(post, reason=f"{why}: echo {WARM} > {REBOOT_MODE}" if can_choose else why)


def post_failure(post: PostReport) -> UpdateFailedError | None:
    """The error for a start in which the BIOS tried an update and failed; None: it did not fail."""
    code = post.completion_code
    if code is None or code is CompletionCode.COMPLETED:
        return None
    did = "did not install the update"
    if post.version_after != post.version_before:
        did = f"installed {post.version_after}, but reports a failure"
    return UpdateFailedError(f"the BIOS {did}: {post.reason or code.text} (code {code:#06x})")


def update_failure(post: PostReport, wanted: BiosVersion | None) -> UpdateFailedError | None:
    """The error for a start that was expected to install version `wanted` and did not; None: it
    did. As `post_failure` where no version was expected."""
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
