"""Runs a program on this computer with openrbu's own `dell_rbu`: `rbu run` without a machine.

As `openrbu.run.programs`, and with much less: the program finds the driver's files below the real
`/sys`, and whatever else it does is done to this computer. Nothing is kept away from it, and its
`reboot` is the real one.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from openrbu.own_driver.store import DIRECTORY
from openrbu.run import child as in_child
from openrbu.run.launcher import Launcher
from openrbu.run.overlay import OF_OWN_DRIVER, Overlay, real_entries
from openrbu.run.program import Program

if TYPE_CHECKING:
    from openrbu.own_driver.own_memory import Backend

SYS = Path("/sys")


def run(
    command: Sequence[str],
    backend: Callable[[], Backend],
    *,
    log: Callable[[str], None] = lambda line: None,
) -> int:
    """Run a program with the files of openrbu's own driver. Returns its exit status, or the
    negative number of the signal that ended it.

    Call it in the main thread, and in a process without other threads. The driver is loaded if it
    is not, and stays so afterwards if something is staged, or if it was started by itself.
    `backend` makes its memory. `log` gets a line for each defect.

    :raise ObstacleError: when this computer does not allow it, or another process has the driver.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    real = real_entries(places=OF_OWN_DRIVER)

    def become(_number: int, channel: socket.socket, parent: int) -> NoReturn:
        prepare = functools.partial(in_child.prepare_own_driver, Path(DIRECTORY), real)
        in_child.become(prepare, command, channel, parent)

    with contextlib.closing(Launcher(become)) as launcher:
        child = Program(launcher, 0, command)  # it makes its namespace meanwhile
        # After the fork, because numpy starts threads when it is imported.
        from openrbu.fuse.callers import CallerMap  # noqa: PLC0415  (threads)
        from openrbu.fuse.session import FuseSession  # noqa: PLC0415  (threads)
        from openrbu.fuse.tree_files import TreeFiles  # noqa: PLC0415  (threads)
        from openrbu.own_driver.serving import opened_and_loaded  # noqa: PLC0415  (threads)
        from openrbu.run.own_modules import OwnDesk  # noqa: PLC0415  (threads)

        with contextlib.closing(child), opened_and_loaded(backend(), log=log) as driver:
            overlay = Overlay(
                TreeFiles(driver), real, places=OF_OWN_DRIVER, later=SYS, desk=OwnDesk(driver)
            )
            session = FuseSession(overlay, child.device(), CallerMap(), log=log)
            try:
                session.start()
                with child.signals():
                    status = child.result()
            finally:
                session.stop()
            assert status is not None
            return status
