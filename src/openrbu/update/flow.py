"""The whole of an update, step by step: plan → stage → verify → restart kind → arm.

The token is set last, and only after both checks of `verify`. An error or an interrupt before that
leaves the machine as it was: not armed, nothing staged, the driver and the kind of restart as
before. The steps are undone in reverse, the token first.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

from openrbu.errors import (
    NotForThisMachineError,
    ObstacleError,
    OpenRbuError,
    UpdateFailedError,
)
from openrbu.hosts.base import Host
from openrbu.system.signals import signals_deferred
from openrbu.update import arming_checks, firmware_file, own_memory, restart
from openrbu.update.arm import (
    ActivationToken,
    SmiActivation,
    activation_for,
    read_armed,
    set_armed,
    unload_dcdbas,
    unlock,
)
from openrbu.update.arming_checks import ARMED_ALREADY
from openrbu.update.begun_loads import refuse_foreign
from openrbu.update.driver import Mode, RbuDriver
from openrbu.update.ending import PasswordUse, bios_record, is_left_armed
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import BYPASSED, VERIFIED, Attempt, Journal
from openrbu.update.kernel_refusals import kernel_refusal, kernel_refusals
from openrbu.update.plan import Plan, make_plan, refuse_new
from openrbu.update.progress import ProgressReporter, SilentProgress
from openrbu.update.report import record_result
from openrbu.update.restart import boot_id
from openrbu.update.target import Target, read_target
from openrbu.update.tries import stage_somehow
from openrbu.update.undo import Undo, changes_to_put_back, put_all_back
from openrbu.update.verify import Verified
from openrbu.update.ways import Way

_SILENT = SilentProgress()

LOST = "what was staged before this update was dropped for it"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A staged, verified and armed update. `mode`: what the BIOS finds; `way`: how it was staged.
    `tried`: one text for each attempt to stage it that failed before. `token_way`: the file through
    which the token was set."""

    attempt_id: str
    mode: Mode
    verified: Verified
    tried: tuple[str, ...]
    staged_sha256: str
    token_way: str
    way: Way

    @property
    def driver(self) -> str:
        """Who has staged it: the `kernel`'s driver, or openrbu's `own`."""
        return "own" if self.verified.staged_in else "kernel"

    @property
    def packet_size_bytes(self) -> int | None:
        """The size of the staged packets; None: it is in one piece."""
        return self.way.packet_size_bytes if self.mode == "packet" else None


def refuse(plan: Plan) -> None:
    """Raise `Plan.refusal`, where an update can't begin.

    :raise UsageError | NotForThisMachineError | ObstacleError | DamagedInputError: the refusal.
    """
    if (refusal := plan.refusal) is not None:
        raise refusal


