"""Openrbu's own driver, for a process that serves its files to programs for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.own_driver.backends import refuse_obstacles
from openrbu.own_driver.driver import OwnDriver, open_own_driver
from openrbu.own_driver.own_memory import Backend
from openrbu.own_driver.store import DIRECTORY
from openrbu.system.fuse_mounts import remove_dead_mounts

_OF_KERNEL = ("sys/devices/platform/dell_rbu", "sys/module/dell_rbu")


@contextlib.contextmanager
def opened_and_loaded(
    backend: Backend, *, log: Callable[[str], None] = lambda line: None, root: Path = Path("/")
) -> Iterator[OwnDriver]:
    """The driver of this computer, loaded, for this process alone in the block. Afterwards it is
    unloaded again, where nothing is staged and nobody has started it to stay. A mount whose process
    was killed is removed. `log` gets the lines that a kernel would log; `root` is the directory of
    `/sys`, `/run` and `/proc`.

    :raise ObstacleError: when the kernel has a driver of its own, when this computer has no memory
        for ours, or as `open_own_driver`.
    :raise DamagedInputError: as `open_own_driver`.
    """
    if any((root / each).exists() for each in _OF_KERNEL):
        raise ObstacleError(
            "this computer's kernel has its own dell_rbu: programs need no other; rmmod dell_rbu "
            "unloads it, and --machine names a virtual machine"
        )
    with open_own_driver(backend, root=root, log=log) as driver:
        remove_dead_mounts(str(root / DIRECTORY.lstrip("/")))
        if not driver.is_loaded:
            refuse_obstacles(root=root)
            driver.load()
        try:
            yield driver
        finally:
            if driver.is_loaded and not driver.is_kept and not driver.staged_regions:
                driver.stop()
