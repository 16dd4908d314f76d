#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_cancel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_cancel
short_description: Cancel a BIOS update that waits for a restart on a Dell machine
version_added: 0.3.0
description:
  - Clears the BIOS's token first, then frees what is staged. Where nothing waits, nothing changes.
extends_documentation_fragment:
  - openrbu.firmware.rbu
  - openrbu.firmware.rbu.password
seealso:
  - module: openrbu.firmware.bios_update
  - module: openrbu.firmware.bios_info
"""

EXAMPLES = r"""
- name: Cancel what waits for a restart
  openrbu.firmware.bios_cancel:
"""

RETURN = r"""
answers:
  description:
    - The JSON documents of the commands of rbu that were run, as they are, by the command's name
      (C(cancel), C(status)). C(rbu report) reads them.
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
    CANCEL_OPTIONS,
    bios_cancel,
)


def main():
    """Run the module."""
    run_module(CANCEL_OPTIONS, bios_cancel)


if __name__ == "__main__":
    main()
