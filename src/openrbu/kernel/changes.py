"""A change of a simulated kernel: no signal interrupts it, and it may crash the kernel."""

from __future__ import annotations

from collections.abc import Callable

from openrbu.drivers.dell_rbu_profiles import KernelOopsError
from openrbu.errors import MachineError
from openrbu.system.signals import DeferredSignals


class ChangeInProgress(DeferredSignals):
    """The block of `Kernel.changing`. It is a class and not a generator, because every write to a
    file uses it. `on_oops`: called when the block crashes the kernel.

    :raise MachineError: when the block crashes the kernel.
    """

    def __init__(self, on_oops: Callable[[], None]) -> None:
        super().__init__()
        self._on_oops = on_oops

    def __exit__(self, *raised: object) -> None:
        _, error, _ = raised
        if isinstance(error, KernelOopsError):
            self._on_oops()
        super().__exit__(*raised)
        if isinstance(error, KernelOopsError):
            raise MachineError(
                f"the machine's kernel has crashed ({error.detail}): restart the machine"
            ) from None
