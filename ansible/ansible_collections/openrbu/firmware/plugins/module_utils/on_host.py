# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The runner of a module: the command rbu on the host that the module runs on."""

from __future__ import annotations

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openrbu.firmware.plugins.module_utils.answers import RbuError, parse_answer


def command_runner(module):
    """A runner that starts the host's rbu. A password goes to it through a pipe."""
    beside = os.path.dirname(sys.executable or "/usr/bin/python3")
    program = module.get_bin_path(module.params["executable"], opt_dirs=["/usr/local/bin", beside])
    if program is None:
        raise RbuError(
            "there is no %s on this host: install openrbu there, or say where it is (executable)"
            % module.params["executable"],
            error={"kind": "no_rbu", "message": "rbu is not installed", "exit_code": 4},
        )

    def run(words, password=None):
        command, data = [program, words[0], "--json"], None
        if password is not None:
            command += ["--password-file", "-"]
            data = password + "\n"
        command += words[1:]
        rc, out, err = module.run_command(command, data=data, binary_data=True)
        return parse_answer(words, rc, out, err)

    return run


def run_module(options, task, takes_check_mode=True):
    """The whole of a module: read the parameters, do the `task`, tell the result."""
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    try:
        run = command_runner(module)
        more = {"check_mode": module.check_mode} if takes_check_mode else {}
        result = task(run, module.params, **more)
    except RbuError as error:
        module.fail_json(**error.result)
    module.exit_json(**result)
