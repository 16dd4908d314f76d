"""The commands plan, update and cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli import progress, show
from openrbu.cli.choices import (
    Picked,
    choice_rows,
    no_step,
    pick,
    without_image_blocks,
    without_image_document,
)
from openrbu.cli.identity import machine_words
from openrbu.cli.interrupts import InterruptReport
from openrbu.cli.options import ImageSource, OnMachine
from openrbu.cli.passwords import PasswordOptions, ask, can_ask
from openrbu.cli.plan_view import (
    check_blocks,
    hints,
    outcome_blocks,
    outcome_document,
    plan_document,
    plan_rows,
)
from openrbu.cli.show import Answer, Block, Facts, caution, good
from openrbu.cli.status import post_document, post_rows
from openrbu.cli.update_options import UpdateOptions
from openrbu.errors import OpenRbuError, UsageError

if TYPE_CHECKING:
    from openrbu.api import Cancelled, Machine, Options, Plan

_NOTHING_DONE: Mapping[str, Any] = MappingProxyType({"staged": False, "armed": False})
"""What the document of an update says that had nothing to do."""

PASSWORD_NEEDED = "password_needed"
"""The name, for scripts, of an obstacle and of an error: a password is set and none was given."""


def plan(
    image: ImageSource,
    *,
    machine: OnMachine = None,
    asked: UpdateOptions,
    secret: PasswordOptions,
    as_json: bool,
) -> Answer:
    """Show what an update would do, and what prevents it.

    Changes nothing, and works where a machine's files may only be read. The exit code is 0 when the
    update could be done or is not needed, else the one that the update would have.

    \b
    Example:  rbu plan A06.hdr --machine demo
    """
    found, options = api.find_images(image), asked.options(secret)
    with api.open_machine(machine, driver=asked.driver.value, reading=True) as opened:
        picked = pick(opened, found, options)
        if picked.choice is None:
            return _without_image(opened, picked, {})
        planned = opened.plan(picked.loaded, picked.options)
        refusal = planned.refusal
        if as_json:  # only then: it computes the image's digest
            document = {"changed": False, **plan_document(opened, planned, picked)}
            return Answer(document, (), refusal)
        rows = [*plan_rows(opened, planned), *choice_rows(picked)]
        blocks: list[Block] = [Facts("Plan", rows)]
        blocks += [_nothing_to_do(planned)] if planned.nothing_to_do else check_blocks(planned)
        if not planned.nothing_to_do and refusal is None:
            ready = f"rbu update {image}{machine_words(opened)}{asked.words}{secret.words}"
            blocks.append(good(f"ready: {ready}"))
        return Answer({}, blocks, refusal)


def update(
    image: ImageSource,
    *,
    machine: OnMachine = None,
    reboot: Annotated[
        bool, typer.Option("--reboot", help="Restart the machine when it is armed.")
    ] = False,
    no_arm: Annotated[
        bool,
        typer.Option("--no-arm", help="Stage and verify, and do no more: rbu arm arms the BIOS."),
    ] = False,
    asked: UpdateOptions,
    secret: PasswordOptions,
    as_json: bool,
) -> Answer:
    """Stage and verify an image, and arm the BIOS.

    The next restart updates the BIOS; --reboot restarts the machine, too. With --no-arm no restart
    changes anything before rbu arm: so many machines can be staged before the first restarts.

    An error or Ctrl-C before the end leaves the machine as it was; Ctrl-C at the very end may
    leave the update armed, and the message says so. A machine that runs this version already is
    left alone.

    \b
    Example:  rbu update A06.hdr --machine demo --reboot
    """
    from openrbu.update.journal import Journal

    if reboot and no_arm:
        raise UsageError("--reboot and --no-arm don't go together")
    found, options = api.find_images(image), _options(asked, secret, no_arm=no_arm)
    interrupts = InterruptReport()
    with interrupts.reporting(), api.open_machine(machine, driver=asked.driver.value) as opened:
        picked = pick(opened, found, options)
        if picked.choice is None:
            return _without_image(opened, picked, _NOTHING_DONE)
        planned = opened.plan(picked.loaded, picked.options)
        if not as_json and _lacks_only_password(planned) and can_ask():
            planned = opened.plan(picked.loaded, replace(picked.options, password=ask()))
        document = _document(plan_document(opened, planned, picked))
        if planned.refusal is not None:
            return Answer(document, hints(planned), planned.refusal)
        if not planned.nothing_to_do:
            _begin(opened, planned, picked, as_json=as_json)
            interrupts.begin(Journal.of(opened.host))
        with progress.progress_reporter() as reporter:
            outcome = opened.update(planned, progress=reporter, arm=not no_arm)
        if outcome is None:
            document |= {**_NOTHING_DONE, "version": planned.image.header.version.text}
            return Answer(document, [_nothing_to_do(planned)])
        document |= {"changed": outcome.changed, **outcome_document(outcome)}
        done = outcome_blocks(outcome)
        if not reboot:
            step = next_step_text(opened, is_armed=outcome.is_armed, arm_words=asked.arm_words)
            return Answer(document | {"restarted": False}, [*done, step])
        if not as_json:
            show.emit(done)
        interrupts.end()
        return _restart(opened, document)


def _options(asked: UpdateOptions, secret: PasswordOptions, *, no_arm: bool) -> Options:
    """The options of an update. A policy's windows are not for what is only staged.

    :raise OpenRbuError: as `UpdateOptions.options`.
    """
    options = asked.options(secret)
    if not no_arm or options.policy is None:
        return options
    return replace(options, policy=options.policy.at_any_time())


def _document(plan: dict[str, Any]) -> dict[str, Any]:
    """The document of an update before anything is done."""
    return {"changed": False, "plan": plan}


def _without_image(machine: Machine, picked: Picked, more: Mapping[str, Any]) -> Answer:
    """What is shown where a policy has no step, so that there is no image to choose."""
    document = {"changed": False, **more, **without_image_document(machine, picked)}
    return Answer(document, without_image_blocks(picked), no_step(picked))


def _lacks_only_password(planned: Plan) -> bool:
    """Whether nothing but the password prevents the update."""
    kinds = {each.kind for each in planned.obstacles}
    return planned.refusal is not None and kinds == {PASSWORD_NEEDED}


def _begin(machine: Machine, planned: Plan, picked: Picked, *, as_json: bool) -> None:
    """Show what will be done now.

    :raise OutputError: when standard output can't be written.
    """
    if as_json:
        show.check_output()
    else:
        rows = [*plan_rows(machine, planned), *choice_rows(picked)]
        show.emit([Facts("Update", rows), *hints(planned)])


def _nothing_to_do(planned: Plan) -> Block:
    running = f"{planned.target.title} runs {planned.target.bios.version} already"
    return good(f"nothing to do: {running} (--reinstall installs it once more)")


def next_step_text(machine: Machine, *, is_armed: bool = True, arm_words: str = "") -> Block:
    """What to do next with a machine that is armed, or has an update staged, which `arm_words` go
    with."""
    if not is_armed:
        words = machine_words(machine)
        arm, cancel = f"rbu arm{words}{arm_words}", f"rbu cancel{words}"
        return f"next: {arm}, or {cancel}; a restart before loses the image"
    if machine.virtual is not None:
        return f"next: rbu machine reboot {machine.virtual.name}"
    from openrbu.update.restart import safe_command

    command = safe_command(machine.host)
    return f"next: {command} (a power cycle would lose the image), then: rbu status"


def _restart(machine: Machine, document: dict[str, Any]) -> Answer:
    """Restart, and show what the BIOS did, where that is known at once. It is a failure when the
    new version does not run, even when the BIOS says "completed"."""
    try:
        restarted = machine.restart()
    except OpenRbuError as error:  # the update is armed anyway
        return Answer(document | {"restarted": False}, [next_step_text(machine)], error)
    document = document | {"restarted": True, "is_armed": None}
    if restarted is None:
        return Answer(document, ["restarting; rbu status shows afterwards how it ended"])
    post = restarted.post
    document |= {"is_armed": restarted.status.is_armed, "result": post_document(post)}
    return Answer(document, [Facts("Restarted", post_rows(post))], restarted.failure)


# -- cancelling -----------------------------------------------------------------------------


def cancel(*, machine: OnMachine = None, secret: PasswordOptions, as_json: bool) -> Answer:
    """Cancel an armed or staged update.

    First the BIOS's token is cleared, then the image in memory. Some BIOSes with an admin password
    clear the token only with it.

    \b
    Example:  rbu cancel --machine demo
    """
    from openrbu.update.clearing import BUG

    with api.open_machine(machine) as opened:
        done = _cancelled(opened, secret.password(), may_ask=not as_json)
    document = {
        "changed": done.changed,
        "was_armed": done.was_armed,
        "was_staged": done.was_staged,
        "left_staged": done.left_staged,
        "was_loading": done.was_loading,
        "took_back": done.took_back,
        "problem": done.problem or None,
        "token_way": done.token_way or None,
    }
    lines: list[Block] = []
    if done.was_armed:
        lines.append(good("disarmed: the next restart changes nothing"))
    if done.left_staged and done.was_staged and not done.problem:
        lines.append(
            caution(
                f"note: this kernel may crash when it drops the staged packets ({BUG}), so they "
                "stay; without the token they have no effect, and a power cycle clears them"
            )
        )
    elif done.left_staged:
        lines.append(
            caution(
                "note: what was staged is still in memory; without the token it has no effect, and "
                "a power cycle clears it"
            )
        )
    elif done.was_staged:
        lines.append(good("freed: nothing is staged now"))
    if done.was_loading:
        lines.append(good("ended: the load of firmware that was begun and not ended"))
    if done.took_back:
        lines.append(good("taken back: what an update that was cut off had changed"))
    if done.problem:
        lines.append(caution(f"note: {done.problem}"))
    return Answer(document, lines or ["nothing to cancel: nothing is staged or armed"])


def _cancelled(machine: Machine, password: str | None, *, may_ask: bool) -> Cancelled:
    """Cancel; where only the password is missing, and it may be asked for, ask for it."""
    try:
        return machine.cancel(password=password)
    except OpenRbuError as error:
        if error.kind != PASSWORD_NEEDED or not (may_ask and can_ask()):
            raise
    return machine.cancel(password=ask())
