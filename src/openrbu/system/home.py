"""The directories in which openrbu stores its files on this computer."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "OPENRBU_HOME"


def state_home() -> Path:
    """The directory of virtual machines: `$OPENRBU_HOME`, else the platform's user state
    directory."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return Path(platformdirs.user_state_dir("openrbu"))


def cache_home() -> Path:
    """The directory of downloaded packages: `$OPENRBU_CACHE`, else the platform's user cache
    directory."""
    given = os.environ.get("OPENRBU_CACHE")
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return Path(platformdirs.user_cache_dir("openrbu"))
