# Copyright: The openrbu developers
# SPDX-License-Identifier: Apache-2.0
"""Workers of a controller that was killed: they end what they have begun, and nothing more."""

from __future__ import annotations

import multiprocessing
import os


def is_orphan() -> bool:
    """Whether the controller that started this worker has ended."""
    controller = multiprocessing.parent_process()
    return controller is not None and not controller.is_alive()


def end_orphan() -> None:
    """End this worker when its controller is gone. Ansible would write the result into a pipe that
    nobody reads, and when that is full, wait there for ever."""
    if is_orphan():
        os._exit(1)
