"""libfuse 3, through mfusepy. Importing this module loads it.

:raise ObstacleError: (by the import) when one of the two is not there.
"""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Any, Final

from openrbu.errors import ObstacleError

_SONAMES = ("libfuse3.so.4", "libfuse3.so.3")
"""Since 3.17, and before it."""

_PATH_VARIABLE = "FUSE_LIBRARY_PATH"


def _load() -> Any:
    """Import mfusepy with libfuse 3. By itself it would prefer libfuse 2, which can't serve a
    descriptor, and would search with a compiler."""
    given = os.environ.get(_PATH_VARIABLE)
    try:
        os.environ[_PATH_VARIABLE] = given or _soname()
        import mfusepy  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise ObstacleError(
            "mounting needs the Python package mfusepy: pip install 'openrbu[fuse]'"
        ) from None
    except OSError:
        raise ObstacleError(f"the library {given} of {_PATH_VARIABLE} can't be loaded") from None
    finally:
        os.environ.pop(_PATH_VARIABLE, None)
        if given is not None:
            os.environ[_PATH_VARIABLE] = given
    if mfusepy.fuse_version_major < 3:
        raise ObstacleError(f"mounting needs libfuse 3, and {given} is older")
    logging.getLogger("fuse").addHandler(logging.NullHandler())  # else it writes on standard error
    return mfusepy


def _soname() -> str:
    for soname in _SONAMES:
        try:
            ctypes.CDLL(soname)
        except OSError:
            continue
        return soname
    raise ObstacleError(
        "mounting needs libfuse 3: install the package fuse3 (or libfuse3-3, fuse3-libs)"
    )


mfusepy: Final[Any] = _load()
