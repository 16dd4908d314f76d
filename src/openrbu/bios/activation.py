"""The BIOS's own access to the activation token, in CMOS or in NVRAM, as its tables say."""

from __future__ import annotations

from collections.abc import Callable

from openrbu.bios.nvram import NvramFile
from openrbu.bios.smi import SmiHandler
from openrbu.cmos import IndexedActivation
from openrbu.formats import dell
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import IndexedIoToken, SmiToken, tokens_for_update
from openrbu.memory.physical import ReadableMemory
from openrbu.ports import IoPorts, PortCmos


def bios_activation(
    tables: Tables,
    ports: IoPorts,
    nvram: NvramFile,
    memory: Callable[[], ReadableMemory] | None = None,
) -> IndexedActivation | SmiHandler | None:
    """The activation token of a machine; None if its tables have no RBU tokens. `memory` returns
    that in which a caller of the SMI calling interface puts a password."""
    tokens = tokens_for_update(tables)
    if tokens is None:
        return None
    if isinstance(tokens.activate, IndexedIoToken):
        bank = PortCmos(ports, tokens.activate.ports)
        return IndexedActivation(bank, tokens, dell.system_id(tables), checks_cmos=True)
    assert isinstance(tokens.cancel, SmiToken)
    return SmiHandler(nvram, tokens.activate, tokens.cancel, memory)
