"""The directories in which openrbu stores its files on this computer.

Where HOME is not set, a user's home is that of the list of users. A user without either, such as
one of a container, has none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from openrbu.errors import ObstacleError

HOME_VARIABLE = "OPENRBU_HOME"
CACHE_VARIABLE = "OPENRBU_CACHE"


def state_home() -> Path:
    """The directory of virtual machines: `$OPENRBU_HOME`, else the platform's user state
    directory.

    :raise ObstacleError: when the user has no home directory.
    """
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return _known(platformdirs.user_state_dir, HOME_VARIABLE)


def cache_home() -> Path:
    """The directory of downloaded packages: `$OPENRBU_CACHE`, else the platform's user cache
    directory.

    :raise ObstacleError: when the user has no home directory.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    import platformdirs  # noqa: PLC0415  (start-up time)

    return _known(platformdirs.user_cache_dir, CACHE_VARIABLE)


def _known(directory_of: Callable[[str], str], variable: str) -> Path:
    """The directory that the platform has for openrbu. Where a home is not known, older versions of
    platformdirs leave the `~` in it, and newer ones raise a RuntimeError.

    :raise ObstacleError: when it is not known.
    """
    with contextlib.suppress(RuntimeError):
        path = Path(directory_of("openrbu"))
        if path.is_absolute():
            return path
    raise ObstacleError(
        "this user has no home directory (HOME is not set, and the list of users has none): "
        f"{variable}=DIR names the directory to use"
    )
