# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The virtual Dells below an OPENRBU_HOME as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: The virtual Dell machines of openrbu
description:
  - Makes a host of each virtual machine that C(rbu machine list) knows, with the connection
    P(openrbu.firmware.rbu_run#connection).
  - Groups them by model (C(model_poweredge_2650)) and by system ID (C(system_0x0121)).
  - Its file of settings ends in C(openrbu.yml) or C(openrbu.yaml).
author:
  - The openrbu developers (!UNKNOWN)
version_added: 0.3.0
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Says that the file is for this plugin.
    type: str
    required: true
    choices: [openrbu.firmware.machines]
  home:
    description: The directory that the machines are in; where it is not said, as rbu finds it.
    type: path
    env:
      - name: OPENRBU_HOME
  rbu_executable:
    description: The command rbu, where openrbu is not installed beside Ansible.
    type: str
    default: rbu
"""

EXAMPLES = r"""
# fleet.openrbu.yml
plugin: openrbu.firmware.machines
home: /srv/machines
# a group of those with a BIOS that is to be replaced
groups:
  outdated: openrbu_bios_version == 'A05'
"""

import json
import os
import subprocess
import sys
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.openrbu.firmware.plugins.plugin_utils.in_process import call, preload

FACTS = (
    "model",
    "product",
    "service_tag",
    "system_id",
    "bios_version",
    "bios_rules",
    "profile",
    "hardware_revision",
)
"""The keys of `rbu machine list --json` that become variables, with openrbu_ before their names."""


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Reads the list of machines."""

    NAME = "openrbu.firmware.machines"

    def verify_file(self, path: str) -> bool:
        """Whether the file's name says that it is for this plugin."""
        return super().verify_file(path) and path.endswith(("openrbu.yml", "openrbu.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add a host for each machine.

        :raise AnsibleParserError: when the machines can't be listed.
        """
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        home = self.get_option("home")
        machines = self._machines(home)
        for machine in machines:
            self._add(machine, home)
        if not machines:
            place = home or os.environ.get("OPENRBU_HOME") or "rbu's own directory"
            self.display.warning(
                f"{path}: there is no machine in {place} (the option home, or OPENRBU_HOME)"
            )

    def _machines(self, home: str | None) -> list[dict[str, Any]]:
        """What `rbu machine list --json` says. In this process where that is possible: the workers
        that Ansible forks later have openrbu then."""
        if preload():
            code, out, err = call(["machine", "list", "--json"], home)
        else:
            code, out, err = self._by_command(home)
        try:
            document = json.loads(out)
        except ValueError:
            document = {}
        if code or "machines" not in document:
            raise AnsibleParserError(f"rbu machine list ended with {code}: {err.strip()}")
        machines: list[dict[str, Any]] = document["machines"]
        return machines

    def _by_command(self, home: str | None) -> tuple[int, str, str]:
        environment = dict(os.environ, **({"OPENRBU_HOME": home} if home else {}))
        command = [self.get_option("rbu_executable"), "machine", "list", "--json"]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
        except OSError as error:
            raise AnsibleParserError(f"{command[0]} can't be run: {error}") from error
        return ended.returncode, ended.stdout, ended.stderr

    def _add(self, machine: dict[str, Any], home: str | None) -> None:
        name = machine["name"]
        if name in self.inventory.groups:
            raise AnsibleParserError(
                f"a machine can't be a host with the name {name!r}, which is a group's here: make "
                "one with another name"
            )
        self.inventory.add_host(name)
        variables = {
            "ansible_connection": "openrbu.firmware.rbu_run",
            "ansible_pipelining": True,
            "ansible_python_interpreter": sys.executable,
            "openrbu_machine": name,
            **({"openrbu_home": home} if home else {}),
            **{f"openrbu_{key}": machine.get(key) for key in FACTS},
        }
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        model = str(machine.get("model") or "unknown").replace("-", "_").replace(".", "_")
        for group in (f"model_{model}", f"system_{machine.get('system_id') or 'unknown'}"):
            self.inventory.add_group(group)
            self.inventory.add_child(group, name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), variables, name, strict=strict
        )
