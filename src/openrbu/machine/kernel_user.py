"""What the kernel of a virtual machine does for programs: the calls of `machine.base` that need no
more than the kernel that runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping

from openrbu.kernel.kernel import Kernel
from openrbu.machine.config import MachineConfig


class KernelUser(ABC):
    """The calls, each under the machine's `lock`. See `machine.base`."""

    config: MachineConfig
    lock: threading.RLock

    @abstractmethod
    def running_kernel(self) -> Kernel:
        """The kernel.

        :raise MachineError: when the machine is off.
        """

    def exists(self, path: str) -> bool:
        with self.lock:
            return self.running_kernel().exists(path)

    def make_file(self, path: str) -> None:
        with self.lock:
            self.running_kernel().make_file(path)

    def remove_file(self, path: str) -> None:
        with self.lock:
            self.running_kernel().remove_file(path)

    @property
    def modules(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(sorted(self.running_kernel().modules))

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        with self.lock:
            self.running_kernel().load_module(name, parameters)

    def unload_module(self, name: str) -> None:
        with self.lock:
            self.running_kernel().unload_module(name)

    def load_kexec(self, *, is_loaded: bool) -> None:
        with self.lock:
            self.config.check_kexec()
            self.running_kernel().load_kexec(is_loaded=is_loaded)
