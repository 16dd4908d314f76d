#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What the action bios_restart does; there is no module behind it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bios_restart
short_description: One machine of a roll-out, armed, restarted, and judged by what its BIOS says
version_added: 0.3.0
description:
  - For the role P(openrbu.firmware.rollout#role). Asks the ledger of
    M(openrbu.firmware.rollout_open) whether one more machine may restart now, and waits until its
    wave is open and the budget allows it. Then arms the BIOS (M(openrbu.firmware.bios_arm)),
    restarts by M(ansible.builtin.reboot), and reads what the BIOS says.
  - Where a policy has more steps for the machine, it stages the next one, asks the ledger again,
    and arms and restarts once more, until the policy's target runs. Waves and budget go on holding.
    The machine counts as restarting meanwhile, and its wave is not over.
  - The task fails where the new version does not run afterwards, where nothing was staged, and
    where the policy says nothing of the machine's system. It does not fail where the policy has
    pinned the machine.
  - Where the roll-out has stopped, or the policy's window is closed, the task fails on the first
    machine that is not restarted for this reason, and says it. It is skipped on all others that
    this run leaves as they were.
  - A virtual machine that is reached by P(openrbu.firmware.rbu_run#connection) with its option
    O(openrbu.firmware.rbu_run#connection:in_process) is restarted by openrbu in Ansible's process.
extends_documentation_fragment:
  - openrbu.firmware.rbu
  - openrbu.firmware.rbu.arm
  - openrbu.firmware.rbu.password
options:
  staged:
    description: The result of M(openrbu.firmware.bios_stage) on this machine.
    type: dict
    required: true
  begun:
    description:
      - The result of M(openrbu.firmware.rollout_open) in this play. The answers of rbu on this
        machine are saved beside its ledger in C(machines), for C(rbu report).
    type: dict
    required: true
  late:
    description:
      - The name of a variable that has others of these options. The action works them out, so that
        a machine on which that fails is V(stopped), and others do not wait for it. Where it is a
        canary, nobody restarts.
    type: str
  reboot:
    description: Options for M(ansible.builtin.reboot).
    type: dict
    default: {}
  image:
    description: For the further steps of a policy, as M(openrbu.firmware.bios_stage) has it.
    type: path
  policy:
    description:
      - The policy. What is staged has to be its next step when it is armed. Without it, or without
        O(image), there is one step.
    type: path
  mode:
    description: As M(openrbu.firmware.bios_stage) has it.
    type: str
    choices: [auto, mono, packet]
    default: auto
  driver:
    description: As M(openrbu.firmware.bios_stage) has it.
    type: str
    choices: [auto, kernel, own]
    default: auto
  allow_downgrade:
    description: As M(openrbu.firmware.bios_stage) has it.
    type: bool
    default: false
  retry_failed:
    description: As M(openrbu.firmware.bios_stage) has it.
    type: bool
    default: true
seealso:
  - module: openrbu.firmware.rollout_open
"""

EXAMPLES = r"""
- name: Arm, restart, and hear what the BIOS says
  openrbu.firmware.bios_restart:
    staged: "{{ staged }}"
    begun: "{{ begun }}"
    reboot:
      reboot_timeout: 1800
"""

RETURN = r"""
state:
  description:
    - V(updated), V(up_to_date), V(pinned) (the policy leaves it alone), V(failed),
      V(failed_before) (in an earlier run), V(stopped) (not restarted, or not for a
      further step), V(not_staged), or V(not_in_policy) (the policy says nothing of its system).
    - In check mode what M(openrbu.firmware.bios_stage) says, or V(not_staged).
  type: str
  returned: always
  sample: updated
msg:
  description: What became of the machine, with the words of its BIOS.
  type: str
  returned: always
"""
