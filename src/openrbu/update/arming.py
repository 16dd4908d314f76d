"""Arm an update that was staged before: verify it again, where it is now, and set the token.

An update stages, verifies and arms in one go (`flow`); or it leaves the update staged, and this
arms it later. Between the two anything may have happened to memory, to the driver and to Linux. So
nothing is believed but what is seen now: the driver still has what was verified, each BIOS that
could be the machine's takes it from where it is, and the restart and the power are looked at again.

An error or an interrupt leaves the machine as it was: not armed, and what was staged still staged.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from functools import partial
from typing import Any

from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.packet import password_crc
from openrbu.hosts.base import Host
from openrbu.system.signals import signals_deferred
from openrbu.update import arming_checks, own_memory, restart
from openrbu.update.arm import (
    ActivationToken,
    activation_for,
    read_armed,
    set_armed,
    unload_dcdbas,
    unlock,
)
from openrbu.update.arming_checks import ARMED_ALREADY
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import BYPASSED, STAGED, VERIFIED, Attempt, Journal
from openrbu.update.kernel_refusals import kernel_refusals
from openrbu.update.options import Options
from openrbu.update.outcome import Outcome, evidence, password_use
from openrbu.update.plan import Plan, refuse_by_policy, refuse_new
from openrbu.update.progress import ProgressReporter, SilentProgress
from openrbu.update.report import record_result
from openrbu.update.staged_update import (
    NotStagedError,
    StagedChangedError,
    StagedUpdate,
    staged_update,
)
from openrbu.update.target import Target, read_target
from openrbu.update.undo import Undo, is_of_this_boot, with_what_is_left
from openrbu.update.verify import Verified
from openrbu.update.waiting import is_waiting

_SILENT = SilentProgress()

_STAGE_IT = "stage it with rbu update IMAGE --no-arm"

_ARMED_SO = (
    "; the BIOS is armed all the same, and searches for an update at the next restart: rbu cancel "
    "disarms it"
)

_KEPT = (
    "allow_any_system",
    "memory_above_4g",
    "without_password",
    "mend_cmos",
    "allow_any_restart",
)
"""The options of an update that count when it is armed."""


def kept_options(options: Options) -> list[str]:
    """The names of the options that were given and count when the update is armed, for the
    journal."""
    return [name for name in _KEPT if getattr(options, name)]


def staged_already(host: Host, plan: Plan, last: Attempt | None, data: bytes) -> Outcome | None:
    """What is staged and verified, where that is what was planned (`data` is the image); None: it
    has to be staged."""
    if last is None or last.outcome != STAGED or not is_of_this_boot(host, last):
        return None
    options, known = plan.options, last.fields
    is_same = known.get("sha256") == hashlib.sha256(data).hexdigest()
    if not is_same or known.get("kept_options") != kept_options(options):
        return None
    try:
        with kernel_refusals():
            staged = staged_update(host, last, plan.target, options)
            if not _is_as_asked(staged, options):
                return None
            verified = staged.verify(host)
    except UpdateFailedError:
        return None
    outcome = _outcome(last, staged, verified, str(known.get("token_way")))
    return replace(outcome, is_armed=False, changed=False)


def _is_as_asked(staged: StagedUpdate, options: Options) -> bool:
    """Whether it is staged in the mode, in packets of the size and with the password of these
    options."""
    is_packets = staged.payload.mode == "packet"
    if options.mode not in (None, staged.payload.mode):
        return False
    if is_packets and options.packet_size_bytes != staged.way.packet_size_bytes:
        return False
    crc = None if options.password is None else password_crc(options.password)
    return not is_packets or crc == staged.password_crc


def usable_token(host: Host, target: Target, options: Options, undo: Undo) -> ActivationToken:
    """The BIOS's token, of which the BIOS will take notice. `undo` gets a step that unloads
    `dcdbas`, where that is loaded for it.

    :raise ObstacleError: when it can't be accessed, or when the BIOS would ignore it: a check value
        of CMOS is wrong, and `options` do not have it repaired.
    """
    if not host.module_is_loaded("dcdbas"):
        undo.add("the dcdbas module", lambda: unload_dcdbas(host))
    without = options.without_password
    token = activation_for(host, target, options.password, without_password=without)
    if not options.mend_cmos and (doubt := arming_checks.token_problem(token)):
        raise ObstacleError(doubt)
    return token


def set_token(
    host: Host, options: Options, token: ActivationToken, progress: ProgressReporter, undo: Undo
) -> None:
    """Set the kind of restart, then the token.

    :raise ObstacleError: when the restart may clear memory.
    :raise UpdateFailedError: when what is staged is not where it was, the token does not stay set,
        or the BIOS would ignore it.
    """
    progress.step("choosing a warm restart")
    before = partial(undo.before_change, "the kind of restart")
    restart.choose_warm(host, before, allow_any=options.allow_any_restart)
    with kernel_refusals():
        own_memory.check_in_place(host)
    progress.step("arming the BIOS")
    if options.mend_cmos:
        arming_checks.repair_checks(token, undo.add)
    undo.add("the BIOS's token", lambda: set_armed(token, armed=False))
    set_armed(token, armed=True)
    if doubt := arming_checks.wrong_checks(token):
        raise UpdateFailedError(f"the BIOS would ignore its token: {doubt}")


def arm(
    host: Host, options: Options | None = None, progress: ProgressReporter = _SILENT
) -> Outcome:
    """Arm the BIOS for the update that `flow.perform` has left staged.

    Of `options` the password counts, and those that concern arming, and the policy: what is staged
    has to be its next step now, whatever it was when it was staged. Those of the update hold, too.
    Where the BIOS is armed for it already, it is verified again, and nothing is changed.

    Signals are delivered during the steps that can be undone, as in `flow.perform`.

    :raise NotStagedError: when nothing of openrbu's is staged, or the machine was restarted since.
    :raise UpdateFailedError: when what is staged is not what was verified, a BIOS would not take
        it, or the token can't be set.
    :raise BusyError: when another process updates this machine.
    :raise ObstacleError: when something is in the way of arming; `PasswordNeededError` and
        `WrongPasswordError`.
    :raise DamagedInputError: when the SMBIOS tables or the journal are damaged.
    """
    journal = Journal.of(host)
    with alone_on(host), signals_deferred() as deferred:
        with kernel_refusals():
            target = read_target(host)
            record_result(host, target)
            last = _to_arm(host, target, journal.last)
        options = _with_kept(last, Options() if options is None else options)
        undo = Undo(host, journal, last.id)
        is_announced = False
        try:
            with deferred.deliver_pending():
                token = usable_token(host, target, options, undo)
                was_armed = token.is_armed
                if was_armed and last.outcome != "armed":
                    raise ObstacleError(ARMED_ALREADY)
                staged = _staged(host, last, target, options, was_armed=was_armed)
                _hold_policy(host, staged, was_armed=was_armed)
                if not was_armed:
                    unlock(token)
                progress.step("verifying in the driver and in physical memory")
                outcome = _outcome(last, staged, staged.verify(host), token.way)
                if was_armed:
                    return _nothing_done(outcome, undo)
                refuse_new(host, staged, is_staged=True)
                seen = evidence(outcome, _password_use(last, staged, target, token))
                journal.append(last.id, VERIFIED, host.now(), **seen)
                is_announced = True
                set_token(host, options, token, progress, undo)
            journal.append(last.id, "armed", host.now(), **seen, **_without_failure(last))
        except BaseException as error:  # noqa: BLE001  (an interrupt is undone like a failure)
            left = undo.run()
            if is_announced:
                with contextlib.suppress(ObstacleError):
                    journal.append(last.id, STAGED, host.now(), why=str(error), left=left)
            raise with_what_is_left(error, left) from None
    return outcome


def _to_arm(host: Host, target: Target, last: Attempt | None) -> Attempt:
    """The last update, where it is staged or armed.

    :raise NotStagedError: when it is not; the text says what it is instead, and whether the BIOS is
        armed all the same.
    :raise OSError: what the kernel returns.
    """
    if is_waiting(last, host):
        return last
    why = _why_not_staged(last)
    raise NotStagedError(f"{why}{_ARMED_SO}" if read_armed(host, target) else why)


def _why_not_staged(last: Attempt | None) -> str:
    """What the last update is, that is neither staged nor armed in this boot."""
    if last is None:
        return f"openrbu has staged nothing here: {_STAGE_IT}"
    to = f"the last update, to {last.fields.get('to_version')}"
    if last.outcome == "started":
        return (
            f"{to}, was cut off before it was staged and verified: rbu cancel takes back what it "
            "did"
        )
    if last.outcome == BYPASSED:
        return f"{to}, is lost: Linux was started again without the BIOS; rbu update tries it again"
    why = last.fields.get("why")
    told = f"{last.outcome}: {why}" if why else last.outcome
    return f"nothing of openrbu's is staged ({to}: {told}): {_STAGE_IT}"


def _staged(
    host: Host, last: Attempt, target: Target, options: Options, *, was_armed: bool
) -> StagedUpdate:
    """:raise StagedChangedError | OSError: as `staged_update`."""
    try:
        return staged_update(host, last, target, options)
    except StagedChangedError as error:
        if not was_armed:
            raise
        raise StagedChangedError(error.why, _ARMED_SO) from None


def _hold_policy(host: Host, staged: StagedUpdate, *, was_armed: bool) -> None:
    """:raise ObstacleError: when the operator's policy does not allow what is staged, now."""
    try:
        refuse_by_policy(host, staged)
    except ObstacleError as error:
        if not was_armed:
            raise
        version = staged.image.header.version
        raise ObstacleError(
            f"{error}; the BIOS is armed, and the next restart hands {version} to it: rbu cancel "
            "disarms it"
        ) from None


