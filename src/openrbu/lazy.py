"""numpy, loaded where it is first used and not where it is imported.

It takes 130 ms to load, longer than most commands take. A module that works on much data at once
imports it from here, at its top like any other import:

    from openrbu.lazy import np, npt

Nothing else changes: `np.zeros(4)` loads numpy if nobody has, and costs one look into a
dictionary from then on. A type checker sees numpy itself. Two things follow for such a module:

- what its top level computes must not use `np` (put it into a function), else the import loads it;
- an alias of an array type is a string: `Frames: TypeAlias = "npt.NDArray[np.uint32]"`.

`tests/unit/test_startup.py` says which commands do without numpy. This is what PEP 810 (lazy
imports, Python 3.15) does in the language; this module can go then.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["np", "npt", "use_one_blas_thread"]

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


class _LazyModule(ModuleType):
    """Stands for a module until something of it is asked for; is like it from then on.

    Two threads may load at once: the import system lets one wait for the other, and both then
    write the same names. (`importlib.util.LazyLoader` runs a module twice in that case, up to
    Python 3.11, and puts its stand-in into `sys.modules`, where other libraries meet it.)
    """

    def __getattr__(self, name: str) -> object:
        module = _load(self.__name__)
        self.__dict__.update(vars(module))
        self.__class__ = ModuleType  # type: ignore[assignment]
        return getattr(module, name)


_while_loading: dict[str, str] = {}
"""Environment variables that are set while numpy is loaded, and not longer."""


def use_one_blas_thread() -> None:
    """Have numpy, when it is loaded, start no threads for linear algebra, of which we do none.

    They take half of the time of loading it on two CPUs, and more on more. A command calls this. A
    library must not: the program that uses it may need these threads. Where the user has set
    OPENBLAS_NUM_THREADS, that counts. Programs that we start inherit nothing of it.
    """
    _while_loading[_BLAS_THREADS] = "1"


def _load(name: str) -> ModuleType:
    added = {key: value for key, value in _while_loading.items() if key not in os.environ}
    os.environ.update(added)
    try:
        return importlib.import_module(name)
    finally:
        for key in added:
            os.environ.pop(key, None)


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = _LazyModule("numpy")
    npt = _LazyModule("numpy.typing")
