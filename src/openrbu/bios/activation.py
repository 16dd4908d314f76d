"""The activation token as the BIOS itself has it, wherever its tables say that it is kept."""

from __future__ import annotations

from openrbu.bios.nvram import NvramFile
from openrbu.bios.smi import SmiHandler
from openrbu.cmos import IndexedActivation
from openrbu.formats import dell
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import IndexedIoToken, SmiToken, tokens_for_update
from openrbu.ports import IoPorts


def bios_activation(
    tables: Tables, ports: IoPorts, nvram: NvramFile
) -> IndexedActivation | SmiHandler | None:
    """The switch; None where the tables have no RBU tokens."""
    tokens = tokens_for_update(tables)
    if tokens is None:
        return None
    if isinstance(tokens.activate, IndexedIoToken):
        return IndexedActivation(ports, tokens, dell.system_id(tables), checks_cmos=True)
    assert isinstance(tokens.cancel, SmiToken)
    return SmiHandler(nvram, tokens.activate, tokens.cancel)
