# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What the actions share: in this process for a virtual machine, else the module on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.openrbu.firmware.plugins.module_utils.answers import Answer, RbuError
from ansible_collections.openrbu.firmware.plugins.plugin_utils.in_process import (
    TRANSPORT,
    machine_runner,
    preload,
)
from ansible_collections.openrbu.firmware.plugins.plugin_utils.orphans import end_orphan

Result = dict[str, Any]


class RbuAction(ActionBase):
    """An action that does what the module of its name does, in Ansible's worker where that is
    possible: on a connection rbu_run with its option in_process, and openrbu beside Ansible."""

    _supports_check_mode = True
    _supports_diff = True
    _requires_connection = True

    options: dict[str, Any]
    """The arguments of the module."""
    takes_check_mode = True

    @staticmethod
    def task(run: Callable[..., Answer], params: Result, **more: Any) -> Result:
        """What it does, with a runner: a function of `module_utils.rbu`."""
        raise NotImplementedError

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        run = self.runner()
        if run is None:
            result.update(self._execute_module(task_vars=task_vars))
            end_orphan()
            return result
        _dummy, params = self.validate_argument_spec(argument_spec=self.options)
        more = {"check_mode": self._task.check_mode} if self.takes_check_mode else {}
        try:
            result.update(self.task(run, params, **more))
        except RbuError as error:
            result.update({"changed": False, **error.result, "failed": True})
        end_orphan()
        return result

    def runner(self) -> Callable[..., Answer] | None:
        """The runner in this process; None: the module does it on the host."""
        connection = self._connection
        if connection.transport != TRANSPORT or not connection.get_option("in_process"):
            return None
        if not preload():
            return None
        return machine_runner(connection.machine, connection.get_option("home"))
