# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_stage, in this process for a virtual machine."""

from __future__ import annotations

from ansible_collections.openrbu.firmware.plugins.module_utils import rbu
from ansible_collections.openrbu.firmware.plugins.plugin_utils.actions import RbuAction


class ActionModule(RbuAction):
    """`rbu.bios_stage` on a virtual machine; the module on any other host."""

    options = rbu.UPDATE_OPTIONS
    task = staticmethod(rbu.bios_stage)
