#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_update."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_update
short_description: Stage a BIOS update on a Dell machine, verify it, and arm the BIOS
version_added: 0.3.0
description:
  - Plans the update, puts the image into memory, reads it back, asks whether the BIOS would take
    it, and arms the BIOS. The next restart updates it. This module does not restart.
  - A machine that runs the version, or is armed for this very image, is left alone.
  - After an error the machine is as it was before, or the message says what could not be undone.
extends_documentation_fragment:
  - openrbu.firmware.rbu
  - openrbu.firmware.rbu.image
  - openrbu.firmware.rbu.arm
  - openrbu.firmware.rbu.password
attributes:
  diff_mode:
    support: full
seealso:
  - module: openrbu.firmware.bios_info
  - module: openrbu.firmware.bios_stage
  - module: openrbu.firmware.bios_cancel
"""

EXAMPLES = r"""
- name: Stage, verify and arm
  openrbu.firmware.bios_update:
    image: /srv/bios/A06.hdr
    password: "{{ bios_admin_password }}"
  register: update

- name: Restart, so that the BIOS installs it
  ansible.builtin.reboot:
  when: update.state == 'armed'
"""

RETURN = r"""
state:
  description:
    - V(up_to_date), V(armed), V(pinned) where the policy leaves the machine alone, or
      V(planned) in check mode.
  type: str
  returned: success
  sample: armed
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
from ansible_collections.openrbu.firmware.plugins.module_utils.rbu import (
    UPDATE_OPTIONS,
    bios_update,
)


def main():
    """Run the module."""
    run_module(UPDATE_OPTIONS, bios_update)


if __name__ == "__main__":
    main()
