"""A start of a machine's BIOS, with what is wrong with the machine then."""

from __future__ import annotations

import datetime as dt

from openrbu.bios import faults as broken
from openrbu.bios.flash import Flash
from openrbu.bios.nvram import NvramFile
from openrbu.bios.post import ActivationToken, Board, post
from openrbu.bios.post_report import BeforeStart, PostReport
from openrbu.bios.rules import rule_set
from openrbu.cmos import IndexedActivation
from openrbu.errors import PowerCutError, PowerFailedError
from openrbu.faults import Faults
from openrbu.formats.smbios import Tables
from openrbu.machine.config import MachineConfig
from openrbu.memory.physical import PhysicalMemory
from openrbu.ports import IoPorts


def keeps_ram(faults: Faults) -> bool:
    """Whether a warm restart keeps memory."""
    return broken.RESTART_CLEARS_MEMORY not in faults


def run_bios(
    config: MachineConfig,
    faults: Faults,
    now: dt.datetime,
    *,
    tables: Tables,
    memory: PhysicalMemory,
    flash: Flash,
    nvram: NvramFile,
    activation: ActivationToken | None,
    ports: IoPorts,
    before: BeforeStart,
) -> PostReport:
    """What the BIOS of the machine with these parts does.

    :raise PowerFailedError: when the power fails because of a fault, and the machine is off.
    :raise MachineError: when the flash has no BIOS to start.
    :raise PowerCutError: when the power fails otherwise.
    """
    board = Board.of(
        tables,
        memory,
        flash,
        nvram,
        activation,
        rules=rule_set(config.bios_rules),
        revision=config.hardware_revision,
        ports=ports,
        before=before,
        misreads=broken.WRONG_CHECK_VALUES in faults,
    )
    if broken.TOKEN_LOST_AT_RESTART in faults and activation is not None:
        activation.disarm()
    try:
        report = post(board, now)
    except PowerCutError:
        if broken.POWER_CUT not in faults:
            raise
        raise PowerFailedError(
            "the power failed while the BIOS wrote its flash, and the machine is off: to start it, "
            "rbu machine reboot"
        ) from None
    if broken.CMOS_CHECK_WRONG in faults and isinstance(activation, IndexedActivation):
        activation.spoil()
    return report
