#!/usr/bin/python
# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""What the action rollout_open does; there is no module behind it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_open
short_description: Begin the restarts of a roll-out, with waves and a budget of failures
version_added: 0.3.0
description:
  - For the role P(openrbu.firmware.rollout#role). Reads what M(openrbu.firmware.bios_stage) has
    found on each host of the play, and makes the ledger that M(openrbu.firmware.bios_restart) asks
    before each restart.
  - The ledger is made anew in each run, from what the machines say, so that a run can be repeated
    after the controller has died. From the ledger of the run before it takes over what no machine
    says now. A machine that failed, or restarted when the controller died, and that is not reached
    or not in this play now, has failed.
  - Fails, and so ends the play before any restart, when too many machines are not staged, and when
    another controller has the roll-out of the same directory. The lock on the directory ends with
    the controller, whatever that dies of.
author:
  - The openrbu developers (!UNKNOWN)
options:
  directory:
    description: A directory on the controller for the ledger, the summary and the answers.
    type: path
    required: true
  staged:
    description: The name of the variable that the result of staging is registered in.
    type: str
    default: rollout_staged
  waves:
    description:
      - How many machines are in each wave, as numbers or shares. What is left is the last wave. A
        wave begins when all machines of the wave before have ended.
    type: list
    elements: str
    default: ["1", "10", "1%", "10%"]
  budget:
    description:
      - How many machines may fail in the whole roll-out, at least one, as a number, or as a share
        of all machines that the roll-out has seen. Those that failed in an earlier run count. No
        machine is restarted while as many are failed or restarting, so it is also the number of
        machines that restart at the same time.
    type: str
    default: "1"
  canary_waves:
    description: In so many waves from the first, one failure stops the roll-out.
    type: int
    default: 1
  unstaged_allowed:
    description: With how many machines not staged restarts begin, as a number or a share.
    type: str
    default: "0"
  window:
    description:
      - When machines may be restarted, such as V(22:00-04:30), by the controller's clock. Empty is
        always. Outside of it the roll-out stops.
    type: str
    default: ""
  only_check:
    description:
      - Check these options, and that not too many hosts have failed before, and do no more. The
        role does so before anything is staged.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would begin.
    support: full
  diff_mode:
    description: There is no diff.
    support: none
seealso:
  - module: openrbu.firmware.bios_restart
"""

EXAMPLES = r"""
- name: Begin the restarts
  openrbu.firmware.rollout_open:
    directory: /srv/rollout
    staged: staged
    budget: 1%
  run_once: true
  register: begun
"""

RETURN = r"""
waves:
  description: How many machines are in each wave.
  type: list
  elements: int
  returned: success
counts:
  description: How many machines are in each state.
  type: dict
  returned: success
budget:
  description: How many machines may fail.
  type: int
  returned: success
stopped:
  description: Why nothing will be restarted.
  type: str
  returned: when so many failed in earlier runs that nothing may be restarted
ledger:
  description: The file of the ledger.
  type: str
  returned: success
"""