def _with_kept(last: Attempt, options: Options) -> Options:
    """These options, and those of the update that count for arming. A password that is given now
    is used, whatever was said before."""
    kept = set(_KEPT).intersection(last.fields.get("kept_options", ()))
    if options.password is not None:
        kept.discard("without_password")
    given: dict[str, Any] = dict.fromkeys(kept, True)
    return replace(options, **given)


def _outcome(last: Attempt, staged: StagedUpdate, verified: Verified, token_way: str) -> Outcome:
    """What is staged, after it was verified again."""
    return Outcome(
        last.id,
        staged.payload.mode,
        verified,
        (),
        str(last.fields.get("staged_sha256")),
        token_way,
        staged.way,
        staged.image.header.version.text,
    )


def _nothing_done(outcome: Outcome, undo: Undo) -> Outcome:
    """:raise UpdateFailedError: when a module that was loaded to look can't be unloaded."""
    if left := undo.run():
        raise UpdateFailedError(f"the BIOS is armed already; could not be undone: {left[0]}")
    return replace(outcome, changed=False)


def _password_use(
    last: Attempt, staged: StagedUpdate, target: Target, token: ActivationToken
) -> str | None:
    """What became of the password: as known now, or when it was staged."""
    return password_use(
        token,
        is_in_packets=staged.password_crc is not None,
        is_known_set=arming_checks.has_admin_password(target),
    )


def _without_failure(last: Attempt) -> dict[str, object]:
    """The fields that clear those of an attempt to arm it that failed before."""
    return {"why": None, "left": []} if "why" in last.fields else {}
