"""The whole of an update, step by step: plan → stage → verify → restart kind → arm.

The token is set last, and only after both checks of `verify`. The last two steps can be left for
later (`arming`). An error or an interrupt before that
leaves the machine as it was: not armed, nothing staged, the driver and the kind of restart as
before. The steps are undone in reverse, the token first.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from typing import Any

from openrbu.errors import (
    NotForThisMachineError,
    ObstacleError,
    OpenRbuError,
)
from openrbu.hosts.base import Host
from openrbu.system.signals import signals_deferred
from openrbu.update import arming_checks, firmware_file
from openrbu.update.arm import ActivationToken, read_armed, set_armed, unlock
from openrbu.update.arming import kept_options, set_token, staged_already, usable_token
from openrbu.update.arming_checks import ARMED_ALREADY
from openrbu.update.begun_loads import refuse_foreign
from openrbu.update.driver import RbuDriver
from openrbu.update.ending import bios_record, is_left_armed
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import BYPASSED, STAGED, VERIFIED, Attempt, Journal
from openrbu.update.kernel_refusals import kernel_refusals
from openrbu.update.outcome import Outcome, evidence, password_use
from openrbu.update.plan import Plan, make_plan, refuse_new
from openrbu.update.progress import ProgressReporter, SilentProgress
from openrbu.update.report import record_result
from openrbu.update.restart import boot_id
from openrbu.update.target import Target, read_target
from openrbu.update.tries import Staged, stage_somehow
from openrbu.update.undo import Undo, changes_to_put_back, put_all_back, with_what_is_left

_SILENT = SilentProgress()


def refuse(plan: Plan) -> None:
    """Raise `Plan.refusal`, where an update can't begin.

    :raise UsageError | NotForThisMachineError | ObstacleError | DamagedInputError: the refusal.
    """
    if (refusal := plan.refusal) is not None:
        raise refusal


def perform(
    host: Host, plan: Plan, progress: ProgressReporter = _SILENT, *, arm: bool = True
) -> Outcome | None:
    """Stage, verify and arm what was planned. Without `arm` it is left staged, for `arming.arm`;
    where the same is staged already, that is verified again and nothing is changed.

    A machine that runs the version already is left alone: nothing is written in its journal, and
    the result is None; `Options.reinstall` installs that version once more. Where another
    BIOS runs than when the plan was made, a new plan with the same options takes its place. Once no
    other process can update the machine, what may have come in the way since is looked at again,
    and the restart and the power once more before the BIOS is armed.

    Signals are delivered during the steps that can be undone, and deferred while those are undone.
    A signal that arrives later, while the journal is written, leaves the update armed.

    :raise NotForThisMachineError: when the plan was made for another machine.
    :raise OpenRbuError: as `refuse`, or `UpdateFailedError`; the machine is then as it was before,
        or the message says what could not be undone.
    """
    if _ready_now(host, plan) is None:
        return None
    journal, attempt_id = Journal.of(host), uuid.uuid4().hex[:12]
    with alone_on(host), signals_deferred() as deferred:
        ready = _ready_now(host, plan)  # again: until now another process could change the machine
        if ready is None:
            return None
        plan, data = ready, ready.image.build()
        refuse_new(host, plan)
        last = _last_before(host, plan.target, journal)
        if not arm and (done := staged_already(host, plan, last, data)) is not None:
            return done
        with kernel_refusals():
            firmware_file.take_away(host)
            refuse_foreign(host)
            had_staged = _has_staged(host)
        journal.append(attempt_id, "started", host.now(), **_facts(host, plan, data))
        undo = Undo(host, journal, attempt_id)
        try:
            with deferred.deliver_pending():
                token = _check_token_is_clear(host, plan, last, undo)
                _settle(host, journal, last)
                staged = stage_somehow(host, plan, data, progress, undo)
                outcome = _outcome(attempt_id, plan, staged, token, is_armed=arm)
                seen = evidence(outcome, _password_use(plan, outcome, token))
                refuse_new(host, plan, is_staged=True)
                if arm:
                    journal.append(attempt_id, VERIFIED, host.now(), **seen)
                    set_token(host, plan.options, token, progress, undo)
            journal.append(attempt_id, "armed" if arm else STAGED, host.now(), **seen)
        except BaseException as error:  # noqa: BLE001  (an interrupt is undone like a failure)
            left = undo.run()
            lost = had_staged and _has_nothing_staged(host)
            with contextlib.suppress(ObstacleError):
                event = "failed" if isinstance(error, (OpenRbuError, OSError)) else "interrupted"
                journal.append(attempt_id, event, host.now(), why=str(error), left=left, lost=lost)
            raise with_what_is_left(error, left, lost=lost) from None
    return outcome


def _ready_now(host: Host, plan: Plan) -> Plan | None:
    """The plan to perform: `plan`, or a new one where the machine has changed since. None: there is
    nothing to do.

    :raise NotForThisMachineError: when the plan was made for another machine.
    :raise OpenRbuError: as `refuse`, or as `make_plan`.
    """
    if plan.made_for != host.name:
        raise NotForThisMachineError(
            f"the plan was made for {plan.made_for}, not for {host.name}: make one for it"
        )
    with kernel_refusals():
        if read_target(host) != plan.target:
            plan = make_plan(host, plan.image, plan.options)
    refuse(plan)
    return None if plan.nothing_to_do else plan


def _last_before(host: Host, target: Target, journal: Journal) -> Attempt | None:
    """The update before this one, with its result where there is one.

    :raise ObstacleError: when it is armed, or when the journal can't be read or written.
    :raise DamagedInputError: when the journal is damaged.
    """
    with kernel_refusals():
        record_result(host, target)
        last = journal.last
        if read_armed(host, target) and not is_left_armed(host, target, last):
            raise ObstacleError(ARMED_ALREADY)
    return last


def _settle(host: Host, journal: Journal, last: Attempt | None) -> None:
    """Put back what the update before this one has left changed, so that this one finds the machine
    as it was before both; and record how that one ended, which is not armed any more.

    :raise ObstacleError: when the journal can't be written.
    :raise OSError: what the kernel returns.
    """
    left = put_all_back(host, changes_to_put_back(host, last))
    if last is not None and last.outcome == "started":
        why = "the tool ended before the update was armed"
        journal.append(last.id, "interrupted", host.now(), why=why, left=left)
    elif last is not None and last.outcome == STAGED:
        why = "it was not armed; another update took its place"
        journal.append(last.id, "cancelled", host.now(), why=why, left=left)
    elif last is not None and last.outcome in ("armed", BYPASSED):
        why = "another program has disarmed the BIOS"
        if last.outcome == BYPASSED:
            why = "Linux was started again without the BIOS; another update came after it"
        journal.append(last.id, "cancelled", host.now(), why=why, left=left)


def _facts(host: Host, plan: Plan, data: bytes) -> dict[str, Any]:
    """The fields of the journal's `started` event: what is known before anything is done.

    :raise UpdateFailedError: when the kernel returns an error.
    """
    with kernel_refusals():
        return {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "from_version": plan.target.bios.version,
            "to_version": plan.image.header.version.text,
            "system_id": plan.target.system_id,
            "mode": plan.mode,
            "packet_size_bytes": plan.options.packet_size_bytes if plan.mode == "packet" else None,
            "boot_id": boot_id(host),
            "bios_record": bios_record(plan.target),
            "kept_options": kept_options(plan.options),
        }


def _outcome(
    attempt_id: str, plan: Plan, staged: Staged, token: ActivationToken, *, is_armed: bool
) -> Outcome:
    version = plan.image.header.version.text
    return Outcome(
        attempt_id,
        staged.way.mode,
        staged.verified,
        staged.tried,
        staged.sha256,
        token.way,
        staged.way,
        version,
        is_armed,
    )


def _password_use(plan: Plan, outcome: Outcome, token: ActivationToken) -> str | None:
    """What became of the BIOS admin password, for the journal."""
    return password_use(
        token,
        is_in_packets=plan.options.password is not None and outcome.mode == "packet",
        is_known_set=arming_checks.has_admin_password(plan.target),
    )


def _check_token_is_clear(
    host: Host, plan: Plan, last: Attempt | None, undo: Undo
) -> ActivationToken:
    """The BIOS's token, which was checked to be clear before anything is changed, and which can be
    set: the BIOS takes the admin password. Where it is set for the `last` update, which is lost, it
    is cleared.

    :raise ObstacleError: when it can't be accessed, when the BIOS would ignore it (a check value of
        CMOS is wrong), or when it is set already; `PasswordNeededError` and `WrongPasswordError`.
    """
    token = usable_token(host, plan.target, plan.options, undo)
    is_armed = token.is_armed
    if is_armed and not is_left_armed(host, plan.target, last):
        raise ObstacleError(ARMED_ALREADY)
    unlock(token)
    if is_armed:  # for an update that is lost: it stays clear, whatever becomes of this one
        set_armed(token, armed=False)
    return token


def _has_staged(host: Host) -> bool:
    """Whether something is staged.

    :raise OSError: what the kernel returns.
    """
    driver = RbuDriver(host)
    return driver.is_loaded and driver.has_staged_data


def _has_nothing_staged(host: Host) -> bool:
    """Whether nothing is staged; False also where that can't be read."""
    with contextlib.suppress(OSError, OpenRbuError):
        return not _has_staged(host)
    return False
