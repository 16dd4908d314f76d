"""libfuse 3, through mfusepy. Importing this module loads it.

:raise ObstacleError: (by the import) when mfusepy or libfuse is missing.
"""

from __future__ import annotations

import builtins
import ctypes
import logging
import os
import sys
from importlib.abc import InspectLoader
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

from openrbu.errors import ObstacleError
from openrbu.system.installed import find_bundled, remedy_for

_NAME = "mfusepy"

_SONAMES = ("libfuse3.so.4", "libfuse3.so.3")
"""Of libfuse from 3.17 on, and before."""

_PATH_VARIABLE = "FUSE_LIBRARY_PATH"


def _load() -> Any:
    """mfusepy, which has loaded libfuse 3."""
    given = os.environ.get(_PATH_VARIABLE)
    find_bundled()
    try:
        module = sys.modules.get(_NAME) or _execute(given or _soname())
    except ImportError:
        raise ObstacleError(
            f"mounting needs the Python package mfusepy: {remedy_for('fuse')}"
        ) from None
    except OSError:
        raise ObstacleError(f"the library {given} of {_PATH_VARIABLE} can't be loaded") from None
    if module.fuse_version_major < 3:
        older = given or "the one that mfusepy has loaded"
        raise ObstacleError(f"mounting needs libfuse 3, and {older} is older")
    logging.getLogger("fuse").addHandler(logging.NullHandler())  # else it writes on standard error
    return module


def _execute(library: str) -> ModuleType:
    """Import mfusepy and have it load `library`.

    mfusepy prefers libfuse 2, which can't serve a descriptor, and it searches with a compiler. Only
    an environment variable makes it load another library. All threads share the environment, and
    programs inherit it; so mfusepy gets a module `os` whose environment is a copy.

    :raise ImportError: when mfusepy is not installed.
    :raise OSError: when there is no such library.
    """
    spec = find_spec(_NAME)
    if spec is None or not isinstance(spec.loader, InspectLoader):
        raise ImportError(name=_NAME)
    code = spec.loader.get_code(_NAME)
    if code is None:
        raise ImportError(name=_NAME)
    its_os = ModuleType("os")
    vars(its_os).update(vars(os), environ={**os.environ, _PATH_VARIABLE: library})

    def its_import(name: str, *arguments: Any, **more: Any) -> ModuleType:
        return its_os if name == "os" else builtins.__import__(name, *arguments, **more)

    module = module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": its_import}
    sys.modules[_NAME] = module
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[_NAME]
        raise
    return module


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
