# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""Begin the restarts of a roll-out: who takes part, in which wave, and how many may fail."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.openrbu.firmware.plugins.plugin_utils import ledger
from ansible_collections.openrbu.firmware.plugins.plugin_utils.controllers import claim
from ansible_collections.openrbu.firmware.plugins.plugin_utils.reports import (
    has_answers,
    knows_version,
    put_away_answers,
    save_answers,
    save_no_answer,
    save_summary,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils.states import is_staged

OPTIONS = {
    "directory": {"type": "path", "required": True},
    "staged": {"type": "str", "default": "rollout_staged"},
    "waves": {"type": "list", "elements": "str", "default": ["1", "10", "1%", "10%"]},
    "budget": {"type": "str", "default": "1"},
    "canary_waves": {"type": "int", "default": 1},
    "unstaged_allowed": {"type": "str", "default": "0"},
    "window": {"type": "str", "default": ""},
    "only_check": {"type": "bool", "default": False},
}

LEDGER = "ledger.db"
NAMED = 3
"""So many machines that are not staged are named in a message."""
SPECIFICATION = Path(__file__).parents[2] / "roles/rollout/meta/argument_specs.yml"


@contextlib.contextmanager
def _named(option: str) -> Iterator[None]:
    """A block that checks this option, whose name is in the error.

    :raise AnsibleActionFail: when it is not valid.
    """
    try:
        yield
    except ValueError as error:
        raise AnsibleActionFail(f"the roll-out can't begin: {option}: {error}") from error


def allowed_unstaged(asked: dict[str, Any], count: int) -> int:
    """With how many machines not staged restarts begin. None is a number here, too, which
    `share_of` has not.

    :raise ValueError: when it is no number and no share.
    """
    allowed = asked["unstaged_allowed"]
    return 0 if allowed in ("0", "0%") else ledger.share_of(allowed, count)


def _answers(staged: Any) -> dict[str, Any]:
    """The answers of rbu in the result of staging."""
    return dict((staged.get("answers") if isinstance(staged, dict) else None) or {})


def _reason(staged: dict[str, Any]) -> str:
    """What a result of staging says, with the last words of a module that has crashed."""
    if staged.get("skipped"):
        return "nothing was staged here (when, tags): choose hosts by hosts: or --limit"
    said = str(staged.get("msg", ""))
    last = str(staged.get("module_stderr") or "").strip().splitlines()[-1:]
    return ": ".join([said.rstrip("."), *last]) if not is_staged(staged) else said


class ActionModule(ActionBase):
    """Makes the ledger of this run from what staging has found on each host of the play."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _dummy, asked = self.validate_argument_spec(argument_spec=OPTIONS)
        variables = task_vars or {}
        # In the order in which they are worked on (`order:`), which the batch has: machines of a
        # later wave must not take all forks.
        hosts = list(variables["ansible_play_batch"])
        hosts += sorted(set(variables["ansible_play_hosts_all"]) - set(hosts))
        if len(variables["ansible_play_batch"]) < len(variables["ansible_play_hosts"]):
            raise AnsibleActionFail(
                "the play has serial: leave it out, the roll-out has waves of its own"
            )
        strategy = str(self._task.get_play().strategy).rpartition(".")[2]
        if strategy in ("free", "host_pinned"):
            raise AnsibleActionFail(
                f"the play has strategy: {strategy}: leave it out, a roll-out stages everywhere "
                "before anybody restarts"
            )
        if asked["only_check"]:
            self._check_variables(variables)
            self._check(asked, hosts, list(variables["ansible_play_hosts"]))
        if not self._task.check_mode:
            self._claim(Path(asked["directory"]))
        if asked["only_check"]:
            return {**result, "changed": False}
        hostvars = variables["hostvars"]
        staged = {host: hostvars.raw_get(host).get(asked["staged"]) for host in hosts}
        entries = [self._entry(host, found) for host, found in staged.items()]
        try:
            many = allowed_unstaged(asked, len(entries))
            summary = self._open(asked, entries, list(variables["groups"]["all"]))
            if not self._task.check_mode:
                put_away_answers(Path(asked["directory"]), variables["groups"]["all"])
                self._save(Path(asked["directory"]), entries, staged, summary)
        except (ValueError, OSError) as error:
            raise AnsibleActionFail(f"the roll-out can't begin: {error}") from error
        result.update({key: summary[key] for key in ("waves", "budget", "stopped", "counts")})
        result.update(changed=False, ledger=str(Path(asked["directory"]) / LEDGER))
        unstaged = [
            f"{host}: {summary['machines'][host]['message']}"
            for host in hosts
            if summary["machines"][host]["state"] == ledger.NOT_STAGED
        ]
        if len(unstaged) > many:
            more = f"; and {len(unstaged) - NAMED} more" if len(unstaged) > NAMED else ""
            result.update(
                failed=True,
                msg=f"{len(unstaged)} of {len(entries)} machines are not staged, and {many} may be "
                f"(unstaged_allowed); nothing was restarted; {'; '.join(unstaged[:NAMED])}{more} "
                f"(in {Path(asked['directory']) / 'summary.json'})",
            )
        return result

    def _open(
        self, asked: dict[str, Any], entries: list[ledger.Entry], inventory: list[str]
    ) -> dict[str, Any]:
        """Make the ledger, in check mode that of a run which leaves nothing. Returns its summary.

        :raise ValueError: when something that is asked for is not valid.
        :raise OSError: when the directory can't be written.
        """
        path = Path(asked["directory"]) / LEDGER
        with tempfile.TemporaryDirectory() as elsewhere:
            if self._task.check_mode:
                if path.exists():
                    shutil.copy(path, elsewhere)
                path = Path(elsewhere) / LEDGER
            return ledger.open_ledger(
                path,
                entries,
                waves=asked["waves"],
                budget=asked["budget"],
                canary_waves=asked["canary_waves"],
                window=asked["window"],
                inventory=inventory,
            )

    @staticmethod
    def _save(
        directory: Path,
        entries: list[ledger.Entry],
        staged: dict[str, Any],
        summary: dict[str, Any],
    ) -> None:
        """Save the summary, and the answers of staging, but where an earlier run's tell what this
        roll-out has done to the machine: that it was updated, or failed, or restarts still.

        :raise OSError: when they can't be written.
        """
        for entry in entries:
            state = summary["machines"][entry.name]["state"]
            answers = _answers(staged[entry.name])
            if state == ledger.UP_TO_DATE:
                version = (answers.get("plan") or {}).get("current_version")
                is_told = "status" not in answers and knows_version(directory, entry.name, version)
            else:
                has_died = state == ledger.FAILED_BEFORE != entry.state
                is_told = (has_died or state == ledger.RESTARTING) and has_answers(
                    directory, entry.name
                )
            if not answers and entry.state == ledger.NOT_STAGED:
                save_no_answer(directory, entry.name, entry.message)
            elif not is_told:
                save_answers(directory, entry.name, [answers])
        save_summary(directory, summary)

    def _check_variables(self, variables: dict[str, Any]) -> None:
        """Compare the role's variables with its specification, as they are on this host.

        :raise AnsibleActionFail: when one has a wrong type or value, or is missing.
        """
        options = self._loader.load_from_file(str(SPECIFICATION))["argument_specs"]["main"]
        known = options["options"]
        given = self._templar.template(
            {name: variables[name] for name in known if name in variables}
        )
        checked = ArgumentSpecValidator(known).validate(given, validate_role_argument_spec=True)
        if checked.error_messages:
            raise AnsibleActionFail("\n".join(checked.error_messages))

    @staticmethod
    def _check(asked: dict[str, Any], hosts: list[str], left: list[str]) -> None:
        """Check what a run needs before anything is done on a host. `left`: those of the `hosts`
        that take part still.

        :raise AnsibleActionFail: when it can't begin.
        """
        with _named("unstaged_allowed"):
            many = allowed_unstaged(asked, len(hosts))
        with _named("window"):
            ledger.check_window(asked["window"])
        with _named("budget"):
            ledger.share_of(asked["budget"], len(hosts))
        with _named("waves"):
            ledger.wave_sizes(asked["waves"], len(hosts))
        out = [host for host in hosts if host not in set(left)]
        if len(out) > many:
            raise AnsibleActionFail(
                f"{len(out)} of {len(hosts)} machines have failed or can't be reached before the "
                f"roll-out begins, and {many} may (unstaged_allowed); nothing was staged; the "
                f"first is {out[0]}"
            )

    @staticmethod
    def _claim(directory: Path) -> None:
        """Keep other controllers out of the directory until this one ends.

        :raise AnsibleActionFail: when there is one, or the directory can't be written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            claim(directory)
        except ValueError as error:
            raise AnsibleActionFail(f"the roll-out can't begin: {error}") from error
        except OSError as error:
            why = f"directory: {directory} can't be used: {error.strerror}"
            raise AnsibleActionFail(f"the roll-out can't begin: {why}") from error

    @staticmethod
    def _entry(host: str, staged: Any) -> ledger.Entry:
        """The state of a host by the result of its staging."""
        if not isinstance(staged, dict):
            return ledger.Entry(host, ledger.NOT_STAGED, "nothing was staged here")
        message = _reason(staged)
        if staged.get("unreachable"):
            return ledger.Entry(host, ledger.NOT_STAGED, f"unreachable: {message}")
        if not is_staged(staged):
            kind = (staged.get("error") or {}).get("kind")
            state = kind if kind in ledger.TOLD_APART else ledger.NOT_STAGED
            return ledger.Entry(host, state, message)
        state = staged.get("state")
        return ledger.Entry(host, state if state in ledger.AS_WANTED else ledger.WAITING, message)
