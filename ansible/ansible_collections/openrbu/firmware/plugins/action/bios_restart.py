# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""One machine of a roll-out: may it restart, arm, restart, and what does its BIOS say."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.openrbu.firmware.plugins.module_utils import rbu
from ansible_collections.openrbu.firmware.plugins.plugin_utils import ledger
from ansible_collections.openrbu.firmware.plugins.plugin_utils.actions import RbuAction, Result
from ansible_collections.openrbu.firmware.plugins.plugin_utils.in_process import call
from ansible_collections.openrbu.firmware.plugins.plugin_utils.orphans import end_orphan
from ansible_collections.openrbu.firmware.plugins.plugin_utils.reports import (
    save_answers,
    save_summary,
)

OPTIONS = {
    "staged": {"type": "dict", "required": True},
    "directory": {"type": "path", "required": True},
    "reboot": {"type": "dict", "default": {}},
    **rbu.ARM_OPTIONS,
}


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


class ActionModule(RbuAction):
    """Asks the ledger, arms, restarts, reads the verdict, tells the ledger, saves the answers."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        result: Result = super(RbuAction, self).run(tmp, task_vars)
        _dummy, asked = self.validate_argument_spec(argument_spec=OPTIONS)
        variables = task_vars or {}
        host = str(variables["inventory_hostname"])
        staged, directory = asked["staged"], Path(asked["directory"])
        if self._task.check_mode:
            would = staged.get("state") in ("planned", "staged", "armed")
            return {**result, "changed": would, "failed": bool(staged.get("failed"))}
        path = directory / "ledger.db"
        answers = dict(staged.get("answers") or {})
        state, message = ledger.take(path, host)
        changed = False
        if state == ledger.RESTARTING and (why := closed_window(answers["plan"])):
            ledger.leave(path, host, why)
            state, message = ledger.STOPPED, why
        if state == ledger.RESTARTING:
            changed, updated, message = self._restarted(asked, answers, variables)
            state = ledger.UPDATED if updated else ledger.FAILED
            ledger.give(path, host, updated=updated, message=message)
        save_answers(directory, host, answers)
        if ledger.is_over(path):
            save_summary(directory, ledger.summary(path))
        end_orphan()
        failed = state not in (ledger.UPDATED, *ledger.AS_WANTED)
        return {**result, "changed": changed, "failed": failed, "state": state, "msg": message}

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
            task: Any = {"arm": rbu.bios_arm, "info": rbu.bios_info}[name]
            done: Result = task(run, params)
        except rbu.RbuError as error:
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
                answer = rbu.parse_answer(words, *call(words, connection.get_option("home")))
            except rbu.RbuError as error:
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
