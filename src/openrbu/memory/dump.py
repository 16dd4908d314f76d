"""A file with a dump of RAM as memory that can be searched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import DamagedInputError, UsageError
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import PAGE_SIZE, PhysAddr


@contextlib.contextmanager
def open_dump(path: Path) -> Iterator[PhysicalMemory]:
    """The memory in a file, read only. The file's byte at offset A is at physical address A.

    :raise UsageError: when there is no such file, it is not a regular file, or it can't be read.
    :raise DamagedInputError: when it is smaller than a page.
    """
    if not path.is_file():
        if path.exists():
            raise UsageError(f"{path} is not a regular file: a file with a dump of RAM is needed")
        raise UsageError(f"{path} does not exist")
    size_bytes = path.stat().st_size
    if size_bytes < PAGE_SIZE:
        raise DamagedInputError(f"{path} has {size_bytes} bytes, less than a page of memory")
    region = Region(PhysAddr(0), PhysAddr(size_bytes))
    try:
        ram = RamFile(path, (region,), writable=False)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    with contextlib.closing(ram):
        yield ram
