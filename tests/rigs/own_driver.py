"""A computer that is a directory, with openrbu's own driver on its RAM file (`rigs.own_memory`)."""

from __future__ import annotations

from pathlib import Path

from openrbu.hosts.own_driver import DriverChoice, OwnDriverHost
from openrbu.linux.facts import kernel_has_none
from openrbu.memory.ram_file import RamFile
from rigs.own_memory import RamFileBackend, whole_ram


class RamFileHost(OwnDriverHost):
    """Its physical memory is the RAM file."""

    def __init__(self, root: Path, choice: DriverChoice = "auto") -> None:
        super().__init__(
            root,
            choice=choice,
            make_backend=lambda: RamFileBackend(root),
            kernel_has_none=kernel_has_none,
        )

    @property
    def physical_memory(self) -> RamFile:
        return whole_ram(self._root)
