"""The command arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli import identity, progress, show
from openrbu.cli.interrupts import InterruptReport
from openrbu.cli.options import OnMachine
from openrbu.cli.passwords import PasswordOptions, ask, can_ask
from openrbu.cli.plan_view import outcome_blocks, outcome_document
from openrbu.cli.show import Answer
from openrbu.cli.update_options import AllowAnyRestart, MendCmos, WithoutPassword
from openrbu.cli.updates import PASSWORD_NEEDED, next_step_text
from openrbu.errors import OpenRbuError, UsageError

if TYPE_CHECKING:
    from openrbu.api import Machine, Options, Outcome

PolicyOf = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy (TOML): what is staged has to be its next step, in one of its windows.",
    ),
]


def arm(
    *,
    machine: OnMachine = None,
    without_password: WithoutPassword = False,
    mend_cmos: MendCmos = False,
    allow_any_restart: AllowAnyRestart = False,
    policy: PolicyOf = None,
    secret: PasswordOptions,
    as_json: bool,
) -> Answer:
    """Arm the BIOS for what rbu update --no-arm has staged.

    What is staged is verified again, where it is now; nothing is armed when it changed, or when the
    machine was restarted since, or where the policy does not allow it now. Options of the update
    that concern this hold here, too. A machine that is armed for it already is verified and left
    alone.

    \b
    Example:  rbu arm --machine demo
    """
    from openrbu.update.journal import Journal
    from openrbu.update.target import read_target

    if without_password and secret.words:
        raise UsageError(f"--without-password and {secret.words.split()[0]} don't go together")
    options = api.Options(
        password=secret.password(),
        without_password=without_password,
        mend_cmos=mend_cmos,
        allow_any_restart=allow_any_restart,
        policy=None if policy is None else api.read_policy(policy),
    )
    interrupts = InterruptReport()
    with interrupts.reporting(), api.open_machine(machine) as opened:
        if as_json:
            show.check_output()
        journal = Journal.of(opened.host)
        interrupts.begin(journal, is_new=False)
        outcome = _armed(opened, options, may_ask=not as_json)
        last = journal.last
        assert last is not None, "what was armed is in the journal"
        document = {
            "changed": outcome.changed,
            "machine": identity.machine_document(opened, read_target(opened.host)),
            "from_version": last.fields["from_version"],
            "sha256": last.fields["sha256"],
            **outcome_document(outcome),
        }
        return Answer(document, [*outcome_blocks(outcome), next_step_text(opened)])


def _armed(machine: Machine, options: Options, *, may_ask: bool) -> Outcome:
    """Arm; where only the password is missing, and it may be asked for, ask for it."""
    try:
        with progress.progress_reporter() as reporter:
            return machine.arm(options, progress=reporter)
    except OpenRbuError as error:
        if error.kind != PASSWORD_NEEDED or not (may_ask and can_ask()):
            raise
    with progress.progress_reporter() as reporter:
        return machine.arm(replace(options, password=ask()), progress=reporter)