def perform(host: Host, plan: Plan, progress: ProgressReporter = _SILENT) -> Outcome | None:
    """Stage, verify and arm what was planned.

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
                outcome = Outcome(
                    attempt_id,
                    staged.way.mode,
                    staged.verified,
                    staged.tried,
                    staged.sha256,
                    token.way,
                    staged.way,
                )
                evidence = _evidence(outcome, _password_use(plan, outcome, token))
                refuse_new(host, plan, is_staged=True)
                journal.append(attempt_id, VERIFIED, host.now(), **evidence)
                _arm(host, plan, token, progress, undo)
            journal.append(attempt_id, "armed", host.now(), **evidence)
        except BaseException as error:  # noqa: BLE001  (an interrupt is undone like a failure)
            left = undo.run()
            lost = had_staged and _has_nothing_staged(host)
            with contextlib.suppress(ObstacleError):
                event = "failed" if isinstance(error, (OpenRbuError, OSError)) else "interrupted"
                journal.append(attempt_id, event, host.now(), why=str(error), left=left, lost=lost)
            raise _with_what_is_left(error, left, lost=lost) from None
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
        }


def _evidence(outcome: Outcome, password_use: str | None) -> dict[str, Any]:
    """The fields of the journal's lines `verified` and `armed`: what was seen before arming, with
    the first 16 extents."""
    extents = outcome.verified.places
    return {
        "driver": outcome.driver,
        "mode": outcome.mode,
        "way": outcome.way.name,
        "packet_size_bytes": outcome.packet_size_bytes,
        "tried": list(outcome.tried),
        "read_back": outcome.verified.read_back.value,
        "staged_sha256": outcome.staged_sha256,
        "seen_in_memory": outcome.verified.extents is not None,
        "extent_count": len(extents),
        "extents": [[extent.start, extent.end] for extent in extents[:16]],
        "taken_by": [finding.rules for finding in outcome.verified.findings or ()],
        "token_way": outcome.token_way,
        "admin_password": password_use,
    }


def _password_use(plan: Plan, outcome: Outcome, token: ActivationToken) -> str | None:
    """What became of the BIOS admin password, for the journal: a `PasswordUse`, or None where none
    is known to be set and none was sent."""
    if isinstance(token, SmiActivation) and token.unlock():
        return PasswordUse.VERIFIED.value
    if plan.options.password is not None and outcome.mode == "packet":
        return PasswordUse.NOT_VERIFIED.value
    return PasswordUse.LEFT_OUT.value if arming_checks.has_admin_password(plan.target) else None


def _check_token_is_clear(
    host: Host, plan: Plan, last: Attempt | None, undo: Undo
) -> ActivationToken:
    """The BIOS's token, which was checked to be clear before anything is changed, and which can be
    set: the BIOS takes the admin password. Where it is set for the `last` update, which is lost, it
    is cleared.

    :raise ObstacleError: when it can't be accessed, when the BIOS would ignore it (a check value of
        CMOS is wrong), or when it is set already; `PasswordNeededError` and `WrongPasswordError`.
    """
    if not host.module_is_loaded("dcdbas"):
        undo.add("the dcdbas module", lambda: unload_dcdbas(host))
    options = plan.options
    token = activation_for(
        host, plan.target, options.password, without_password=options.without_password
    )
    if not options.mend_cmos and (doubt := arming_checks.token_problem(token)):
        raise ObstacleError(doubt)
    is_armed = token.is_armed
    if is_armed and not is_left_armed(host, plan.target, last):
        raise ObstacleError(ARMED_ALREADY)
    unlock(token)
    if is_armed:  # for an update that is lost: it stays clear, whatever becomes of this one
        set_armed(token, armed=False)
    return token


def _arm(
    host: Host, plan: Plan, token: ActivationToken, progress: ProgressReporter, undo: Undo
) -> None:
    """Set the kind of restart, then the token.

    :raise ObstacleError: when the restart may clear memory.
    :raise UpdateFailedError: when what is staged is not where it was, the token does not stay set,
        or the BIOS would ignore it.
    """
    progress.step("choosing a warm restart")
    before = partial(undo.before_change, "the kind of restart")
    restart.choose_warm(host, before, allow_any=plan.options.allow_any_restart)
    with kernel_refusals():
        own_memory.check_in_place(host)
    progress.step("arming the BIOS")
    if plan.options.mend_cmos:
        arming_checks.repair_checks(token, undo.add)
    undo.add("the BIOS's token", lambda: set_armed(token, armed=False))
    set_armed(token, armed=True)
    if doubt := arming_checks.wrong_checks(token):
        raise UpdateFailedError(f"the BIOS would ignore its token: {doubt}")


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


def _with_what_is_left(error: BaseException, left: list[str], *, lost: bool) -> BaseException:
    """The error to raise: an `OSError` becomes an `UpdateFailedError`, and the message says what is
    left, and whether what another program had staged was dropped (`lost`)."""
    if isinstance(error, OSError):
        error = kernel_refusal(error)
    if lost and isinstance(error, UpdateFailedError):
        error = UpdateFailedError(f"{error}; {LOST}")
    if left and isinstance(error, OpenRbuError):
        return UpdateFailedError(f"{error}; could not be undone: {', '.join(left)}")
    return error
