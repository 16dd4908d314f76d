#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_info
short_description: What the BIOS of a Dell machine is, and what waits for a restart
version_added: 0.3.0
description:
  - Reads the machine's IDs, its BIOS, the driver, what is staged and armed, how the last update
    ended in the words of the BIOS, and what an update would meet. These are the modes of the BIOS,
    the view of physical memory, and the kernel's lockdown.
  - With an image it says whether that is needed here, too, and what is in the way of it.
  - Changes nothing.
extends_documentation_fragment:
  - openrbu.firmware.rbu
options:
  image:
    description: A BIOS image, a package, or a directory with images on the host.
    type: path
  policy:
    description: A policy (TOML) on the host, by which the image is chosen and judged.
    type: path
seealso:
  - module: openrbu.firmware.bios_update
"""

EXAMPLES = r"""
- name: Read what the BIOS is
  openrbu.firmware.bios_info:
  register: found

- name: Say how the last update ended
  ansible.builtin.debug:
    msg: "{{ found.bios.version }}: {{ found.bios.completion_meaning }}"

- name: Say where physical memory can't be read
  ansible.builtin.debug:
    msg: "{{ inventory_hostname }} can only be verified by reading back"
  when: found.bios.memory_view == 'read_back'
"""

RETURN = r"""
bios:
  description: What a playbook decides by.
  type: dict
  returned: success
  contains:
    system_id:
      description: The system ID.
      type: str
      sample: "0x0121"
    product:
      description: The product's name.
      type: str
      sample: PowerEdge 2650
    vendor:
      description: The vendor.
      type: str
    hardware_revision:
      description: The hardware revision.
      type: int
    version:
      description: The version of the BIOS that runs.
      type: str
      sample: A05
    release_date:
      description: The date of that version.
      type: str
    driver:
      description: "Whose dell_rbu an update uses, kernel or own."
      type: str
    module_is_loaded:
      description: Whether dell_rbu is loaded.
      type: bool
    state:
      description: "none, staged, staged_changed, armed, under_way, cut_off or unknown."
      type: str
    is_armed:
      description: Whether the BIOS looks for an update at the next restart.
      type: bool
    is_staged:
      description: Whether something is in memory for it.
      type: bool
    staged_version:
      description: The version that is staged.
      type: str
    next_restart:
      description: What the next restart does.
      type: str
      sample: updates
    restart_mode:
      description: The kernel's reboot mode.
      type: str
      sample: warm
    boot_id:
      description: The ID of the kernel's start.
      type: str
    completion_code:
      description: What the BIOS recorded of the last update.
      type: str
      sample: "0x0000"
    completion_meaning:
      description: The same in words.
      type: str
    last_outcome:
      description: How the last update in the journal ended.
      type: str
    last_succeeded:
      description: Whether it succeeded.
      type: bool
    last_sha256:
      description: The digest of its image.
      type: str
    update_is_needed:
      description: Whether the machine runs another version than the image. Null without an image.
      type: bool
    obstacles:
      description: What prevents an update to the image. Null without an image.
      type: list
      elements: str
    modes:
      description:
        - How the BIOS takes an image by its SMBIOS tables. V(mono) is in one block of memory,
          V(packet) in packets. Empty where the tables say nothing of RBU.
      type: list
      elements: str
      sample: [mono, packet]
    memory_view:
      description:
        - What an update is verified by. V(physical) is physical memory, as the BIOS will find it;
          V(read_back) only what the driver reads back.
      type: str
      sample: physical
    lockdown:
      description:
        - How far the kernel is locked down, V(none), V(integrity) or V(confidentiality). Null where
          it does not say.
      type: str
      sample: none
answers:
  description:
    - The JSON documents of the commands of rbu that were run, as they are, by the command's name
      (C(status), C(plan)). C(rbu report) reads them.
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
from ansible_collections.openrbu.firmware.plugins.module_utils.rbu import INFO_OPTIONS, bios_info


def main():
    """Run the module."""
    run_module(INFO_OPTIONS, bios_info, takes_check_mode=False)


if __name__ == "__main__":
    main()
