"""The kinds of memory that the driver can have, and which one it gets."""

from __future__ import annotations

from pathlib import Path

from openrbu.own_driver.driver import Backend
from openrbu.own_driver.huge_pages import HugePageBackend


def default_backend(root: Path = Path("/")) -> Backend:
    """Huge pages: the only kind that needs no restart to be prepared. `root`: see
    `HugePageBackend`."""
    return HugePageBackend(root)
