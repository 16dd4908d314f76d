"""The modules that a simulated kernel has: it makes them, and lists those that are loaded."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from openrbu.drivers.dcdbas import Dcdbas
from openrbu.drivers.dell_rbu import NAME as RBU
from openrbu.drivers.dell_rbu import DellRbu
from openrbu.drivers.dell_rbu_profiles import Profile
from openrbu.drivers.firmware_class import FirmwareClass
from openrbu.drivers.states import DellRbuState, ModuleState
from openrbu.drivers.sysfs import SysfsTree
from openrbu.errors import KernelError, UsageError
from openrbu.faults import Faults
from openrbu.kernel.faults import BUILT_IN, NO_MODULE
from openrbu.kernel.module_parameters import KNOWN_PARAMETERS, dell_rbu_parameters, refuse_unknown
from openrbu.memory.pages import PageSource

Module: TypeAlias = DellRbu | Dcdbas


class ModuleMaker:
    """Makes the modules of a kernel, whose files are in `tree`. `profile`: how its dell_rbu
    behaves. `smi`: handles SMI calls; None: a machine without the calling interface."""

    def __init__(
        self,
        tree: SysfsTree,
        firmware: FirmwareClass,
        pages: PageSource,
        *,
        profile: Profile,
        smi: Callable[[bytes], bytes] | None,
        faults: Faults,
        log: Callable[[str], None],
    ) -> None:
        self._tree, self._firmware, self._pages = tree, firmware, pages
        self._profile, self._smi, self._log = profile, smi, log
        self._has_rbu, self._rbu_is_built_in = NO_MODULE not in faults, BUILT_IN in faults

    @property
    def built_in(self) -> tuple[str, ...]:
        """The drivers that are part of the kernel."""
        return (RBU,) if self._rbu_is_built_in else ()

    def make(self, name: str, parameters: Mapping[str, str]) -> Module:
        """A module that is not loaded yet.

        :raise KernelError: ENOENT when this kernel lacks it.
        :raise UsageError: for a module or a parameter that does not exist.
        """
        if name == "dcdbas":
            refuse_unknown(name, parameters, ())
            return self._make_dcdbas()
        if name != RBU:
            known = ", ".join(KNOWN_PARAMETERS)
            raise UsageError(f"no module is called {name!r}; there are: {known}")
        if not self._has_rbu:
            raise KernelError(errno.ENOENT, detail=f"this kernel has no module {RBU}")
        return self._make_dell_rbu(**dell_rbu_parameters(parameters))

    def restored(self, saved: ModuleState) -> Module:
        """The module of a snapshot."""
        if isinstance(saved, DellRbuState):
            rbu = self._make_dell_rbu()
            rbu.restore(saved)
            return rbu
        dcdbas = self._make_dcdbas()
        dcdbas.restore(saved)
        return dcdbas

    def listed(self, loaded: Iterable[str]) -> str:
        """`/proc/modules`."""
        return "".join(
            f"{name} 16384 {int(self._firmware.is_requested(name))} - Live 0x0000000000000000\n"
            for name in loaded
            if name not in self.built_in
        )

    def _make_dell_rbu(self, **parameters: Any) -> DellRbu:
        return DellRbu(
            self._tree,
            self._firmware,
            self._pages,
            profile=self._profile,
            is_built_in=self._rbu_is_built_in,
            log=self._log,
            **parameters,
        )

    def _make_dcdbas(self) -> Dcdbas:
        """It is loaded on every Dell; where nothing handles SMI calls, they change nothing."""
        return Dcdbas(self._tree, self._pages, self._smi or _unchanged, log=self._log)


def _unchanged(command: bytes) -> bytes:
    return command
