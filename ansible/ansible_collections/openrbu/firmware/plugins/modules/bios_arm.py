#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_arm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_arm
short_description: Arm the BIOS of a Dell machine for what is staged
version_added: 0.3.0
description:
  - Verifies what M(openrbu.firmware.bios_stage) has staged once more, and arms the BIOS. It is
    refused where memory has changed since.
extends_documentation_fragment:
  - openrbu.firmware.rbu
  - openrbu.firmware.rbu.arm
  - openrbu.firmware.rbu.password
options:
  policy:
    description:
      - A policy (TOML) on the host. What is staged has to be its next step, now. Check mode does
        not ask it.
    type: path
seealso:
  - module: openrbu.firmware.bios_stage
  - module: openrbu.firmware.bios_cancel
"""

EXAMPLES = r"""
- name: Arm what is staged
  openrbu.firmware.bios_arm:

- name: Arm it where the policy allows that now
  openrbu.firmware.bios_arm:
    policy: /etc/fleet.toml
"""

RETURN = r"""
state:
  description: V(armed), or V(planned) in check mode.
  type: str
  returned: success
  sample: armed
answers:
  description:
    - The JSON documents of the commands of rbu that were run, as they are, by the command's name
      (C(arm), C(status)). C(rbu report) reads them.
  type: dict
  returned: when rbu answered
error:
  description:
    - What rbu says of a failure, C(kind) (a name for scripts), C(message) and C(exit_code).
  type: dict
  returned: when it fails, and rbu gave an answer
  sample: {kind: obstacle, message: the BIOS is armed already, exit_code: 4}
rc:
  description:
    - The exit code of rbu. 1 the update failed, 3 the image is not for this machine, 4 something
      prevents it, 5 a file or a table is damaged.
  type: int
  returned: when it fails, and rbu gave an answer
obstacles:
  description: The names of what the plan says is in the way.
  type: list
  elements: str
  returned: when it fails, and rbu gave an answer
  sample: [wrong_system]
"""

from ansible_collections.openrbu.firmware.plugins.module_utils.on_host import run_module
from ansible_collections.openrbu.firmware.plugins.module_utils.rbu import ARM_OPTIONS, bios_arm


def main():
    """Run the module."""
    run_module(ARM_OPTIONS, bios_arm)


if __name__ == "__main__":
    main()
