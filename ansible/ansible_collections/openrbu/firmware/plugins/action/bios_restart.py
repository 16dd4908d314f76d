# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""One machine of a roll-out: may it restart, arm, restart, and what does its BIOS say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.openrbu.firmware.plugins.module_utils import rbu
from ansible_collections.openrbu.firmware.plugins.module_utils.answers import (
    RbuError,
    parse_answer,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils import ledger
from ansible_collections.openrbu.firmware.plugins.plugin_utils.actions import RbuAction, Result
from ansible_collections.openrbu.firmware.plugins.plugin_utils.in_process import call
from ansible_collections.openrbu.firmware.plugins.plugin_utils.orphans import (
    end_orphan,
    is_orphan,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils.reports import (
    is_summary_old,
    save_answers,
    save_summary,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils.states import is_staged

OPTIONS = {
    "staged": {"type": "dict", "required": True},
    "begun": {"type": "dict", "required": True},
    "reboot": {"type": "dict", "default": {}},
    "image": {"type": "path"},
    "mode": rbu.UPDATE_OPTIONS["mode"],
    "driver": rbu.UPDATE_OPTIONS["driver"],
    "allow_downgrade": rbu.UPDATE_OPTIONS["allow_downgrade"],
    "retry_failed": rbu.UPDATE_OPTIONS["retry_failed"],
    **rbu.ARM_OPTIONS,
}

LATE = "late"
"""The option that names a variable with others: they are worked out in the action."""

_STAGING = tuple(name for name in OPTIONS if name in rbu.UPDATE_OPTIONS)
"""The options for the stagings of further steps."""


def steps_left(plan: Result) -> int:
    """How many steps a policy has from the machine of a plan to its target; 1 without a policy."""
    return max(1, len((plan.get("policy") or {}).get("steps") or ()))


def closed_window(plan: Result) -> str:
    """Why the policy of a plan does not allow a restart now; empty: it does, or there is none."""
    window = (plan.get("policy") or {}).get("window") or {}
    opens, closes = (window.get(name) for name in ("opens_at", "closes_at"))
    now = dt.datetime.now(dt.UTC)
    if opens and now < dt.datetime.fromisoformat(opens):
        return f"not restarted: the policy's window opens at {opens}"
    if closes and now >= dt.datetime.fromisoformat(closes):
        return f"not restarted: the policy's window closed at {closes}"
    return ""


def restart_of(steps: list[Result]) -> Result:
    """What the ledger keeps of a restart, or of several steps: the versions, and what the BIOS has
    said in the end; None: nothing was heard of it."""
    last = [each for each in steps if "now" in each][-1:] or steps[:1]
    completion = (last[0].get("now") or {}).get("completion") or {}
    return {
        "from_version": steps[0]["plan"]["current_version"],
        "to_version": last[0]["plan"]["new_version"],
        "completion_code": completion.get("code"),
    }


def _in_a_line(error: AnsibleError) -> str:
    """What an error says, as one line."""
    return " ".join(str(error).split())


_TASKS: dict[str, Callable[..., Result]] = {
    "arm": rbu.bios_arm,
    "info": rbu.bios_info,
    "stage": rbu.bios_stage,
}


class ActionModule(RbuAction):
    """Asks the ledger, arms, restarts, reads the verdict, tells the ledger, saves the answers."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        result: Result = super(RbuAction, self).run(tmp, task_vars)
        variables = task_vars or {}
        host = str(variables["inventory_hostname"])
        begun = dict(self._task.args.get("begun") or {})
        if begun.get("failed") or "ledger" not in begun:
            why = begun.get("msg") or (
                "the play's first host was left out (when, tags): choose hosts by hosts: or --limit"
            )
            raise AnsibleActionFail(f"the roll-out has not begun: {why}")
        path = Path(begun["ledger"])
        directory = path.parent
        try:
            asked = self._asked(variables)
        except AnsibleError as error:
            if self._task.check_mode:
                raise
            # The others wait for this machine until it has asked, or will not.
            state, message = ledger.pass_over(path, host, f"not restarted: {_in_a_line(error)}")
            return {**result, "changed": False, "failed": True, "state": state, "msg": message}
        staged = asked["staged"]
        if self._task.check_mode:
            would = staged.get("state") in ("planned", "staged", "armed")
            state = staged["state"] if is_staged(staged) else ledger.NOT_STAGED
            return {**result, "changed": would, "failed": not is_staged(staged), "state": state}
        state, message = ledger.take(path, host)
        changed = False
        if state == ledger.RESTARTING:
            is_known = not ledger.was_of_another(path, host)
            steps = [dict(staged.get("answers") or {})] if is_known else []
            changed, state, message = self._brought(asked, steps, variables, path)
            # Before the ledger: what it says of a machine is to be found in the answers.
            save_answers(directory, host, steps)
            if state in (ledger.UPDATED, ledger.FAILED):
                restart, is_updated = restart_of(steps), state == ledger.UPDATED
                ledger.give(path, host, updated=is_updated, message=message, restart=restart)
            else:
                is_left = state == ledger.STOPPED and is_orphan()
                ledger.leave(path, host, message, ledger.WAITING if is_left else state)
        if ledger.is_over(path) or is_orphan() or is_summary_old(directory):
            save_summary(directory, ledger.summary(path))
        end_orphan()
        result.update(changed=changed, state=state, msg=message)
        if (
            state == ledger.STOPPED
            and not changed
            and not ledger.speaks_for_all(path, host, message)
        ):
            # Ansible needs a second for each of thousands that fail, and people look at each.
            return {**result, "skipped": True}
        return {**result, "failed": state not in (ledger.UPDATED, *ledger.AS_WANTED)}

    def _asked(self, variables: dict[str, Any]) -> Result:
        """The options of the task, and those of the variable that it names.

        :raise AnsibleError: when one can't be worked out, or is not valid.
        """
        given = dict(self._task.args)
        if name := given.pop(LATE, None):
            late = self._templar.template(variables[name])
            given.update({key: late[key] for key in late if late[key] != variables.get("omit")})
        self._task.args = given
        _dummy, asked = self.validate_argument_spec(argument_spec=OPTIONS)
        return dict(asked)

    def _brought(
        self, asked: Result, steps: list[Result], variables: dict[str, Any], path: Path
    ) -> tuple[bool, str, str]:
        """Make the step that is staged, and those that the policy has after it: whether anything
        was changed, the state of the machine, and what is to be said of it. Adds the answers of
        each further step to `steps`; where that is empty, the first step has to be staged, too."""
        has_changed, runs, state, message = False, "", ledger.RESTARTING, ""
        if not steps:
            state, message = self._staged_next(asked, steps, variables, path)
            if state != ledger.RESTARTING:
                return False, state, message
        for number in range(steps_left(steps[0]["plan"]) if asked["image"] else 1):
            if number:
                runs = f"{steps[-1]['plan']['new_version']} runs; "
                state, message = self._staged_next(asked, steps, variables, path)
                if state != ledger.RESTARTING:
                    break
            if why := closed_window(steps[-1]["plan"]):
                state, message = ledger.STOPPED, why
                break
            changed, updated, message = self._restarted(asked, steps[-1], variables)
            has_changed = has_changed or changed
            state = ledger.UPDATED if updated else ledger.FAILED
            if not updated:
                break
        return has_changed, state, message if state == ledger.UPDATED else runs + message

    def _staged_next(
        self, asked: Result, steps: list[Result], variables: dict[str, Any], path: Path
    ) -> tuple[str, str]:
        """Stage the next step of a machine that has made one. Returns `ledger.RESTARTING` when it
        may be armed now; else the state that the machine stays in, and why."""
        if why := ledger.go_on(path):
            return ledger.STOPPED, f"the next step was not made: {why}"
        done = self._do("stage", {name: asked[name] for name in _STAGING}, variables)
        steps.append(dict(done.get("answers") or {}))
        if done.get("failed") or done.get("unreachable"):
            return ledger.NOT_STAGED, f"the next step is not staged: {done.get('msg')}"
        if done.get("state") in ledger.AS_WANTED:
            return ledger.UPDATED, str(done.get("msg"))
        if why := ledger.go_on(path):
            return ledger.STOPPED, f"the next step is staged: {why}"
        return ledger.RESTARTING, ""

    def _restarted(
        self, asked: Result, answers: Result, variables: dict[str, Any]
    ) -> tuple[bool, bool, str]:
        """Arm and restart: whether anything was changed, whether the new version runs, and what
        is to be said of it. Adds to `answers`. Whatever goes wrong is told, and never raised."""
        version = answers["plan"]["new_version"]
        try:
            armed = self._do("arm", {name: asked[name] for name in rbu.ARM_OPTIONS}, variables)
            answers.update(armed.get("answers") or {})
            if armed.get("failed") or armed.get("unreachable"):
                return False, False, f"not armed, not restarted: {armed.get('msg')}"
            problem = self._restart(asked, answers, variables)
            found = self._do("info", {"executable": asked["executable"]}, variables)
        except AnsibleError as error:
            return True, False, f"armed, and then: {error}"
        if found.get("failed") or found.get("unreachable"):
            return True, False, f"no answer after the restart: {problem or found.get('msg')}"
        answers["now"] = found["answers"]["status"]
        bios = found["bios"]
        said = f"the BIOS says {bios['completion_code']}: {bios['completion_meaning']}"
        if bios["version"] == version and bios["last_succeeded"] is not False:
            return True, True, f"{version} runs; {said}"
        return True, False, problem or f"{bios['version']} runs, not {version}; {said}"

    def _do(self, name: str, params: Result, variables: dict[str, Any]) -> Result:
        """The result of a module of this collection."""
        run = self.runner()
        if run is None:
            given = {key: value for key, value in params.items() if value is not None}
            module = f"openrbu.firmware.bios_{name}"
            result: Result = self._execute_module(module, given, task_vars=variables)
            return result
        try:
            done: Result = _TASKS[name](run, params)
        except RbuError as error:
            return {"failed": True, **error.result}
        return done

    def _restart(self, asked: Result, answers: Result, variables: dict[str, Any]) -> str:
        """Restart the machine, and wait until it answers. Returns what went wrong, or nothing; the
        BIOS's verdict is asked for afterwards, whatever that is.

        :raise AnsibleError: when it could not be restarted.
        """
        if self.runner() is not None:
            connection = self._connection
            words = ["machine", "reboot", connection.machine, "--json"]
            try:
                answer = parse_answer(words, *call(words, connection.get_option("home")))
            except RbuError as error:
                return str(error)
            answers["reboot"] = answer.document
            return str(answer.error["message"]) if answer.error else ""
        task = self._task.copy()
        task.args = dict(asked["reboot"])
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.reboot",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        restarted = action.run(task_vars=variables)
        return str(restarted.get("msg")) if restarted.get("failed") else ""
