"""The kinds of memory that the driver can have, and which one it gets.

This module is light: a process that is going to fork may import it. numpy starts threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.own_driver.driver import Backend


def default_backend(root: Path = Path("/")) -> Backend:
    """Huge pages: the only kind that needs no restart to be prepared. `root`: see
    `HugePageBackend`."""
    from openrbu.own_driver.huge_pages import HugePageBackend  # noqa: PLC0415  (threads)

    return HugePageBackend(root)
