"""The RAM of a virtual machine: the file `ram` in its directory, or a link to a file elsewhere.

A file elsewhere, such as on a tmpfs, may be gone when the machine is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from openrbu.errors import MachineError, UsageError
from openrbu.machine.config import MachineConfig
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile

_NAME = "ram"


class RamGoneError(MachineError):
    """A machine is on, and the file system with its RAM is not mounted."""

    kind = "ram_gone"

    def __init__(self, name: str, ram: Path) -> None:
        super().__init__(
            f"machine {name!r} has its RAM in {ram}, which does not exist: mount {ram.parent} "
            f"again, or switch the machine off: rbu machine off {name}"
        )


def create_ram(directory: Path, config: MachineConfig) -> None:
    """Make the RAM of a machine: where the link leads, if there is one.

    :raise OSError: for an error of the disk.
    """
    RamFile.create(directory / _NAME, pc_regions(config.ram_bytes)).close()


def open_ram(
    directory: Path, config: MachineConfig, state: Callable[[], object], *, reading: bool = False
) -> RamFile:
    """Open the RAM of a machine. A file in another directory may be gone; it is made again when the
    machine is off: `state` returns None then, and is only called in this case. `reading`: RAM that
    has a content is opened for reading only.

    :raise RamGoneError: when the file is gone and the machine is on.
    :raise OSError: for an error of the disk.
    """
    path = directory / _NAME
    if path.is_symlink() and not path.exists():
        if state() is not None:
            raise RamGoneError(directory.name, path.readlink())
        create_ram(directory, config)
    writable = not (reading and path.stat().st_size)
    regions = pc_regions(config.ram_bytes)
    return RamFile(path, regions, writable=writable, is_mapped=config.xen is None)


def link_ram(directory: Path, name: str, elsewhere: Path) -> None:
    """Make an empty file in `elsewhere` for the RAM of the machine `name`, and the link to it in
    the directory in which that machine is being made.

    :raise UsageError: when the file can't be made.
    """
    import tempfile  # noqa: PLC0415  (start-up time)

    try:
        fd, path = tempfile.mkstemp(".ram", f"openrbu-{name}-", elsewhere.resolve(strict=True))
    except OSError as error:
        raise UsageError(f"RAM can't be kept in {elsewhere}: {error.strerror}") from None
    os.close(fd)
    (directory / _NAME).symlink_to(path)


def remove_ram(directory: Path) -> None:
    """Remove a machine's RAM that is in another directory; then `ram` is a link to it.

    :raise OSError: when that is not allowed.
    """
    ram = directory / _NAME
    if ram.is_symlink():
        ram.readlink().unlink(missing_ok=True)
