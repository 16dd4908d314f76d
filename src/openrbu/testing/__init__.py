"""Virtual Dell machines for the tests of an update tool. See docs/ci.md.

With pytest the fixtures `dell_machine` and `xen_host` make them; the plugin that has them is
installed with openrbu. Elsewhere::

    from openrbu import testing

    with testing.machine("/tmp/machines", model="precision-390") as dell:
        dell.load("dell_rbu")
        dell.run("./update.sh", "new.hdr", check=True)
        dell.restart()
        assert dell.bios.version == "2.3.0"

The names in `__all__` are public.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.testing.machines import (
        Bios,
        DellMachine,
        Staged,
        XenHost,
        machine,
        why_nothing_runs,
        xen_host,
    )

__all__ = [
    "Bios",
    "DellMachine",
    "Staged",
    "XenHost",
    "machine",
    "why_nothing_runs",
    "xen_host",
]


def __getattr__(name: str) -> object:
    """A public name, from the module that has them: pytest imports this package in each run.

    :raise AttributeError: when there is no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("openrbu.testing.machines"), name)


def __dir__() -> list[str]:
    """The names that there are, those that were not used yet included (PEP 562)."""
    return sorted({*globals(), *__all__})
