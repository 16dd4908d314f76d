"""Gives huge pages back, also those of a process that was killed: by record and by name."""

from __future__ import annotations

import contextlib
from pathlib import Path

from openrbu.own_driver.hugetlbfs import Mount, find_mount, remove_mount
from openrbu.own_driver.own_memory import HugePagesRecord
from openrbu.own_driver.page_file import NAME_PREFIX, HugePageFile
from openrbu.own_driver.pools import HugePageKernel, LinuxHugePages


def give_back_of(
    record: HugePagesRecord, root: Path = Path("/"), kernel: HugePageKernel | None = None
) -> None:
    """Clear and give back all that a record says, and what a killed process has left beside it:
    `OwnMemory.give_back`, also where the memory can't be opened any more.

    :raise OSError: the kernel's error. What could be given back was.
    :raise ObstacleError: when the mount can't be taken away.
    """
    kernel = LinuxHugePages(root) if kernel is None else kernel
    with contextlib.ExitStack() as stack:  # what fails does not keep the rest from being done
        directory = root / record.directory.lstrip("/")
        if record.is_our_mount:
            stack.callback(remove_mount, Mount(record.directory, is_ours=True), root)
        for path in left_in(directory) if record.directory else []:
            stack.callback(clear_and_remove, path)
        for pool in record.pools:
            stack.callback(kernel.set_count, pool.path, pool.count)


def give_back_forgotten(root: Path = Path("/")) -> bool:
    """Clear and give back the files of pages that are there without a record. Returns whether there
    were any.

    Raises what `give_back_of` raises.
    """
    mount = find_mount(root)
    if mount is None or not left_in(root / mount.directory.lstrip("/")):
        return False
    give_back_of(HugePagesRecord("huge_pages", mount.directory, mount.is_ours, (), (), ()), root)
    return True


def left_in(directory: Path) -> list[Path]:
    """The files of pages in a directory."""
    return sorted(directory.glob(f"{NAME_PREFIX}*"))


def clear_and_remove(path: Path) -> None:
    """Clear a file of pages, and remove it."""
    file = HugePageFile.open(path)
    try:
        file.clear()
    finally:
        file.remove()
