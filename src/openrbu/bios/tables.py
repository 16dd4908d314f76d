"""The SMBIOS tables that a BIOS shows at a boot."""

from __future__ import annotations

import datetime as dt

from openrbu.bios.flash import BankRecord
from openrbu.bios.nvram import Nvram
from openrbu.errors import MachineError
from openrbu.formats import dell, security
from openrbu.formats.smbios import Tables


def tables_of_boot(factory: Tables, current: BankRecord, nvram: Nvram) -> Tables:
    """The factory's tables, with the current BIOS, whether there is an admin password, and the
    result of the last update.

    :raise MachineError: when the time or the completion code in NVRAM is not valid.
    """
    tables = dell.with_bios(factory, current.version, current.release_date)
    has_password = nvram.admin_password_crc is not None
    tables = security.with_admin_password(tables, is_set=has_password)
    if nvram.completed_at is None:
        return tables
    try:
        when = dt.datetime.fromisoformat(nvram.completed_at)
        return dell.with_result(tables, nvram.completion_code, when)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise MachineError(
            "nvram.json is damaged: its time or its completion code is not valid"
        ) from None
