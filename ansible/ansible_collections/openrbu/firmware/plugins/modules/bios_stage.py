#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_stage."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_stage
short_description: Stage a BIOS update on a Dell machine and verify it, without arming the BIOS
version_added: 0.3.0
description:
  - Does what M(openrbu.firmware.bios_update) does, and leaves the BIOS unarmed, so that a restart
    changes nothing. M(openrbu.firmware.bios_arm) arms it later.
  - A machine that runs the version, or has this very image staged or armed, is left alone. What is
    staged with another password is staged anew; check mode does not see that.
extends_documentation_fragment:
  - openrbu.firmware.rbu
  - openrbu.firmware.rbu.image
  - openrbu.firmware.rbu.arm
  - openrbu.firmware.rbu.password
attributes:
  diff_mode:
    support: full
seealso:
  - module: openrbu.firmware.bios_arm
  - module: openrbu.firmware.bios_update
  - module: openrbu.firmware.bios_cancel
"""

EXAMPLES = r"""
- name: Stage everywhere first
  openrbu.firmware.bios_stage:
    image: /srv/bios/A06.hdr
"""

RETURN = r"""
state:
  description:
    - V(up_to_date), V(staged), V(armed), V(pinned) where the policy leaves the machine alone, or
      V(planned) in check mode.
  type: str
  returned: success
  sample: staged
answers:
  description:
    - The JSON documents of the commands of rbu that were run, as they are, by the command's name
      (C(plan), C(status), C(update)). C(rbu report) reads them.
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
from ansible_collections.openrbu.firmware.plugins.module_utils.rbu import UPDATE_OPTIONS, bios_stage


def main():
    """Run the module."""
    run_module(UPDATE_OPTIONS, bios_stage)


if __name__ == "__main__":
    main()
