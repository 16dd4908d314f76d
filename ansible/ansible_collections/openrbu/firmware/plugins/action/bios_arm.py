# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""The module bios_arm, in this process for a virtual machine."""

from __future__ import annotations

from ansible_collections.openrbu.firmware.plugins.module_utils import rbu
from ansible_collections.openrbu.firmware.plugins.plugin_utils.actions import RbuAction


class ActionModule(RbuAction):
    """`rbu.bios_arm` on a virtual machine; the module on any other host."""

    options = rbu.ARM_OPTIONS
    task = staticmethod(rbu.bios_arm)
